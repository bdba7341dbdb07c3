//! Weights in the order in which the micro-kernel reads them.

use crate::Buffer;
use crate::isa::{Isa, LANES};
use crate::transpose::{SQUARE, transpose_square};
use crate::vector::Rows;

/// Longest K chunk. 768 was best on the processors measured (bench/NOTES.md); 192 and 256 cost 3-15 %.
const LONGEST_CHUNK: usize = 768;

/// A weight matrix as a file has it: K inputs, N outputs.
#[derive(Clone, Copy, Debug)]
pub struct MatrixSource<'a> {
    data: &'a [f32],
    k: usize,
    n: usize,
    k_stride: usize,
    n_stride: usize,
}

impl<'a> MatrixSource<'a> {
    /// Stored [N, K], as `torch.nn.Linear.weight` (y = x Wᵀ).
    pub fn out_in(data: &'a [f32], n: usize, k: usize) -> Self {
        assert_eq!(data.len(), n * k, "a [{n}, {k}] matrix");
        Self { data, k, n, k_stride: 1, n_stride: k }
    }

    /// Stored [K, N], as CLIP's projections (y = x W).
    pub fn in_out(data: &'a [f32], k: usize, n: usize) -> Self {
        assert_eq!(data.len(), n * k, "a [{k}, {n}] matrix");
        Self { data, k, n, k_stride: n, n_stride: 1 }
    }

    /// Rows of activations as a [K, N] matrix: K rows of N columns.
    pub fn rows(rows: Rows<'a>) -> Self {
        Self { data: rows.data, k: rows.count, n: rows.width, k_stride: rows.stride, n_stride: 1 }
    }

    /// The transposed matrix. Backward of y = x W with respect to x is a product with it: dx = dy Wᵀ.
    pub fn transposed(self) -> Self {
        Self { data: self.data, k: self.n, n: self.k, k_stride: self.n_stride, n_stride: self.k_stride }
    }
}

/// A K × N matrix packed as `[K chunk][N / panel][k][panel]`, zero-padded to whole panels. The panel width belongs to
/// the instruction set that it was packed for.
#[derive(Debug)]
pub struct PackedMatrix {
    k: usize,
    n: usize,
    vectors: usize,
    chunk: usize,
    data: Buffer,
}

impl PackedMatrix {
    /// Packs a matrix for an instruction set.
    pub fn pack(isa: Isa, source: MatrixSource) -> Self {
        let mut packed = Self::reserve(isa, source.k, source.n);
        packed.fill(0, source);
        packed
    }

    /// A matrix of zeros, to be filled by parts.
    pub fn reserve(isa: Isa, k: usize, n: usize) -> Self {
        assert!(k > 0 && n > 0, "a weight matrix is not empty");
        let vectors = isa.panel_vectors();
        let width = vectors * LANES;
        Self { k, n, vectors, chunk: chunk_of(k), data: Buffer::zeroed(k * n.next_multiple_of(width)) }
    }

    /// Packs another matrix, of any size, into the memory of this one.
    pub fn repack(&mut self, source: MatrixSource) {
        let MatrixSource { k, n, .. } = source;
        assert!(k > 0 && n > 0, "a weight matrix is not empty");
        let width = self.panel_width();
        (self.k, self.n, self.chunk) = (k, n, chunk_of(k));
        self.data.ensure(k * n.next_multiple_of(width));
        if !n.is_multiple_of(width) {
            // Lanes without a column: what an earlier matrix left there must not reach the registers.
            for index in 0..self.chunks() {
                let start = self.panel_start(index, self.panels() - 1);
                let length = self.chunk_length(index) * width;
                self.data[start..start + length].fill(0.0);
            }
        }
        self.fill(0, source);
    }

    /// Packs `source` into columns `column..column + source.n`, e.g. the K projection of a fused QKV matrix.
    pub fn fill(&mut self, column: usize, source: MatrixSource) {
        assert!(source.k == self.k && column + source.n <= self.n, "columns of a [{}, {}] matrix", self.k, self.n);
        let width = self.panel_width();
        for index in 0..self.chunks() {
            let (k0, length) = (index * self.chunk, self.chunk_length(index));
            let mut j = 0;
            while j < source.n {
                let (panel, lane) = ((column + j) / width, (column + j) % width);
                let count = (width - lane).min(source.n - j);
                let start = self.panel_start(index, panel);
                let target = &mut self.data[start..start + length * width];
                fill_panel(target, width, lane, (k0, length), (j, count), source);
                j += count;
            }
        }
    }

