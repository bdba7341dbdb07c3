//! HEIC and AVIF through libheif, which turns and mirrors as the file says; EXIF's orientation is not applied again.

use super::{Format, ImageError, Limits, Mode, Picture};
use openvision_kernels::heif::Heif;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let wrong = |what: String| ImageError::corrupt(Format::Heif, what);
    let heif = Heif::open(bytes, limits.max_pixels.isqrt().min(u32::MAX.into()) as u32).map_err(wrong)?;
    let (width, height) = heif.size();
    let mode = if heif.has_alpha() { Mode::Rgba } else { Mode::Rgb };
    // libheif's own planes (up to 16 bits in three channels), its interleaved copy, and ours.
    let (width, height) = limits.check(width.into(), height.into(), 6 + 2 * mode.bytes_per_pixel() as u64)?;
    let data = heif.pixels().map_err(wrong)?;
    Ok(Picture { width, height, mode, data, palette: None, transparency: None, orientation: 1, format: Format::Heif })
}
