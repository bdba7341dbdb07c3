//! Separable image resampling, equal to Pillow's `Image.resize` in every byte (src/libImaging/Resample.c, Geometry.c).
//!
//! Weights are computed in f64 and rounded to 22 fractional bits; a horizontal pass to bytes comes first, then a
//! vertical one; a pass is left out when its length does not change. Antialiasing is part of the method: the filter
//! is stretched by the factor of reduction. Not here: what a mode means (palettes, alpha), see `openvision-io`.

use crate::isa::{Isa, Kernel, Simd};
use std::ops::Range;

/// Fractional bits of the fixed-point weights (`PRECISION_BITS` in Pillow, 32 - 8 - 2).
const PRECISION_BITS: u32 = 22;

/// Half a unit, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Resampling filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Average of what the output pixel covers.
    Box,
    /// Triangle.
    Bilinear,
    /// Hamming-windowed sinc of one lobe.
    Hamming,
    /// Cubic with a = -0.5.
    Bicubic,
    /// Sinc-windowed sinc of three lobes.
    Lanczos,
}

impl Filter {
    /// Half-width for enlargement, in input pixels.
    fn support(self) -> f64 {
        match self {
            Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Box if x > -0.5 && x <= 0.5 => 1.0,
            Filter::Bilinear if x.abs() < 1.0 => 1.0 - x.abs(),
            Filter::Hamming if x == 0.0 => 1.0,
            Filter::Hamming if x.abs() < 1.0 => {
                let x = x.abs() * std::f64::consts::PI;
                x.sin() / x * (0.54 + 0.46 * x.cos())
            }
            Filter::Bicubic => cubic(x.abs()),
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

/// Keys' cubic with a = -0.5, x >= 0.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// A picture of interleaved samples, the size it gets, and the part of the result that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Resize<'a, T> {
    /// Row by row, `width * height * channels` samples.
    pub samples: &'a [T],
    /// Pixels a row.
    pub width: usize,
    /// Samples a pixel, 1..=4.
    pub channels: usize,
    /// New pixels a row.
    pub new_width: usize,
    /// New rows.
    pub new_height: usize,
    /// Part of the new picture to compute: a crop costs only itself, and a strip of 1 x 65,000 pixels whose shorter
    /// side becomes 224 does not need 10 GB.
    pub window: Window,
}

/// A rectangle of the resized picture, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Window {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

impl<T: Copy> Resize<'_, T> {
    /// Rows of the input.
    ///
    /// # Panics
    /// When lengths contradict each other or a size is zero: a defect of the caller, not of a file.
    fn height(&self) -> usize {
        let row = self.width * self.channels;
        assert!((1..=4).contains(&self.channels) && row > 0 && self.new_width > 0 && self.new_height > 0);
        assert!(!self.samples.is_empty() && self.samples.len().is_multiple_of(row), "resize: not whole rows");
        let Window { left, top, width, height } = self.window;
        assert!(width > 0 && height > 0, "resize: empty window");
        assert!(left + width <= self.new_width && top + height <= self.new_height, "resize: window outside");
        self.samples.len() / row
    }

    fn columns(&self) -> Range<usize> {
        self.window.left..self.window.left + self.window.width
    }

    fn rows(&self) -> Range<usize> {
        self.window.top..self.window.top + self.window.height
    }
}

/// The rows `rows` and, of each, the pixels `columns`.
fn cut<T: Copy>(samples: &[T], row: usize, rows: Range<usize>, columns: Range<usize>) -> Vec<T> {
    if columns.len() == row {
        return samples[rows.start * row..rows.end * row].to_vec();
    }
    let lines = samples.chunks_exact(row).skip(rows.start).take(rows.len());
    lines.flat_map(|line| &line[columns.clone()]).copied().collect()
}

/// For each output position, which inputs it sums and with what weights.
struct Taps<W> {
    /// First input and the range of its weights in `weights`.
    spans: Vec<(usize, Range<usize>)>,
    weights: Vec<W>,
}

impl Taps<f64> {
    /// `precompute_coeffs` of Pillow for the outputs `wanted` of `to`: the sums are normalized in the order they are
    /// added.
    fn new(from: usize, to: usize, wanted: Range<usize>, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let inverse = 1.0 / stretch;
        let mut taps = Taps { spans: Vec::with_capacity(wanted.len()), weights: Vec::new() };
        for index in wanted {
            let center = (index as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0);
            let end = ((center + support + 0.5) as i64).min(from as i64);
            let start = taps.weights.len();
            let mut sum = 0.0;
            for offset in 0..(end - first).max(0) {
                let weight = filter.weight((offset as f64 + first as f64 - center + 0.5) * inverse);
                taps.weights.push(weight);
                sum += weight;
            }
            if sum != 0.0 {
                taps.weights[start..].iter_mut().for_each(|weight| *weight /= sum);
            }
            taps.spans.push((first as usize, start..taps.weights.len()));
        }
        taps
    }

