//! The product of whole sequences with seven block products instead of eight: one level of Winograd's form of
//! Strassen's algorithm (V. Strassen, Gaussian elimination is not optimal, 1969; S. Winograd, 1971).
//!
//! A is cut into even and odd rows and, within a chunk of k, into a first and a second half; B into the halves of k and
//! of its columns. With A = [A11 A12; A21 A22], B = [B11 B12; B21 B22]:
//!
//! ```text
//! S1 = A21 + A22   S2 = S1 - A11    S3 = A11 - A21   S4 = A12 - S2
//! T1 = B12 - B11   T2 = B22 - T1    T3 = B22 - B12   T4 = B21 - T2
//! U1 = A11 B11     U2 = U1 + S2 T2  U3 = U2 + S3 T3  P5 = S1 T1
//! C11 = U1 + A12 B21   C12 = U2 + P5 + S4 B22   C21 = U3 + A22 T4   C22 = U3 + P5
//! ```
//!
//! The sums of C stay in the first-level cache, a tile of each quadrant at a time, and each product goes on where the one
//! before ended, so they cost next to nothing; those of A are made once a chunk, those of B once a chunk and pair of
//! panels. Errors are somewhat above those of the plain product; the tests bound them.
//!
//! A row's result depends on its neighbor in the pair, in the last bits: pairs are rows 2i and 2i + 1 of a sequence,
//! whatever thread has them and whatever sequences are computed together. An odd last row is paired with zeros.

use super::tile::{Epilogue, PanelSums, Prefetch, Tile, run_tile};
use super::{Driver, Linear, Output, check};
use crate::Buffer;
use crate::act::Activation;
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::vector::{Rows, RowsMut};
use std::ops::Range;

/// Rows of a sequence from which on seven products are faster than eight.
const LEAST_TOKENS: usize = 32;
/// Columns are taken in multiples of this: two halves of whole panels of every instruction set.
const COLUMN_STEP: usize = 64;
/// Inputs and outputs from which on seven products are faster: for shorter ones the sums weigh too much (bench/NOTES.md).
const LEAST_K: usize = 384;
const LEAST_N: usize = 384;
/// Pairs of rows of one pass over the weights.
const PAIRS_OF_A_PASS: usize = 256;

/// Rows that are tokens of sequences.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// The rows of all sequences, [sequences × `here`, K].
    pub rows: Rows<'a>,
    /// Tokens of a whole sequence, which decide how a product is computed.
    pub tokens: usize,
    /// Rows of each sequence that are here: all, or those of one member of a team (see [`crate::pool::Member::part`]).
    pub here: usize,
}

impl<'a> Sequences<'a> {
    /// Rows that have nothing to do with one another.
    pub fn of_one(rows: Rows<'a>) -> Self {
        Self { rows, tokens: 1, here: 1 }
    }
}

/// [`super::gemm`] for the rows of sequences.
///
/// # Panics
/// As [`super::gemm`], and where the rows are not those of sequences.
pub fn gemm_tokens(isa: Isa, a: Sequences, linear: &Linear, c: RowsMut, output: Output, scratch: &mut Buffer) {
    let Sequences { rows: a, tokens, here } = a;
    check(isa, a, linear, &c);
    let weights = &linear.weights;
    let halved = weights.n() / COLUMN_STEP * COLUMN_STEP;
    let mut plain =
        Driver { a, linear, c: c.data.as_mut_ptr(), c_stride: c.stride, panels: 0..weights.panels(), output };
    if tokens >= LEAST_TOKENS
        && halved >= LEAST_N
        && weights.k() >= LEAST_K
        && weights.k().is_multiple_of(2)
        && a.count > 0
    {
        assert!(a.count.is_multiple_of(here), "{} rows of sequences of {}", a.count, here);
        let driver = Seven { a, here, linear, c: plain.c, c_stride: c.stride, halved, output };
        scratch.ensure(driver.scratch_length());
        isa.run(SevenInScratch { driver, scratch });
        plain.panels.start = halved / weights.panel_width();
    }
    isa.run(plain);
}

/// The columns up to `halved` of a product.
struct Seven<'a> {
    a: Rows<'a>,
    /// Rows of each sequence.
    here: usize,
    linear: &'a Linear,
    c: *mut f32,
    c_stride: usize,
    halved: usize,
    output: Output,
}

struct SevenInScratch<'a> {
    driver: Seven<'a>,
    scratch: &'a mut [f32],
}

