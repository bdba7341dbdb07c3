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
//! panels. Errors are those of sums of the same length, some two to three times those of the plain product.
//!
//! A row's result depends on its neighbor in the pair, in the last bits: pairs are rows 2i and 2i + 1 of a sequence,
//! whatever thread has them and whatever sequences are computed together. An odd last row is paired with zeros.

use super::tile::{Epilogue, Prefetch, Tile, run_tile};
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
/// Longest part of k that is cut in halves at once: sums of A and B and the panels have to stay in the second-level cache.
const LONGEST_PART: usize = 384;
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
    if tokens >= LEAST_TOKENS && halved > 0 && weights.k().is_multiple_of(2) && a.count > 0 {
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

/// A part of k that is cut in halves.
#[derive(Clone, Copy)]
struct Part {
    /// The chunk of the packed weights, and where in it the part begins.
    chunk: usize,
    start: usize,
    /// Length of one half.
    half: usize,
    first: bool,
    last: bool,
}

/// Distance of the rows of a sum of A.
fn sum_stride(half: usize) -> usize {
    half.next_multiple_of(LANES) + LANES
}

/// The sums of B for one pair of panels, then those of A: `[4][k][panel]` and `[4][pairs][k]`.
struct Sums<'a> {
    b: &'a mut [f32],
    a: &'a mut [f32],
}

impl Kernel for SevenInScratch<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let SevenInScratch { driver, scratch } = self;
        let (b, a) = scratch.split_at_mut(4 * LONGEST_PART / 2 * driver.linear.weights.panel_width());
        let mut sums = Sums { b, a };
        let pairs = driver.pairs();
        for start in (0..pairs).step_by(PAIRS_OF_A_PASS) {
            let group = start..(start + PAIRS_OF_A_PASS).min(pairs);
            driver.for_each_part(|part| driver.part(s, part, group.clone(), &mut sums));
        }
    }
}