    /// Weights rounded to 22 bits, halves away from zero.
    fn fixed_point(self) -> Taps<i32> {
        let round = |weight: f64| {
            let half = if weight < 0.0 { -0.5 } else { 0.5 };
            (weight * f64::from(1 << PRECISION_BITS) + half) as i32
        };
        Taps { spans: self.spans, weights: self.weights.into_iter().map(round).collect() }
    }
}

impl<W> Taps<W> {
    /// The inputs that any output uses.
    fn used(&self) -> Range<usize> {
        let first = self.spans.first().map_or(0, |(first, _)| *first);
        let end = self.spans.last().map_or(0, |(first, weights)| first + weights.len());
        first..end
    }
}

/// Resamples bytes. Bit-equal to Pillow for every band of L, LA, RGB, RGBA and CMYK (alpha is the caller's business).
/// Gives `window.width * window.height * channels` bytes, the same ones on every instruction set.
///
/// # Panics
/// When the lengths in `picture` contradict each other.
pub fn resize_u8(isa: Isa, picture: &Resize<'_, u8>, filter: Filter) -> Vec<u8> {
    let height = picture.height();
    let size = picture.channels;
    let row = picture.width * size;
    let vertical = (picture.new_height != height)
        .then(|| Taps::new(height, picture.new_height, picture.rows(), filter).fixed_point());
    let rows = vertical.as_ref().map_or(picture.rows(), Taps::used);
    let narrow = if picture.new_width == picture.width {
        let columns = picture.columns();
        if columns.len() == picture.width
            && let Some(taps) = &vertical
        {
            let samples = &picture.samples[rows.start * row..];
            return isa.run(Vertical { samples, row, first_row: rows.start, taps });
        }
        cut(picture.samples, row, rows.clone(), columns.start * size..columns.end * size)
    } else {
        let taps = &Taps::new(picture.width, picture.new_width, picture.columns(), filter).fixed_point();
        let wide = &picture.samples[rows.start * row..rows.end * row];
        let mut narrow = vec![0; rows.len() * picture.window.width * size];
        match size {
            1 => isa.run(Horizontal::<1> { wide, row, taps, narrow: &mut narrow }),
            2 => isa.run(Horizontal::<2> { wide, row, taps, narrow: &mut narrow }),
            3 => isa.run(Horizontal::<3> { wide, row, taps, narrow: &mut narrow }),
            _ => isa.run(Horizontal::<4> { wide, row, taps, narrow: &mut narrow }),
        }
        narrow
    };
    match vertical {
        Some(taps) => {
            let row = picture.window.width * size;
            isa.run(Vertical { samples: &narrow, row, first_row: rows.start, taps: &taps })
        }
        None => narrow,
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The horizontal pass over `wide`, rows of `row` bytes, `C` channels.
///
/// Thirty-two rows at a time are turned so that a column is one vector: lanes are rows then, and one weight meets one
/// vector without any shuffling in the sums. Channels come one after the other, which keeps the sums in registers.
struct Horizontal<'a, const C: usize> {
    wide: &'a [u8],
    row: usize,
    taps: &'a Taps<i32>,
    narrow: &'a mut [u8],
}

/// Lanes of the sums: rows in the horizontal pass, columns in the vertical one.
const STRIP: usize = 32;

/// Words of eight bytes that are turned in one go.
const WORDS: usize = 8;

impl<const C: usize> Kernel for Horizontal<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let new_row = self.taps.spans.len() * C;
        let mut turned = vec![[0_u8; STRIP]; self.row.next_multiple_of(8 * WORDS)];
        let mut turned_out = vec![[0_u8; STRIP]; new_row.next_multiple_of(8)];
        for (block, out) in self.wide.chunks(STRIP * self.row).zip(self.narrow.chunks_mut(STRIP * new_row)) {
            turn_rows(block, self.row, &mut turned);
            for ((first, range), out) in self.taps.spans.iter().zip(turned_out.as_chunks_mut::<C>().0) {
                let weights = &self.taps.weights[range.clone()];
                let inputs = turned[first * C..(first + weights.len()) * C].as_chunks::<C>().0;
                for (channel, out) in out.iter_mut().enumerate() {
                    let mut sums = [HALF; STRIP];
                    for (&weight, input) in weights.iter().zip(inputs) {
                        for (sum, &sample) in sums.iter_mut().zip(&input[channel]) {
                            *sum += weight * i32::from(sample);
                        }
                    }
                    for (value, &sum) in out.iter_mut().zip(&sums) {
                        *value = clip(sum);
                    }
                }
            }
            turn_back(&turned_out, out, new_row);
        }
    }
}

