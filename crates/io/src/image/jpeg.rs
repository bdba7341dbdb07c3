//! JPEG through libjpeg-turbo's arithmetic (the `mozjpeg` crate): accurate integer inverse DCT and smooth chroma
//! upsampling, byte-equal to Pillow.
//!
//! The library reports fatal errors by unwinding; they are caught here and become errors. Its reading past the end of
//! the data ends decoding, as in Pillow, instead of giving a picture with a gray lower half.

use super::{Format, ImageError, Limits, Mode, Picture, Scale, ScaleOf, jpeg_header};
use mozjpeg::{ColorSpace, Decompress};
use std::io::{BufRead, Read};
use std::panic::AssertUnwindSafe;

/// Decoder of JPEG pixels: part of the fingerprint of an embedding, because another one gives other pixels.
pub const DECODER: &str = "libjpeg-turbo arithmetic (mozjpeg 4.1, islow, smooth upsampling)";

pub(super) fn decode(bytes: &[u8], limits: &Limits, scale: ScaleOf) -> Result<Picture, ImageError> {
    let header = jpeg_header::read_header(bytes, limits)?;
    let scale = scale(header.width, header.height);
    let (width, height) = (scale.of(header.width), scale.of(header.height));
    let size = width * height * header.mode.bytes_per_pixel(); // fits: `read_header` checked it
    let mut ended = false;
    // The closure holds only what is dropped or overwritten after an unwind.
    let wanted = Wanted { mode: header.mode, scale, size };
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| decode_pixels(bytes, wanted, &mut ended)));
    let pixels = match outcome {
        Ok(Ok(pixels)) => Ok(pixels),
        Ok(Err(error)) => Err(error.to_string()),
        Err(payload) => Err(message_of(payload.as_ref())),
    };
    let data = match pixels {
        Ok(pixels) if pixels.len() == size => pixels,
        Ok(_) => return Err(ImageError::corrupt(Format::Jpeg, "decoded size differs from the frame header")),
        Err(_) if ended => return Err(ImageError::truncated(Format::Jpeg, "it ends before its end marker")),
        Err(message) => return Err(ImageError::corrupt(Format::Jpeg, message)),
    };
    Ok(Picture {
        width,
        height,
        mode: header.mode,
        data,
        palette: None,
        transparency: None,
        orientation: header.orientation,
        format: Format::Jpeg,
    })
}

/// What the header leads to expect.
#[derive(Clone, Copy)]
struct Wanted {
    mode: Mode,
    scale: Scale,
    /// Bytes of the pixels.
    size: usize,
}

fn decode_pixels(bytes: &[u8], wanted: Wanted, ended: &mut bool) -> std::io::Result<Vec<u8>> {
    let Wanted { mode, scale, size } = wanted;
    let mut decoder = Decompress::builder().from_reader(FailAtEnd { rest: bytes, ended })?;
    if scale != Scale::Whole {
        decoder.scale((8 / scale.divisor()) as u8);
    }
    let color_space = match mode {
        Mode::L => ColorSpace::JCS_GRAYSCALE,
        Mode::Cmyk => ColorSpace::JCS_CMYK,
        _ => ColorSpace::JCS_RGB,
    };
    let mut started = decoder.to_colorspace(color_space)?;
    if started.min_flat_buffer_size() != size {
        return Err(std::io::Error::other("frame header and decoder disagree about the size"));
    }
    let mut pixels = started.read_scanlines::<u8>()?;
    started.finish()?;
    if mode == Mode::Cmyk {
        // Pillow takes every four-component JPEG for one of Adobe's, which are stored inverted.
        pixels.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    Ok(pixels)
}

fn message_of(payload: &(dyn std::any::Any + Send)) -> String {
    let message = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let message = message.unwrap_or("the decoder gave up");
    message.trim_start_matches("libjpeg fatal error: ").to_owned()
}

/// The file, and an error behind its end: libjpeg would otherwise invent an end marker and gray pixels.
struct FailAtEnd<'a> {
    rest: &'a [u8],
    ended: &'a mut bool,
}

impl Read for FailAtEnd<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.rest.read(out)
    }
}

impl BufRead for FailAtEnd<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.rest.is_empty() {
            *self.ended = true;
            return Err(std::io::Error::other("end of data"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = self.rest.get(amount..).unwrap_or_default();
    }
}
