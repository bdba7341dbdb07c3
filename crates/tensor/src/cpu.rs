//! The inference executor: runs on one thread as a member of a team, keeps nothing, allocates nothing once warm.

use crate::exec::{Blocks, Exec, Heads, Patches, Pooling, Slot, Tap, Tokens};
use crate::store::{On, ProductScratch};
use crate::{CpuStore, LinearId, NormId, TableId, Weights};
use openvision_kernels::act::Activation;
use openvision_kernels::attention::{AttentionShape, Mask, attention, gather, probe_attention, sized_attention};
use openvision_kernels::gemm::{Output, Sequences};
use openvision_kernels::merge::{Merge, MergeScratch, merge_tokens, weighted_mean};
use openvision_kernels::norm::layer_norm;
use openvision_kernels::patch::patch_row;
use openvision_kernels::pool::Member;
use openvision_kernels::vector::{Rows, RowsMut, mean};
use openvision_kernels::{Buffer, Isa};
use std::ops::Range;

/// The activation memory of one thread. Buffers are found again by their order of use, so a second forward pass of
/// the same shape allocates nothing.
#[derive(Debug, Default)]
pub struct Arena {
    slots: Vec<SlotData>,
    /// Slots in use; those behind keep their memory.
    live: usize,
    scratch: Buffer,
    pub(crate) product: ProductScratch,
    /// How many tokens each token stands for, [sequences × tokens]; empty until tokens are merged.
    sizes: Vec<f32>,
    merge: MergeScratch,
}

#[derive(Debug, Default)]
struct SlotData {
    data: Buffer,
    shape: SlotShape,
}

/// Rows of a slot on this member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotShape {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
    /// Tokens of each sequence (1 after pooling).
    pub(crate) tokens: usize,
}

/// Distance between rows: rows whose length is a multiple of 1 KiB would fall into the same few cache sets.
pub(crate) fn row_stride(width: usize) -> usize {
    let stride = width.next_multiple_of(16);
    if stride.is_multiple_of(256) { stride + 16 } else { stride }
}

impl Arena {
    /// Forgets all slots; their memory stays.
    pub(crate) fn clear(&mut self) {
        self.live = 0;
        self.sizes.clear();
    }

    /// The slots in use, for [`Arena::release`].
    pub(crate) fn mark(&self) -> usize {
        self.live
    }

    /// Forgets the slots since a mark.
    pub(crate) fn release(&mut self, mark: usize) {
        self.live = mark;
    }

    pub(crate) fn take(&mut self, shape: SlotShape) -> (Slot, Buffer) {
        if self.live == self.slots.len() {
            self.slots.push(SlotData::default());
        }
        let slot = Slot(self.live);
        self.live += 1;
        let entry = &mut self.slots[slot.0];
        entry.shape = shape;
        let mut data = std::mem::take(&mut entry.data);
        data.ensure(shape.rows * shape.stride);
        (slot, data)
    }

    /// The memory of a slot, until it is put back.
    pub(crate) fn lend(&mut self, slot: Slot) -> Buffer {
        std::mem::take(&mut self.slots[slot.0].data)
    }

    pub(crate) fn put(&mut self, slot: Slot, data: Buffer) {
        self.slots[slot.0].data = data;
    }

    /// Takes rows away from a slot.
    fn reshape(&mut self, slot: Slot, rows: usize, tokens: usize) {
        let shape = &mut self.slots[slot.0].shape;
        (shape.rows, shape.tokens) = (rows, tokens);
    }

    pub(crate) fn shape(&self, slot: Slot) -> SlotShape {
        assert!(slot.0 < self.live, "slot {} was used after its block ended", slot.0);
        self.slots[slot.0].shape
    }

    pub(crate) fn rows(&self, slot: Slot) -> Rows<'_> {
        let shape = self.shape(slot);
        Rows::strided(&self.slots[slot.0].data, shape.rows, shape.width, shape.stride)
    }
}