/// `turned[column][lane]` is `block[lane][column]`; lanes without a row keep what they had.
#[inline(always)]
fn turn_rows(block: &[u8], row: usize, turned: &mut [[u8; STRIP]]) {
    for (group, rows) in block.chunks(8 * row).enumerate() {
        for (start, columns) in turned.chunks_exact_mut(8 * WORDS).enumerate() {
            let mut words = [[0_u64; WORDS]; 8];
            for (words, row) in words.iter_mut().zip(rows.chunks_exact(row)) {
                match row[start * 8 * WORDS..].first_chunk::<{ 8 * WORDS }>() {
                    Some(bytes) => *words = to_words(bytes),
                    None => {
                        let rest = &row[start * 8 * WORDS..];
                        let mut bytes = [0; 8 * WORDS];
                        bytes[..rest.len()].copy_from_slice(rest);
                        *words = to_words(&bytes);
                    }
                }
            }
            turn_squares(&mut words);
            for (word, columns) in columns.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                for (column, lanes) in columns.iter_mut().enumerate() {
                    lanes[8 * group..8 * group + 8].copy_from_slice(&words[column][word].to_le_bytes());
                }
            }
        }
    }
}

#[inline(always)]
fn to_words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// The way back: rows of `row` bytes in `block`, thirty-two or (in the last block) fewer.
#[inline(always)]
fn turn_back(turned: &[[u8; STRIP]], block: &mut [u8], row: usize) {
    for (start, columns) in turned.chunks_exact(8).enumerate() {
        let mut words = [[0_u64; STRIP / 8]; 8];
        for (words, lanes) in words.iter_mut().zip(columns) {
            *words = to_words(lanes);
        }
        turn_squares(&mut words);
        for (lane, out) in block.chunks_exact_mut(row).enumerate() {
            let bytes = words[lane % 8][lane / 8].to_le_bytes();
            let out = &mut out[start * 8..];
            match out.first_chunk_mut::<8>() {
                Some(out) => *out = bytes,
                None => out.copy_from_slice(&bytes[..out.len()]),
            }
        }
    }
}

/// Transposes `W` squares of 8 x 8 bytes side by side: byte r of word j becomes byte j of word r. Three rounds of
/// swapping 1, 2 and 4-byte halves between pairs of words.
#[inline(always)]
fn turn_squares<const W: usize>(words: &mut [[u64; W]; 8]) {
    const MASKS: [u64; 3] = [0x00FF_00FF_00FF_00FF, 0x0000_FFFF_0000_FFFF, 0x0000_0000_FFFF_FFFF];
    for (round, mask) in MASKS.into_iter().enumerate() {
        let distance = 1 << round;
        for pairs in words.chunks_exact_mut(2 * distance) {
            let (upper, lower) = pairs.split_at_mut(distance);
            for (a, b) in upper.iter_mut().zip(lower) {
                for (a, b) in a.iter_mut().zip(b) {
                    let swap = ((*a >> (8 * distance)) ^ *b) & mask;
                    *a ^= swap << (8 * distance);
                    *b ^= swap;
                }
            }
        }
    }
}

