//! BMP as Pillow reads it: 1, 4 and 8-bit palettes (kept as indices; a gray ramp becomes gray), 16, 24 and 32 bits,
//! run lengths, bit fields. Written here because the known crates expand palettes.

use super::{Format, ImageError, Limits, Mode, Palette, Picture, palette_from, unpack_bits};

/// Values of the compression field.
const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BIT_FIELDS: u32 = 3;

/// Bytes of the file header in front of the info header.
const FILE_HEADER: usize = 14;

struct Header {
    width: usize,
    height: usize,
    top_down: bool,
    bits: u16,
    compression: u32,
    /// Red, green, blue, alpha; only with [`BIT_FIELDS`].
    masks: [u32; 4],
    /// Where the palette begins, and bytes and number of its entries.
    palette_offset: usize,
    palette_entry: usize,
    colors: u64,
    pixel_offset: usize,
}

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let header = read_header(bytes, limits)?;
    if header.bits <= 8 { decode_indexed(bytes, &header) } else { decode_direct(bytes, &header) }
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, ImageError> {
    let field = bytes.get(offset..offset + 2).ok_or_else(header_cut_off)?;
    Ok(u16::from_le_bytes([field[0], field[1]]))
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, ImageError> {
    Ok(u32::from(u16_at(bytes, offset)?) | u32::from(u16_at(bytes, offset + 2)?) << 16)
}

fn header_cut_off() -> ImageError {
    ImageError::truncated(Format::Bmp, "it ends inside its header")
}

fn read_header(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    let info_size = u32_at(bytes, FILE_HEADER)? as usize; // one of the known sizes: `sniff` looked
    let mut palette_offset = FILE_HEADER + info_size;
    let at = |offset: usize| FILE_HEADER + offset;
    let (width, signed_height, bits, compression, palette_entry, mut colors);
    if info_size == 12 {
        (width, signed_height) = (u64::from(u16_at(bytes, at(4))?), i64::from(u16_at(bytes, at(6))?));
        bits = u16_at(bytes, at(10))?;
        (compression, palette_entry, colors) = (RAW, 3, 0);
    } else {
        (width, signed_height) = (u64::from(u32_at(bytes, at(4))?), i64::from(u32_at(bytes, at(8))? as i32));
        bits = u16_at(bytes, at(14))?;
        compression = u32_at(bytes, at(16))?;
        (palette_entry, colors) = (4, u64::from(u32_at(bytes, at(32))?));
    }
    let mut masks = [0; 4];
    if compression == BIT_FIELDS {
        for (index, mask) in masks.iter_mut().enumerate().take(if info_size >= 56 { 4 } else { 3 }) {
            *mask = u32_at(bytes, at(40) + 4 * index)?;
        }
        if info_size == 40 {
            palette_offset += 12; // the masks follow the header
        }
    }
    if !matches!(bits, 1 | 4 | 8 | 16 | 24 | 32) {
        return Err(ImageError::unsupported(Format::Bmp, format!("{bits} bits a pixel")));
    }
    let bytes_per_pixel = if bits <= 8 { 2 } else { 4 };
    let (width, height) = limits.check(width, signed_height.unsigned_abs(), bytes_per_pixel)?;
    if colors == 0 {
        colors = 1 << bits.min(16);
    }
    let mut pixel_offset = u32_at(bytes, 10)? as usize;
    if bits <= 8 && pixel_offset == FILE_HEADER + info_size {
        pixel_offset = pixel_offset.saturating_add(palette_entry * colors.min(65_536) as usize); // as Pillow: the offset forgot the palette
    }
    let top_down = signed_height < 0;
    let header = Header {
        width,
        height,
        top_down,
        bits,
        compression,
        masks,
        palette_offset,
        palette_entry,
        colors,
        pixel_offset,
    };
    Ok(header)
}

fn decode_indexed(bytes: &[u8], header: &Header) -> Result<Picture, ImageError> {
    let (mode, palette) = read_palette(bytes, header)?;
    let (width, height) = (header.width, header.height);
    let mut data = match (header.compression, header.bits) {
        (RAW, bits) => {
            let mut data = vec![0; width * height];
            for (row, out) in stored_rows(bytes, header)?.zip(data.chunks_exact_mut(width)) {
                match bits {
                    8 => out.copy_from_slice(&row[..width]),
                    bits => unpack_bits(row, usize::from(bits), 1, out),
                }
            }
            data
        }
        (RLE8, 8) | (RLE4, 4) => decode_runs(bytes, header)?,
        (compression, bits) => {
            let what = format!("compression {compression} with {bits} bits a pixel");
            return Err(ImageError::unsupported(Format::Bmp, what));
        }
    };
    if mode == Mode::One {
        data.iter_mut().for_each(|value| *value = if *value == 0 { 0 } else { 255 });
    }
    if !header.top_down {
        flip_rows(&mut data, width);
    }
    Ok(Picture { width, height, mode, data, palette, transparency: None, orientation: 1, format: Format::Bmp })
}

/// A palette that is black and white, or the ramp 0, 1, 2, ..., is dropped: the indices are the pixels then.
fn read_palette(bytes: &[u8], header: &Header) -> Result<(Mode, Option<Palette>), ImageError> {
    if header.colors > 65_536 {
        let what = format!("a palette of {} colors", header.colors);
        return Err(ImageError::corrupt(Format::Bmp, what));
    }
    let colors = header.colors as usize;
    let end = header.palette_offset.saturating_add(colors * header.palette_entry);
    let stored = bytes.get(header.palette_offset..end.min(bytes.len())).unwrap_or_default();
    let entries = stored.chunks_exact(header.palette_entry);
    let is_gray = |scale: usize| {
        entries.len() == colors
            && entries
                .clone()
                .enumerate()
                .all(|(index, color)| color[..3].iter().all(|&v| usize::from(v) == index * scale))
    };
    let mode = match (header.bits, colors) {
        (1, 2) if is_gray(255) => Mode::One,
        (8, _) if is_gray(1) => Mode::L,
        _ => Mode::P,
    };
    let palette = (mode == Mode::P).then(|| palette_from(stored, header.palette_entry, [2, 1, 0]));
    Ok((mode, palette))
}

/// Rows in the order they are stored, each padded to four bytes; the last one may lack its padding.
fn stored_rows<'a>(bytes: &'a [u8], header: &Header) -> Result<impl Iterator<Item = &'a [u8]>, ImageError> {
    let used = (header.width * usize::from(header.bits)).div_ceil(8);
    let stride = used.next_multiple_of(4);
    let (needed, present) = (stride * (header.height - 1) + used, bytes.len().saturating_sub(header.pixel_offset));
    if present < needed {
        let what = format!("{needed} bytes of pixels expected, {present} there");
        return Err(ImageError::truncated(Format::Bmp, what));
    }
    Ok(bytes[header.pixel_offset..].chunks(stride).map(move |row| &row[..used.min(row.len())]).take(header.height))
}

