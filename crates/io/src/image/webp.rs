//! WebP, lossy and lossless, of an animation the first frame on its canvas.

use super::{Format, ImageError, Limits, Mode, Picture, exif};
use image_webp::{DecodingError, WebPDecoder};
use std::io::Cursor;

/// Pixels, the decoder's own planes or canvas, and a copy without alpha.
const BYTES_PER_PIXEL: u64 = 8;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    check_riff_length(bytes)?;
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(error)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = limits.check(width.into(), height.into(), BYTES_PER_PIXEL)?;
    decoder.set_memory_limit(bytes.len()); // metadata cannot be longer than the file, whatever its chunks declare
    let mode = if decoder.has_alpha() { Mode::Rgba } else { Mode::Rgb };
    let orientation = match decoder.exif_metadata() {
        Ok(Some(exif_data)) => exif::orientation(&exif_data),
        _ => 1,
    };
    let mut data = vec![0; width * height * mode.bytes_per_pixel()];
    decoder.read_image(&mut data).map_err(error)?;
    Ok(Picture { width, height, mode, data, palette: None, transparency: None, orientation, format: Format::WebP })
}

/// The RIFF header says how long the file is; libwebp refuses a file shorter than that.
fn check_riff_length(bytes: &[u8]) -> Result<(), ImageError> {
    let declared = bytes.get(4..8).map_or(0, |size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
    let present = bytes.len() as u64 - 8;
    if u64::from(declared) > present {
        let what = format!("its header declares {declared} bytes, {present} follow");
        return Err(ImageError::truncated(Format::WebP, what));
    }
    Ok(())
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::WebP, "it ends inside the picture")
        }
        other => ImageError::corrupt(Format::WebP, other),
    }
}
