//! What a JPEG file declares before its first scan: size, components, EXIF. Needs no decoder and allocates nothing, so
//! limits hold before a decoder sees the file.

use super::{Format, ImageError, Limits, Mode, exif};

/// Declared properties of a JPEG file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegHeader {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) mode: Mode,
    /// EXIF orientation, 1 when absent.
    pub(super) orientation: u8,
}

/// Frame header (SOF) of a JPEG file.
#[derive(Clone, Copy)]
struct Frame {
    width: u64,
    height: u64,
    components: u8,
    /// Samples of all components per pixel of the largest, times 1: from the sampling factors, rounded up.
    samples_per_pixel: u64,
    progressive: bool,
}

/// Scans a progressive file may ask to be run over its coefficients, as pixels times scans. Ten scans are usual; a
/// file of thousands is an attack on time.
const MAX_SCAN_PIXELS: u64 = 4_000_000_000;

/// Walks the markers up to the first scan and checks `limits`.
pub(super) fn read_header(bytes: &[u8], limits: &Limits) -> Result<JpegHeader, ImageError> {
    let mut frame = None;
    let mut orientation = None;
    let mut position = 2; // after SOI
    let scan_components = loop {
        let (marker, payload, next) = next_segment(bytes, position)?;
        match marker {
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                if frame.is_some() {
                    return Err(ImageError::corrupt(Format::Jpeg, "two frame headers"));
                }
                frame = Some(read_frame(marker, payload)?);
            }
            0xE1 if payload.starts_with(b"Exif\0\0") && orientation.is_none() => {
                orientation = Some(exif::orientation(payload));
            }
            0xDA => break payload.first().copied().unwrap_or(0),
            _ => {}
        }
        position = next;
    };
    let Some(frame) = frame else {
        return Err(ImageError::corrupt(Format::Jpeg, "a scan without a frame header"));
    };
    let orientation = orientation.unwrap_or(1);
    let multiple_scans = frame.progressive || scan_components < frame.components;
    check_limits(&frame, multiple_scans, orientation, limits)?;
    if multiple_scans {
        check_scans(&frame, &bytes[position..])?;
    }
    let mode = match frame.components {
        1 => Mode::L,
        3 => Mode::Rgb,
        4 => Mode::Cmyk,
        other => return Err(ImageError::unsupported(Format::Jpeg, format!("{other} components"))),
    };
    Ok(JpegHeader { width: frame.width as usize, height: frame.height as usize, mode, orientation })
}

/// The marker at or after `position` with its payload, and where the next one is looked for.
fn next_segment(bytes: &[u8], mut position: usize) -> Result<(u8, &[u8], usize), ImageError> {
    let cut_off = || ImageError::truncated(Format::Jpeg, "it ends before the first scan");
    loop {
        // Like libjpeg: bytes that are no marker are skipped, 0xFF may be repeated as filling.
        while *bytes.get(position).ok_or_else(cut_off)? != 0xFF {
            position += 1;
        }
        while *bytes.get(position).ok_or_else(cut_off)? == 0xFF {
            position += 1;
        }
        let marker = bytes[position];
        position += 1;
        match marker {
            0x00 | 0x01 | 0xD0..=0xD8 => continue, // no marker, or one without a payload
            0xD9 => return Err(ImageError::corrupt(Format::Jpeg, "it ends (EOI) before the first scan")),
            _ => {}
        }
        let length = bytes.get(position..position + 2).ok_or_else(cut_off)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(ImageError::corrupt(Format::Jpeg, format!("segment {marker:02X} has length {length}")));
        }
        let payload = bytes.get(position + 2..position + length).ok_or_else(cut_off)?;
        return Ok((marker, payload, position + length));
    }
}

