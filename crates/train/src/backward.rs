//! The backward of a tape: one match over the recorded operations, whose arms call the neighbors of the forward kernels.

use crate::arena::TapeMemory;
use crate::params::ParamGradients;
use crate::tape::{Node, Op, Shape, Tape, attention_shape, pooled_attention, value};
use openvision_kernels::Buffer;
use openvision_kernels::act::{Activation, activate_backward};
use openvision_kernels::attention::{
    AttentionBackward, ProbeAttentionBackward, attention_backward, probe_attention_backward,
};
use openvision_kernels::embed::{positions_backward, words_backward};
use openvision_kernels::gemm::{Output, gemm, linear_backward};
use openvision_kernels::norm::layer_norm_backward;
use openvision_kernels::vector::{Rows, add_row_sum, mean_backward};
use openvision_tensor::{Heads, LinearId, NormId, Patches, Pooling, Slot, Tokens};

/// A tape on its way back.
struct Backward<'t, 'a> {
    tape: &'t mut Tape<'a>,
    gradients: &'t mut ParamGradients,
    /// d loss / d value of each slot that something depends on.
    slopes: Vec<Option<Buffer>>,
}

impl Tape<'_> {
    /// Adds to `gradients` what the parameters get from the gradients of some slots (`seeds`: one row a row of the slot).
    ///
    /// # Panics
    /// Where a seed has not its slot's shape, lies inside a dropped block, or the gradients are those of other parameters.
    pub fn backward(mut self, seeds: &[(Slot, Rows)], gradients: &mut ParamGradients) -> TapeMemory {
        assert!(gradients.belongs_to(self.params), "the gradients were made for other parameters");
        let saved = self.arena.live;
        let slopes = self.nodes.iter().map(|_| None).collect();
        let mut backward = Backward { tape: &mut self, gradients, slopes };
        for &(slot, seed) in seeds {
            backward.seed(slot, seed);
        }
        for slot in (0..backward.slopes.len()).rev() {
            if let Some(slope) = backward.slopes[slot].take() {
                backward.run_block_again(slot);
                backward.step(slot, slope);
            }
            backward.tape.forget(slot);
        }
        TapeMemory { saved, peak: self.arena.peak }
    }
}

impl Backward<'_, '_> {
    fn shape(&self, slot: Slot) -> Shape {
        self.tape.nodes[slot.0].shape
    }

    /// The gradient of a slot so far, to add to; zeros at first.
    fn slope(&mut self, slot: Slot) -> Buffer {
        let length = self.shape(slot).length();
        self.slopes[slot.0].take().unwrap_or_else(|| self.tape.arena.take_zeroed(length))
    }

    fn put(&mut self, slot: Slot, slope: Buffer) {
        self.slopes[slot.0] = Some(slope);
    }

    fn seed(&mut self, slot: Slot, seed: Rows) {
        let shape = self.shape(slot);
        assert!(seed.count == shape.rows && seed.width == shape.width, "a seed has the shape of its slot");
        // Reading it here refuses a slot that was dropped.
        let _ = value(&self.tape.nodes, slot);
        let mut slope = self.slope(slot);
        add(seed, shape, &mut slope);
        self.put(slot, slope);
    }

    /// Computes the values of a dropped block again when the backward comes to it.
    fn run_block_again(&mut self, slot: usize) {
        let tape = &mut *self.tape;
        let Some(block) = tape.blocks.iter_mut().rev().find(|block| block.dropped && block.slots.contains(&slot))
        else {
            return;
        };
        block.dropped = false;
        for slot in block.slots.start..=slot {
            if tape.nodes[slot].value.is_none() {
                tape.compute(Slot(slot));
            }
        }
    }

