//! The recording executor: computes like `CpuExec`, with the same kernels, and keeps what the backward reads.
//!
//! Every operation makes one new slot, and its record (an `Op` of slots and parameter ids, some ten words) is enough to
//! compute it: `Tape::compute` is the only forward, both the first time and when a block is run again. That is why a
//! tape in [`Keep::BlockInputs`] mode needs no second call of a block's body, and why its gradients are the same bits.

use crate::arena::{Scratch, TapeArena};
use crate::params::ParamValues;
use openvision_kernels::Buffer;
use openvision_kernels::act::{Activation, activate};
use openvision_kernels::attention::{AttentionShape, Mask, attention, probe_attention};
use openvision_kernels::gemm::{Output, Sequences, gemm_tokens};
use openvision_kernels::norm::layer_norm;
use openvision_kernels::patch::patch_row;
use openvision_kernels::pool::Member;
use openvision_kernels::vector::{Rows, RowsMut, mean};
use openvision_tensor::{
    Blocks, CpuInput, Exec, Heads, LinearId, NormId, Patches, Pooling, Slot, TableId, Tap, Tokens,
};
use std::collections::HashMap;
use std::ops::Range;

/// What a tape holds between forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// The value of every slot.
    #[default]
    Everything,
    /// Of each block only what goes in and what comes out; the backward computes the rest again, block by block.
    BlockInputs,
}

/// One recorded operation, and what its backward reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// Backward reads the input pixels again; nothing is saved.
    EmbedPatches(Patches),
    /// Backward reads the ids; nothing is saved.
    EmbedTokens(Tokens),
    /// Backward reads x; mean and variance are computed again.
    LayerNorm { x: Slot, norm: NormId },
    /// Backward reads x and, where there is an activation, the pre-activations saved beside the value; LN(x) is
    /// computed again.
    NormLinear { x: Slot, norm: NormId, linear: LinearId, activation: Activation },
    /// Backward reads x.
    Linear { x: Slot, linear: LinearId },
    /// Backward reads x; the residual only passes its gradient on.
    LinearAdd { residual: Slot, x: Slot, linear: LinearId },
    /// Backward reads the fused rows; probabilities are computed again, a head of a sequence at a time.
    Attention { qkv: Slot, heads: Heads },
    /// Backward reads nothing.
    Probe { table: TableId },
    /// Backward reads the query and the tokens; probabilities are computed again.
    ProbeAttention { query: Slot, keys_values: Slot, heads: Heads },
    /// Backward reads the fused rows; probabilities are computed again.
    PooledAttention { qkv: Slot, heads: Heads, pooling: Pooling },
    /// Backward reads nothing.
    Pool { x: Slot, pooling: Pooling },
}

/// Rows of a slot: all sequences of the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// Tokens of each sequence (1 after pooling).
    pub(crate) tokens: usize,
}

impl Shape {
    /// Distance between rows: rows whose length is a multiple of 1 KiB would fall into the same few cache sets.
    pub(crate) fn stride(self) -> usize {
        let stride = self.width.next_multiple_of(16);
        if stride.is_multiple_of(256) { stride + 16 } else { stride }
    }

    pub(crate) fn length(self) -> usize {
        self.rows * self.stride()
    }

    pub(crate) fn view(self, data: &[f32]) -> Rows<'_> {
        Rows::strided(data, self.rows, self.width, self.stride())
    }

    /// The same rows as tokens of sequences.
    pub(crate) fn sequences(self, data: &[f32]) -> Sequences<'_> {
        Sequences { rows: self.view(data), tokens: self.tokens, here: self.tokens }
    }

    pub(crate) fn view_mut(self, data: &mut [f32]) -> RowsMut<'_> {
        RowsMut::strided(data, self.rows, self.width, self.stride())
    }
}

/// A slot: how it came about and, unless dropped, its rows.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) shape: Shape,
    pub(crate) value: Option<Buffer>,
    /// Pre-activations of a [`Op::NormLinear`] with an activation.
    pub(crate) before: Option<Buffer>,
}

/// The slots that a block made.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) slots: Range<usize>,
    /// Whether the values of all but the last are to be computed again.
    pub(crate) dropped: bool,
}

/// Records one forward pass of a tower over a batch.
///
/// The input is that of `CpuExec`; a caller checks that ids lie in the vocabulary and marks in the context (an index
/// outside panics).
pub struct Tape<'a> {
    pub(crate) params: &'a ParamValues,
    pub(crate) arena: &'a mut TapeArena,
    pub(crate) input: CpuInput<'a>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) blocks: Vec<Block>,
    keep: Keep,
    in_block: bool,
    taps: HashMap<Tap, Slot>,
}