/// A chunk of k, which is cut in halves.
#[derive(Clone, Copy)]
struct Chunk {
    index: usize,
    /// Length of one half.
    half: usize,
}

/// Distance of the rows of a sum of A.
fn sum_stride(half: usize) -> usize {
    half.next_multiple_of(LANES) + LANES
}

/// Sums of B for this pair of panels and the next, `[2][4][k][panel]`, and those of A, `[4][pairs][k]`.
struct Sums<'a> {
    b: [&'a mut [f32]; 2],
    a: &'a mut [f32],
}

impl Kernel for SevenInScratch<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SevenInScratch { driver, scratch } = self;
        let (b, a) = scratch.split_at_mut(2 * driver.length_of_b());
        let (even, odd) = b.split_at_mut(driver.length_of_b());
        let mut sums = Sums { b: [even, odd], a };
        let pairs = driver.pairs();
        for start in (0..pairs).step_by(PAIRS_OF_A_PASS) {
            let group = start..(start + PAIRS_OF_A_PASS).min(pairs);
            for index in 0..driver.linear.weights.chunks() {
                driver.chunk_of_rows(s, driver.chunk(index), group.clone(), &mut sums);
            }
        }
    }
}

/// The tiles of a group of pairs, by their first pair and number of pairs. None reaches over the end of a sequence.
struct Tiles {
    pair: usize,
    end: usize,
    pairs_of_one: usize,
    highest: usize,
}

impl Iterator for Tiles {
    type Item = (usize, usize);
    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.pair == self.end {
            return None;
        }
        let left = (self.pairs_of_one - self.pair % self.pairs_of_one).min(self.end - self.pair);
        let rows = left.div_ceil(left.div_ceil(self.highest));
        self.pair += rows;
        Some((self.pair - rows, rows))
    }
}

