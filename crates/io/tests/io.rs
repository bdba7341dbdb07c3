//! Integration tests of `openvision-io`: one binary, a module per area.

mod images;