fn decode_direct(bytes: &[u8], header: &Header) -> Result<Picture, ImageError> {
    let (width, height) = (header.width, header.height);
    let has_alpha =
        header.compression == BIT_FIELDS && header.bits == 32 && (header.masks[3] != 0 || header.masks == [0; 4]);
    let mode = if has_alpha { Mode::Rgba } else { Mode::Rgb };
    let row_bytes = width * mode.bytes_per_pixel();
    let mut data = vec![0; row_bytes * height];
    let rows = stored_rows(bytes, header)?.zip(data.chunks_exact_mut(row_bytes));
    match (header.bits, header.compression) {
        (24, RAW) => rows.for_each(|(row, out)| copy_bytes::<3>(row, out, &[2, 1, 0])),
        (32, RAW) => rows.for_each(|(row, out)| copy_bytes::<4>(row, out, &[2, 1, 0])),
        (16, RAW) => rows.for_each(|(row, out)| copy_16_bits(row, out, [0x7C00, 0x3E0, 0x1F])),
        (16, BIT_FIELDS) if matches!(header.masks[..3], [0xF800, 0x7E0, 0x1F] | [0x7C00, 0x3E0, 0x1F]) => {
            let masks = [header.masks[0] as u16, header.masks[1] as u16, header.masks[2] as u16];
            rows.for_each(|(row, out)| copy_16_bits(row, out, masks));
        }
        (24, BIT_FIELDS) if header.masks[..3] == [0xFF_0000, 0xFF00, 0xFF] => {
            rows.for_each(|(row, out)| copy_bytes::<3>(row, out, &[2, 1, 0]));
        }
        (32, BIT_FIELDS) => {
            let order = byte_order(header.masks).ok_or_else(|| unsupported_masks(header))?;
            let order = if has_alpha { &order[..4] } else { &order[..3] };
            rows.for_each(|(row, out)| copy_bytes::<4>(row, out, order));
        }
        (_, BIT_FIELDS) => return Err(unsupported_masks(header)),
        (bits, compression) => {
            let what = format!("compression {compression} with {bits} bits a pixel");
            return Err(ImageError::unsupported(Format::Bmp, what));
        }
    }
    if !header.top_down {
        flip_rows(&mut data, row_bytes);
    }
    Ok(Picture { width, height, mode, data, palette: None, transparency: None, orientation: 1, format: Format::Bmp })
}

