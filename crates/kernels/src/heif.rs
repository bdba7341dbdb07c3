//! HEIC and AVIF pictures through the system's libheif (feature `heif`): the few functions of its C interface that are
//! needed, declared here because the bindings on crates.io want a newer library than distributions have. Present in
//! every libheif since 1.6.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

/// `heif_colorspace_RGB`, `heif_chroma_interleaved_RGB` and `_RGBA`, `heif_channel_interleaved`.
const RGB: c_int = 1;
const INTERLEAVED_RGB: c_int = 10;
const INTERLEAVED_RGBA: c_int = 11;
const INTERLEAVED: c_int = 10;

#[repr(C)]
struct Status {
    code: c_int,
    subcode: c_int,
    message: *const c_char,
}

#[link(name = "heif")]
unsafe extern "C" {
    fn heif_context_alloc() -> *mut c_void;
    fn heif_context_free(context: *mut c_void);
    fn heif_context_set_maximum_image_size_limit(context: *mut c_void, side: c_int);
    fn heif_context_read_from_memory_without_copy(
        context: *mut c_void,
        bytes: *const c_void,
        length: usize,
        options: *const c_void,
    ) -> Status;
    fn heif_context_get_primary_image_handle(context: *mut c_void, handle: *mut *mut c_void) -> Status;
    fn heif_image_handle_release(handle: *const c_void);
    fn heif_image_handle_get_width(handle: *const c_void) -> c_int;
    fn heif_image_handle_get_height(handle: *const c_void) -> c_int;
    fn heif_image_handle_has_alpha_channel(handle: *const c_void) -> c_int;
    fn heif_decode_image(
        handle: *const c_void,
        image: *mut *mut c_void,
        colorspace: c_int,
        chroma: c_int,
        options: *const c_void,
    ) -> Status;
    fn heif_image_get_width(image: *const c_void, channel: c_int) -> c_int;
    fn heif_image_get_height(image: *const c_void, channel: c_int) -> c_int;
    fn heif_image_get_plane_readonly(image: *const c_void, channel: c_int, stride: *mut c_int) -> *const u8;
    fn heif_image_release(image: *const c_void);
}

impl Status {
    fn check(self) -> Result<(), String> {
        if self.code == 0 {
            return Ok(());
        }
        if self.message.is_null() {
            return Err(format!("libheif error {}.{}", self.code, self.subcode));
        }
        // SAFETY: libheif's messages are NUL-terminated texts that live as long as the context, which is alive here.
        Err(unsafe { CStr::from_ptr(self.message) }.to_string_lossy().into_owned())
    }
}

/// An opened file; its main picture can be decoded.
pub struct Heif<'a> {
    context: *mut c_void,
    handle: *mut c_void,
    /// libheif reads from the bytes without a copy.
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Heif<'a> {
    /// Reads the structure of a file; pictures of more than `max_side`² pixels will be refused by the library.
    ///
    /// # Errors
    /// What libheif says is wrong.
    pub fn open(bytes: &'a [u8], max_side: u32) -> Result<Self, String> {
        // SAFETY: no arguments.
        let context = unsafe { heif_context_alloc() };
        if context.is_null() {
            return Err("libheif has no memory".into());
        }
        let mut heif = Self { context, handle: ptr::null_mut(), bytes: PhantomData };
        let side = c_int::try_from(max_side).unwrap_or(c_int::MAX);
        // SAFETY: the context is alive until `heif` is dropped, and `bytes` outlives it by the lifetime of `Heif`.
        // Null options are the defaults; `handle` is a place for one pointer.
        unsafe {
            heif_context_set_maximum_image_size_limit(context, side);
            let (start, length) = (bytes.as_ptr().cast(), bytes.len());
            heif_context_read_from_memory_without_copy(context, start, length, ptr::null()).check()?;
            heif_context_get_primary_image_handle(context, &mut heif.handle).check()?;
        }
        Ok(heif)
    }

    /// Width and height, turned as the file says.
    pub fn size(&self) -> (u32, u32) {
        // SAFETY: `open` succeeded, so the handle is alive.
        let size = unsafe { (heif_image_handle_get_width(self.handle), heif_image_handle_get_height(self.handle)) };
        (u32::try_from(size.0).unwrap_or(0), u32::try_from(size.1).unwrap_or(0))
    }

    /// Whether pixels have a fourth byte, alpha.
    pub fn has_alpha(&self) -> bool {
        // SAFETY: as in `size`.
        unsafe { heif_image_handle_has_alpha_channel(self.handle) != 0 }
    }

    /// Decodes the main picture, turned and mirrored as the file says: rows of `size().0` pixels of three or four bytes.
    ///
    /// # Errors
    /// What libheif says is wrong, or it gives another size than it said.
    pub fn pixels(&self) -> Result<Vec<u8>, String> {
        let (chroma, channels) = if self.has_alpha() { (INTERLEAVED_RGBA, 4) } else { (INTERLEAVED_RGB, 3) };
        let mut image = Image(ptr::null_mut());
        // SAFETY: the handle is alive; `image` is a place for one pointer, freed by its drop. Null options: defaults.
        unsafe { heif_decode_image(self.handle, &mut image.0, RGB, chroma, ptr::null()).check()? };
        let mut stride: c_int = 0;
        // SAFETY: decoding succeeded, so the image is alive; `stride` is a place for one number.
        let (plane, width, height) = unsafe {
            (
                heif_image_get_plane_readonly(image.0, INTERLEAVED, &mut stride),
                heif_image_get_width(image.0, INTERLEAVED),
                heif_image_get_height(image.0, INTERLEAVED),
            )
        };
        let size = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
        let stride = usize::try_from(stride).unwrap_or(0);
        let row_bytes = size.0 as usize * channels;
        if plane.is_null() || size != self.size() || size.0 == 0 || size.1 == 0 || stride < row_bytes {
            return Err("the decoded picture has another size than the file says".into());
        }
        let mut pixels = Vec::with_capacity(row_bytes * size.1 as usize);
        for row in 0..size.1 as usize {
            // SAFETY: the plane has `height` rows, `stride` bytes apart, of `width` pixels of `channels` bytes each.
            pixels.extend_from_slice(unsafe { std::slice::from_raw_parts(plane.add(row * stride), row_bytes) });
        }
        Ok(pixels)
    }
}

impl Drop for Heif<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made by libheif and are freed once; releasing null does nothing there, but is not promised.
        unsafe {
            if !self.handle.is_null() {
                heif_image_handle_release(self.handle);
            }
            heif_context_free(self.context);
        }
    }
}

struct Image(*mut c_void);

impl Drop for Image {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by libheif, freed once.
            unsafe { heif_image_release(self.0) };
        }
    }
}