impl Seven<'_> {
    fn pairs_of_one(&self) -> usize {
        self.here.div_ceil(2)
    }

    fn pairs(&self) -> usize {
        self.a.count / self.here * self.pairs_of_one()
    }

    /// Length of the sums of one pair of panels.
    fn length_of_b(&self) -> usize {
        4 * (self.linear.weights.chunk() / 2) * self.linear.weights.panel_width()
    }

    fn scratch_length(&self) -> usize {
        2 * self.length_of_b() + 4 * self.pairs().min(PAIRS_OF_A_PASS) * sum_stride(self.linear.weights.chunk() / 2)
    }

    fn chunk(&self, index: usize) -> Chunk {
        Chunk { index, half: self.linear.weights.chunk_length(index) / 2 }
    }

    /// The first row of a pair, and whether it has a second one.
    #[inline(always)]
    fn rows_of(&self, pair: usize) -> (usize, bool) {
        let (sequence, in_it) = (pair / self.pairs_of_one(), pair % self.pairs_of_one());
        (sequence * self.here + 2 * in_it, 2 * in_it + 1 < self.here)
    }

    /// Adds the product of one chunk of k to the rows of a group of pairs.
    #[inline(always)]
    fn chunk_of_rows<S: Simd>(&self, s: S, chunk: Chunk, group: Range<usize>, sums: &mut Sums) {
        self.sum_rows(s, chunk, group.clone(), sums.a);
        let panels = self.halved / 2 / self.linear.weights.panel_width();
        let tiles =
            || Tiles { pair: group.start, end: group.end, pairs_of_one: self.pairs_of_one(), highest: S::TILE_ROWS };
        let count = tiles().count();
        for panel in 0..panels {
            let [now, after] = &mut sums.b;
            if panel == 0 || !S::SPARE_REGISTERS {
                s.vectorize(AllPanelSums(self.sums_of(chunk, panel, now)));
            }
            let next = if panel + 1 < panels { self.sums_of(chunk, panel + 1, after) } else { PanelSums::NONE };
            for (tile, (pair, rows)) in tiles().enumerate() {
                let place = Place { chunk, pair, rows, group: &group, panel, tile, tiles: count, next };
                self.tile(s, place, now, sums.a);
            }
            sums.b.swap(0, 1);
        }
    }

    /// The sums of a pair of panels, to be made.
    #[inline(always)]
    fn sums_of(&self, chunk: Chunk, panel: usize, out: &mut [f32]) -> PanelSums {
        let (width, panels) = (self.linear.weights.panel_width(), self.halved / 2 / self.linear.weights.panel_width());
        let quarter = chunk.half * width;
        assert!(out.len() >= 4 * quarter, "room for four sums");
        PanelSums {
            left: self.panel(chunk, panel).as_ptr(),
            right: self.panel(chunk, panels + panel).as_ptr(),
            out: out.as_mut_ptr(),
            quarter,
            vectors: quarter / LANES,
            at_once: 0,
        }
    }

    /// The weights of one panel in one chunk: both halves, [2 × half][panel].
    #[inline(always)]
    fn panel(&self, chunk: Chunk, panel: usize) -> &[f32] {
        self.linear.weights.panel(chunk.index, panel)
    }

    /// S1 to S4 of a group of pairs, [4][pairs][half].
    #[inline(always)]
    fn sum_rows<S: Simd>(&self, s: S, chunk: Chunk, group: Range<usize>, out: &mut [f32]) {
        let stride = sum_stride(chunk.half);
        let column = chunk.index * self.linear.weights.chunk();
        for pair in group.clone() {
            let (row, second) = self.rows_of(pair);
            let even = &self.a.row(row)[column..][..2 * chunk.half];
            let odd = if second { &self.a.row(row + 1)[column..][..2 * chunk.half] } else { &[] };
            let at = (pair - group.start) * stride;
            s.vectorize(SumRows { even, odd, out: &mut out[at..], distance: group.len() * stride });
        }
    }

    /// The four tiles of C that belong to some pairs of rows and a pair of panels, of which the sums are `b`. On the way the
    /// tile makes its share of the next sums, and asks for its share of the panels after those.
    #[inline(always)]
    fn tile<S: Simd>(&self, s: S, place: Place, b: &[f32], a: &[f32]) {
        let (weights, chunk) = (&self.linear.weights, place.chunk);
        let (width, vectors, half) = (weights.panel_width(), weights.panel_vectors(), chunk.half);
        let (row, _) = self.rows_of(place.pair);
        let (_, last_is_whole) = self.rows_of(place.pair + place.rows - 1);
        let odd_rows = if last_is_whole { place.rows } else { place.rows - 1 };
        let panels = self.halved / 2 / width;
        let [left, right] = [place.panel, panels + place.panel].map(|panel| self.panel(chunk, panel));
        let quarter = half * width;
        let t = |i: usize| b[i * quarter..][..quarter].as_ptr();
        let stride = sum_stride(half);
        let of_sum = |i: usize| a[(i * place.group.len() + place.pair - place.group.start) * stride..].as_ptr();
        let column = chunk.index * weights.chunk();
        let of_row =
            |row: usize, half_of_k: usize| self.a.data[row * self.a.stride + column + half_of_k * half..].as_ptr();
        let mut kept = [const { std::mem::MaybeUninit::<Kept>::uninit() }; 4];
        let [u1, u2, u3, p5] = kept.each_mut().map(|values| values.as_mut_ptr().cast::<f32>());
        let ahead = |i: usize| {
            let panel = if i < 2 { left } else { right }.as_ptr();
            let start = panel.wrapping_add(2 * weights.chunk_length(chunk.index) * width + i % 2 * quarter);
            Prefetch::of_next(start, quarter, half, place.tile, place.tiles)
        };
        let share = (quarter / LANES).div_ceil(2 * place.tiles);
        let made = |i: usize| place.next.share((2 * place.tile + i) * share, share, half);
        let none = std::ptr::null::<f32>();
        let product = |a: *const f32, a_stride: usize, b: *const f32, start: *const f32, c: *mut f32| Tile {
            a,
            a_stride,
            b,
            k: half,
            start,
            c,
            c_stride: width,
            columns: width,
            epilogue: Epilogue::PLAIN,
            prefetch: Prefetch::NONE,
            sums: PanelSums::NONE,
        };
        let to_c = |row: usize, half_of_n: usize, tile: Tile| {
            let column = place.panel * width + half_of_n * self.halved / 2;
            let c = self.c.wrapping_add(row * self.c_stride + column);
            Tile { c, c_stride: 2 * self.c_stride, epilogue: self.epilogue(chunk, column), ..tile }
        };
        let nowhere = std::ptr::null_mut();
        let (rows, in_rows) = (place.rows, 2 * self.a.stride);
        let (b11, b21, b22) = (left.as_ptr(), left[quarter..].as_ptr(), right[quarter..].as_ptr());
        // SAFETY: `gemm_tokens` checked that A has `count` rows of K and C as many of N values. The even rows of `rows`
        // pairs are there, the odd ones of `odd_rows`; the chunk lies within K; each quarter of a panel and each sum of B
        // holds half × panel values, each sum of A `half` values for each pair of the group; what is kept of a tile is
        // written by one product before the next reads it, and holds 12 rows of a panel. The bias is padded to whole
        // panels. Nobody else touches these rows of C, and the next sums go to a buffer that no product of this pair of
        // panels reads.
        unsafe {
            let first = product(of_row(row, 0), in_rows, b11, none, u1);
            run_tile(s, rows, vectors, Tile { sums: made(0), ..first });
            let c11 = product(of_row(row, 1), in_rows, b21, u1, nowhere);
            run_tile(s, rows, vectors, to_c(row, 0, Tile { sums: made(1), ..c11 }));
            let second = product(of_sum(1), stride, t(1), u1, u2);
            run_tile(s, rows, vectors, Tile { prefetch: ahead(0), ..second });
            let third = product(of_sum(2), stride, t(2), u2, u3);
            run_tile(s, rows, vectors, Tile { prefetch: ahead(1), ..third });
            if odd_rows > 0 {
                let c21 = product(of_row(row + 1, 1), in_rows, t(3), u3, nowhere);
                run_tile(s, odd_rows, vectors, to_c(row + 1, 0, c21));
            }
            let fifth = product(of_sum(0), stride, t(0), none, p5);
            run_tile(s, rows, vectors, Tile { prefetch: ahead(2), ..fifth });
            s.vectorize(AddTo { values: p5, to: [u2, u3], count: rows * width });
            if odd_rows > 0 {
                let c22 = Tile { k: 0, ..product(none, 0, none, u3, nowhere) };
                run_tile(s, odd_rows, vectors, to_c(row + 1, 1, c22));
            }
            let c12 = product(of_sum(3), stride, b22, u2, nowhere);
            run_tile(s, rows, vectors, to_c(row, 1, Tile { prefetch: ahead(3), ..c12 }));
        }
    }

    #[inline(always)]
    fn epilogue(&self, chunk: Chunk, column: usize) -> Epilogue {
        let bias = &self.linear.bias;
        Epilogue {
            bias: if chunk.index == 0 && !bias.is_empty() { bias[column..].as_ptr() } else { std::ptr::null() },
            accumulate: chunk.index > 0 || self.output == Output::Add,
            activation: match self.output {
                Output::Store(activation) if chunk.index + 1 == self.linear.weights.chunks() => activation,
                _ => Activation::None,
            },
            row_scale: std::ptr::null(),
        }
    }
}

