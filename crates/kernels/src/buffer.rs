//! Float memory aligned to cache lines; large buffers come straight from the system, on huge pages where it has them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every buffer, in bytes: one cache line, one AVX-512 register.
const ALIGNMENT: usize = 64;

/// A fixed-length, zero-initialised array of floats, aligned to 64 bytes.
pub struct Buffer {
    start: NonNull<f32>,
    length: usize,
    source: Source,
}

/// Where the memory came from, hence how it goes back.
enum Source {
    /// No memory at all.
    Empty,
    /// The global allocator.
    Heap,
    /// Whole pages of the system: base address and length in bytes.
    #[cfg(target_os = "linux")]
    Pages { base: NonNull<u8>, bytes: usize },
}

// SAFETY: a `Buffer` owns its memory exclusively, like a `Box<[f32]>`.
unsafe impl Send for Buffer {}
// SAFETY: shared references only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `length` zeros.
    pub fn zeroed(length: usize) -> Self {
        if length == 0 {
            return Self { start: NonNull::dangling(), length, source: Source::Empty };
        }
        #[cfg(target_os = "linux")]
        if let Some(buffer) = pages::zeroed(length) {
            return buffer;
        }
        let layout = Self::heap_layout(length);
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start.cast::<f32>()) else { handle_alloc_error(layout) };
        Self { start, length, source: Source::Heap }
    }

    /// A buffer holding a copy of `values`, followed by zeros up to `length`.
    pub fn padded(values: &[f32], length: usize) -> Self {
        let mut buffer = Self::zeroed(length.max(values.len()));
        buffer[..values.len()].copy_from_slice(values);
        buffer
    }

    /// Makes room for at least `length` floats. Contents are lost when the buffer has to grow; it never shrinks.
    pub fn ensure(&mut self, length: usize) {
        if self.length < length {
            *self = Self::zeroed(length);
        }
    }

    fn heap_layout(length: usize) -> Layout {
        let bytes = length.checked_mul(size_of::<f32>()).expect("a buffer is smaller than the address space");
        Layout::from_size_align(bytes, ALIGNMENT).expect("a buffer is smaller than the address space")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.source {
            Source::Empty => {}
            // SAFETY: allocated by `zeroed` with the same layout and not freed before.
            Source::Heap => unsafe { dealloc(self.start.as_ptr().cast(), Self::heap_layout(self.length)) },
            #[cfg(target_os = "linux")]
            Source::Pages { base, bytes } => pages::release(base, bytes),
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `start` is valid for `length` initialised floats while `self` lives (dangling only for length 0).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer[{}]", self.length)
    }
}

#[cfg(target_os = "linux")]
mod pages {
    //! Anonymous mappings aligned to huge pages. Weights are read linearly, so fewer page-table walks are worth 0-8 %.

    use super::{Buffer, Source};
    use std::ffi::{c_int, c_long, c_void};
    use std::ptr::{NonNull, null_mut};

    const HUGE_PAGE: usize = 2 << 20;
    const PROT_READ_WRITE: c_int = 3;
    const MAP_PRIVATE_ANONYMOUS: c_int = 0x22;
    const MADV_HUGEPAGE: c_int = 14;

    // The same on every Linux that Rust supports with 64-bit pointers; declared here to spare a dependency.
    unsafe extern "C" {
        fn mmap(at: *mut c_void, bytes: usize, prot: c_int, flags: c_int, file: c_int, offset: c_long) -> *mut c_void;
        fn munmap(at: *mut c_void, bytes: usize) -> c_int;
        fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }

    /// Pages for a large buffer; none for a small one or where the system refuses.
    pub(super) fn zeroed(length: usize) -> Option<Buffer> {
        let wanted = length.checked_mul(size_of::<f32>())?;
        if wanted < HUGE_PAGE || cfg!(miri) {
            return None;
        }
        let bytes = wanted.checked_add(HUGE_PAGE)?;
        // SAFETY: an anonymous private mapping at an address of the system's choice touches no existing memory.
        let base = unsafe { mmap(null_mut(), bytes, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0) };
        if base as isize == -1 {
            return None;
        }
        let base = NonNull::new(base.cast::<u8>())?;
        let skip = base.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: `skip` is under one huge page and the mapping is one huge page longer than what is wanted.
        let start = unsafe { base.add(skip) };
        // SAFETY: the range lies inside the mapping; advice changes no contents, and a refusal is of no consequence.
        unsafe { madvise(start.as_ptr().cast(), wanted, MADV_HUGEPAGE) };
        Some(Buffer { start: start.cast(), length, source: Source::Pages { base, bytes } })
    }

    /// Gives a mapping back.
    pub(super) fn release(base: NonNull<u8>, bytes: usize) {
        // SAFETY: `base` and `bytes` are those of a mapping made by `zeroed`, owned by the buffer being dropped.
        unsafe { munmap(base.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_aligned_and_writable() {
        // Miri has no pages of the system, and takes minutes for a million floats.
        let lengths: &[usize] = if cfg!(miri) { &[0, 1, 15, 1000] } else { &[0, 1, 15, 1000, 600_000, 1_500_000] };
        for &length in lengths {
            let mut buffer = Buffer::zeroed(length);
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|&x| x == 0.0));
            if length > 0 {
                assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
                buffer[length - 1] = 3.0;
                assert_eq!(buffer[length - 1], 3.0);
            }
        }
    }

    #[test]
    fn grows_and_never_shrinks() {
        let mut buffer = Buffer::padded(&[1.0, 2.0], 16);
        assert_eq!(&buffer[..3], &[1.0, 2.0, 0.0]);
        buffer.ensure(8);
        assert_eq!(buffer.len(), 16);
        buffer.ensure(100);
        assert_eq!(buffer.len(), 100);
    }
}
