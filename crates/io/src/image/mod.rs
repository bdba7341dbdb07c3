//! From the bytes of a picture file to pixels, as Pillow gives them: same mode, same bytes.
//!
//! Formats are recognized by content, never by name. Limits are checked on the header, before any allocation by a
//! declared size. No color management, no gamma: the peers' encoders were trained without either.

mod bmp;
mod convert;
mod error;
mod exif;
mod gif;
#[cfg(feature = "heif")]
mod heif;
#[cfg(feature = "jpeg-turbo")]
mod jpeg;
mod jpeg_header;
#[cfg(all(feature = "jpeg-pure", not(feature = "jpeg-turbo")))]
mod jpeg_pure;
#[cfg(all(feature = "jpeg-pure", not(feature = "jpeg-turbo")))]
use jpeg_pure as jpeg;
#[cfg(not(any(feature = "jpeg-turbo", feature = "jpeg-pure")))]
compile_error!("openvision-io needs one of the features `jpeg-turbo` (default) and `jpeg-pure`");
mod png;
mod sniff;
mod tiff;
mod tiff_jpeg;
mod webp;

pub use error::ImageError;
pub use jpeg::DECODER;

use std::path::Path;

/// Caps that hold before anything of a declared size is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest file, in bytes.
    pub max_bytes: u64,
    /// Most pixels (width times height).
    pub max_pixels: u64,
    /// Most bytes that decoding may need at once: pixels, the decoder's own planes, a rotated copy.
    pub max_memory: u64,
}

impl Default for Limits {
    /// 256 MiB of file, Pillow's 178,956,970 pixels, 900 MiB of memory.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_pixels: 178_956_970, max_memory: 900 << 20 }
    }
}

/// Whether JPEG decoding uses vector instructions. Without nasm at hand when building for x86, it does not: same bytes,
/// half the speed.
pub const DECODER_VECTORIZED: bool = cfg!(jpeg_simd);

/// At what size the pixels of a JPEG file are made: its transform can give a half, a quarter or an eighth of both sides
/// (rounded up) with less work. Every other format is decoded whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Scale {
    Whole,
    Half,
    Quarter,
    Eighth,
}

/// Chooses the scale for a picture by its width and height.
pub type ScaleOf<'a> = &'a dyn Fn(usize, usize) -> Scale;

impl Scale {
    /// By what both sides are divided.
    pub const fn divisor(self) -> usize {
        match self {
            Scale::Whole => 1,
            Scale::Half => 2,
            Scale::Quarter => 4,
            Scale::Eighth => 8,
        }
    }

    /// A side at this scale.
    pub const fn of(self, side: usize) -> usize {
        side.div_ceil(self.divisor())
    }
}

/// How a pixel is stored: the modes of Pillow that picture files decode to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Black and white, one byte a pixel: 0 or 255 (Pillow's "1").
    One,
    /// Gray.
    L,
    /// Gray and alpha.
    La,
    /// Index into the palette.
    P,
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, alpha (not premultiplied).
    Rgba,
    /// Cyan, magenta, yellow, black; 255 is full ink.
    Cmyk,
    /// 16-bit gray, little-endian (Pillow's "I;16").
    I16,
    /// Gray as f32, little-endian.
    F,
}

impl Mode {
    /// Bytes of one pixel.
    pub const fn bytes_per_pixel(self) -> usize {
        match self {
            Mode::One | Mode::L | Mode::P => 1,
            Mode::La | Mode::I16 => 2,
            Mode::Rgb => 3,
            Mode::Rgba | Mode::Cmyk | Mode::F => 4,
        }
    }

    /// Pillow's name of the mode.
    pub const fn pillow_name(self) -> &'static str {
        match self {
            Mode::One => "1",
            Mode::L => "L",
            Mode::La => "LA",
            Mode::P => "P",
            Mode::Rgb => "RGB",
            Mode::Rgba => "RGBA",
            Mode::Cmyk => "CMYK",
            Mode::I16 => "I;16",
            Mode::F => "F",
        }
    }
}

/// Container a picture came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    /// HEIC and AVIF; decoded with the feature `heif` only.
    Heif,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::Tiff => "TIFF",
            Format::Heif => "HEIF",
        })
    }
}

/// Colors of a picture of mode [`Mode::P`]; indices past the file's palette are black, as in Pillow.
pub type Palette = Box<[[u8; 3]; 256]>;

/// Transparency that a file states beside its pixels (tRNS of PNG, the transparent index of GIF). Ignored by
/// [`Picture::to_rgb`], used by [`Picture::on_white`].
#[derive(Clone, Debug, PartialEq)]
pub enum Transparency {
    /// Alpha of each palette entry.
    Palette(Box<[u8; 256]>),
    /// This gray is transparent.
    Gray(u8),
    /// This color is transparent.
    Rgb([u8; 3]),
}

impl Transparency {
    /// Alphas of the first palette entries; the others are opaque.
    fn palette(first: &[u8]) -> Self {
        let mut alphas = Box::new([255; 256]);
        alphas.iter_mut().zip(first).for_each(|(alpha, &given)| *alpha = given);
        Transparency::Palette(alphas)
    }
}