/// The value of a slot.
pub(crate) fn value(nodes: &[Node], slot: Slot) -> Rows<'_> {
    let node = &nodes[slot.0];
    let data = node.value.as_ref().expect("a slot inside a block is not read after the block");
    node.shape.view(data)
}

/// The value of a slot as tokens of sequences.
fn sequences(nodes: &[Node], slot: Slot) -> Sequences<'_> {
    let tokens = nodes[slot.0].shape.tokens;
    Sequences { rows: value(nodes, slot), tokens, here: tokens }
}

impl<'a> Tape<'a> {
    /// A tape for one forward pass.
    pub fn new(params: &'a ParamValues, arena: &'a mut TapeArena, input: CpuInput<'a>, keep: Keep) -> Self {
        arena.peak = arena.live;
        let (nodes, blocks, taps) = (Vec::new(), Vec::new(), HashMap::new());
        Self { params, arena, input, nodes, blocks, keep, in_block: false, taps }
    }

    /// The rows of a slot.
    ///
    /// # Panics
    /// Where the slot lies inside a block whose values were dropped.
    pub fn read(&self, slot: Slot) -> Rows<'_> {
        value(&self.nodes, slot)
    }

    /// The slot that the model showed as this tap, for another model to read and to seed with a gradient.
    pub fn tapped(&self, tap: Tap) -> Option<Slot> {
        self.taps.get(&tap).copied()
    }

    fn shape(&self, slot: Slot) -> Shape {
        self.nodes[slot.0].shape
    }

    /// Records an operation and computes it.
    fn push(&mut self, op: Op, shape: Shape) -> Slot {
        let slot = Slot(self.nodes.len());
        self.nodes.push(Node { op, shape, value: None, before: None });
        self.compute(slot);
        slot
    }

    /// Computes a slot from its record.
    pub(crate) fn compute(&mut self, slot: Slot) {
        let Node { op, shape, .. } = self.nodes[slot.0];
        let mut data = self.arena.take(shape.length());
        let out = shape.view_mut(&mut data);
        let (isa, params) = (self.params.isa(), self.params);
        match op {
            Op::EmbedPatches(patches) => self.embed_patches_into(patches, shape, &mut data),
            Op::EmbedTokens(tokens) => self.embed_tokens_into(tokens, out),
            Op::LayerNorm { x, norm } => layer_norm(isa, &params.norm(norm), value(&self.nodes, x), out),
            Op::NormLinear { x, norm, linear, activation } => {
                let normed = self.normed(x, norm);
                let (rows, output) = (self.shape(x).sequences(&normed), Output::Store(Activation::None));
                gemm_tokens(isa, rows, params.linear(linear), out, output, &mut self.arena.scratch.product);
                self.arena.give(normed);
                if activation != Activation::None {
                    let mut before = self.arena.take(data.len());
                    before.copy_from_slice(&data);
                    activate(isa, activation, &mut data);
                    self.nodes[slot.0].before = Some(before);
                }
            }
            Op::Linear { x, linear } => {
                let (rows, output) = (sequences(&self.nodes, x), Output::Store(Activation::None));
                gemm_tokens(isa, rows, params.linear(linear), out, output, &mut self.arena.scratch.product);
            }
            Op::LinearAdd { residual, x, linear } => {
                copy(value(&self.nodes, residual), shape.view_mut(&mut data));
                let out = shape.view_mut(&mut data);
                let rows = sequences(&self.nodes, x);
                gemm_tokens(isa, rows, params.linear(linear), out, Output::Add, &mut self.arena.scratch.product);
            }
            Op::Attention { qkv, heads } => {
                let rows = value(&self.nodes, qkv);
                let Scratch { team, attention: scratch, .. } = &mut self.arena.scratch;
                attention(isa, &mut Member::solo(team), attention_shape(shape.tokens, heads), rows, out, scratch);
            }
            Op::Probe { table } => {
                let mut out = out;
                (0..shape.rows).for_each(|i| out.row_mut(i).copy_from_slice(params.table(table)));
            }
            Op::ProbeAttention { query, keys_values, heads } => {
                let tokens = self.shape(keys_values).tokens;
                let (query, rows) = (value(&self.nodes, query), value(&self.nodes, keys_values));
                let (mut out, scratch) = (out, &mut self.arena.scratch.attention);
                for sequence in 0..shape.rows {
                    let tokens_of_one = rows.rows(sequence * tokens, tokens);
                    let (row, target) = (query.row(sequence), out.row_mut(sequence));
                    probe_attention(isa, attention_shape(tokens, heads), row, tokens_of_one, target, scratch);
                }
            }
            Op::PooledAttention { qkv, heads, pooling } => {
                let (mut out, scratch) = (out, &mut self.arena.scratch.attention);
                for sequence in 0..shape.rows {
                    let (shape, row, seen) = pooled_attention(&self.nodes, self.input, (qkv, heads, pooling), sequence);
                    let rows = value(&self.nodes, qkv);
                    let query = &rows.row(row)[..shape.width()];
                    let keys_values = rows.rows(seen, shape.tokens).columns(shape.width(), 2 * shape.width());
                    probe_attention(isa, shape, query, keys_values, out.row_mut(sequence), scratch);
                }
            }
            Op::Pool { x, pooling } => self.pool_into(x, pooling, out),
        }
        self.nodes[slot.0].value = Some(data);
    }

    /// LN(x) in a buffer of its own.
    pub(crate) fn normed(&mut self, x: Slot, norm: NormId) -> Buffer {
        let shape = self.shape(x);
        let mut data = self.arena.take(shape.length());
        let rows = value(&self.nodes, x);
        layer_norm(self.params.isa(), &self.params.norm(norm), rows, shape.view_mut(&mut data));
        data
    }

    /// The pixels of every patch, one row a token; the class token has a row of zeros.
    pub(crate) fn patch_rows(&mut self, patches: Patches) -> (Shape, Buffer) {
        let Patches { grid, class, .. } = patches;
        let extra = usize::from(class.is_some());
        let tokens = grid.patches() + extra;
        let shape = Shape { rows: self.input.sequences * tokens, width: grid.patch_length(), tokens };
        let mut data = self.arena.take(shape.length());
        let mut rows = shape.view_mut(&mut data);
        let pixels_of_one = 3 * grid.height * grid.width;
        for i in 0..shape.rows {
            let pixels = &self.input.pixels[i / tokens * pixels_of_one..][..pixels_of_one];
            match (i % tokens).checked_sub(extra) {
                Some(patch) => patch_row(grid, pixels, patch, rows.row_mut(i)),
                None => rows.row_mut(i).fill(0.0),
            }
        }
        (shape, data)
    }

    /// As `CpuExec` does it, for the same bits: positions and class token first, then the product is added.
    fn embed_patches_into(&mut self, patches: Patches, shape: Shape, data: &mut [f32]) {
        let params = self.params;
        let linear = params.linear(patches.convolution);
        // The class token's row of zeros gives a product of just the bias, which is not part of its embedding.
        let bias = linear.bias().filter(|_| patches.class.is_some());
        let table = Rows::new(params.table(patches.positions), shape.tokens, shape.width);
        let mut out = shape.view_mut(data);
        for i in 0..shape.rows {
            let row = out.row_mut(i);
            row.copy_from_slice(table.row(i % shape.tokens));
            if let (0, Some(class)) = (i % shape.tokens, patches.class) {
                for (j, (value, class)) in row.iter_mut().zip(params.table(class)).enumerate() {
                    *value += class - bias.map_or(0.0, |bias| bias[j]);
                }
            }
        }
        let (of_patches, rows) = self.patch_rows(patches);
        let scratch = &mut self.arena.scratch.product;
        gemm_tokens(params.isa(), of_patches.sequences(&rows), linear, out, Output::Add, scratch);
        self.arena.give(rows);
    }

    fn embed_tokens_into(&self, tokens: Tokens, mut out: RowsMut) {
        let width = out.width;
        let (table, positions) = (self.params.table(tokens.table), self.params.table(tokens.positions));
        for i in 0..out.count {
            let word = &table[self.input.ids[i] as usize * width..][..width];
            let position = &positions[i % tokens.length * width..][..width];
            for ((value, word), position) in out.row_mut(i).iter_mut().zip(word).zip(position) {
                *value = word + position;
            }
        }
    }

    fn pool_into(&self, x: Slot, pooling: Pooling, mut out: RowsMut) {
        let tokens = self.shape(x).tokens;
        for sequence in 0..out.count {
            let rows = value(&self.nodes, x).rows(sequence * tokens, tokens);
            let out = out.row_mut(sequence);
            match pooling.position(self.input.marks, sequence) {
                Ok(position) => out.copy_from_slice(rows.row(position)),
                Err(first) => mean(rows.rows(first, tokens - first), out),
            }
        }
    }

    /// Records a block. One inside another belongs to the outer one.
    fn in_a_block(&mut self, body: impl FnOnce(&mut Self) -> Slot) -> Slot {
        if self.keep == Keep::Everything || self.in_block {
            return body(self);
        }
        let start = self.nodes.len();
        self.in_block = true;
        let out = body(self);
        self.in_block = false;
        for slot in (start..self.nodes.len()).filter(|&slot| slot != out.0) {
            self.forget(slot);
        }
        self.blocks.push(Block { slots: start..self.nodes.len(), dropped: true });
        out
    }

    /// Gives up what a slot holds.
    pub(crate) fn forget(&mut self, slot: usize) {
        let node = &mut self.nodes[slot];
        for buffer in [node.value.take(), node.before.take()].into_iter().flatten() {
            self.arena.give(buffer);
        }
    }
}

