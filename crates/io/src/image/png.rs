//! PNG rows to Pillow's modes: palettes stay indices, 1-bit stays black and white, 16-bit gray stays 16-bit, other
//! 16-bit samples keep their high byte. Gamma, profiles and transparency keys are ignored, as the peers do.

use super::{Format, ImageError, Limits, Mode, Palette, Picture, Transparency, exif, palette_from, unpack_bits};
use ::png::{BitDepth, ColorType, Decoder, DecodingError, InterlaceInfo, Limits as PngLimits, Transformations};
use std::io::Cursor;

/// Memory of the decoder itself: a row, its filter buffer, small chunks.
const WORKING_BYTES: usize = 64 << 20;

/// First column, first row, column step and row step of the seven Adam7 passes.
const PASSES: [[usize; 4]; 7] =
    [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), PngLimits { bytes: WORKING_BYTES });
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true); // may inflate to anything
    decoder.set_ignore_iccp_chunk(true); // likewise, and colors are not managed
    let header = decoder.read_header_info().map_err(error)?;
    let (color, depth) = (header.color_type, header.bit_depth);
    let mode = mode_of(color, depth);
    let (width, height) = limits.check(header.width.into(), header.height.into(), mode.bytes_per_pixel() as u64)?;

    let mut reader = decoder.read_info().map_err(error)?;
    let info = reader.info();
    let palette = palette_of(mode, info.palette.as_deref())?;
    let transparency = info.trns.as_deref().and_then(|trns| transparency_of(mode, trns));
    let mut data = vec![0; width * height * mode.bytes_per_pixel()];
    let row_bytes = width * mode.bytes_per_pixel();
    let mut row_out = vec![0; row_bytes];
    let (mut pass, mut row_in_pass, mut plain_row) = (0, 0, 0);
    while let Some(row) = reader.next_interlaced_row().map_err(error)? {
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                let out = data.chunks_exact_mut(row_bytes).nth(plain_row);
                convert_row(row.data(), color, depth, out.unwrap_or_default());
                plain_row += 1;
            }
            InterlaceInfo::Adam7(_) => {
                // The crate does not tell pass and line; they follow from the order of rows.
                while columns(width, PASSES[pass]) == 0 || row_in_pass == rows(height, PASSES[pass]) {
                    (pass, row_in_pass) = (pass + 1, 0);
                }
                let [x0, y0, dx, dy] = PASSES[pass];
                let size = mode.bytes_per_pixel();
                let count = columns(width, PASSES[pass]);
                convert_row(row.data(), color, depth, &mut row_out[..count * size]);
                let target = &mut data[(y0 + row_in_pass * dy) * row_bytes..][..row_bytes];
                for (index, pixel) in row_out[..count * size].chunks_exact(size).enumerate() {
                    target[(x0 + index * dx) * size..][..size].copy_from_slice(pixel);
                }
                row_in_pass += 1;
            }
        }
    }
    // A chunk behind the pixels may be missing or broken; only EXIF is wanted from there.
    let orientation = match reader.info().exif_metadata.as_deref() {
        Some(exif_data) => exif::orientation(exif_data),
        None => {
            let _ = reader.finish();
            reader.info().exif_metadata.as_deref().map_or(1, exif::orientation)
        }
    };
    Ok(Picture { width, height, mode, data, palette, transparency, orientation, format: Format::Png })
}

fn columns(width: usize, [x0, _, dx, _]: [usize; 4]) -> usize {
    width.saturating_sub(x0).div_ceil(dx)
}

fn rows(height: usize, [_, y0, _, dy]: [usize; 4]) -> usize {
    height.saturating_sub(y0).div_ceil(dy)
}

fn mode_of(color: ColorType, depth: BitDepth) -> Mode {
    match (color, depth) {
        (ColorType::Grayscale, BitDepth::One) => Mode::One,
        (ColorType::Grayscale, BitDepth::Sixteen) => Mode::I16,
        (ColorType::Grayscale, _) => Mode::L,
        (ColorType::Rgb, _) => Mode::Rgb,
        (ColorType::Indexed, _) => Mode::P,
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => Mode::Rgba, // Pillow has no 16-bit gray with alpha
        (ColorType::GrayscaleAlpha, _) => Mode::La,
        (ColorType::Rgba, _) => Mode::Rgba,
    }
}

fn palette_of(mode: Mode, palette: Option<&[u8]>) -> Result<Option<Palette>, ImageError> {
    match (mode, palette) {
        (Mode::P, Some(bytes)) => Ok(Some(palette_from(bytes, 3, [0, 1, 2]))),
        (Mode::P, None) => Err(ImageError::corrupt(Format::Png, "indexed color without a palette (PLTE)")),
        _ => Ok(None),
    }
}

/// The tRNS chunk. Its gray key stays unscaled when samples of 2 or 4 bits are scaled, as in Pillow.
fn transparency_of(mode: Mode, trns: &[u8]) -> Option<Transparency> {
    let keys: Vec<u16> = trns.as_chunks::<2>().0.iter().map(|key| u16::from_be_bytes(*key)).collect();
    match (mode, keys.as_slice()) {
        (Mode::P, _) => Some(Transparency::palette(trns)),
        (Mode::L | Mode::One, &[key]) => Some(Transparency::Gray(key)),
        (Mode::Rgb, &[red, green, blue]) => Some(Transparency::Rgb([red, green, blue])),
        _ => None,
    }
}

/// One row of samples as stored to pixels of `mode_of(color, depth)`.
fn convert_row(row: &[u8], color: ColorType, depth: BitDepth, out: &mut [u8]) {
    let bits = depth as usize;
    match (color, depth) {
        (_, BitDepth::One | BitDepth::Two | BitDepth::Four) => {
            let full_scale = 255 / ((1_u16 << bits) - 1) as u8;
            unpack_bits(row, bits, if color == ColorType::Indexed { 1 } else { full_scale }, out);
        }
        (_, BitDepth::Eight) => out.copy_from_slice(&row[..out.len()]),
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            for (pixel, sample) in out.as_chunks_mut::<2>().0.iter_mut().zip(row.as_chunks::<2>().0) {
                *pixel = [sample[1], sample[0]]; // stored big-endian
            }
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
            for (pixel, sample) in out.as_chunks_mut::<4>().0.iter_mut().zip(row.as_chunks::<4>().0) {
                *pixel = [sample[0], sample[0], sample[0], sample[2]];
            }
        }
        (_, BitDepth::Sixteen) => {
            for (value, sample) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                *value = sample[0];
            }
        }
    }
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::Png, "it ends before its last row")
        }
        other => ImageError::corrupt(Format::Png, other),
    }
}