impl Seven<'_> {
    fn pairs_of_one(&self) -> usize {
        self.here.div_ceil(2)
    }

    fn pairs(&self) -> usize {
        self.a.count / self.here * self.pairs_of_one()
    }

    fn scratch_length(&self) -> usize {
        let of_b = 4 * LONGEST_PART / 2 * self.linear.weights.panel_width();
        of_b + 4 * self.pairs().min(PAIRS_OF_A_PASS) * sum_stride(LONGEST_PART / 2)
    }

    /// Calls `work` for every part of k, in order.
    #[inline(always)]
    fn for_each_part(&self, mut work: impl FnMut(Part)) {
        let weights = &self.linear.weights;
        for chunk in 0..weights.chunks() {
            let length = weights.chunk_length(chunk);
            let most = length.div_ceil(length.div_ceil(LONGEST_PART)).next_multiple_of(2 * LANES).min(LONGEST_PART);
            for start in (0..length).step_by(most) {
                let here = most.min(length - start);
                let first = chunk == 0 && start == 0;
                let last = chunk + 1 == weights.chunks() && start + here == length;
                work(Part { chunk, start, half: here / 2, first, last });
            }
        }
    }

    /// The first row of a pair, and whether it has a second one.
    #[inline(always)]
    fn rows_of(&self, pair: usize) -> (usize, bool) {
        let (sequence, in_it) = (pair / self.pairs_of_one(), pair % self.pairs_of_one());
        (sequence * self.here + 2 * in_it, 2 * in_it + 1 < self.here)
    }

    /// Adds the product of one part of k to the rows of a group of pairs.
    #[inline(always)]
    fn part<S: Simd>(&self, s: S, part: Part, group: Range<usize>, sums: &mut Sums) {
        self.sum_rows(s, part, group.clone(), sums.a);
        let panels = self.halved / 2 / self.linear.weights.panel_width();
        for panel in 0..panels {
            let [left, right] = [panel, panels + panel].map(|panel| self.panel(part, panel));
            s.vectorize(SumPanels { left, right, out: sums.b });
            let mut pair = group.start;
            let tiles = self.tiles(group.clone());
            let mut tile = 0;
            while pair < group.end {
                // Tiles do not reach over the end of a sequence.
                let of_sequence = self.pairs_of_one() - pair % self.pairs_of_one();
                let end = (pair + of_sequence).min(group.end);
                let count = (end - pair).div_ceil(S::TILE_ROWS);
                for left_over in (1..=count).rev() {
                    let rows = (end - pair).div_ceil(left_over);
                    let place = TilePlace { pair, rows, in_group: pair - group.start, group: group.len(), panel };
                    self.tile(s, part, place, sums, (tile, tiles));
                    pair += rows;
                    tile += 1;
                }
            }
        }
    }

    /// About how many tiles high a group is: the shares of prefetching.
    #[inline(always)]
    fn tiles(&self, group: Range<usize>) -> usize {
        group.len().div_ceil(self.linear.weights.panel_vectors() * 6)
    }

    /// The weights of one panel in one part: both halves, [2 × half][panel].
    #[inline(always)]
    fn panel(&self, part: Part, panel: usize) -> &[f32] {
        let width = self.linear.weights.panel_width();
        &self.linear.weights.panel(part.chunk, panel)[part.start * width..][..2 * part.half * width]
    }

    /// S1 to S4 of a group of pairs, [4][pairs][half].
    #[inline(always)]
    fn sum_rows<S: Simd>(&self, s: S, part: Part, group: Range<usize>, out: &mut [f32]) {
        let stride = sum_stride(part.half);
        let column = part.chunk * self.linear.weights.chunk() + part.start;
        for pair in group.clone() {
            let (row, second) = self.rows_of(pair);
            let even = &self.a.row(row)[column..][..2 * part.half];
            let odd = if second { &self.a.row(row + 1)[column..][..2 * part.half] } else { &[] };
            let at = (pair - group.start) * stride;
            s.vectorize(SumRows { even, odd, out: &mut out[at..], distance: group.len() * stride });
        }
    }

    /// The four tiles of C that belong to some pairs of rows and a pair of panels.
    #[inline(always)]
    fn tile<S: Simd>(&self, s: S, part: Part, place: TilePlace, sums: &Sums, (index, count): (usize, usize)) {
        let weights = &self.linear.weights;
        let (width, vectors, half) = (weights.panel_width(), weights.panel_vectors(), part.half);
        let (row, _) = self.rows_of(place.pair);
        let (_, last_is_whole) = self.rows_of(place.pair + place.rows - 1);
        let odd_rows = if last_is_whole { place.rows } else { place.rows - 1 };
        let panels = self.halved / 2 / width;
        let [left, right] = [place.panel, panels + place.panel].map(|panel| self.panel(part, panel));
        let quarter = half * width;
        let t = |i: usize| sums.b[i * quarter..][..quarter].as_ptr();
        let stride = sum_stride(half);
        let of_sum = |i: usize| sums.a[(i * place.group + place.in_group) * stride..].as_ptr();
        let column = part.chunk * weights.chunk() + part.start;
        let of_row =
            |row: usize, half_of_k: usize| self.a.data[row * self.a.stride + column + half_of_k * half..].as_ptr();
        let mut kept = [const { std::mem::MaybeUninit::<[f32; MOST_OF_A_TILE]>::uninit() }; 4];
        let [u1, u2, u3, p5] = kept.each_mut().map(|values| values.as_mut_ptr().cast::<f32>());
        let next = |i: usize| {
            // Each of four products asks for its share of a quarter of the next pair of panels.
            let base = if i < 2 { left } else { right }.as_ptr();
            Prefetch::of_next(
                base.wrapping_add(weights.chunk_length(part.chunk) * width + i % 2 * quarter),
                quarter,
                half,
                index,
                count,
            )
        };
        let inner =
            |a: *const f32, a_stride: usize, b: *const f32, start: *const f32, c: *mut f32, prefetch: Prefetch| Tile {
                a,
                a_stride,
                b,
                k: half,
                start,
                c,
                c_stride: width,
                columns: width,
                epilogue: Epilogue::PLAIN,
                prefetch,
            };
        let none = std::ptr::null::<f32>();
        let outer = |tile: Tile, row: usize, right: usize| {
            let column = place.panel * width + right * self.halved / 2;
            let c = self.c.wrapping_add(row * self.c_stride + column);
            Tile { c, c_stride: 2 * self.c_stride, epilogue: self.epilogue(part, column), ..tile }
        };
        let scratch = std::ptr::null_mut();
        let (rows, in_rows) = (place.rows, 2 * self.a.stride);
        // SAFETY: `gemm_tokens` checked that A has `count` rows of K and C as many of N values. The even rows of `rows`
        // pairs are there, the odd ones of `odd_rows`; the part lies within K; each quarter of a panel and each sum of B
        // holds half × panel values, each sum of A `half` values for each pair of the group; what is kept of a tile is
        // written by one product before the next reads it, and holds 12 rows of a panel. The bias is padded to whole
        // panels. Nobody else touches these rows of C.
        unsafe {
            let (b11, b21, b22) = (left.as_ptr(), left[quarter..].as_ptr(), right[quarter..].as_ptr());
            run_tile(s, rows, vectors, inner(of_row(row, 0), in_rows, b11, none, u1, next(0)));
            let c11 = inner(of_row(row, 1), in_rows, b21, u1, scratch, next(1));
            run_tile(s, rows, vectors, outer(c11, row, 0));
            run_tile(s, rows, vectors, inner(of_sum(1), stride, t(1), u1, u2, next(2)));
            run_tile(s, rows, vectors, inner(of_sum(2), stride, t(2), u2, u3, next(3)));
            if odd_rows > 0 {
                let c21 = inner(of_row(row + 1, 1), in_rows, t(3), u3, scratch, Prefetch::NONE);
                run_tile(s, odd_rows, vectors, outer(c21, row + 1, 0));
            }
            run_tile(s, rows, vectors, inner(of_sum(0), stride, t(0), none, p5, Prefetch::NONE));
            s.vectorize(AddTo { values: p5, to: [u2, u3], count: rows * width });
            if odd_rows > 0 {
                let c22 = Tile { k: 0, ..inner(none, 0, none, u3, scratch, Prefetch::NONE) };
                run_tile(s, odd_rows, vectors, outer(c22, row + 1, 1));
            }
            let c12 = inner(of_sum(3), stride, b22, u2, scratch, Prefetch::NONE);
            run_tile(s, rows, vectors, outer(c12, row, 1));
        }
    }

    #[inline(always)]
    fn epilogue(&self, part: Part, column: usize) -> Epilogue {
        let bias = &self.linear.bias;
        Epilogue {
            bias: if part.first && !bias.is_empty() { bias[column..].as_ptr() } else { std::ptr::null() },
            accumulate: !part.first || self.output == Output::Add,
            activation: match self.output {
                Output::Store(activation) if part.last => activation,
                _ => Activation::None,
            },
            row_scale: std::ptr::null(),
        }
    }
}