/// What a forward pass reads.
#[derive(Clone, Copy)]
pub struct CpuInput<'a> {
    /// Sequences (pictures or texts) of this pass. A team of several members takes one.
    pub sequences: usize,
    /// Planar pixels, [pictures, 3, height, width]; empty for texts.
    pub pixels: &'a [f32],
    /// Token ids, [texts, length]; empty for pictures.
    pub ids: &'a [u32],
    /// Position for [`Pooling::Marked`], one a sequence.
    pub marks: &'a [usize],
}

/// Receives taps: which one, the sequence, the token range that the rows are, and the rows. Called on every thread.
pub type TapSink<'a> = &'a (dyn Fn(Tap, usize, Range<usize>, Rows) + Sync);

/// Runs a tower's operations on this thread's rows.
pub struct CpuExec<'a> {
    isa: Isa,
    store: &'a CpuStore,
    member: Member<'a>,
    arena: &'a mut Arena,
    input: CpuInput<'a>,
    taps: Option<TapSink<'a>>,
    /// Tokens of a whole text, of which there may be fewer rows.
    whole_tokens: Option<usize>,
}

impl<'a> CpuExec<'a> {
    /// An executor for one forward pass.
    pub fn new(
        store: &'a CpuStore,
        member: Member<'a>,
        arena: &'a mut Arena,
        input: CpuInput<'a>,
        taps: Option<TapSink<'a>>,
    ) -> Self {
        assert!(member.size() == 1 || input.sequences == 1, "a team works on one sequence");
        arena.clear();
        Self { isa: store.isa(), store, member, arena, input, taps, whole_tokens: None }
    }

    /// The rows of a slot. In a team, pooled rows are on rank 0 only.
    pub fn read(&self, slot: Slot) -> Rows<'_> {
        self.arena.rows(slot)
    }

    /// This member's token range of a sequence of `tokens`.
    fn part(&self, tokens: usize) -> Range<usize> {
        self.member.part(tokens)
    }

    /// Rows that pooled values have on this member: in a team they are on rank 0 only.
    fn pooled_rows(&self) -> usize {
        if self.member.rank() == 0 { self.input.sequences } else { 0 }
    }

    fn new_slot(&mut self, rows: usize, width: usize, tokens: usize) -> (Slot, Buffer, SlotShape) {
        let shape = SlotShape { rows, width, stride: row_stride(width), tokens };
        let (slot, data) = self.arena.take(shape);
        (slot, data, shape)
    }

    /// Copies or computes one row for each local token of each sequence.
    fn fill_rows(
        &mut self,
        tokens: usize,
        width: usize,
        mut fill: impl FnMut(&Self, usize, usize, &mut [f32]),
    ) -> Slot {
        let part = self.part(tokens);
        let (slot, mut data, shape) = self.new_slot(self.input.sequences * part.len(), width, tokens);
        for sequence in 0..self.input.sequences {
            for (i, token) in part.clone().enumerate() {
                let at = (sequence * part.len() + i) * shape.stride;
                fill(self, sequence, token, &mut data[at..at + width]);
            }
        }
        self.arena.put(slot, data);
        slot
    }
}

