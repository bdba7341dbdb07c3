//! Multi-head self-attention over fused QKV rows, in tiles: the N × N matrix never exists.
//!
//! Keys and values are first laid out as packed panels, so that both products run in the matrix micro-kernel. In a
//! team each member lays out its own tokens; one barrier a layer makes them visible, and two panel buffers used in
//! turn make a second barrier unnecessary.

mod backward;

pub use backward::{
    AttentionBackward, AttentionScratch, ProbeAttentionBackward, attention_backward, probe_attention_backward,
};

use crate::act::exp2;
use crate::gemm::{Epilogue, PanelSums, Prefetch, Tile, run_tile};
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::pool::{Member, Pool, SharedMut};
use crate::transpose::{SQUARE, transpose_square};
use crate::vector::{Dot, Rows, RowsMut};
use crate::{Buffer, act::Activation};

/// Query rows of one pass over the keys.
const QUERY_ROWS: usize = 24;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mask {
    /// All of its sequence, padding included.
    #[default]
    None,
    /// Itself and what comes before.
    Causal,
}

/// The shape of an attention over whole sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Tokens of each sequence.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head; the scale of the scores is head_dim^-1/2.
    pub head_dim: usize,
    /// Which keys a query sees.
    pub mask: Mask,
}

impl AttentionShape {
    /// Width of the rows of Q, of K, of V and of the result.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Tokens rounded up to whole vectors.
    fn padded(&self) -> usize {
        self.tokens.next_multiple_of(LANES)
    }

    fn value_columns(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Floats of the key and value panels of one sequence.
    pub fn exchange_length(&self) -> usize {
        let sizes = || {
            let keys = self.tokens.checked_next_multiple_of(LANES)?.checked_mul(self.head_dim)?;
            let values = self.head_dim.checked_next_multiple_of(LANES)?.checked_mul(self.tokens)?;
            keys.checked_add(values)?.checked_mul(self.heads)
        };
        sizes().expect("keys and values are smaller than the address space")
    }

    /// Floats of scratch that one member needs.
    pub fn scratch_length(&self) -> usize {
        QUERY_ROWS * (self.padded() + 1)
    }

    /// A number that differs for different shapes, for the team's check.
    ///
    /// # Panics
    /// Where the shape has more than 2^24 tokens, or more than 2^16 heads or values a head.
    fn claim(&self) -> u64 {
        assert!(self.tokens < 1 << 24 && self.heads < 1 << 16 && self.head_dim < 1 << 16, "the shape of a team");
        (self.tokens as u64) << 32 | (self.heads as u64) << 16 | self.head_dim as u64
    }
}

/// Key and value panels of one sequence, shared by a team.
#[derive(Clone, Copy)]
struct Panels {
    shape: AttentionShape,
    start: *mut f32,
}

impl Panels {
    /// Keys of a head, for tokens `16 block..`: [head_dim][16].
    fn keys(&self, head: usize, block: usize) -> *mut f32 {
        let at = (head * self.shape.padded() / LANES + block) * self.shape.head_dim * LANES;
        self.start.wrapping_add(at)
    }

    /// Values of a head, for columns `16 block..`: [tokens][16].
    fn values(&self, head: usize, block: usize) -> *mut f32 {
        let keys = self.shape.heads * self.shape.padded() * self.shape.head_dim;
        let at = (head * self.shape.value_columns() / LANES + block) * self.shape.tokens * LANES;
        self.start.wrapping_add(keys + at)
    }

    /// Lays out the keys and values of the tokens from `first` on. `rows`: [tokens, 3 D].
    ///
    /// # Safety
    /// The panels hold `exchange_length` floats, and nobody else accesses these tokens' part of them meanwhile.
    unsafe fn put(&self, first: usize, rows: Rows) {
        let mut i = 0;
        while i < rows.count {
            let token = first + i;
            // Whole squares of tokens are in one block of sixteen, since it is a multiple of their side.
            let count = if token.is_multiple_of(SQUARE) && i + SQUARE <= rows.count { SQUARE } else { 1 };
            for head in 0..self.shape.heads {
                // SAFETY: as the caller vouches.
                unsafe {
                    self.put_keys(token, rows.rows(i, count), head);
                    (0..count).for_each(|at| self.put_values(token + at, rows.row(i + at), head));
                }
            }
            i += count;
        }
    }