/// The largest tile, 12 rows of 32 columns, in whole cache lines.
#[repr(align(64))]
struct Kept {
    _values: [f32; 12 * 32],
}

/// Which tile.
#[derive(Clone, Copy)]
struct Place<'a> {
    chunk: Chunk,
    /// The first pair of rows, and how many pairs.
    pair: usize,
    rows: usize,
    /// The pairs of which the sums of A are there.
    group: &'a Range<usize>,
    /// The panel of the left half.
    panel: usize,
    /// Which of how many tiles above one another.
    tile: usize,
    tiles: usize,
    /// Sums of the next pair of panels, of which this tile makes a share.
    next: PanelSums,
}

/// S1 = A21 + A22, S2 = S1 - A11, S3 = A11 - A21, S4 = A12 - S2 of one pair of rows, `distance` apart.
struct SumRows<'a> {
    even: &'a [f32],
    /// Empty where the pair has no second row.
    odd: &'a [f32],
    out: &'a mut [f32],
    distance: usize,
}

impl Kernel for SumRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.even.len() / 2;
        let (a11, a12) = self.even.split_at(half);
        let (a21, a22) = if self.odd.is_empty() { (&[][..], &[][..]) } else { self.odd.split_at(half) };
        let mut targets = self.out.chunks_mut(self.distance);
        let mut target = || targets.next().expect("room for four sums");
        let (s1, s2, s3, s4) = (target(), target(), target(), target());
        for at in (0..half).step_by(LANES) {
            let (a11, a12) = (up_to_a_vector(s, a11, at), up_to_a_vector(s, a12, at));
            let (a21, a22) = (up_to_a_vector(s, a21, at), up_to_a_vector(s, a22, at));
            // The rows of the sums have room for whole vectors.
            let first = s.add(a21, a22);
            let second = s.sub(first, a11);
            s.store_slice(&mut s1[at..], first);
            s.store_slice(&mut s2[at..], second);
            s.store_slice(&mut s3[at..], s.sub(a11, a21));
            s.store_slice(&mut s4[at..], s.sub(a12, second));
        }
    }
}

