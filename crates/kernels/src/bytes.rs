//! Byte memory with the alignment and pages of [`Buffer`].

use crate::Buffer;
use std::ops::{Deref, DerefMut};

/// A fixed number of signed bytes, zero at first.
#[derive(Debug, Default)]
pub(crate) struct Bytes(Buffer);

impl Bytes {
    /// Zeros: `length` of them or a few more.
    pub(crate) fn zeroed(length: usize) -> Self {
        Self(Buffer::zeroed(length.div_ceil(size_of::<f32>())))
    }

    /// Makes room for at least `length` bytes. Contents are lost when the memory has to grow; it never shrinks.
    pub(crate) fn ensure(&mut self, length: usize) {
        self.0.ensure(length.div_ceil(size_of::<f32>()));
    }
}

impl Deref for Bytes {
    type Target = [i8];
    fn deref(&self) -> &[i8] {
        let floats: &[f32] = &self.0;
        // SAFETY: the memory of initialised floats, every byte of which is a valid signed byte.
        unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [i8] {
        let floats: &mut [f32] = &mut self.0;
        // SAFETY: as in `deref`; any bytes are valid floats, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), size_of_val(floats)) }
    }
}