/// The vertical pass over rows of `row` bytes; `samples` begins with row `first_row` of the picture that `taps` speak
/// of. Strips of columns keep their sums in registers.
struct Vertical<'a> {
    samples: &'a [u8],
    row: usize,
    first_row: usize,
    taps: &'a Taps<i32>,
}

impl Kernel for Vertical<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<u8> {
        let mut out = vec![0; self.taps.spans.len() * self.row];
        for (out_row, (first, range)) in out.chunks_exact_mut(self.row).zip(&self.taps.spans) {
            let weights = &self.taps.weights[range.clone()];
            let inputs = &self.samples[(first - self.first_row) * self.row..];
            let (strips, rest) = out_row.as_chunks_mut::<STRIP>();
            let done = strips.len() * STRIP;
            for (index, strip) in strips.iter_mut().enumerate() {
                let mut sums = [HALF; STRIP];
                for (&weight, input) in weights.iter().zip(inputs.chunks_exact(self.row)) {
                    let input = &input[index * STRIP..(index + 1) * STRIP];
                    for (sum, &sample) in sums.iter_mut().zip(input) {
                        *sum += weight * i32::from(sample);
                    }
                }
                for (value, &sum) in strip.iter_mut().zip(&sums) {
                    *value = clip(sum);
                }
            }
            for (index, value) in rest.iter_mut().enumerate() {
                let column = inputs.iter().skip(done + index).step_by(self.row);
                let terms = weights.iter().zip(column).map(|(&weight, &sample)| weight * i32::from(sample));
                *value = clip(HALF + terms.sum::<i32>());
            }
        }
        out
    }
}

/// Resamples 16-bit gray as Pillow does: f64 sums, each pass rounded half away from zero and clipped.
///
/// # Panics
/// When the lengths in `picture` contradict each other.
pub fn resize_u16(picture: &Resize<'_, u16>, filter: Filter) -> Vec<u16> {
    let store = |sum: f64| (if sum >= 0.0 { sum + 0.5 } else { sum - 0.5 }).clamp(0.0, 65_535.0) as u16;
    resize_in_f64(picture, filter, store)
}

/// Resamples f32 gray as Pillow does: f64 sums, f32 between the passes.
///
/// # Panics
/// When the lengths in `picture` contradict each other.
pub fn resize_f32(picture: &Resize<'_, f32>, filter: Filter) -> Vec<f32> {
    resize_in_f64(picture, filter, |sum| sum as f32)
}

fn resize_in_f64<T: Copy + Into<f64>>(picture: &Resize<'_, T>, filter: Filter, store: impl Fn(f64) -> T) -> Vec<T> {
    let height = picture.height();
    assert_eq!(picture.channels, 1, "resize: wide samples have one channel");
    let vertical =
        (picture.new_height != height).then(|| Taps::new(height, picture.new_height, picture.rows(), filter));
    let rows = vertical.as_ref().map_or(picture.rows(), Taps::used);
    let narrow = if picture.new_width == picture.width {
        cut(picture.samples, picture.width, rows.clone(), picture.columns())
    } else {
        let taps = &Taps::new(picture.width, picture.new_width, picture.columns(), filter);
        let sum = |row: &[T], (first, range): &(usize, Range<usize>)| {
            let weights = taps.weights[range.clone()].iter();
            store(weights.zip(&row[*first..]).fold(0.0, |sum, (weight, &sample)| sum + sample.into() * weight))
        };
        let lines = picture.samples.chunks_exact(picture.width).skip(rows.start).take(rows.len());
        lines.flat_map(|line| taps.spans.iter().map(move |span| sum(line, span))).collect()
    };
    let Some(taps) = vertical else {
        return narrow;
    };
    let row = picture.window.width;
    let mut out = Vec::with_capacity(row * picture.window.height);
    for (first, range) in &taps.spans {
        for x in 0..row {
            let column = narrow[(first - rows.start) * row + x..].iter().step_by(row);
            let weights = taps.weights[range.clone()].iter();
            out.push(store(weights.zip(column).fold(0.0, |sum, (weight, &sample)| sum + sample.into() * weight)));
        }
    }
    out
}

