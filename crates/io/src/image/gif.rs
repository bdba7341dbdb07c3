//! First frame of a GIF, as indices into its palette on the logical screen.

use super::{Format, ImageError, Limits, Mode, Picture, Transparency, palette_from};
use ::gif::{ColorOutput, DecodeOptions, DecodingError};

/// Indices on the screen and those of the frame before it is placed.
const BYTES_PER_PIXEL: u64 = 2;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Picture, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let mut decoder = options.read_info(bytes).map_err(error)?;
    let (screen_width, screen_height) = (u64::from(decoder.width()), u64::from(decoder.height()));
    limits.check(screen_width.max(1), screen_height.max(1), BYTES_PER_PIXEL)?;

    let Some(frame) = decoder.next_frame_info().map_err(error)?.cloned() else {
        return Err(ImageError::corrupt(Format::Gif, "no picture in it"));
    };
    let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    // Pillow enlarges the screen when the frame reaches out of it.
    let width = screen_width.max((left + frame_width) as u64);
    let height = screen_height.max((top + frame_height) as u64);
    let (width, height) = limits.check(width, height, BYTES_PER_PIXEL)?;
    if frame_width == 0 || frame_height == 0 {
        return Err(ImageError::NoPixels { width: frame_width as u64, height: frame_height as u64 });
    }

    let mut indices = vec![0; frame_width * frame_height];
    decoder.read_into_buffer(&mut indices).map_err(error)?;
    let mut data = vec![frame.transparent.unwrap_or(0); width * height];
    for (row, from) in indices.chunks_exact(frame_width).enumerate() {
        data[(top + row) * width + left..][..frame_width].copy_from_slice(from);
    }
    // Without a palette of its own the frame uses the global one; one that is the gray ramp is no palette to Pillow.
    let palette = frame.palette.as_deref().or(decoder.global_palette()).unwrap_or_default();
    let (mode, palette) =
        if is_gray_ramp(palette) { (Mode::L, None) } else { (Mode::P, Some(palette_from(palette, 3, [0, 1, 2]))) };
    let transparency = frame.transparent.map(|index| match mode {
        Mode::L => Transparency::Gray(index),
        _ => {
            let mut alphas = [255; 256];
            alphas[usize::from(index)] = 0;
            Transparency::palette(&alphas)
        }
    });
    Ok(Picture { width, height, mode, data, palette, transparency, orientation: 1, format: Format::Gif })
}

fn is_gray_ramp(palette: &[u8]) -> bool {
    palette.chunks_exact(3).enumerate().all(|(index, color)| color.iter().all(|&value| usize::from(value) == index))
}

fn error(error: DecodingError) -> ImageError {
    match error {
        DecodingError::Io(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::truncated(Format::Gif, "it ends inside the first frame")
        }
        other => ImageError::corrupt(Format::Gif, other),
    }
}
