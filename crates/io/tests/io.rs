//! The one integration target of this crate; each module tests one kind of foreign bytes.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions unwrap too

mod weights;
