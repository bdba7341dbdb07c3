//! JPEG inside TIFF: each strip or tile is a JPEG stream without the tables that all share. Put together they are
//! ordinary JPEG files, which our own decoder reads with the bytes of libtiff over libjpeg-turbo.

use super::{Format, ImageError, Limits, Mode, Scale, jpeg};
use ::tiff::decoder::Decoder;
use ::tiff::tags::Tag;
use std::io::Cursor;

/// Value of the compression tag.
const JPEG: u16 = 7;

/// Photometric interpretations.
const RGB: u16 = 2;
const CMYK: u16 = 5;
const YCBCR: u16 = 6;

pub(super) fn is_jpeg(decoder: &mut Decoder<Cursor<&[u8]>>) -> bool {
    decoder.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten() == Some(JPEG)
}

/// Pixels of the first page and their mode.
pub(super) fn decode(
    bytes: &[u8],
    decoder: &mut Decoder<Cursor<&[u8]>>,
    (width, height): (usize, usize),
    limits: &Limits,
) -> Result<(Mode, Vec<u8>), ImageError> {
    let corrupt = |what: &str| ImageError::corrupt(Format::Tiff, what);
    let mut number = |tag| decoder.find_tag_unsigned::<u32>(tag).ok().flatten();
    let channels = number(Tag::SamplesPerPixel).unwrap_or(1);
    let photometric = number(Tag::PhotometricInterpretation).unwrap_or(0) as u16;
    let (mode, transform) = match (channels, photometric) {
        (1, _) => (Mode::L, None),
        (3, YCBCR) => (Mode::Rgb, Some(1)),
        (3, RGB) => (Mode::Rgb, Some(0)),
        (4, CMYK) => (Mode::Cmyk, Some(0)),
        _ => return Err(ImageError::unsupported(Format::Tiff, "JPEG with these colors")),
    };
    if number(Tag::PlanarConfiguration) == Some(2) && channels > 1 {
        return Err(ImageError::unsupported(Format::Tiff, "JPEG in planes"));
    }
    let tile = number(Tag::TileWidth).zip(number(Tag::TileLength));
    let rows = number(Tag::RowsPerStrip).map_or(height, |rows| rows as usize).min(height);
    let (part_width, part_height, offsets, lengths) = match tile {
        Some((width, height)) => (width as usize, height as usize, Tag::TileOffsets, Tag::TileByteCounts),
        None => (width, rows, Tag::StripOffsets, Tag::StripByteCounts),
    };
    if part_width == 0 || part_height == 0 {
        return Err(corrupt("strips or tiles of no size"));
    }
    let mut list = |tag| decoder.get_tag_u64_vec(tag).map_err(super::tiff::error);
    let (offsets, lengths) = (list(offsets)?, list(lengths)?);
    let tables = decoder.get_tag_u8_vec(Tag::JPEGTables).unwrap_or_default();
    let across = width.div_ceil(part_width);
    let count = across.saturating_mul(height.div_ceil(part_height));
    if offsets.len() < count || lengths.len() < count {
        return Err(corrupt("fewer strips or tiles than the picture needs"));
    }
    // No part is larger than it should be, or a small file could ask for the same large one a thousand times.
    let pixels = (part_width as u64).saturating_mul(part_height as u64);
    let limits = &Limits { max_pixels: limits.max_pixels.min(pixels), ..*limits };
    let size = mode.bytes_per_pixel();
    let mut data = vec![0; width * height * size]; // the caller checked the size
    for index in 0..count {
        let (left, top) = (index % across * part_width, index / across * part_height);
        let part = usize::try_from(offsets[index]).ok().zip(usize::try_from(lengths[index]).ok());
        let part = part.and_then(|(offset, length)| bytes.get(offset..offset.checked_add(length)?));
        let part = part.ok_or_else(|| ImageError::truncated(Format::Tiff, "a strip or tile lies behind its end"))?;
        let picture = jpeg::decode(&whole_file(transform, &tables, part), limits, &|_, _| Scale::Whole)?;
        let (needed_width, needed_height) = (part_width.min(width - left), part_height.min(height - top));
        if picture.mode != mode || picture.width < needed_width || picture.height < needed_height {
            return Err(corrupt("a strip or tile of another size or other colors than the picture"));
        }
        for row in 0..needed_height {
            let from = row * picture.width * size;
            let to = ((top + row) * width + left) * size;
            data[to..to + needed_width * size].copy_from_slice(&picture.data[from..from + needed_width * size]);
        }
    }
    if mode == Mode::Cmyk {
        // Our decoder takes four components for Adobe's inverted inks; those in TIFF are not inverted.
        data.iter_mut().for_each(|ink| *ink = 255 - *ink);
    }
    Ok((mode, data))
}

/// A JPEG file: Adobe's marker says what the colors are, as TIFF says it outside; then the shared tables, then the part.
fn whole_file(transform: Option<u8>, tables: &[u8], part: &[u8]) -> Vec<u8> {
    let mut file = b"\xFF\xD8".to_vec();
    if let Some(transform) = transform {
        file.extend_from_slice(b"\xFF\xEE\0\x0EAdobe\0\x64\0\0\0\0");
        file.push(transform);
    }
    let tables = tables.strip_prefix(b"\xFF\xD8").unwrap_or(tables);
    file.extend_from_slice(tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables));
    file.extend_from_slice(part.strip_prefix(b"\xFF\xD8").unwrap_or(part));
    file
}