    /// # Safety
    /// That of [`Panels::put`]; `rows` is one row, or [`SQUARE`] rows of tokens in one block.
    #[inline(always)]
    unsafe fn put_keys(&self, token: usize, rows: Rows, head: usize) {
        let AttentionShape { head_dim, .. } = self.shape;
        let column = self.shape.width() + head * head_dim;
        let target = self.keys(head, token / LANES).wrapping_add(token % LANES);
        let squares = if rows.count == SQUARE { head_dim / SQUARE * SQUARE } else { 0 };
        let keys = &rows.data[column..][..(rows.count - 1) * rows.stride + head_dim];
        for d in (0..squares).step_by(SQUARE) {
            let from = (keys[d..].as_ptr(), rows.stride);
            // SAFETY: d + 4 <= head_dim in each of the four rows, and these are the tokens' lanes of the key panel.
            unsafe { transpose_square(from, (target.add(d * LANES), LANES)) };
        }
        for at in 0..rows.count {
            for d in squares..head_dim {
                // SAFETY: d < head_dim and the lane is this token's, inside the key panel.
                unsafe { *target.add(d * LANES + at) = keys[at * rows.stride + d] };
            }
        }
    }

    /// # Safety
    /// That of [`Panels::put`].
    #[inline(always)]
    unsafe fn put_values(&self, token: usize, row: &[f32], head: usize) {
        let AttentionShape { head_dim, .. } = self.shape;
        let value = &row[2 * self.shape.width() + head * head_dim..][..head_dim];
        for (block, part) in value.chunks(LANES).enumerate() {
            let target = self.values(head, block).wrapping_add(token * LANES);
            if let Ok(part) = <&[f32; LANES]>::try_from(part) {
                // SAFETY: the sixteen floats at this token are its own part of the value panel. Their number is known
                // here, so this is a few moves and no call.
                unsafe { target.cast::<[f32; LANES]>().write(*part) };
            } else {
                // SAFETY: as above, for the last, narrower part.
                unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), target, part.len()) };
            }
        }
    }
}

/// Scores to unnormalized probabilities 2^(scale (s - max)); those from `visible` on become zero. Gives 1/Σ.
#[inline(always)]
fn softmax_row<S: Simd>(s: S, line: &mut [f32], visible: usize, scale: f32) -> f32 {
    line[visible..].fill(f32::NEG_INFINITY);
    let mut largest = s.splat(f32::NEG_INFINITY);
    for chunk in line.chunks_exact(LANES) {
        largest = s.max(s.load_slice(chunk), largest);
    }
    let shift = s.splat(-s.largest(largest) * scale);
    let mut sum = s.splat(0.0);
    for chunk in line.chunks_exact_mut(LANES) {
        let p = exp2(s, s.fma(s.load_slice(chunk), s.splat(scale), shift));
        sum = s.add(sum, p);
        s.store_slice(chunk, p);
    }
    1.0 / s.sum(sum)
}

/// Scores, probabilities and output of some queries of one sequence.
struct Queries<'a, 'b> {
    panels: Panels,
    /// Fused rows of these queries.
    qkv: Rows<'a>,
    /// Position of the first query in its sequence.
    first: usize,
    out: RowsMut<'b>,
    scratch: &'a mut [f32],
    /// Added to the raw scores of every key, [padded]; empty for nothing.
    bias: &'a [f32],
}

impl Kernel for Queries<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut row = 0;
        while row < self.qkv.count {
            let count = QUERY_ROWS.min(self.qkv.count - row);
            for head in 0..self.panels.shape.heads {
                self.scores(s, row, count, head);
                self.softmax(s, row, count);
                self.weighted_values(s, row, count, head);
            }
            row += count;
        }
    }
}

