//! Pillow's `convert("RGB")` and `ImageOps.exif_transpose`, byte for byte.
//!
//! Alpha is dropped without blending, ink is turned into light by Pillow's simple formula without profiles.

use super::{Mode, Palette, Picture, Transparency};

impl Picture {
    /// The picture in mode [`Mode::Rgb`], as Pillow's `convert("RGB")` gives it.
    ///
    /// 16-bit gray and f32 gray are clipped to 0..=255, not scaled: a 16-bit picture turns nearly white. See
    /// [`Picture::to_8_bit_gray`] for what a person would expect.
    pub fn to_rgb(mut self) -> Picture {
        let palette = self.palette.take();
        self.data = match self.mode {
            Mode::Rgb => self.data,
            Mode::One => spread::<1>(&self.data, |[v]| [if v == 0 { 0 } else { 255 }; 3]),
            Mode::L => spread::<1>(&self.data, |[v]| [v; 3]),
            Mode::P => {
                let colors = palette.unwrap_or_else(gray_ramp);
                spread::<1>(&self.data, |[index]| colors[usize::from(index)])
            }
            Mode::La => spread::<2>(&self.data, |[v, _]| [v; 3]),
            Mode::I16 => spread::<2>(&self.data, |v| [clip_16(v); 3]),
            Mode::Rgba => shrink(self.data, |[r, g, b, _]| [r, g, b]),
            Mode::Cmyk => shrink(self.data, cmyk_to_rgb),
            Mode::F => shrink(self.data, |v| [clip_float(f32::from_le_bytes(v)); 3]),
        };
        self.mode = Mode::Rgb;
        self.transparency = None;
        self
    }

    /// The picture in mode [`Mode::Rgb`] laid on white where it is transparent: Pillow's `alpha_composite`, which
    /// transformers does since version 5. A picture without transparency becomes what [`Picture::to_rgb`] gives.
    pub fn on_white(self) -> Picture {
        let data = match (self.mode, &self.transparency) {
            (Mode::Rgba, _) => shrink(self.data, |[r, g, b, alpha]| [r, g, b].map(|v| blend_with_white(v, alpha))),
            (Mode::La, _) => spread::<2>(&self.data, |[v, alpha]| [blend_with_white(v, alpha); 3]),
            (Mode::P, Some(Transparency::Palette(alphas))) => {
                let colors = self.palette.clone().unwrap_or_else(gray_ramp);
                spread::<1>(&self.data, |[index]| {
                    let index = usize::from(index);
                    colors[index].map(|v| blend_with_white(v, alphas[index]))
                })
            }
            (Mode::L | Mode::One, &Some(Transparency::Gray(key))) => {
                spread::<1>(&self.data, |[v]| [if v == key { 255 } else { v }; 3])
            }
            (Mode::I16, &Some(Transparency::Gray(key))) => {
                spread::<2>(&self.data, |v| [if clip_16(v) == key { 255 } else { clip_16(v) }; 3])
            }
            (Mode::Rgb, &Some(Transparency::Rgb(key))) => {
                spread::<3>(&self.data, |color| if color == key { [255; 3] } else { color })
            }
            _ => return self.to_rgb(),
        };
        Picture {
            width: self.width,
            height: self.height,
            mode: Mode::Rgb,
            data,
            palette: None,
            transparency: None,
            orientation: self.orientation,
            format: self.format,
        }
    }

    /// 16-bit gray as 8-bit gray by its high byte; other modes stay as they are.
    pub fn to_8_bit_gray(mut self) -> Picture {
        if self.mode == Mode::I16 {
            self.data = self.data.chunks_exact(2).map(|pair| pair[1]).collect();
            self.mode = Mode::L;
            self.transparency = None; // its key was for 16 bits
        }
        self
    }

    /// Turns and mirrors the picture as its EXIF orientation says; the result has orientation 1.
    pub fn oriented(mut self) -> Picture {
        let orientation = std::mem::replace(&mut self.orientation, 1);
        let size = self.mode.bytes_per_pixel();
        match orientation {
            2 => mirror_rows(&mut self.data, self.width, size),
            3 => reverse_pixels(&mut self.data, size),
            4 => {
                reverse_pixels(&mut self.data, size);
                mirror_rows(&mut self.data, self.width, size);
            }
            5..=8 => {
                if matches!(orientation, 6 | 7) {
                    reverse_rows(&mut self.data, self.width * size);
                }
                self.data = transpose(&self.data, self.width, size);
                std::mem::swap(&mut self.width, &mut self.height);
                if matches!(orientation, 7 | 8) {
                    reverse_rows(&mut self.data, self.width * size);
                }
            }
            _ => {}
        }
        self
    }
}

fn gray_ramp() -> Palette {
    Box::new(std::array::from_fn(|index| [index as u8; 3]))
}