/// Values of the largest tile: 12 rows of 32 columns.
const MOST_OF_A_TILE: usize = 12 * 32;

/// Which tile.
#[derive(Clone, Copy)]
struct TilePlace {
    /// The first pair of rows, and how many pairs.
    pair: usize,
    rows: usize,
    /// The same pair, counted in its group, and the pairs of the group.
    in_group: usize,
    group: usize,
    /// The panel of the left half.
    panel: usize,
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

/// T1 = B12 - B11, T2 = B22 - T1, T3 = B22 - B12, T4 = B21 - T2 of a pair of panels.
struct SumPanels<'a> {
    left: &'a [f32],
    right: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for SumPanels<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let quarter = self.left.len() / 2;
        let (b11, b21) = self.left.split_at(quarter);
        let (b12, b22) = self.right.split_at(quarter);
        let (t1, rest) = self.out.split_at_mut(quarter);
        let (t2, rest) = rest.split_at_mut(quarter);
        let (t3, rest) = rest.split_at_mut(quarter);
        let t4 = &mut rest[..quarter];
        for at in (0..quarter).step_by(LANES) {
            let (b11, b12) = (s.load_slice(&b11[at..]), s.load_slice(&b12[at..]));
            let (b21, b22) = (s.load_slice(&b21[at..]), s.load_slice(&b22[at..]));
            let first = s.sub(b12, b11);
            let second = s.sub(b22, first);
            s.store_slice(&mut t1[at..], first);
            s.store_slice(&mut t2[at..], second);
            s.store_slice(&mut t3[at..], s.sub(b22, b12));
            s.store_slice(&mut t4[at..], s.sub(b21, second));
        }
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
            return vec![case(1, 33, 4, 65)];
        }
        vec![
            case(1, 33, 2, 64),
            case(3, 33, 70, 130),
            case(2, 50, 588, 192),
            case(1, 101, 192, 576),
            case(1, 35, 1600, 200),
            case(1, 40, 4304, 64),
            case(1, 577, 64, 128),
            case(2, 31, 64, 128),
            case(1, 40, 65, 128),
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