impl Queries<'_, '_> {
    /// Raw scores q·k of `count` queries with every key into the scratch, [count][padded].
    #[inline(always)]
    fn scores<S: Simd>(&mut self, s: S, row: usize, count: usize, head: usize) {
        let shape = self.panels.shape;
        let stride = shape.padded();
        for block in 0..stride / LANES {
            self.tiles(s, count, |queries, at, rows| Tile {
                a: queries.qkv.data[(row + at) * queries.qkv.stride + head * shape.head_dim..].as_ptr(),
                a_stride: queries.qkv.stride,
                b: queries.panels.keys(head, block),
                k: shape.head_dim,
                start: std::ptr::null(),
                c: queries.scratch[at * stride + block * LANES..][..(rows - 1) * stride + LANES].as_mut_ptr(),
                c_stride: stride,
                columns: LANES,
                epilogue: Epilogue::PLAIN,
                prefetch: Prefetch::NONE,
                sums: PanelSums::NONE,
            });
        }
    }

    /// Scores to unnormalised probabilities e^(scale (s - max)); 1/Σ of each row goes behind the scores.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, s: S, row: usize, count: usize) {
        let shape = self.panels.shape;
        let stride = shape.padded();
        let scale = std::f32::consts::LOG2_E / (shape.head_dim as f32).sqrt();
        let (scores, sums) = self.scratch.split_at_mut(QUERY_ROWS * stride);
        for i in 0..count {
            let visible = match shape.mask {
                Mask::None => shape.tokens,
                Mask::Causal => self.first + row + i + 1,
            };
            let line = &mut scores[i * stride..][..stride];
            line.iter_mut().zip(self.bias).for_each(|(score, bias)| *score += bias);
            sums[i] = softmax_row(s, line, visible, scale);
        }
    }

    /// Output rows: Σ p v / Σ p.
    #[inline(always)]
    fn weighted_values<S: Simd>(&mut self, s: S, row: usize, count: usize, head: usize) {
        let shape = self.panels.shape;
        let stride = shape.padded();
        for block in 0..shape.head_dim.div_ceil(LANES) {
            let column = head * shape.head_dim + block * LANES;
            let columns = LANES.min(shape.head_dim - block * LANES);
            self.tiles(s, count, |queries, at, rows| Tile {
                a: queries.scratch[at * stride..].as_ptr(),
                a_stride: stride,
                b: queries.panels.values(head, block),
                k: shape.tokens,
                start: std::ptr::null(),
                c: queries.out.data[(row + at) * queries.out.stride + column..]
                    [..(rows - 1) * queries.out.stride + columns]
                    .as_mut_ptr(),
                c_stride: queries.out.stride,
                columns,
                epilogue: Epilogue {
                    row_scale: queries.scratch[QUERY_ROWS * stride + at..].as_ptr(),
                    activation: Activation::None,
                    ..Epilogue::PLAIN
                },
                prefetch: Prefetch::NONE,
                sums: PanelSums::NONE,
            });
        }
    }

    /// Runs the micro-kernel over `count` rows in tiles of nearly equal height.
    #[inline(always)]
    fn tiles<S: Simd>(&mut self, s: S, count: usize, tile: impl Fn(&mut Self, usize, usize) -> Tile) {
        let tiles = count.div_ceil(S::TILE_ROWS);
        let mut at = 0;
        for left in (1..=tiles).rev() {
            let rows = (count - at).div_ceil(left);
            let tile = tile(self, at, rows);
            // SAFETY: `attention` checked the lengths of qkv, out and scratch for all queries; the panels hold the
            // whole sequence, complete since the barrier; C is this member's own scratch or output.
            unsafe { run_tile(s, rows, 1, tile) };
            at += rows;
        }
    }
}

