//! Sizes and offsets: where Python's and torchvision's roundings live.

use super::{Interpolation, Order, Preprocess, ResizeMode};
use crate::image::Picture;
use openvision_kernels::resize::Window;

/// What to do to a picture of a given size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// Size of the resized picture, before the crop.
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) interpolation: Interpolation,
    /// The part that the crop keeps.
    pub(super) window: Window,
    /// Where that part lies in the result; not (0, 0) when the picture is padded.
    pub(super) left: usize,
    pub(super) top: usize,
}

/// How a picture of `width` x `height` comes to the size of the recipe.
pub(super) fn plan(recipe: &Preprocess, width: usize, height: usize) -> Plan {
    let (target_height, target_width) = recipe.size;
    let mut interpolation = recipe.interpolation;
    let (new_width, new_height) = match recipe.resize {
        ResizeMode::Squash => (target_width, target_height),
        ResizeMode::Longest => keep_ratio(recipe, width, height, f64::max),
        ResizeMode::Shortest => match recipe.shortest_edge {
            Some(edge) => shortest(width, height, edge, recipe.order),
            None if target_width == target_height => shortest(width, height, target_width, recipe.order),
            None => {
                interpolation = Interpolation::Bicubic; // open_clip forgets to pass its filter on here
                keep_ratio(recipe, width, height, f64::min)
            }
        },
    };
    let (left, from_left, kept_width) = place(new_width, target_width, recipe.order);
    let (top, from_top, kept_height) = place(new_height, target_height, recipe.order);
    let window = Window { left: from_left, top: from_top, width: kept_width, height: kept_height };
    Plan { width: new_width, height: new_height, interpolation, window, left, top }
}

/// torchvision's `Resize(n)` and Hugging Face's shortest edge: the long side is cut off to a whole number.
fn shortest(width: usize, height: usize, edge: usize, order: Order) -> (usize, usize) {
    let (short, long) = (width.min(height), width.max(height));
    let new_long = match order {
        // Python: int(n * long / short), a product of integers divided in f64.
        Order::OpenClip | Order::Hf => ((edge as u64 * long as u64) as f64 / short as f64) as usize,
        // Python: round(long * (n / short)).
        Order::Openvision2 => (long as f64 * (edge as f64 / short as f64)).round_ties_even() as usize,
    };
    if width <= height { (edge, new_long) } else { (new_long, edge) }
}

/// open_clip's `ResizeKeepRatio`; a side that would round to 0 (where the peer fails) becomes 1.
fn keep_ratio(recipe: &Preprocess, width: usize, height: usize, choose: fn(f64, f64) -> f64) -> (usize, usize) {
    let (target_height, target_width) = recipe.size;
    let ratio = choose(height as f64 / target_height as f64, width as f64 / target_width as f64);
    let scaled = |side: usize| ((side as f64 / ratio).round_ties_even() as usize).max(1);
    (scaled(width), scaled(height))
}

/// Along one axis: offset in the result, offset in the resized picture, length kept.
fn place(length: usize, target: usize, order: Order) -> (usize, usize, usize) {
    if length >= target {
        let spare = length - target;
        let from = match order {
            Order::OpenClip => round_half_to_even(spare),
            Order::Hf | Order::Openvision2 => spare / 2,
        };
        return (0, from, target);
    }
    let missing = target - length;
    let offset = match order {
        Order::OpenClip => missing / 2,
        Order::Hf | Order::Openvision2 => missing.div_ceil(2),
    };
    (offset, 0, length)
}

/// Python's `int(round(n / 2.0))`.
fn round_half_to_even(n: usize) -> usize {
    let half = n / 2;
    if n % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

/// Puts the picture on a canvas of `(height, width)` where the plan says; the border is `fill` in the picture's mode.
pub(super) fn pad(picture: Picture, plan: &Plan, (height, width): (usize, usize), fill: u8) -> Picture {
    if (picture.width, picture.height) == (width, height) {
        return picture;
    }
    let pixel = fill_pixel(&picture, fill);
    let size = pixel.len();
    let mut data = pixel.repeat(width * height);
    for (row, from) in picture.data.chunks_exact(picture.width * size).enumerate() {
        data[((plan.top + row) * width + plan.left) * size..][..from.len()].copy_from_slice(from);
    }
    Picture { width, height, data, ..picture }
}

/// The number `fill` in the storage of the mode, as Pillow's `getink` gives it.
fn fill_pixel(picture: &Picture, fill: u8) -> Vec<u8> {
    use crate::image::Mode;
    match picture.mode {
        Mode::I16 => u16::from(fill).to_le_bytes().to_vec(),
        Mode::F => f32::from(fill).to_le_bytes().to_vec(),
        mode => vec![fill; mode.bytes_per_pixel()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_even() {
        let want = [0, 0, 1, 2, 2, 2, 3, 4, 4];
        for (n, want) in want.into_iter().enumerate() {
            assert_eq!(round_half_to_even(n), want, "{n}");
        }
    }

    #[test]
    fn long_sides_are_cut_off() {
        assert_eq!(shortest(44, 40, 32, Order::Hf), (35, 32));
        assert_eq!(shortest(40, 44, 32, Order::Hf), (32, 35));
        assert_eq!(shortest(640, 427, 224, Order::Hf), (335, 224));
        assert_eq!(shortest(1, 65_500, 224, Order::Hf), (224, 14_672_000));
        assert_eq!(shortest(7, 7, 224, Order::Hf), (224, 224));
        assert_eq!(shortest(640, 427, 224, Order::Openvision2), (336, 224));
    }

    #[test]
    fn the_two_orders_crop_and_pad_differently() {
        assert_eq!(place(35, 32, Order::OpenClip), (0, 2, 32));
        assert_eq!(place(35, 32, Order::Hf), (0, 1, 32));
        assert_eq!(place(7, 10, Order::OpenClip), (1, 0, 7));
        assert_eq!(place(7, 10, Order::Hf), (2, 0, 7));
    }
}