    /// One operation back: from the gradient of its result to those of its inputs and parameters.
    fn step(&mut self, slot: usize, mut slope: Buffer) {
        let Node { op, shape, .. } = self.tape.nodes[slot];
        match op {
            Op::EmbedPatches(patches) => self.embed_patches(patches, shape, &slope),
            Op::EmbedTokens(tokens) => self.embed_tokens(tokens, shape, &slope),
            Op::LayerNorm { x, norm } => self.layer_norm(x, norm, shape.view(&slope)),
            Op::NormLinear { x, norm, linear, activation } => {
                if activation != Activation::None {
                    let before = self.tape.nodes[slot].before.take().expect("the forward saved pre-activations");
                    activate_backward(self.tape.params.isa(), activation, &before, &mut slope);
                    self.tape.arena.give(before);
                }
                self.norm_linear(x, norm, linear, shape.view(&slope));
            }
            Op::Linear { x, linear } => self.linear(x, linear, shape.view(&slope)),
            Op::LinearAdd { residual, x, linear } => {
                self.linear(x, linear, shape.view(&slope));
                if self.slopes[residual.0].is_none() {
                    // The gradient goes on as it is: no copy.
                    self.put(residual, slope);
                    return;
                }
                let mut sum = self.slope(residual);
                add(shape.view(&slope), shape, &mut sum);
                self.put(residual, sum);
            }
            Op::Attention { qkv, heads } => {
                let mut dqkv = self.slope(qkv);
                let job = AttentionBackward {
                    shape: attention_shape(shape.tokens, heads),
                    qkv: value(&self.tape.nodes, qkv),
                    dy: shape.view(&slope),
                    dqkv: self.shape(qkv).view_mut(&mut dqkv),
                };
                attention_backward(self.tape.params.isa(), job, &mut self.tape.arena.scratch.attention_backward);
                self.put(qkv, dqkv);
            }
            Op::Probe { table } => positions_backward(shape.view(&slope), 1, self.gradients.table(table)),
            Op::ProbeAttention { query, keys_values, heads } => {
                self.probe_attention(query, keys_values, heads, shape.view(&slope));
            }
            Op::PooledAttention { qkv, heads, pooling } => {
                self.pooled_attention(qkv, heads, pooling, shape.view(&slope));
            }
            Op::Pool { x, pooling } => self.pool(x, pooling, shape.view(&slope)),
        }
        self.tape.arena.give(slope);
    }