/// Self-attention of whole sequences, or of this member's part of one sequence.
///
/// Alone, `qkv` [sequences × tokens, 3 D] holds all rows. In a team there is one sequence and `qkv` holds this
/// member's [`Member::part`] of its tokens. Rows are [q | k | v], each [heads × head_dim]; `out` [same rows, D].
///
/// # Panics
/// Where the rows do not have the shape's widths and counts, or members of a team disagree.
pub fn attention(isa: Isa, member: &mut Member, shape: AttentionShape, qkv: Rows, out: RowsMut, scratch: &mut Buffer) {
    let width = shape.width();
    assert!(qkv.width == 3 * width && out.width == width, "attention rows of {} and {}", qkv.width, out.width);
    assert_eq!(qkv.count, out.count, "attention has as many rows out as in");
    assert!(shape.tokens > 0 && width > 0, "attention over something");
    qkv.check();
    out.check();
    scratch.ensure(shape.scratch_length());
    let panels = Panels { shape, start: member.exchange(shape.exchange_length()) };
    if member.size() == 1 {
        return alone(isa, panels, qkv, out, scratch, &[]);
    }
    let part = member.part(shape.tokens);
    assert_eq!(qkv.count, part.len(), "a member works on its part of one sequence");
    member.announce(shape.claim());
    // SAFETY: `exchange` gave room for the shape; parts are disjoint; the buffer of this turn was last read two turns
    // ago, and every member has been at the barrier of the turn between; all lay it out alike (`announce`).
    unsafe { panels.put(part.start, qkv) };
    member.meet(shape.claim());
    isa.run(Queries { panels, qkv, first: part.start, out, scratch, bias: &[] });
}

/// Whole sequences on a member that is alone; `bias` [sequences, padded tokens] or nothing.
fn alone(isa: Isa, panels: Panels, qkv: Rows, out: RowsMut, scratch: &mut [f32], bias: &[f32]) {
    let shape = panels.shape;
    assert_eq!(qkv.count % shape.tokens, 0, "attention over whole sequences of {} tokens", shape.tokens);
    let mut bias = bias.chunks_exact(shape.padded());
    for first in (0..qkv.count).step_by(shape.tokens) {
        let rows = qkv.rows(first, shape.tokens);
        // SAFETY: `exchange` gave room for the shape, and this member is alone.
        unsafe { panels.put(0, rows) };
        let stride = out.stride;
        let out = RowsMut::strided(&mut out.data[first * stride..], shape.tokens, shape.width(), stride);
        let bias = bias.next().unwrap_or_default();
        isa.run(Queries { panels, qkv: rows, first: 0, out, scratch, bias });
    }
}

/// [`attention`] over tokens that stand for several each: a token of size s counts s times, which is to say that ln s
/// is added to its scores (proportional attention of arXiv:2210.09461). `sizes`: [sequences × tokens].
///
/// # Panics
/// As [`attention`], in a team, or where there is not one size a token.
pub fn sized_attention(
    isa: Isa,
    member: &mut Member,
    shape: AttentionShape,
    (qkv, sizes): (Rows, &[f32]),
    out: RowsMut,
    scratch: &mut Buffer,
) {
    let (width, padded) = (shape.width(), shape.padded());
    assert!(qkv.width == 3 * width && out.width == width, "attention rows of {} and {}", qkv.width, out.width);
    assert!(qkv.count == out.count && qkv.count == sizes.len(), "attention has as many rows out and sizes as in");
    assert!(shape.tokens > 0 && width > 0 && member.size() == 1, "attention over something, alone");
    qkv.check();
    out.check();
    // The scratch of the scores, and behind it the logarithms of the sizes.
    let (length, sequences) = (shape.scratch_length(), qkv.count / shape.tokens);
    scratch.ensure(length + sequences * padded);
    let mut bias = std::mem::take(scratch);
    let (scores, logarithms) = bias.split_at_mut(length);
    let scale = (shape.head_dim as f32).sqrt();
    for (line, sizes) in logarithms.chunks_exact_mut(padded).zip(sizes.chunks_exact(shape.tokens)) {
        line.fill(0.0);
        line.iter_mut().zip(sizes).for_each(|(bias, size)| *bias = f64::from(*size).ln() as f32 * scale);
    }
    let panels = Panels { shape, start: member.exchange(shape.exchange_length()) };
    alone(isa, panels, qkv, out, scores, &logarithms[..sequences * padded]);
    *scratch = bias;
}

