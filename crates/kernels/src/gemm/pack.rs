//! Weights in the order in which the micro-kernel reads them.

use crate::Buffer;
use crate::isa::{Isa, LANES};

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
        let chunks = k.div_ceil(LONGEST_CHUNK);
        let chunk = k.div_ceil(chunks).next_multiple_of(8).min(k);
        let width = vectors * LANES;
        Self { k, n, vectors, chunk, data: Buffer::zeroed(k * n.next_multiple_of(width)) }
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
    // Transposition in squares of sixteen, so that both sides stay in the first-level cache.
    for t0 in (0..length).step_by(LANES) {
        let steps = LANES.min(length - t0);
        for c in 0..count {
            let from = (j + c) * source.n_stride + k0 + t0;
            let row = &source.data[from..from + steps];
            for (t, &value) in row.iter().enumerate() {
                target[(t0 + t) * width + lane + c] = value;
            }
        }
    }
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
