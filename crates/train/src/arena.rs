//! The memory of tapes: buffers that come back for the next operation of the same size, and what of it is in use.

use openvision_kernels::Buffer;
use openvision_kernels::attention::AttentionScratch;
use openvision_kernels::gemm::GemmScratch;
use openvision_kernels::pool::TeamMemory;
use std::collections::HashMap;

/// Bytes of values, pre-activations and gradients that a tape held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapeMemory {
    /// Held between forward and backward.
    pub saved: usize,
    /// Held at most, in forward and backward.
    pub peak: usize,
}

/// Activation memory, kept from step to step: a second step of the same shapes allocates no activations.
#[derive(Debug, Default)]
pub struct TapeArena {
    /// Buffers not in use, by length.
    spare: HashMap<usize, Vec<Buffer>>,
    /// Bytes in use now.
    pub(crate) live: usize,
    /// Most bytes in use since the tape was made.
    pub(crate) peak: usize,
    pub(crate) scratch: Scratch,
}

/// Working memory inside one operation; not counted as the tape's.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) team: TeamMemory,
    pub(crate) attention: Buffer,
    pub(crate) attention_backward: AttentionScratch,
    pub(crate) gemm: GemmScratch,
    pub(crate) product: Buffer,
}

impl TapeArena {
    /// A buffer with undefined contents.
    pub(crate) fn take(&mut self, length: usize) -> Buffer {
        self.live += length * size_of::<f32>();
        self.peak = self.peak.max(self.live);
        self.spare.get_mut(&length).and_then(Vec::pop).unwrap_or_else(|| Buffer::zeroed(length))
    }

    /// A buffer of zeros.
    pub(crate) fn take_zeroed(&mut self, length: usize) -> Buffer {
        let mut buffer = self.take(length);
        buffer.fill(0.0);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, buffer: Buffer) {
        self.live -= buffer.len() * size_of::<f32>();
        self.spare.entry(buffer.len()).or_default().push(buffer);
    }
}