impl Blocks for CpuExec<'_> {
    fn layer_norm(&mut self, x: Slot, norm: NormId) -> Slot {
        let SlotShape { rows, width, tokens, .. } = self.arena.shape(x);
        let (slot, mut data, shape) = self.new_slot(rows, width, tokens);
        let out = RowsMut::strided(&mut data, rows, width, shape.stride);
        layer_norm(self.isa, &self.store.norm(norm), self.arena.rows(x), out);
        self.arena.put(slot, data);
        slot
    }

    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, activation: Activation) -> Slot {
        let weights = self.store.linear(linear);
        if let Weights::Float(_) = weights {
            let normed = self.layer_norm(x, norm);
            return self.product(normed, linear, activation);
        }
        let SlotShape { rows, tokens, .. } = self.arena.shape(x);
        let (slot, mut data, shape) = self.new_slot(rows, weights.n(), tokens);
        let out = RowsMut::strided(&mut data, rows, shape.width, shape.stride);
        let mut scratch = std::mem::take(&mut self.arena.product);
        weights.norm_product(self.arena.rows(x), self.store.norm(norm), out, activation, &mut scratch);
        self.arena.product = scratch;
        self.arena.put(slot, data);
        slot
    }

    fn linear(&mut self, x: Slot, linear: LinearId) -> Slot {
        self.product(x, linear, Activation::None)
    }

    fn linear_add(&mut self, residual: Slot, x: Slot, linear: LinearId) -> Slot {
        let shape = self.arena.shape(residual);
        let mut data = self.arena.lend(residual);
        self.multiply(x, linear, RowsMut::strided(&mut data, shape.rows, shape.width, shape.stride), Output::Add);
        self.arena.put(residual, data);
        residual
    }

    fn attention(&mut self, qkv: Slot, heads: Heads) -> Slot {
        let SlotShape { rows, tokens, .. } = self.arena.shape(qkv);
        let shape = AttentionShape { tokens, heads: heads.count, head_dim: heads.width, mask: heads.mask };
        let (slot, mut data, out) = self.new_slot(rows, shape.width(), tokens);
        let mut scratch = std::mem::take(&mut self.arena.scratch);
        let target = RowsMut::strided(&mut data, rows, shape.width(), out.stride);
        if self.arena.sizes.is_empty() {
            attention(self.isa, &mut self.member, shape, self.arena.rows(qkv), target, &mut scratch);
        } else {
            let rows = (self.arena.rows(qkv), &self.arena.sizes[..]);
            sized_attention(self.isa, &mut self.member, shape, rows, target, &mut scratch);
        }
        self.arena.scratch = scratch;
        self.arena.put(slot, data);
        slot
    }

    fn merge_tokens(&mut self, x: Slot, qkv: Slot, heads: Heads, merge: Merge) -> Slot {
        assert_eq!(self.member.size(), 1, "tokens are merged where all of a sequence's are");
        let SlotShape { width, stride, tokens, .. } = self.arena.shape(x);
        let (left, sequences) = (merge.left(tokens), self.input.sequences);
        let (mut data, mut scratch) = (self.arena.lend(x), std::mem::take(&mut self.arena.merge));
        let mut sizes = std::mem::take(&mut self.arena.sizes);
        if sizes.is_empty() {
            sizes.resize(sequences * tokens, 1.0);
        }
        let keys = self.arena.rows(qkv).columns(heads.count * heads.width, heads.count * heads.width);
        for sequence in 0..sequences {
            let at = sequence * tokens;
            let rows = RowsMut::strided(&mut data[at * stride..], tokens, width, stride);
            let own = &mut sizes[at..at + tokens];
            merge_tokens(self.isa, merge, (keys.rows(at, tokens), heads.count), rows, own, &mut scratch);
            // Sequences close up behind one another.
            data.copy_within(at * stride..at * stride + (left - 1) * stride + width, sequence * left * stride);
            sizes.copy_within(at..at + left, sequence * left);
        }
        sizes.truncate(sequences * left);
        (self.arena.sizes, self.arena.merge) = (sizes, scratch);
        self.arena.put(x, data);
        self.arena.reshape(x, sequences * left, left);
        x
    }

    fn block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Blocks, Slot) -> Slot) -> Slot {
        let mark = self.arena.mark();
        let out = body(self, x);
        assert_eq!(out, x, "a block of this executor works in place");
        self.arena.release(mark);
        out
    }
}