/// The rows of all members in token order, [tokens, D], on rank 0; nothing on the others.
///
/// `rows` is this member's part. Alone, they are the rows themselves.
pub fn gather<'m>(member: &'m mut Member, tokens: usize, rows: Rows) -> Option<Rows<'m>> {
    let width = rows.width;
    let length = tokens * width;
    let part = member.part(tokens);
    assert_eq!(rows.count, part.len(), "a member gathers its own part");
    assert!(tokens < 1 << 24 && width < 1 << 32, "what a team gathers");
    let claim = 1 << 62 | (tokens as u64) << 32 | width as u64;
    let start = member.gathered(length);
    // Nobody overwrites what rank 0 may still be reading from an earlier gathering.
    member.meet(claim);
    for (i, token) in part.enumerate() {
        // SAFETY: the buffer holds tokens × width floats and each member writes only the rows of its part.
        unsafe { std::ptr::copy_nonoverlapping(rows.row(i).as_ptr(), start.add(token * width), width) };
    }
    member.meet(1 << 63 | claim);
    // SAFETY: past the barrier all rows are written; only rank 0 reads them, and nobody writes again before rank 0
    // has come to the first meeting of the next gathering, for which it must give this borrow up.
    (member.rank() == 0).then(|| Rows::new(unsafe { std::slice::from_raw_parts(start, length) }, tokens, width))
}

/// One head of one query over the tokens of a sequence.
struct Probe<'a> {
    /// `[head_dim]`.
    query: &'a [f32],
    /// Rows [k | v], one part of the sequence after the other.
    keys_values: &'a [Rows<'a>],
    /// The head's first column in k and in v.
    columns: [usize; 2],
    /// `[head_dim]`.
    out: &'a mut [f32],
    /// Scores, one a token, rounded up to whole vectors.
    scores: &'a mut [f32],
}

impl Kernel for Probe<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let head_dim = self.query.len();
        let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
        let [key, value] = self.columns;
        let rows = || self.keys_values.iter().flat_map(|part| (0..part.count).map(|token| part.row(token)));
        let mut tokens = 0;
        for row in rows() {
            self.scores[tokens] = Dot { a: self.query, b: &row[key..key + head_dim] }.run(s);
            tokens += 1;
        }
        let normalizer = softmax_row(s, self.scores, tokens, scale);
        self.out.fill(0.0);
        for (row, p) in rows().zip(self.scores.iter()) {
            for (o, v) in self.out.iter_mut().zip(&row[value..value + head_dim]) {
                *o = p.mul_add(*v, *o);
            }
        }
        self.out.iter_mut().for_each(|o| *o *= normalizer);
    }
}

/// Attention of one query row over the tokens of one sequence: softmax(q Kᵀ / √head_dim) V for each head.
///
/// `query`: `[D]`, `keys_values`: [tokens, 2 D] as [k | v], `out`: `[D]`. The mask is not used.
///
/// # Panics
/// Where lengths do not fit the shape.
pub fn probe_attention(
    isa: Isa,
    shape: AttentionShape,
    query: &[f32],
    keys_values: Rows,
    out: &mut [f32],
    scratch: &mut Buffer,
) {
    let width = shape.width();
    assert!(query.len() == width && out.len() == width, "a query of {width} values");
    assert!(keys_values.width == 2 * width && keys_values.count == shape.tokens, "keys and values of the shape");
    scratch.ensure(shape.padded());
    for (head, (query, out)) in query.chunks_exact(shape.head_dim).zip(out.chunks_exact_mut(shape.head_dim)).enumerate()
    {
        let columns = [head * shape.head_dim, width + head * shape.head_dim];
        let scores = &mut scratch[..shape.padded()];
        isa.run(Probe { query, keys_values: &[keys_values], columns, out, scores });
    }
}

/// What one query row sees when texts are continued token by token.
#[derive(Clone, Copy, Debug)]
pub struct Remembered<'a> {
    /// Rows [k | v], [tokens, 2 D]: what sequences share, then what is this one's own. Either may be empty.
    pub keys_values: [Rows<'a>; 2],
}

