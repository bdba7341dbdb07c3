//! PNG rows to Pillow's modes: palettes stay indices, 1-bit stays black and white, 16-bit gray stays 16-bit, other
//! 16-bit samples keep their high byte. Gamma, profiles and transparency keys are ignored, as the peers do.

use super::{Format, ImageError, Limits, Mode, Palette, Picture, Transparency, exif, palette_from, unpack_bits};
use ::png::{BitDepth, ColorType, Decoder, DecodingError, Limits as PngLimits, Reader, Transformations};
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
    let passes = if info.interlaced { PASSES.as_slice() } else { &[[0, 0, 1, 1]] };
    let size = mode.bytes_per_pixel();
    let mut data = vec![0; width * height * size];
    let mut pixels = vec![0; width * size];
    for &pass in passes {
        let [x0, y0, dx, dy] = pass;
        let pixels = &mut pixels[..columns(width, pass) * size];
        if pixels.is_empty() {
            continue;
        }
        for target in data.chunks_exact_mut(width * size).skip(y0).step_by(dy) {
            let row = reader.next_row().map_err(error)?;
            let row = row.ok_or_else(|| ImageError::corrupt(Format::Png, "fewer rows than its header declares"))?;
            if dx == 1 {
                convert_row(row.data(), color, depth, target);
                continue;
            }
            convert_row(row.data(), color, depth, pixels);
            for (pixel, target) in pixels.chunks_exact(size).zip(target.chunks_exact_mut(size).skip(x0).step_by(dx)) {
                target.copy_from_slice(pixel);
            }
        }
    }
    finish(&mut reader)?;
    let orientation = reader.info().exif_metadata.as_deref().map_or(1, exif::orientation);
    Ok(Picture { width, height, mode, data, palette, transparency, orientation, format: Format::Png })
}

/// Checks what follows the last row, and reads EXIF from there. That the file ends early is no harm: all pixels came.
fn finish(reader: &mut Reader<Cursor<&[u8]>>) -> Result<(), ImageError> {
    let is_end = |error: &DecodingError| matches!(error, DecodingError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof);
    match reader.next_row() {
        Err(cause) if !is_end(&cause) => return Err(error(cause)),
        Err(_) => return Ok(()),
        Ok(_) => {}
    }
    if reader.info().exif_metadata.is_none() {
        let _ = reader.finish(); // only EXIF is wanted from here
    }
    Ok(())
}

fn columns(width: usize, [x0, _, dx, _]: [usize; 4]) -> usize {
    width.saturating_sub(x0).div_ceil(dx)
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

/// The tRNS chunk. As in Pillow only the low byte of a key counts, and the gray key of 2 or 4-bit samples stays as it is
/// while they are scaled.
fn transparency_of(mode: Mode, trns: &[u8]) -> Option<Transparency> {
    // The crate gives keys of one byte, but of two for 16-bit samples.
    match (mode, trns) {
        (Mode::P, _) => Some(Transparency::palette(trns)),
        (Mode::One, &[key]) => Some(Transparency::Gray(if key == 0 { 0 } else { 255 })),
        (Mode::L, &[key]) | (Mode::I16, &[_, key]) => Some(Transparency::Gray(key)),
        (Mode::Rgb, &[red, green, blue] | &[_, red, _, green, _, blue]) => Some(Transparency::Rgb([red, green, blue])),
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