fn unsupported_masks(header: &Header) -> ImageError {
    let what = format!("bit fields {:08x?} with {} bits a pixel", header.masks, header.bits);
    ImageError::unsupported(Format::Bmp, what)
}

/// Byte positions of red, green, blue and alpha for the layouts that Pillow knows.
fn byte_order(masks: [u32; 4]) -> Option<[usize; 4]> {
    Some(match masks {
        [0xFF_0000, 0xFF00, 0xFF, 0 | 0xFF00_0000] | [0, 0, 0, 0] => [2, 1, 0, 3],
        [0xFF00_0000, 0xFF_0000, 0xFF00, 0 | 0xFF] => [3, 2, 1, 0],
        [0xFF00_0000, 0xFF00, 0xFF, 0 | 0xFF_0000] => [3, 1, 0, 2],
        [0xFF, 0xFF00, 0xFF_0000, 0xFF00_0000] => [0, 1, 2, 3],
        _ => return None,
    })
}

fn copy_bytes<const N: usize>(row: &[u8], out: &mut [u8], order: &[usize]) {
    for (pixel, stored) in out.chunks_exact_mut(order.len()).zip(row.as_chunks::<N>().0) {
        for (value, &position) in pixel.iter_mut().zip(order) {
            *value = stored[position];
        }
    }
}

/// A field of n bits becomes `field * 255 / (2^n - 1)`, rounded down, as in Pillow.
fn copy_16_bits(row: &[u8], out: &mut [u8], masks: [u16; 3]) {
    for (pixel, stored) in out.as_chunks_mut::<3>().0.iter_mut().zip(row.as_chunks::<2>().0) {
        let stored = u16::from_le_bytes(*stored);
        *pixel = masks.map(|mask| {
            let (field, full) = ((stored & mask) >> mask.trailing_zeros(), mask >> mask.trailing_zeros());
            (u32::from(field) * 255 / u32::from(full)) as u8
        });
    }
}

/// Run-length coded indices, rows in stored order; what the code jumps over is 0.
fn decode_runs(bytes: &[u8], header: &Header) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (header.width, header.height);
    let mut input = bytes.get(header.pixel_offset..).unwrap_or_default().iter().copied();
    let mut data = vec![0; width * height];
    let (mut x, mut y) = (0, 0);
    let cut_off = || ImageError::truncated(Format::Bmp, "it ends inside its run lengths");
    while y < height {
        let mut next = || input.next().ok_or_else(cut_off);
        let (count, value) = (usize::from(next()?), next()?);
        let row = &mut data[y * width..][..width];
        match (count, value) {
            (0, 0) => (x, y) = (0, y + 1),
            (0, 1) => break,
            (0, 2) => {
                x += usize::from(next()?);
                y += usize::from(next()?);
            }
            (0, literal) if header.bits == 8 => {
                for _ in 0..literal {
                    set(row, &mut x, next()?);
                }
                if literal % 2 == 1 {
                    next()?; // literals are padded to two bytes
                }
            }
            (0, literal) => {
                let stored = usize::from(literal).div_ceil(2);
                for index in 0..stored {
                    let pair = next()?;
                    set(row, &mut x, pair >> 4);
                    if 2 * index + 1 < usize::from(literal) {
                        set(row, &mut x, pair & 15);
                    }
                }
                if stored % 2 == 1 {
                    next()?;
                }
            }
            (count, value) if header.bits == 8 => (0..count).for_each(|_| set(row, &mut x, value)),
            (count, pair) => {
                (0..count).for_each(|index| set(row, &mut x, if index % 2 == 0 { pair >> 4 } else { pair & 15 }))
            }
        }
    }
    Ok(data)
}

