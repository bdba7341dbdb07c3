//! The one integration target of this crate; each module tests one kind of foreign bytes.

// mod weights;
