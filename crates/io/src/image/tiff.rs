//! First page of a TIFF file, turned by its orientation tag as Pillow turns it when loading.

use super::exif::TiffBytes;
use super::tiff_jpeg;
use super::{Format, ImageError, Limits, Mode, Palette, Picture, unpack_bits};
use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};
use std::borrow::Cow;
use std::io::Cursor;

const PHOTOMETRIC: u16 = 262;
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let (bytes, is_palette) = hide_palette(bytes);
    let mut decoder = Decoder::new(Cursor::new(bytes.as_ref())).map_err(error)?;
    let (width, height) = decoder.dimensions().map_err(error)?;
    limits.check(width.into(), height.into(), 1)?;
    let color = decoder.colortype().map_err(error)?;
    let bytes_per_pixel = (u64::from(color.bit_depth()) * u64::from(color.num_samples())).div_ceil(8);
    // The samples, and once more a strip or tile of them, which may be the whole picture.
    let (width, height) = limits.check(width.into(), height.into(), 2 * bytes_per_pixel)?;
    let buffer_bytes = width * height * bytes_per_pixel as usize;
    decoder = decoder.with_limits({
        let mut caps = TiffLimits::default();
        caps.decoding_buffer_size = buffer_bytes + 256 * height + (1 << 20); // and lists of strips, 32 bytes an entry
        caps.intermediate_buffer_size = buffer_bytes + bytes.len(); // compression may lengthen
        caps
    });
    let palette = if is_palette { Some(read_palette(&mut decoder)?) } else { None };
    let orientation = decoder.find_tag_unsigned::<u16>(Tag::Orientation).ok().flatten().unwrap_or(1);
    let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).ok().flatten() == Some(2);
    let orientation = if (1..=8).contains(&orientation) { orientation as u8 } else { 1 };
    if !is_palette && tiff_jpeg::is_jpeg(&mut decoder) {
        let (mode, data) = tiff_jpeg::decode(&bytes, &mut decoder, (width, height), limits)?;
        let format = Format::Tiff;
        return Ok(Picture { width, height, mode, data, palette, transparency: None, orientation, format }.oriented());
    }
    let mut samples = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut samples).map_err(error)?;
    if samples.as_buffer(0).byte_len() < layout.complete_len {
        return Err(ImageError::unsupported(Format::Tiff, "planes that cannot be read together"));
    }
    let mode = mode_of(color, &samples, is_palette)?;
    let data = to_pixels(samples, Shape { width, height, color, planar, mode })?;
    Ok(Picture { width, height, mode, data, palette, transparency: None, orientation, format: Format::Tiff }.oriented())
}

/// The `tiff` crate refuses palettes; its reading of the same samples as gray gives the indices.
fn hide_palette(bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let tiff = TiffBytes::new(bytes);
    if let Some(tiff) = tiff
        && tiff.short(PHOTOMETRIC) == Some(PALETTE)
        && let Some(offset) = tiff.short_value_offset(PHOTOMETRIC)
    {
        let mut changed = bytes.to_vec();
        changed[offset..offset + 2].copy_from_slice(&tiff.short_bytes(BLACK_IS_ZERO));
        return (Cow::Owned(changed), true);
    }
    (Cow::Borrowed(bytes), false)
}

/// All reds, all greens, all blues, 16 bits each; Pillow keeps the high byte.
fn read_palette(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Palette, ImageError> {
    let stored = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(error)?;
    let colors = (stored.len() / 3).min(256);
    let mut palette = Box::new([[0; 3]; 256]);
    for (index, entry) in palette.iter_mut().enumerate().take(colors) {
        *entry = [0, 1, 2].map(|channel| (stored[channel * (stored.len() / 3) + index] >> 8) as u8);
    }
    Ok(palette)
}

fn mode_of(color: ColorType, samples: &DecodingResult, is_palette: bool) -> Result<Mode, ImageError> {
    let mode = match (color, samples) {
        (ColorType::Gray(1 | 2 | 4 | 8), DecodingResult::U8(_)) if is_palette => Mode::P,
        (ColorType::Gray(1), DecodingResult::U8(_)) => Mode::One,
        (ColorType::Gray(2 | 4 | 8), DecodingResult::U8(_)) => Mode::L,
        (ColorType::Gray(16), DecodingResult::U16(_)) if !is_palette => Mode::I16,
        (ColorType::Gray(32), DecodingResult::F32(_)) => Mode::F,
        (ColorType::Multiband { num_samples: 2, .. } | ColorType::GrayA(_), _) => Mode::La,
        (ColorType::RGB(_), _) => Mode::Rgb,
        (ColorType::RGBA(_), _) => Mode::Rgba,
        (ColorType::CMYK(_), _) => Mode::Cmyk,
        _ => return Err(ImageError::unsupported(Format::Tiff, format!("{color:?}"))),
    };
    match (mode, samples) {
        (Mode::F, DecodingResult::F32(_)) | (_, DecodingResult::U8(_) | DecodingResult::U16(_)) => Ok(mode),
        _ => Err(ImageError::unsupported(Format::Tiff, format!("{color:?} with samples that are not unsigned"))),
    }
}

#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    height: usize,
    color: ColorType,
    planar: bool,
    mode: Mode,
}

/// Samples as the crate gives them to bytes of the mode.
fn to_pixels(samples: DecodingResult, shape: Shape) -> Result<Vec<u8>, ImageError> {
    let Shape { width, height, mode, .. } = shape;
    let data = match samples {
        DecodingResult::U8(packed) if shape.color.bit_depth() < 8 => {
            let bits = usize::from(shape.color.bit_depth());
            let scale = if mode == Mode::P { 1 } else { 255 / ((1_u16 << bits) - 1) as u8 };
            let row_bytes = (width * bits).div_ceil(8);
            let mut data = vec![0; width * height];
            for (out, row) in data.chunks_exact_mut(width).zip(packed.chunks_exact(row_bytes)) {
                unpack_bits(row, bits, scale, out);
            }
            data
        }
        DecodingResult::U8(bytes) => bytes,
        DecodingResult::U16(values) if mode == Mode::I16 => {
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
        DecodingResult::U16(values) => values.iter().map(|value| (value >> 8) as u8).collect(),
        DecodingResult::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => return Err(ImageError::unsupported(Format::Tiff, format!("{:?}", shape.color))),
    };
    let data = if shape.planar && mode.bytes_per_pixel() > 1 && !matches!(mode, Mode::I16 | Mode::F) {
        interleave(&data, mode.bytes_per_pixel())
    } else {
        data
    };
    if data.len() != width * height * mode.bytes_per_pixel() {
        let what = format!("{} bytes of pixels for {width}x{height} {}", data.len(), mode.pillow_name());
        return Err(ImageError::corrupt(Format::Tiff, what));
    }
    Ok(data)
}

fn interleave(planes: &[u8], channels: usize) -> Vec<u8> {
    let plane = planes.len() / channels;
    let mut out = vec![0; planes.len()];
    for (index, pixel) in out.chunks_exact_mut(channels).enumerate() {
        for (channel, value) in pixel.iter_mut().enumerate() {
            *value = planes[channel * plane + index];
        }
    }
    out
}

pub(super) fn error(error: TiffError) -> ImageError {
    match error {
        TiffError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::Tiff, "it ends inside its directory or pixels")
        }
        TiffError::UnsupportedError(what) => ImageError::unsupported(Format::Tiff, what),
        other => ImageError::corrupt(Format::Tiff, other),
    }
}