    /// Copies the matrix back to [N, K] row-major order: exact, for conversions and tests.
    pub fn unpack(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.k * self.n];
        for index in 0..self.chunks() {
            for panel in 0..self.panels() {
                let data = self.panel(index, panel);
                for (t, row) in data.chunks_exact(self.panel_width()).enumerate() {
                    let first = panel * self.panel_width();
                    for (lane, &value) in row.iter().enumerate().take(self.n - first) {
                        out[(first + lane) * self.k + index * self.chunk + t] = value;
                    }
                }
            }
        }
        out
    }

    /// Number of inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    pub(crate) fn panel_vectors(&self) -> usize {
        self.vectors
    }

    pub(crate) fn panel_width(&self) -> usize {
        self.vectors * LANES
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(self.panel_width())
    }

    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    pub(crate) fn chunks(&self) -> usize {
        self.k.div_ceil(self.chunk)
    }

    pub(crate) fn chunk_length(&self, index: usize) -> usize {
        self.chunk.min(self.k - index * self.chunk)
    }

    fn panel_start(&self, index: usize, panel: usize) -> usize {
        let width = self.panel_width();
        index * self.chunk * self.panels() * width + panel * self.chunk_length(index) * width
    }

    /// The weights of one panel in one chunk: [k][panel width].
    pub(crate) fn panel(&self, index: usize, panel: usize) -> &[f32] {
        let start = self.panel_start(index, panel);
        &self.data[start..start + self.chunk_length(index) * self.panel_width()]
    }
}

/// Length of the K chunks of a matrix with `k` inputs.
fn chunk_of(k: usize) -> usize {
    k.div_ceil(k.div_ceil(LONGEST_CHUNK)).next_multiple_of(8).min(k)
}

/// Copies rows `k0..k0 + length` of columns `j..j + count` into lanes `lane..` of a panel.
fn fill_panel(
    target: &mut [f32],
    width: usize,
    lane: usize,
    (k0, length): (usize, usize),
    (j, count): (usize, usize),
    source: MatrixSource,
) {
    if source.n_stride == 1 {
        for t in 0..length {
            let from = (k0 + t) * source.k_stride + j;
            target[t * width + lane..][..count].copy_from_slice(&source.data[from..from + count]);
        }
        return;
    }
    // Transposition in strips of sixteen steps, so that both sides stay in the first-level cache.
    for t0 in (0..length).step_by(LANES) {
        let steps = LANES.min(length - t0);
        let from = |c: usize, t: usize| (j + c) * source.n_stride + k0 + t0 + t;
        let to = |c: usize, t: usize| (t0 + t) * width + lane + c;
        let (square_columns, square_steps) = (count / SQUARE * SQUARE, steps / SQUARE * SQUARE);
        for c in (0..square_columns).step_by(SQUARE) {
            for t in (0..square_steps).step_by(SQUARE) {
                transpose_part((&source.data[from(c, t)..], source.n_stride), (&mut target[to(c, t)..], width));
            }
        }
        for c in 0..count {
            let first = if c < square_columns { square_steps } else { 0 };
            for t in first..steps {
                target[to(c, t)] = source.data[from(c, t)];
            }
        }
    }
}

/// Transposes a 4 × 4 square: `(start, row stride)` of where it is and of where it goes.
#[inline(always)]
fn transpose_part((from, from_stride): (&[f32], usize), (to, to_stride): (&mut [f32], usize)) {
    assert!(from.len() >= 3 * from_stride + SQUARE && to.len() >= 3 * to_stride + SQUARE);
    // SAFETY: the lengths were just checked.
    unsafe { transpose_square((from.as_ptr(), from_stride), (to.as_mut_ptr(), to_stride)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::testing::uniform;

    #[test]
    fn unpack_is_the_inverse_of_pack() {
        for isa in Isa::present() {
            for (n, k) in
                if cfg!(miri) { [(1, 1), (17, 5), (33, 9), (2, 800)] } else { [(1, 1), (17, 5), (96, 1025), (31, 800)] }
            {
                let w = uniform(7, n * k);
                assert_eq!(
                    PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k)).unpack(),
                    w,
                    "{} {n} {k}",
                    isa.name()
                );
            }
        }
    }

    #[test]
    fn repacking_leaves_nothing_of_the_matrix_before() {
        for isa in Isa::present() {
            let large = uniform(7, 90 * 1600);
            let mut packed = PackedMatrix::pack(isa, MatrixSource::out_in(&large, 90, 1600));
            for (n, k) in [(17, 5), (96, 1025), (31, 800), (200, 900)] {
                let w = uniform(8, n * k);
                packed.repack(MatrixSource::out_in(&w, n, k));
                let fresh = PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k));
                assert_eq!(packed.data[..fresh.data.len()], fresh.data[..], "{} {n} {k}", isa.name());
                let turned: Vec<f32> = (0..n * k).map(|i| w[i % n * k + i / n]).collect();
                packed.repack(MatrixSource::out_in(&w, n, k).transposed());
                assert_eq!(packed.unpack(), turned, "{} {n} {k} transposed", isa.name());
            }
        }
    }

    #[test]
    fn parts_join_to_one_matrix() {
        let (k, n) = (40, 50);
        let w = uniform(9, 3 * n * k);
        for isa in Isa::present() {
            let mut packed = PackedMatrix::reserve(isa, k, 3 * n);
            for part in 0..3 {
                packed.fill(part * n, MatrixSource::out_in(&w[part * n * k..][..n * k], n, k));
            }
            assert_eq!(packed.unpack(), w, "{}", isa.name());
        }
    }
}