impl Drop for Tape<'_> {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|slot| self.forget(slot));
    }
}

/// Of one sequence's pooled attention: what the kernel computes, the row of the query, and the first row that it sees.
pub(crate) fn pooled_attention(
    nodes: &[Node],
    input: CpuInput,
    (qkv, heads, pooling): (Slot, Heads, Pooling),
    sequence: usize,
) -> (AttentionShape, usize, usize) {
    let tokens = nodes[qkv.0].shape.tokens;
    let position = pooling.position(input.marks, sequence).expect("pooled attention is that of one position");
    let seen = if heads.mask == Mask::Causal { position + 1 } else { tokens };
    let shape = AttentionShape { mask: Mask::None, ..attention_shape(seen, heads) };
    (shape, sequence * tokens + position, sequence * tokens)
}

/// The kernel's description of an attention.
pub(crate) fn attention_shape(tokens: usize, heads: Heads) -> AttentionShape {
    AttentionShape { tokens, heads: heads.count, head_dim: heads.width, mask: heads.mask }
}

/// Copies rows.
pub(crate) fn copy(from: Rows, mut to: RowsMut) {
    for i in 0..from.count {
        to.row_mut(i).copy_from_slice(from.row(i));
    }
}

impl Blocks for Tape<'_> {
    fn layer_norm(&mut self, x: Slot, norm: NormId) -> Slot {
        self.push(Op::LayerNorm { x, norm }, self.shape(x))
    }

    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, activation: Activation) -> Slot {
        let width = self.params.linear(linear).weights.n();
        self.push(Op::NormLinear { x, norm, linear, activation }, Shape { width, ..self.shape(x) })
    }

    fn linear(&mut self, x: Slot, linear: LinearId) -> Slot {
        let width = self.params.linear(linear).weights.n();
        self.push(Op::Linear { x, linear }, Shape { width, ..self.shape(x) })
    }

    fn linear_add(&mut self, residual: Slot, x: Slot, linear: LinearId) -> Slot {
        self.push(Op::LinearAdd { residual, x, linear }, self.shape(residual))
    }

    fn attention(&mut self, qkv: Slot, heads: Heads) -> Slot {
        let width = heads.count * heads.width;
        self.push(Op::Attention { qkv, heads }, Shape { width, ..self.shape(qkv) })
    }

    fn block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Blocks, Slot) -> Slot) -> Slot {
        self.in_a_block(|tape| body(tape, x))
    }
}