/// Attention of query rows over what each remembers, on all threads: softmax(q Kᵀ / √head_dim) V for each head.
///
/// `queries`: [rows, D or more], of which the first D columns are used; `out`: [rows, D] without gaps.
///
/// # Panics
/// Where a row remembers nothing, or lengths do not fit.
pub fn remembered_attention(
    pool: &Pool,
    isa: Isa,
    head_dim: usize,
    queries: Rows,
    seen: &[Remembered],
    out: &mut [f32],
) {
    let rows = queries.count;
    assert!(rows == seen.len() && rows > 0 && out.len().is_multiple_of(rows * head_dim), "rows of whole heads");
    let width = out.len() / rows;
    let heads = width / head_dim;
    for row in seen {
        assert!(row.keys_values.iter().any(|part| part.count > 0), "a query sees something");
        assert!(row.keys_values.iter().all(|part| part.count == 0 || part.width == 2 * width), "rows of [k | v]");
    }
    assert!(queries.width >= width, "queries of {width} values");
    let (shared, items, threads) = (SharedMut::new(out), rows * heads, pool.threads());
    pool.run(&|rank| {
        let mut scores = Vec::new();
        for item in items * rank / threads..items * (rank + 1) / threads {
            let (row, head) = (item / heads, item % heads);
            let keys_values = &seen[row].keys_values;
            let tokens = keys_values[0].count + keys_values[1].count;
            scores.resize(tokens.next_multiple_of(LANES).max(scores.len()), 0.0);
            let at = head * head_dim;
            // SAFETY: every item has its own head of its own row, and every item is one thread's.
            let out = unsafe { shared.part(row * width + at..row * width + at + head_dim) };
            let (query, columns) = (&queries.row(row)[at..at + head_dim], [at, width + at]);
            let scores = &mut scores[..tokens.next_multiple_of(LANES)];
            isa.run(Probe { query, keys_values, columns, out, scores });
        }
    });
}

