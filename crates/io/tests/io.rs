//! Integration tests of openvision-io, one binary.