    fn layer_norm(&mut self, x: Slot, norm: NormId, dy: Rows) {
        let mut dx = self.slope(x);
        let (shape, rows) = (self.shape(x), value(&self.tape.nodes, x));
        let parameters = self.gradients.norm(norm);
        layer_norm_backward(&self.tape.params.norm(norm), rows, dy, shape.view_mut(&mut dx), parameters);
        self.put(x, dx);
    }

    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, dy: Rows) {
        let (shape, isa) = (self.shape(x), self.tape.params.isa());
        // LN(x) for the weight's gradient; then its memory takes the gradient of LN(x).
        let mut normed = self.tape.normed(x, norm);
        let job = self.gradients.linear(linear, shape.view(&normed), dy);
        linear_backward(isa, job, &mut self.tape.arena.scratch.gemm);
        let out = shape.view_mut(&mut normed);
        gemm(isa, dy, self.tape.params.turned(linear), out, Output::Store(Activation::None));
        self.layer_norm(x, norm, shape.view(&normed));
        self.tape.arena.give(normed);
    }

    fn linear(&mut self, x: Slot, linear: LinearId, dy: Rows) {
        let mut dx = self.slope(x);
        let (shape, isa) = (self.shape(x), self.tape.params.isa());
        let job = self.gradients.linear(linear, value(&self.tape.nodes, x), dy);
        linear_backward(isa, job, &mut self.tape.arena.scratch.gemm);
        gemm(isa, dy, self.tape.params.turned(linear), shape.view_mut(&mut dx), Output::Add);
        self.put(x, dx);
    }

    fn probe_attention(&mut self, query: Slot, keys_values: Slot, heads: Heads, dy: Rows) {
        let (mut dquery, mut dkeys_values) = (self.slope(query), self.slope(keys_values));
        let tokens = self.shape(keys_values).tokens;
        let (queries, rows) = (value(&self.tape.nodes, query), value(&self.tape.nodes, keys_values));
        let mut of_queries = self.shape(query).view_mut(&mut dquery);
        let mut of_rows = self.shape(keys_values).view_mut(&mut dkeys_values);
        for sequence in 0..dy.count {
            let start = sequence * tokens;
            probe_attention_backward(ProbeAttentionBackward {
                shape: attention_shape(tokens, heads),
                query: queries.row(sequence),
                keys_values: rows.rows(start, tokens),
                dy: dy.row(sequence),
                dquery: of_queries.row_mut(sequence),
                dkeys_values: of_rows.rows_mut(start, tokens),
            });
        }
        self.put(query, dquery);
        self.put(keys_values, dkeys_values);
    }

    fn pooled_attention(&mut self, qkv: Slot, heads: Heads, pooling: Pooling, dy: Rows) {
        let mut dqkv = self.slope(qkv);
        let rows = value(&self.tape.nodes, qkv);
        let mut of_rows = self.shape(qkv).view_mut(&mut dqkv);
        let mut dquery = vec![0.0; dy.width];
        for sequence in 0..dy.count {
            let attention = (qkv, heads, pooling);
            let (shape, row, seen) = pooled_attention(&self.tape.nodes, self.tape.input, attention, sequence);
            let width = shape.width();
            dquery.fill(0.0);
            probe_attention_backward(ProbeAttentionBackward {
                shape,
                query: &rows.row(row)[..width],
                keys_values: rows.rows(seen, shape.tokens).columns(width, 2 * width),
                dy: dy.row(sequence),
                dquery: &mut dquery,
                dkeys_values: of_rows.rows_mut(seen, shape.tokens).columns_mut(width, 2 * width),
            });
            of_rows.row_mut(row)[..width].iter_mut().zip(&dquery).for_each(|(d, dquery)| *d += dquery);
        }
        self.put(qkv, dqkv);
    }

    fn pool(&mut self, x: Slot, pooling: Pooling, dy: Rows) {
        let shape = self.shape(x);
        let mut dx = self.slope(x);
        let mut rows = shape.view_mut(&mut dx);
        for sequence in 0..dy.count {
            let (start, dy) = (sequence * shape.tokens, dy.row(sequence));
            match pooling.position(self.tape.input.marks, sequence) {
                Ok(position) => {
                    let row = rows.row_mut(start + position);
                    row.iter_mut().zip(dy).for_each(|(d, dy)| *d += dy);
                }
                Err(first) => mean_backward(dy, rows.rows_mut(start + first, shape.tokens - first)),
            }
        }
        self.put(x, dx);
    }

    fn embed_patches(&mut self, patches: Patches, shape: Shape, slope: &[f32]) {
        let dy = shape.view(slope);
        positions_backward(dy, shape.tokens, self.gradients.table(patches.positions));
        if let Some(class) = patches.class {
            positions_backward(dy, shape.tokens, self.gradients.table(class));
        }
        let (of_patches, rows) = self.tape.patch_rows(patches);
        let mut job = self.gradients.linear(patches.convolution, of_patches.view(&rows), dy);
        // The class token has no pixels and no bias; its row of zeros adds nothing to the weight.
        if let Some(bias) = job.bias.take() {
            let extra = usize::from(patches.class.is_some());
            for first in (0..shape.rows).step_by(shape.tokens) {
                add_row_sum(dy.rows(first + extra, shape.tokens - extra), bias);
            }
        }
        linear_backward(self.tape.params.isa(), job, &mut self.tape.arena.scratch.gemm);
        self.tape.arena.give(rows);
    }

    fn embed_tokens(&mut self, tokens: Tokens, shape: Shape, slope: &[f32]) {
        let dy = shape.view(slope);
        positions_backward(dy, shape.tokens, self.gradients.table(tokens.positions));
        words_backward(dy, &self.tape.input.ids[..shape.rows], self.gradients.table(tokens.table));
    }
}

/// Adds rows to a gradient.
fn add(from: Rows, shape: Shape, to: &mut [f32]) {
    let mut to = shape.view_mut(to);
    for i in 0..from.count {
        for (to, from) in to.row_mut(i).iter_mut().zip(from.row(i)) {
            *to += from;
        }
    }
}
