//! JPEG in pure Rust (the `zune-jpeg` crate), for builds without a C compiler. About 1 % of the bytes differ from
//! Pillow's, by up to 3 levels; embeddings made with it carry another decoder in their fingerprint.

use super::{Format, ImageError, Limits, Mode, Picture, jpeg_header};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Decoder of JPEG pixels: part of the fingerprint of an embedding, because another one gives other pixels.
pub const DECODER: &str = "zune-jpeg 0.5";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let header = jpeg_header::read_header(bytes, limits)?;
    let color_space = match header.mode {
        Mode::L => ColorSpace::Luma,
        Mode::Cmyk => ColorSpace::CMYK,
        _ => ColorSpace::RGB,
    };
    let options = DecoderOptions::new_fast()
        .jpeg_set_out_colorspace(color_space)
        .set_max_width(header.width)
        .set_max_height(header.height)
        .set_strict_mode(true);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let mut data = decoder.decode().map_err(|cause| ImageError::corrupt(Format::Jpeg, format!("{cause:?}")))?;
    if data.len() != header.width * header.height * header.mode.bytes_per_pixel() {
        return Err(ImageError::corrupt(Format::Jpeg, "decoded size differs from the frame header"));
    }
    if header.mode == Mode::Cmyk {
        // Pillow takes every four-component JPEG for one of Adobe's, which are stored inverted.
        data.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    Ok(Picture {
        width: header.width,
        height: header.height,
        mode: header.mode,
        data,
        palette: None,
        transparency: None,
        orientation: header.orientation,
        format: Format::Jpeg,
    })
}