fn read_frame(marker: u8, payload: &[u8]) -> Result<Frame, ImageError> {
    let &[precision, h1, h0, w1, w0, components, ref rest @ ..] = payload else {
        return Err(ImageError::corrupt(Format::Jpeg, "frame header is too short"));
    };
    if precision != 8 {
        return Err(ImageError::unsupported(Format::Jpeg, format!("{precision} bits a sample")));
    }
    if rest.len() != 3 * usize::from(components) {
        return Err(ImageError::corrupt(
            Format::Jpeg,
            format!("frame header is too short for {components} components"),
        ));
    }
    let sampling =
        || rest.chunks_exact(3).map(|component| (u64::from(component[1] >> 4), u64::from(component[1] & 15)));
    let largest = sampling().map(|(h, _)| h).max().unwrap_or(1) * sampling().map(|(_, v)| v).max().unwrap_or(1);
    let samples: u64 = sampling().map(|(h, v)| h * v).sum();
    Ok(Frame {
        width: u64::from(u16::from_be_bytes([w1, w0])),
        height: u64::from(u16::from_be_bytes([h1, h0])),
        components,
        samples_per_pixel: samples.div_ceil(largest.max(1)),
        progressive: matches!(marker, 0xC2 | 0xC6 | 0xCA | 0xCE),
    })
}

/// Pixels, a turned copy of them, and with several scans the 16-bit coefficients of the whole picture.
fn check_limits(frame: &Frame, multiple_scans: bool, orientation: u8, limits: &Limits) -> Result<(), ImageError> {
    let copies = if orientation >= 5 { 2 } else { 1 };
    let coefficients = if multiple_scans { 2 * frame.samples_per_pixel } else { 0 };
    let pixel_bytes = u64::from(frame.components);
    limits.check(frame.width, frame.height, (pixel_bytes * copies).max(pixel_bytes + coefficients))?;
    Ok(())
}

fn check_scans(frame: &Frame, bytes: &[u8]) -> Result<(), ImageError> {
    let scans = bytes.windows(2).filter(|pair| *pair == [0xFF, 0xDA]).count() as u64;
    if scans > 100 && scans.saturating_mul(frame.width * frame.height) > MAX_SCAN_PIXELS {
        let what = format!("{scans} scans over {}x{} pixels", frame.width, frame.height);
        return Err(ImageError::unsupported(Format::Jpeg, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(sof: u8, size: [u8; 4], sampling: &[u8], scan_components: u8) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0xD8, 0xFF, sof, 0, 8 + 3 * sampling.len() as u8, 8];
        bytes.extend(size);
        bytes.push(sampling.len() as u8);
        for (index, &factors) in sampling.iter().enumerate() {
            bytes.extend([index as u8 + 1, factors, 0]);
        }
        bytes.extend([0xFF, 0xDA, 0, 3, scan_components]);
        bytes
    }

    #[test]
    fn reads_size_and_mode() {
        let header =
            read_header(&file(0xC0, [0, 48, 1, 0], &[0x22, 0x11, 0x11], 3), &Limits::default()).expect("valid");
        assert_eq!(header, JpegHeader { width: 256, height: 48, mode: Mode::Rgb, orientation: 1 });
    }

    #[test]
    fn progressive_coefficients_count_as_memory() {
        let limits = Limits { max_memory: 5 << 20, ..Limits::default() };
        let baseline = file(0xC0, [4, 0, 4, 0], &[0x11, 0x11, 0x11], 3); // 1024 x 1024: 3 MiB
        let progressive = file(0xC2, [4, 0, 4, 0], &[0x11, 0x11, 0x11], 3); // and 6 MiB of coefficients
        assert!(read_header(&baseline, &limits).is_ok());
        assert!(matches!(read_header(&progressive, &limits), Err(ImageError::TooMuchMemory { .. })));
        let separate = file(0xC0, [4, 0, 4, 0], &[0x11, 0x11, 0x11], 1);
        assert!(matches!(read_header(&separate, &limits), Err(ImageError::TooMuchMemory { .. })));
    }

    #[test]
    fn thousands_of_scans_are_refused() {
        let mut bytes = file(0xC2, [0x27, 0x10, 0x27, 0x10], &[0x11], 1);
        assert!(read_header(&bytes, &Limits::default()).is_ok());
        for _ in 0..200 {
            bytes.extend([0xFF, 0xDA, 0, 3, 1]);
        }
        let message = read_header(&bytes, &Limits::default()).expect_err("200 scans").to_string();
        assert!(message.contains("201 scans"), "{message}");
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = file(0xC0, [0, 48, 0, 64], &[0x22, 0x11, 0x11], 3);
        for length in 3..bytes.len() {
            assert!(read_header(&bytes[..length], &Limits::default()).is_err(), "{length}");
        }
    }
}