/// Sixteen values from `at` on, zeros where there are none.
#[inline(always)]
fn up_to_a_vector<S: Simd>(s: S, values: &[f32], at: usize) -> S::F {
    match values.len().saturating_sub(at) {
        0 => s.splat(0.0),
        left @ 1..LANES => s.load_partial(&values[at..at + left], 0.0),
        _ => s.load_slice(&values[at..]),
    }
}

/// Makes all sums of a pair of panels at once.
struct AllPanelSums(PanelSums);

impl Kernel for AllPanelSums {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        // SAFETY: made only in `Seven::chunk_of_rows` from whole panels and a buffer with room for four quarters.
        unsafe { self.0.advance(s, self.0.vectors) };
    }
}

/// Adds a tile to two others.
struct AddTo {
    values: *const f32,
    to: [*mut f32; 2],
    count: usize,
}

impl Kernel for AddTo {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for at in (0..self.count).step_by(LANES) {
            for to in self.to {
                // SAFETY: made only in `Seven::tile`, for tiles of `count` values, a multiple of sixteen, written before.
                unsafe { s.store(to.add(at), s.add(s.load(to.add(at)), s.load(self.values.add(at)))) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{MatrixSource, PackedMatrix, gemm};
    use crate::vector::testing::uniform;

    struct Case {
        sequences: usize,
        tokens: usize,
        k: usize,
        n: usize,
    }

    fn cases() -> Vec<Case> {
        let case = |sequences, tokens, k, n| Case { sequences, tokens, k, n };
        if cfg!(miri) {
            return vec![case(1, 33, 384, 384)];
        }
        vec![
            case(1, 33, 386, 384),
            case(3, 33, 390, 450),
            case(2, 50, 588, 448),
            case(1, 101, 768, 576),
            case(1, 35, 1600, 400),
            case(1, 40, 4304, 384),
            case(1, 577, 384, 384),
            case(2, 31, 384, 384),
            case(1, 40, 385, 384),
        ]
    }

    #[test]
    fn seven_products_match_the_plain_one_on_every_set() {
        for Case { sequences, tokens, k, n } in cases() {
            let m = sequences * tokens;
            let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
            for output in [Output::Store(Activation::GeluErf), Output::Add] {
                let mut first: Option<Vec<f32>> = None;
                for isa in Isa::present() {
                    let linear = Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k)), Some(&bias));
                    let (mut plain, mut seven) = (vec![0.5; m * n], vec![0.5; m * n]);
                    gemm(isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut plain, m, n), output);
                    let (rows, out) = (Rows::new(&a, m, k), RowsMut::new(&mut seven, m, n));
                    let sequences = Sequences { rows, tokens, here: tokens };
                    gemm_tokens(isa, sequences, &linear, out, output, &mut Buffer::default());
                    let bound = 1.2e-5 * (k as f64).sqrt().max(1.0);
                    for (i, (got, want)) in seven.iter().zip(&plain).enumerate() {
                        let difference = f64::from((got - want).abs());
                        assert!(difference <= bound, "{} {m}x{k}x{n} at {i}: {got} {want}", isa.name());
                    }
                    let first = first.get_or_insert_with(|| seven.clone());
                    assert!(first == &seven, "{} {m}x{k}x{n} {output:?}", isa.name());
                }
            }
        }
    }

    #[test]
    fn parts_and_neighbors_change_nothing() {
        for Case { sequences, tokens, k, n } in cases() {
            let m = sequences * tokens;
            let (a, w) = (uniform(1, m * k), uniform(2, n * k));
            for isa in Isa::present() {
                let linear = Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k)), None);
                let mut scratch = Buffer::default();
                let output = Output::Store(Activation::None);
                let mut product = |start: usize, rows: usize, here: usize| {
                    let mut c = vec![f32::NAN; rows * n];
                    let part = Sequences { rows: Rows::new(&a[start * k..], rows, k), tokens, here };
                    gemm_tokens(isa, part, &linear, RowsMut::new(&mut c, rows, n), output, &mut scratch);
                    c
                };
                let all = product(0, m, tokens);
                for sequence in 0..sequences {
                    let mut start = 0;
                    for part in [2, tokens / 4 * 2, tokens] {
                        let rows = part.min(tokens - start);
                        let at = sequence * tokens + start;
                        let same = product(at, rows, rows) == all[at * n..(at + rows) * n];
                        assert!(same, "{} {m}x{k}x{n} sequence {sequence} rows {start}+{rows}", isa.name());
                        start += rows;
                    }
                }
            }
        }
    }
}