/// [`attention`] of one sequence on all threads. `qkv`: [tokens, 3 D]; `out`: [tokens, D] without gaps.
///
/// # Panics
/// As [`attention`].
pub fn attention_on(pool: &Pool, isa: Isa, shape: AttentionShape, qkv: Rows, out: &mut [f32]) {
    let (tokens, width) = (shape.tokens, shape.width());
    assert!(qkv.count == tokens && out.len() == tokens * width, "one whole sequence");
    let shared = SharedMut::new(out);
    pool.run_team(shape.exchange_length(), 0, &|mut member| {
        let part = member.part(tokens);
        // SAFETY: the parts of members are disjoint.
        let out = unsafe { shared.part(part.start * width..part.end * width) };
        let rows = qkv.rows(part.start, part.len());
        let out = RowsMut::new(out, part.len(), width);
        attention(isa, &mut member, shape, rows, out, &mut Buffer::default());
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pool::TeamMemory;
    use crate::vector::testing::uniform;
    use std::sync::Mutex;

    pub(crate) fn oracle(shape: AttentionShape, qkv: &[f32]) -> Vec<f64> {
        let (n, d, hd) = (shape.tokens, shape.width(), shape.head_dim);
        let at = |t: usize, part: usize, h: usize, i: usize| f64::from(qkv[t * 3 * d + part * d + h * hd + i]);
        let mut out = vec![0.0; n * d];
        for h in 0..shape.heads {
            for q in 0..n {
                let last = if shape.mask == Mask::Causal { q + 1 } else { n };
                let scores: Vec<f64> = (0..last)
                    .map(|k| (0..hd).map(|i| at(q, 0, h, i) * at(k, 1, h, i)).sum::<f64>() / (hd as f64).sqrt())
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let p: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = p.iter().sum();
                for i in 0..hd {
                    out[q * d + h * hd + i] = (0..last).map(|k| p[k] * at(k, 2, h, i)).sum::<f64>() / sum;
                }
            }
        }
        out
    }

    pub(crate) fn shapes() -> Vec<AttentionShape> {
        let mut shapes = Vec::new();
        for (tokens, heads, head_dim) in [(1, 1, 8), (17, 2, 16), (37, 3, 72), (101, 3, 64), (80, 2, 80), (50, 1, 24)] {
            if cfg!(miri) && tokens * heads * head_dim > 600 {
                continue;
            }
            for mask in [Mask::None, Mask::Causal] {
                shapes.push(AttentionShape { tokens, heads, head_dim, mask });
            }
        }
        shapes
    }

    #[test]
    fn matches_the_oracle_alone_and_in_teams_on_every_set() {
        for shape in shapes() {
            let (n, d) = (shape.tokens, shape.width());
            let qkv: Vec<f32> = uniform(5, n * 3 * d).iter().map(|v| v * 3.0).collect();
            let want = oracle(shape, &qkv);
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::present() {
                let mut alone = vec![0.0; n * d];
                let (mut memory, mut scratch) = (TeamMemory::default(), Buffer::default());
                let mut member = Member::solo(&mut memory);
                let (rows, out) = (Rows::new(&qkv, n, 3 * d), RowsMut::new(&mut alone, n, d));
                attention(isa, &mut member, shape, rows, out, &mut scratch);
                // Scores reach 60 here; their f32 rounding of some 4e-6 becomes a relative error of the weights.
                for (got, want) in alone.iter().zip(&want) {
                    assert!((f64::from(*got) - want).abs() < 1.5e-5, "{} {shape:?} {got} {want}", isa.name());
                }
                assert_eq!(first.get_or_insert_with(|| alone.clone()), &alone, "{} {shape:?}", isa.name());
                let mut whole = vec![0.0; n * d];
                attention_on(&Pool::new(2), isa, shape, Rows::new(&qkv, n, 3 * d), &mut whole);
                assert_eq!(whole, alone, "{} {shape:?}", isa.name());
                for threads in [2, 3] {
                    assert_eq!(in_team(isa, threads, shape, &qkv), alone, "{} {shape:?} {threads}", isa.name());
                }
            }
        }
    }

    /// Two layers in a row, so that both exchange buffers are used; returns the second result.
    fn in_team(isa: Isa, threads: usize, shape: AttentionShape, qkv: &[f32]) -> Vec<f32> {
        let (n, d) = (shape.tokens, shape.width());
        let result = Mutex::new(Vec::new());
        Pool::new(threads).run_team(shape.exchange_length(), n * d, &|mut member| {
            let part = member.part(n);
            let mut out = vec![0.0; part.len() * d];
            let mut scratch = Buffer::default();
            for _ in 0..3 {
                let rows = Rows::new(&qkv[part.start * 3 * d..part.end * 3 * d], part.len(), 3 * d);
                let target = RowsMut::new(&mut out, part.len(), d);
                attention(isa, &mut member, shape, rows, target, &mut scratch);
            }
            if let Some(all) = gather(&mut member, n, Rows::new(&out, part.len(), d)) {
                *result.lock().unwrap() = all.data.to_vec();
            }
        });
        result.into_inner().unwrap()
    }

    #[test]
    fn a_token_of_size_three_counts_as_three() {
        for shape in shapes().into_iter().filter(|shape| shape.mask == Mask::None) {
            let (n, d) = (shape.tokens, shape.width());
            let sizes: Vec<f32> = (0..n).map(|i| (1 + i % 3) as f32).collect();
            let qkv = uniform(5, n * 3 * d);
            // The same tokens, each as often as its size says; the queries' results are those of their first copies.
            let copies: Vec<usize> = (0..n).flat_map(|i| std::iter::repeat_n(i, 1 + i % 3)).collect();
            let long: Vec<f32> = copies.iter().flat_map(|&i| qkv[i * 3 * d..(i + 1) * 3 * d].to_vec()).collect();
            let want = oracle(AttentionShape { tokens: copies.len(), ..shape }, &long);
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::present() {
                let (mut memory, mut scratch) = (TeamMemory::default(), Buffer::default());
                let mut out = vec![f32::NAN; 2 * n * d];
                let twice = [&qkv[..], &qkv[..]].concat();
                let rows = Rows::new(&twice, 2 * n, 3 * d);
                let target = RowsMut::new(&mut out, 2 * n, d);
                let both = [&sizes[..], &vec![1.0; n]].concat();
                sized_attention(isa, &mut Member::solo(&mut memory), shape, (rows, &both), target, &mut scratch);
                for (at, token) in copies.iter().enumerate() {
                    for (got, want) in out[token * d..][..d].iter().zip(&want[at * d..][..d]) {
                        assert!((f64::from(*got) - want).abs() < 3e-6, "{} {shape:?} {got} {want}", isa.name());
                    }
                }
                let mut plain = vec![0.0; n * d];
                let (rows, target) = (Rows::new(&qkv, n, 3 * d), RowsMut::new(&mut plain, n, d));
                attention(isa, &mut Member::solo(&mut memory), shape, rows, target, &mut scratch);
                assert_eq!(plain, out[n * d..], "{} {shape:?} sizes of one", isa.name());
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{} {shape:?}", isa.name());
            }
        }
    }

    #[test]
    fn a_probe_sees_every_token() {
        for shape in shapes().into_iter().filter(|shape| shape.mask == Mask::None) {
            let (n, d) = (shape.tokens, shape.width());
            // The oracle's query is that of token 0.
            let qkv = uniform(7, n * 3 * d);
            let want = &oracle(shape, &qkv)[..d];
            let keys_values: Vec<f32> = qkv.chunks(3 * d).flat_map(|row| row[d..].to_vec()).collect();
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::present() {
                let mut out = vec![f32::NAN; d];
                let rows = Rows::new(&keys_values, n, 2 * d);
                probe_attention(isa, shape, &qkv[..d], rows, &mut out, &mut Buffer::default());
                for (got, want) in out.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() < 2e-6, "{} {shape:?} {got} {want}", isa.name());
                }
                assert_eq!(first.get_or_insert_with(|| out.clone()), &out, "{} {shape:?}", isa.name());
            }
        }
    }

    #[test]
    fn remembering_in_two_parts_gives_the_bits_of_one() {
        for shape in shapes().into_iter().filter(|shape| shape.mask == Mask::None) {
            let (n, d) = (shape.tokens, shape.width());
            let qkv = uniform(7, n * 3 * d);
            let keys_values: Vec<f32> = qkv.chunks(3 * d).flat_map(|row| row[d..].to_vec()).collect();
            let memory = Rows::new(&keys_values, n, 2 * d);
            for isa in Isa::present() {
                let mut want = vec![0.0; d];
                probe_attention(isa, shape, &qkv[..d], memory, &mut want, &mut Buffer::default());
                let seen =
                    [0, n / 2].map(|cut| Remembered { keys_values: [memory.rows(0, cut), memory.rows(cut, n - cut)] });
                let queries = qkv[..d].repeat(2);
                let mut out = vec![f32::NAN; 2 * d];
                remembered_attention(&Pool::new(2), isa, shape.head_dim, Rows::new(&queries, 2, d), &seen, &mut out);
                assert_eq!(out, [&want[..], &want[..]].concat(), "{} {shape:?}", isa.name());
            }
        }
    }

    #[test]
    fn sequences_of_a_batch_do_not_mix() {
        let shape =
            AttentionShape { tokens: 19, heads: 2, head_dim: if cfg!(miri) { 8 } else { 32 }, mask: Mask::None };
        let (n, d) = (shape.tokens, shape.width());
        let qkv = uniform(6, 3 * n * 3 * d);
        for isa in Isa::present() {
            let (mut memory, mut scratch) = (TeamMemory::default(), Buffer::default());
            let mut run = |rows: &[f32]| {
                let count = rows.len() / (3 * d);
                let mut out = vec![0.0; count * d];
                let mut member = Member::solo(&mut memory);
                let target = RowsMut::new(&mut out, count, d);
                attention(isa, &mut member, shape, Rows::new(rows, count, 3 * d), target, &mut scratch);
                out
            };
            let all = run(&qkv);
            for (i, rows) in qkv.chunks(n * 3 * d).enumerate() {
                assert_eq!(run(rows), &all[i * n * d..][..n * d], "{} sequence {i}", isa.name());
            }
        }
    }
}