impl Exec for CpuExec<'_> {
    fn embed_patches(&mut self, patches: Patches) -> Slot {
        let Patches { grid, convolution, class, positions } = patches;
        let linear = self.store.linear(convolution).float();
        let (length, width) = (grid.patch_length(), linear.weights.n());
        let extra = usize::from(class.is_some());
        let tokens = grid.patches() + extra;
        let store = self.store;
        // The class token has no pixels: its product is with a row of zeros, which adds nothing to its embedding.
        let bias = if extra == 1 { linear.bias() } else { None };
        let x = self.fill_rows(tokens, width, |_, _, token, row| {
            row.copy_from_slice(&store.table(positions)[token * width..][..width]);
            if let (0, Some(class)) = (token, class) {
                for (i, (value, class)) in row.iter_mut().zip(store.table(class)).enumerate() {
                    *value += class - bias.map_or(0.0, |bias| bias[i]);
                }
            }
        });
        let mark = self.arena.mark();
        let pixels_of_one = 3 * grid.height * grid.width;
        let rows = self.fill_rows(tokens, length, |ex, sequence, token, row| match token.checked_sub(extra) {
            Some(index) => patch_row(grid, &ex.input.pixels[sequence * pixels_of_one..][..pixels_of_one], index, row),
            None => row.fill(0.0),
        });
        let x = self.linear_add(x, rows, convolution);
        self.arena.release(mark);
        x
    }

    fn embed_tokens(&mut self, tokens: Tokens) -> Slot {
        let (table, positions) = (self.store.table(tokens.table), self.store.table(tokens.positions));
        let width = self.store.table_width(tokens.table);
        self.whole_tokens = Some(tokens.length);
        let needed = match self.input.marks[..self.input.sequences].iter().max() {
            // Rows are taken in pairs.
            Some(mark) if tokens.until_mark && !self.is_observed() => (mark + 1).next_multiple_of(2).min(tokens.length),
            _ => tokens.length,
        };
        self.fill_rows(needed, width, |ex, sequence, token, row| {
            let id = ex.input.ids[sequence * tokens.length + token] as usize;
            let (word, position) = (&table[id * width..][..width], &positions[token * width..][..width]);
            for ((value, word), position) in row.iter_mut().zip(word).zip(position) {
                *value = word + position;
            }
        })
    }

    fn probe(&mut self, table: TableId) -> Slot {
        let (row, sequences) = (self.store.table(table), self.pooled_rows());
        let (slot, mut data, shape) = self.new_slot(sequences, row.len(), 1);
        for sequence in 0..sequences {
            data[sequence * shape.stride..][..row.len()].copy_from_slice(row);
        }
        self.arena.put(slot, data);
        slot
    }

    fn probe_attention(&mut self, query: Slot, keys_values: Slot, heads: Heads) -> Slot {
        let SlotShape { tokens, .. } = self.arena.shape(keys_values);
        let shape = AttentionShape { tokens, heads: heads.count, head_dim: heads.width, mask: heads.mask };
        let (slot, mut data, out) = self.new_slot(self.pooled_rows(), shape.width(), 1);
        let mut scratch = std::mem::take(&mut self.arena.scratch);
        let (isa, query) = (self.isa, self.arena.rows(query));
        if self.member.size() == 1 {
            for sequence in 0..self.input.sequences {
                let rows = self.arena.rows(keys_values).rows(sequence * tokens, tokens);
                let out = &mut data[sequence * out.stride..][..out.width];
                probe_attention(isa, shape, query.row(sequence), rows, out, &mut scratch);
            }
        } else if let Some(rows) = gather(&mut self.member, tokens, self.arena.rows(keys_values)) {
            probe_attention(isa, shape, query.row(0), rows, &mut data[..out.width], &mut scratch);
        }
        self.arena.scratch = scratch;
        self.arena.put(slot, data);
        slot
    }

    fn last_block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Exec, Slot) -> Slot) -> Slot {
        body(self, x)
    }

    fn pooled_attention(&mut self, qkv: Slot, heads: Heads, pooling: Pooling) -> Slot {
        let SlotShape { tokens, .. } = self.arena.shape(qkv);
        let width = heads.count * heads.width;
        let (slot, mut data, out) = self.new_slot(self.pooled_rows(), width, 1);
        let mut scratch = std::mem::take(&mut self.arena.scratch);
        let (isa, input) = (self.isa, self.input);
        let mut one = |sequence: usize, rows: Rows, out: &mut [f32]| {
            let position = pooling.position(input.marks, sequence).expect("pooled attention is that of one position");
            let seen = if heads.mask == Mask::Causal { position + 1 } else { tokens };
            let shape = AttentionShape { tokens: seen, heads: heads.count, head_dim: heads.width, mask: Mask::None };
            let keys_values = rows.rows(0, seen).columns(width, 2 * width);
            probe_attention(isa, shape, &rows.row(position)[..width], keys_values, out, &mut scratch);
        };
        if self.member.size() == 1 {
            for sequence in 0..self.input.sequences {
                let rows = self.arena.rows(qkv).rows(sequence * tokens, tokens);
                one(sequence, rows, &mut data[sequence * out.stride..][..width]);
            }
        } else if let Some(rows) = gather(&mut self.member, tokens, self.arena.rows(qkv)) {
            one(0, rows, &mut data[..width]);
        }
        self.arena.scratch = scratch;
        self.arena.put(slot, data);
        slot
    }

    fn pool(&mut self, x: Slot, pooling: Pooling) -> Slot {
        let SlotShape { width, tokens, .. } = self.arena.shape(x);
        let sequences = self.pooled_rows();
        let (slot, mut data, shape) = self.new_slot(sequences, width, 1);
        let (input, sizes) = (self.input, &self.arena.sizes[..]);
        let one = |sequence: usize, rows: Rows, out: &mut [f32]| match pooling.position(input.marks, sequence) {
            Ok(position) => out.copy_from_slice(rows.row(position)),
            Err(first) if sizes.is_empty() => mean(rows.rows(first, rows.count - first), out),
            Err(first) => {
                let sizes = &sizes[sequence * tokens..][..tokens];
                weighted_mean(rows.rows(first, rows.count - first), &sizes[first..], out);
            }
        };
        if self.member.size() == 1 {
            for sequence in 0..sequences {
                let rows = self.arena.rows(x).rows(sequence * tokens, tokens);
                one(sequence, rows, &mut data[sequence * shape.stride..][..width]);
            }
        } else if let Some(rows) = gather(&mut self.member, tokens, self.arena.rows(x)) {
            one(0, rows, &mut data[..width]);
        }
        self.arena.put(slot, data);
        slot
    }

    fn is_observed(&self) -> bool {
        self.taps.is_some()
    }

    fn tap(&mut self, tap: Tap, x: Slot) {
        let Some(sink) = self.taps else { return };
        let shape = self.arena.shape(x);
        if shape.rows == 0 {
            return;
        }
        let part = if shape.tokens == 1 { 0..1 } else { self.part(shape.tokens) };
        for sequence in 0..self.input.sequences {
            sink(tap, sequence, part.clone(), self.arena.rows(x).rows(sequence * part.len(), part.len()));
        }
    }
}

impl CpuExec<'_> {
    /// act(x W + b) into a new slot.
    fn product(&mut self, x: Slot, linear: LinearId, activation: Activation) -> Slot {
        let SlotShape { rows, tokens, .. } = self.arena.shape(x);
        let (slot, mut data, shape) = self.new_slot(rows, self.store.linear(linear).n(), tokens);
        let out = RowsMut::strided(&mut data, rows, shape.width, shape.stride);
        self.multiply(x, linear, out, Output::Store(activation));
        self.arena.put(slot, data);
        slot
    }

    fn multiply(&mut self, x: Slot, linear: LinearId, out: RowsMut, output: Output) {
        let SlotShape { rows, tokens, .. } = self.arena.shape(x);
        let whole = if tokens == 1 { 1 } else { self.whole_tokens.unwrap_or(tokens) };
        let mut scratch = std::mem::take(&mut self.arena.product);
        let x = Sequences { rows: self.arena.rows(x), tokens: whole, here: rows / self.input.sequences };
        self.store.linear(linear).product(On::Thread(self.isa), x, out, output, &mut scratch);
        self.arena.product = scratch;
    }
}