/// Picks the nearest pixel. The coordinate is a running sum of the step, as in Pillow: a product would differ where it
/// is a whole number.
///
/// # Panics
/// When the lengths in `picture` contradict each other.
pub fn resize_nearest(picture: &Resize<'_, u8>) -> Vec<u8> {
    let (height, size) = (picture.height(), picture.channels);
    let columns = nearest_positions(picture.width, picture.new_width, picture.columns());
    let mut out = Vec::with_capacity(picture.window.width * picture.window.height * size);
    for y in nearest_positions(height, picture.new_height, picture.rows()) {
        let row = &picture.samples[y * picture.width * size..][..picture.width * size];
        for &x in &columns {
            out.extend_from_slice(&row[x * size..(x + 1) * size]);
        }
    }
    out
}

fn nearest_positions(from: usize, to: usize, wanted: Range<usize>) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let mut position = step * 0.5;
    let next = |_| {
        let index = (position as usize).min(from - 1);
        position += step;
        index
    };
    (0..wanted.end).map(next).skip(wanted.start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The method as Pillow writes it, pixel by pixel: nothing turned, nothing left out.
    fn slow(picture: &Resize<'_, u8>, filter: Filter) -> Vec<u8> {
        let (height, channels) = (picture.height(), picture.channels);
        let pass =
            |samples: &[u8], from: usize, to: usize, at: &dyn Fn(usize, usize, usize) -> usize, others: usize| {
                let scale = from as f64 / to as f64;
                let stretch = scale.max(1.0);
                let mut out = vec![0; to * others * channels];
                for other in 0..others {
                    for index in 0..to {
                        let center = (index as f64 + 0.5) * scale;
                        let first = ((center - filter.support() * stretch + 0.5) as i64).max(0) as usize;
                        let end = ((center + filter.support() * stretch + 0.5) as i64).min(from as i64) as usize;
                        let raw: Vec<f64> = (first..end)
                            .map(|j| {
                                filter.weight(((j - first) as f64 + first as f64 - center + 0.5) * (1.0 / stretch))
                            })
                            .collect();
                        let total = raw.iter().fold(0.0, |a, b| a + b);
                        for channel in 0..channels {
                            let mut sum = 1_i64 << 21;
                            for (j, weight) in raw.iter().enumerate() {
                                let weight = weight / total * 4_194_304.0;
                                let weight = (weight + if weight < 0.0 { -0.5 } else { 0.5 }) as i64;
                                sum += weight * i64::from(samples[at(other, first + j, from) * channels + channel]);
                            }
                            out[at(other, index, to) * channels + channel] = (sum >> 22).clamp(0, 255) as u8;
                        }
                    }
                }
                out
            };
        let along_row = |row: usize, x: usize, width: usize| row * width + x;
        let mut samples = picture.samples.to_vec();
        if picture.width != picture.new_width {
            samples = pass(&samples, picture.width, picture.new_width, &along_row, height);
        }
        if height != picture.new_height {
            let width = picture.new_width;
            samples = pass(&samples, height, picture.new_height, &|x, y, _| y * width + x, width);
        }
        samples
    }

    fn whole<T>(samples: &[T], width: usize, channels: usize, [new_width, new_height]: [usize; 2]) -> Resize<'_, T> {
        let window = Window { left: 0, top: 0, width: new_width, height: new_height };
        Resize { samples, width, channels, new_width, new_height, window }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 12345_u32;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if state >> 30 == 0 { 255 } else { (state >> 13) as u8 }
            })
            .collect()
    }

    #[test]
    fn equals_the_slow_method_on_every_shape() {
        let sizes = [(1, 1), (1, 7), (9, 1), (17, 16), (33, 15), (64, 48), (5, 100)];
        let new_sizes = [(1, 1), (3, 2), (16, 16), (17, 5), (40, 70)];
        for filter in [Filter::Box, Filter::Bilinear, Filter::Hamming, Filter::Bicubic, Filter::Lanczos] {
            for channels in 1..=4 {
                for (width, height) in sizes {
                    let samples = noise(width * height * channels);
                    for (new_width, new_height) in new_sizes {
                        let picture = whole(&samples, width, channels, [new_width, new_height]);
                        let context = format!("{filter:?} {channels} {width}x{height} -> {new_width}x{new_height}");
                        let want = slow(&picture, filter);
                        for isa in Isa::present() {
                            assert_eq!(resize_u8(isa, &picture, filter), want, "{} {context}", isa.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_unchanged_size_copies() {
        let samples = noise(5 * 4 * 3);
        let picture = whole(&samples, 5, 3, [5, 4]);
        assert_eq!(resize_u8(Isa::best(), &picture, Filter::Lanczos), samples);
        assert_eq!(resize_nearest(&picture), samples);
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        for value in [0, 1, 127, 254, 255] {
            let samples = vec![value; 37 * 29];
            let picture = whole(&samples, 37, 1, [11, 50]);
            for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
                assert!(resize_u8(Isa::best(), &picture, filter).iter().all(|&v| v == value), "{filter:?} {value}");
            }
        }
    }

    #[test]
    fn wide_samples_agree_with_bytes_up_to_rounding() {
        let bytes = noise(40 * 30);
        let wide: Vec<u16> = bytes.iter().map(|&v| v.into()).collect();
        let floats: Vec<f32> = bytes.iter().map(|&v| v.into()).collect();
        let want = resize_u8(Isa::best(), &whole(&bytes, 40, 1, [13, 21]), Filter::Bilinear);
        let got = resize_u16(&whole(&wide, 40, 1, [13, 21]), Filter::Bilinear);
        let float = resize_f32(&whole(&floats, 40, 1, [13, 21]), Filter::Bilinear);
        for index in 0..want.len() {
            assert!(got[index].abs_diff(want[index].into()) <= 1);
            assert!((float[index] - f32::from(want[index])).abs() <= 1.01);
        }
    }

    #[test]
    fn nearest_takes_the_running_sum() {
        let samples = noise(7);
        let picture = whole(&samples, 7, 1, [3, 1]);
        assert_eq!(resize_nearest(&picture), [samples[1], samples[3], samples[5]]);
    }

    #[test]
    fn a_window_is_the_same_part_of_the_whole() {
        let (width, height) = (23, 31);
        for channels in 1..=4 {
            let samples = noise(width * height * channels);
            let wide: Vec<u16> = samples.iter().take(width * height).map(|&v| u16::from(v) * 200).collect();
            for new in [[23, 31], [23, 40], [50, 31], [11, 9], [60, 70]] {
                let all = whole(&samples, width, channels, new);
                for (left, top, right, bottom) in [(0, 0, 1, 1), (3, 2, 5, 4), (1, 0, 0, 1)] {
                    let window = Window { left, top, width: new[0] - left - right, height: new[1] - top - bottom };
                    let part = Resize { window, ..all };
                    let row = new[0] * channels;
                    let columns = left * channels..(new[0] - right) * channels;
                    let want =
                        cut(&resize_u8(Isa::best(), &all, Filter::Bicubic), row, top..new[1] - bottom, columns.clone());
                    assert_eq!(resize_u8(Isa::best(), &part, Filter::Bicubic), want, "{channels} {new:?} {window:?}");
                    let want = cut(&resize_nearest(&all), row, top..new[1] - bottom, columns);
                    assert_eq!(resize_nearest(&part), want, "{channels} {new:?} {window:?}");
                    let all = whole(&wide, width, 1, new);
                    let part = Resize { window, ..all };
                    let want = resize_u16(&all, Filter::Bilinear);
                    let want = cut(&want, new[0], top..new[1] - bottom, left..new[0] - right);
                    assert_eq!(resize_u16(&part, Filter::Bilinear), want, "{new:?} {window:?}");
                }
            }
        }
    }
}