/// Writes one pixel; what is beyond the row is dropped.
fn set(row: &mut [u8], x: &mut usize, value: u8) {
    if let Some(pixel) = row.get_mut(*x) {
        *pixel = value;
    }
    *x += 1;
}

fn flip_rows(data: &mut [u8], row_bytes: usize) {
    let rows = data.len() / row_bytes;
    for row in 0..rows / 2 {
        let (front, back) = data.split_at_mut((rows - 1 - row) * row_bytes);
        front[row * row_bytes..][..row_bytes].swap_with_slice(&mut back[..row_bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BMP with a 40-byte header; `masks` and `palette` follow it.
    fn file(size: (i32, i32), bits: u16, compression: u32, after_header: &[u8], pixels: &[u8]) -> Vec<u8> {
        let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend((54 + after_header.len() as u32).to_le_bytes());
        bytes.extend(40_u32.to_le_bytes());
        bytes.extend(size.0.to_le_bytes());
        bytes.extend(size.1.to_le_bytes());
        bytes.extend([1, 0]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend(compression.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend(after_header);
        bytes.extend(pixels);
        bytes
    }

    #[test]
    fn literal_runs_jumps_and_ends() {
        let palette: Vec<u8> = (0..=255_u8).flat_map(|v| [v, 0, 0, 0]).collect();
        // Bottom row: three literals (padded), then a jump up one row by one column, then a run of two, then the end.
        let pixels = [0, 3, 7, 8, 9, 0, 0, 2, 0, 1, 2, 5, 0, 1];
        let picture = decode(&file((5, 3), 8, RLE8, &palette, &pixels), &Limits::default()).expect("valid");
        assert_eq!(picture.mode, Mode::P);
        assert_eq!(picture.data, [0, 0, 0, 0, 0, 0, 0, 0, 5, 5, 7, 8, 9, 0, 0]);
        let short = decode(&file((5, 3), 8, RLE8, &palette, &pixels[..9]), &Limits::default());
        assert!(matches!(short, Err(ImageError::Truncated { .. })));
    }

    #[test]
    fn four_bit_runs() {
        let palette: Vec<u8> = (0..16_u8).flat_map(|v| [0, 0, v, 0]).collect();
        let pixels = [3, 0x12, 0, 3, 0x45, 0x60, 0, 1];
        let picture = decode(&file((6, 1), 4, RLE4, &palette, &pixels), &Limits::default()).expect("valid");
        assert_eq!(picture.data, [1, 2, 1, 4, 5, 6]);
        assert_eq!(picture.palette.expect("indexed")[5], [5, 0, 0]);
    }

    #[test]
    fn bit_fields() {
        let masks = |masks: [u32; 3]| masks.iter().flat_map(|mask| mask.to_le_bytes()).collect::<Vec<_>>();
        let green = 0x7E0_u16.to_le_bytes();
        let file_565 = file((1, -1), 16, BIT_FIELDS, &masks([0xF800, 0x7E0, 0x1F]), &[green[0], green[1], 0, 0]);
        assert_eq!(decode(&file_565, &Limits::default()).expect("valid").data, [0, 255, 0]);
        let file_xbgr = file((1, 1), 32, BIT_FIELDS, &masks([0xFF00_0000, 0xFF_0000, 0xFF00]), &[9, 3, 2, 1]);
        assert_eq!(decode(&file_xbgr, &Limits::default()).expect("valid").data, [1, 2, 3]);
        let odd = file((1, 1), 32, BIT_FIELDS, &masks([1, 2, 4]), &[0; 4]);
        assert!(matches!(decode(&odd, &Limits::default()), Err(ImageError::Unsupported { .. })));
    }

    #[test]
    fn every_cut_is_an_error() {
        let palette: Vec<u8> = (0..=255_u8).flat_map(|v| [v, 1, 2, 0]).collect();
        for bytes in [file((3, 2), 8, RAW, &palette, &[1; 8]), file((3, 2), 24, RAW, &[], &[1; 24])] {
            assert!(decode(&bytes, &Limits::default()).is_ok());
            for length in 18..bytes.len() - 4 {
                assert!(decode(&bytes[..length], &Limits::default()).is_err(), "{length}");
            }
        }
    }
}
