//! Numeric loops over slices, once per instruction set.

pub mod resize;