impl Exec for Tape<'_> {
    fn embed_patches(&mut self, patches: Patches) -> Slot {
        let tokens = patches.grid.patches() + usize::from(patches.class.is_some());
        let width = self.params.linear(patches.convolution).weights.n();
        self.push(Op::EmbedPatches(patches), Shape { rows: self.input.sequences * tokens, width, tokens })
    }

    fn embed_tokens(&mut self, tokens: Tokens) -> Slot {
        let (rows, width) = (self.input.sequences * tokens.length, self.params.table_width(tokens.table));
        self.push(Op::EmbedTokens(tokens), Shape { rows, width, tokens: tokens.length })
    }

    fn probe(&mut self, table: TableId) -> Slot {
        let shape = Shape { rows: self.input.sequences, width: self.params.table_width(table), tokens: 1 };
        self.push(Op::Probe { table }, shape)
    }

    fn probe_attention(&mut self, query: Slot, keys_values: Slot, heads: Heads) -> Slot {
        self.push(Op::ProbeAttention { query, keys_values, heads }, self.shape(query))
    }

    fn last_block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Exec, Slot) -> Slot) -> Slot {
        self.in_a_block(|tape| body(tape, x))
    }

    fn pooled_attention(&mut self, qkv: Slot, heads: Heads, pooling: Pooling) -> Slot {
        let shape = Shape { rows: self.input.sequences, width: heads.count * heads.width, tokens: 1 };
        self.push(Op::PooledAttention { qkv, heads, pooling }, shape)
    }

    fn pool(&mut self, x: Slot, pooling: Pooling) -> Slot {
        let shape = Shape { rows: self.input.sequences, tokens: 1, ..self.shape(x) };
        self.push(Op::Pool { x, pooling }, shape)
    }

    /// What training reads as taps it asks for by `Until`.
    fn is_observed(&self) -> bool {
        false
    }

    fn tap(&mut self, tap: Tap, x: Slot) {
        self.taps.insert(tap, x);
    }
}