/// Pixels of `N` bytes to new storage of three bytes each.
fn spread<const N: usize>(data: &[u8], to_rgb: impl Fn([u8; N]) -> [u8; 3]) -> Vec<u8> {
    let mut out = vec![0; data.len() / N * 3];
    for (rgb, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(data.as_chunks::<N>().0) {
        *rgb = to_rgb(*pixel);
    }
    out
}

/// Pixels of four bytes to three, in place: a picture of hundreds of megabytes must not be held twice.
fn shrink(mut data: Vec<u8>, to_rgb: impl Fn([u8; 4]) -> [u8; 3]) -> Vec<u8> {
    let pixels = data.len() / 4;
    for index in 0..pixels {
        let pixel = [data[4 * index], data[4 * index + 1], data[4 * index + 2], data[4 * index + 3]];
        data[3 * index..3 * index + 3].copy_from_slice(&to_rgb(pixel));
    }
    data.truncate(pixels * 3);
    data.shrink_to_fit();
    data
}

/// Alpha compositing on opaque white, in the fixed point of Pillow's AlphaComposite.c.
fn blend_with_white(value: u8, alpha: u8) -> u8 {
    if alpha == 0 {
        return 255;
    }
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = value * (alpha << 7) + 255 * ((255 - alpha) << 7) + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

/// `cmyk2rgb` of Pillow's Convert.c.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - i32::from(k);
    [c, m, y].map(|ink| {
        let product = i32::from(ink) * light + 128;
        (light - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

fn clip_16(value: [u8; 2]) -> u8 {
    u16::from_le_bytes(value).min(255) as u8
}

/// `f2l` of Pillow's Convert.c: clip, then cut off the fraction.
fn clip_float(value: f32) -> u8 {
    value as u8 // Rust's cast saturates, and NaN gives 0
}

fn mirror_rows(data: &mut [u8], width: usize, size: usize) {
    for row in data.chunks_exact_mut((width * size).max(1)) {
        reverse_pixels(row, size);
    }
}

fn reverse_pixels(data: &mut [u8], size: usize) {
    data.reverse();
    for pixel in data.chunks_exact_mut(size) {
        pixel.reverse();
    }
}

fn reverse_rows(data: &mut [u8], row_bytes: usize) {
    let rows = data.len() / row_bytes.max(1);
    for row in 0..rows / 2 {
        let (front, back) = data.split_at_mut((rows - 1 - row) * row_bytes);
        front[row * row_bytes..(row + 1) * row_bytes].swap_with_slice(&mut back[..row_bytes]);
    }
}

fn transpose(data: &[u8], width: usize, size: usize) -> Vec<u8> {
    let height = data.len() / (width * size).max(1);
    let mut out = vec![0; data.len()];
    // Tiles keep both sides in cache.
    const TILE: usize = 32;
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for y in top..(top + TILE).min(height) {
                for x in left..(left + TILE).min(width) {
                    let (from, to) = ((y * width + x) * size, (x * height + y) * size);
                    out[to..to + size].copy_from_slice(&data[from..from + size]);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Format;

    fn picture(width: usize, mode: Mode, data: &[u8]) -> Picture {
        let height = data.len() / width / mode.bytes_per_pixel();
        Picture {
            width,
            height,
            mode,
            data: data.to_vec(),
            palette: None,
            transparency: None,
            orientation: 1,
            format: Format::Png,
        }
    }

    #[test]
    fn orientations_move_the_corners_where_exif_says() {
        // 1 2 3
        // 4 5 6
        let table: [(u8, usize, [u8; 6]); 9] = [
            (0, 3, [1, 2, 3, 4, 5, 6]),
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
        ];
        for (orientation, width, want) in table {
            let turned = Picture { orientation, ..picture(3, Mode::L, &[1, 2, 3, 4, 5, 6]) }.oriented();
            assert_eq!((turned.width, turned.data.as_slice()), (width, want.as_slice()), "orientation {orientation}");
            assert_eq!(turned.orientation, 1);
        }
    }

    #[test]
    fn wide_pixels_stay_whole_when_turned() {
        let turned = Picture { orientation: 6, ..picture(1, Mode::Rgb, &[1, 2, 3, 4, 5, 6]) }.oriented();
        assert_eq!((turned.width, turned.height, turned.data), (2, 1, vec![4, 5, 6, 1, 2, 3]));
        let mirrored = Picture { orientation: 2, ..picture(2, Mode::La, &[1, 2, 3, 4]) }.oriented();
        assert_eq!(mirrored.data, [3, 4, 1, 2]);
    }

    #[test]
    fn modes_convert_as_pillow_does() {
        let table: &[(Mode, &[u8], [u8; 3])] = &[
            (Mode::One, &[127], [255; 3]),
            (Mode::L, &[7], [7; 3]),
            (Mode::La, &[9, 0], [9; 3]),
            (Mode::Rgba, &[1, 2, 3, 0], [1, 2, 3]),
            (Mode::Cmyk, &[0, 128, 255, 55], [200, 100, 0]),
            (Mode::I16, &[44, 1], [255; 3]),
            (Mode::I16, &[44, 0], [44; 3]),
            (Mode::F, &2.9_f32.to_le_bytes(), [2; 3]),
            (Mode::F, &(-1.0_f32).to_le_bytes(), [0; 3]),
            (Mode::F, &f32::NAN.to_le_bytes(), [0; 3]),
            (Mode::F, &1e9_f32.to_le_bytes(), [255; 3]),
        ];
        for &(mode, data, want) in table {
            assert_eq!(picture(1, mode, data).to_rgb().data, want, "{mode:?}");
        }
        assert_eq!(picture(1, Mode::I16, &[44, 1]).to_8_bit_gray().data, [1]);
    }
}