/// A decoded picture (of an animation: its first frame).
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// What a pixel is.
    pub mode: Mode,
    /// Row by row, `width * height * mode.bytes_per_pixel()` bytes.
    pub data: Vec<u8>,
    /// Colors, present exactly when `mode` is [`Mode::P`].
    pub palette: Option<Palette>,
    /// Transparency stated beside the pixels.
    pub transparency: Option<Transparency>,
    /// EXIF orientation 1..=8 that has *not* been applied; 1 when there is none or it is not valid. TIFF files come
    /// already turned, as Pillow loads them, and say 1.
    pub orientation: u8,
    /// Container of the file.
    pub format: Format,
}

/// Decodes a picture from the bytes of its file.
///
/// # Errors
/// [`ImageError`], one variant per way a file can be wrong. Never panics, and allocates nothing beyond `limits`.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    decode_scaled(bytes, limits, &|_, _| Scale::Whole)
}

/// As [`decode`], a JPEG picture at the scale that `scale` chooses for it.
///
/// # Errors
/// As [`decode`].
pub fn decode_scaled(bytes: &[u8], limits: &Limits, scale: ScaleOf) -> Result<Picture, ImageError> {
    if bytes.len() as u64 > limits.max_bytes {
        return Err(ImageError::FileTooLong { bytes: bytes.len() as u64, limit: limits.max_bytes });
    }
    match sniff::recognize(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, limits, scale),
        Format::Png => png::decode(bytes, limits),
        Format::WebP => webp::decode(bytes, limits),
        Format::Gif => gif::decode(bytes, limits),
        Format::Bmp => bmp::decode(bytes, limits),
        Format::Tiff => tiff::decode(bytes, limits),
        #[cfg(feature = "heif")]
        Format::Heif => heif::decode(bytes, limits),
        #[cfg(not(feature = "heif"))]
        Format::Heif => Err(sniff::no_heif(bytes)),
    }
}

/// Reads and decodes a picture file; its length is checked before it is read.
///
/// # Errors
/// [`ImageError::File`], which names the path and holds the cause.
pub fn read(path: &Path, limits: &Limits) -> Result<Picture, ImageError> {
    read_scaled(path, limits, &|_, _| Scale::Whole)
}

/// As [`read`], a JPEG picture at the scale that `scale` chooses for it.
///
/// # Errors
/// As [`read`].
pub fn read_scaled(path: &Path, limits: &Limits, scale: ScaleOf) -> Result<Picture, ImageError> {
    let read_and_decode = || {
        let metadata = std::fs::metadata(path).map_err(ImageError::Read)?;
        if metadata.is_dir() {
            return Err(ImageError::IsFolder);
        }
        if metadata.len() > limits.max_bytes {
            return Err(ImageError::FileTooLong { bytes: metadata.len(), limit: limits.max_bytes });
        }
        // A pipe or a file that grows has no honest length: cap the read itself as well.
        let mut bytes = Vec::with_capacity(metadata.len() as usize + 1); // at most `max_bytes`, if that is honest
        let file = std::fs::File::open(path).map_err(ImageError::Read)?;
        let mut capped = std::io::Read::take(file, limits.max_bytes.saturating_add(1));
        std::io::Read::read_to_end(&mut capped, &mut bytes).map_err(ImageError::Read)?;
        decode_scaled(&bytes, limits, scale)
    };
    read_and_decode().map_err(|source| ImageError::File { path: path.to_owned(), source: Box::new(source) })
}

impl Limits {
    /// Checks a declared size, and the memory that `bytes_per_pixel` of it would take; gives width and height back.
    fn check(&self, width: u64, height: u64, bytes_per_pixel: u64) -> Result<(usize, usize), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { width, height });
        }
        let pixels = width.checked_mul(height).filter(|&pixels| pixels <= self.max_pixels);
        let Some(pixels) = pixels else {
            return Err(ImageError::TooManyPixels { width, height, limit: self.max_pixels });
        };
        self.check_memory(pixels.saturating_mul(bytes_per_pixel))?;
        Ok((width as usize, height as usize)) // both are at most `max_pixels` and their product fits memory
    }

    /// Refuses when decoding would need more than `max_memory`.
    fn check_memory(&self, bytes: u64) -> Result<(), ImageError> {
        if bytes > self.max_memory || usize::try_from(bytes).is_err() {
            return Err(ImageError::TooMuchMemory { bytes, limit: self.max_memory });
        }
        Ok(())
    }
}

/// A palette from `entry_bytes`-byte entries whose first three bytes `order` picks red, green and blue from.
fn palette_from(bytes: &[u8], entry_bytes: usize, order: [usize; 3]) -> Palette {
    let mut palette = Box::new([[0_u8; 3]; 256]);
    for (entry, color) in palette.iter_mut().zip(bytes.chunks_exact(entry_bytes)) {
        *entry = order.map(|channel| color[channel]);
    }
    palette
}

/// Spreads a row of 1, 2 or 4-bit samples, high bits first, to one byte each; a sample is multiplied by `scale`.
fn unpack_bits(packed: &[u8], bits: usize, scale: u8, out: &mut [u8]) {
    debug_assert!(matches!(bits, 1 | 2 | 4));
    let per_byte = 8 / bits;
    let mask = (1_u8 << bits) - 1;
    for (samples, &byte) in out.chunks_mut(per_byte).zip(packed) {
        for (position, sample) in samples.iter_mut().enumerate() {
            *sample = ((byte >> (8 - bits * (position + 1))) & mask).wrapping_mul(scale);
        }
    }
}
