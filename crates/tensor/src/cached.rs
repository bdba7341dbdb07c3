//! The executor of text generation: new rows attend to the keys and values of all rows before them.
//!
//! A sequence is a prefix that several continuations may share (a picture's patch tokens), and a continuation of its
//! own in a slot (the words so far). All rows are computed together on all threads of a pool, so that one reading of
//! the weights serves many sequences.

use crate::cpu::{Arena, SlotShape, row_stride};
use crate::exec::{Blocks, Heads, Slot};
use crate::store::On;
use crate::{CpuStore, LinearId, NormId};
use openvision_kernels::act::Activation;
use openvision_kernels::attention::{AttentionShape, Mask, Remembered, attention_on, remembered_attention};
use openvision_kernels::gemm::{Output, Sequences};
use openvision_kernels::norm::layer_norm;
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::{Rows, RowsMut};
use openvision_kernels::{Buffer, Isa};

/// Keys and values of every layer, [k | v] rows of 2 D.
#[derive(Debug, Default)]
pub struct KeyValueCache {
    width: usize,
    prefix: usize,
    longest: usize,
    /// By layer: [pictures × prefix, 2 D].
    prefixes: Vec<Buffer>,
    /// By layer: [slots × longest, 2 D].
    continuations: Vec<Buffer>,
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Transformer layers.
    pub layers: usize,
    /// Width D of the residual stream.
    pub width: usize,
    /// Prefixes.
    pub prefixes: usize,
    /// Rows of a prefix.
    pub prefix: usize,
    /// Continuations.
    pub slots: usize,
    /// Most rows of a continuation.
    pub longest: usize,
}

impl CacheShape {
    /// Bytes that such a cache takes.
    pub fn bytes(&self) -> usize {
        let rows = self.prefixes * self.prefix + self.slots * self.longest;
        rows.saturating_mul(2 * self.width * self.layers * size_of::<f32>())
    }
}

impl KeyValueCache {
    /// Makes room for a shape; what was remembered is forgotten.
    pub fn reset(&mut self, shape: CacheShape) {
        let CacheShape { layers, width, prefixes, prefix, slots, longest } = shape;
        (self.width, self.prefix, self.longest) = (width, prefix, longest);
        self.prefixes.resize_with(layers, Buffer::default);
        self.continuations.resize_with(layers, Buffer::default);
        self.prefixes.iter_mut().for_each(|layer| layer.ensure(prefixes * prefix * 2 * width));
        self.continuations.iter_mut().for_each(|layer| layer.ensure(slots * longest * 2 * width));
    }

    /// Copies the first `length` rows of one continuation to another slot.
    pub fn copy(&mut self, from: usize, to: usize, length: usize) {
        let row = 2 * self.width;
        for layer in &mut self.continuations {
            let start = from * self.longest * row;
            layer.copy_within(start..start + length * row, to * self.longest * row);
        }
    }
}

/// Where a row of a step belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The prefix that it continues.
    pub prefix: usize,
    /// Its continuation.
    pub slot: usize,
    /// Rows of the continuation before it.
    pub length: usize,
}

/// Which rows are computed.
#[derive(Clone, Copy, Debug)]
pub enum NewRows<'a> {
    /// A whole prefix, whose rows all see one another.
    Prefix(usize),
    /// One row of each continuation named, which sees its prefix, what came before, and itself.
    Step(&'a [Place]),
}

/// Runs blocks over new rows and remembers their keys and values.
pub struct CachedExec<'a> {
    isa: Isa,
    store: &'a CpuStore,
    pool: &'a Pool,
    arena: &'a mut Arena,
    cache: &'a mut KeyValueCache,
    rows: NewRows<'a>,
    /// The layer whose attention comes next.
    layer: usize,
}

impl<'a> CachedExec<'a> {
    /// An executor for one pass over `rows`.
    pub fn new(
        store: &'a CpuStore,
        pool: &'a Pool,
        memory: (&'a mut Arena, &'a mut KeyValueCache),
        rows: NewRows<'a>,
    ) -> Self {
        let (arena, cache) = memory;
        arena.clear();
        Self { isa: store.isa(), store, pool, arena, cache, rows, layer: 0 }
    }

    /// Rows of the caller, copied.
    pub fn input<'r>(&mut self, width: usize, rows: impl ExactSizeIterator<Item = &'r [f32]>) -> Slot {
        let (slot, mut data, shape) = self.new_slot(rows.len(), width);
        for (i, row) in rows.enumerate() {
            data[i * shape.stride..][..width].copy_from_slice(row);
        }
        self.arena.put(slot, data);
        slot
    }

    /// The rows of a slot.
    pub fn read(&self, slot: Slot) -> Rows<'_> {
        self.arena.rows(slot)
    }

    fn new_slot(&mut self, rows: usize, width: usize) -> (Slot, Buffer, SlotShape) {
        let shape = SlotShape { rows, width, stride: row_stride(width), tokens: rows };
        let (slot, data) = self.arena.take(shape);
        (slot, data, shape)
    }

    /// act(x W + b) into a new slot.
    fn product(&mut self, x: Slot, linear: LinearId, activation: Activation) -> Slot {
        let weights = self.store.linear(linear);
        let (slot, mut data, shape) = self.new_slot(self.arena.shape(x).rows, weights.n());
        let out = RowsMut::strided(&mut data, shape.rows, shape.width, shape.stride);
        let (on, mut scratch) = (On::Pool(self.isa, self.pool), std::mem::take(&mut self.arena.product));
        weights.product(on, Sequences::of_one(self.arena.rows(x)), out, Output::Store(activation), &mut scratch);
        self.arena.product = scratch;
        self.arena.put(slot, data);
        slot
    }

    /// Writes the keys and values of the new rows to the cache of this layer.
    fn remember(&mut self, qkv: Slot) {
        let KeyValueCache { width, prefix, longest, prefixes, continuations } = &mut *self.cache;
        let row = 2 * *width;
        let rows = self.arena.rows(qkv);
        for i in 0..rows.count {
            let (layer, at) = match self.rows {
                NewRows::Prefix(number) => (&mut prefixes[self.layer], number * *prefix + i),
                NewRows::Step(places) => (&mut continuations[self.layer], places[i].slot * *longest + places[i].length),
            };
            layer[at * row..][..row].copy_from_slice(&rows.row(i)[*width..]);
        }
    }
}

impl Blocks for CachedExec<'_> {
    fn layer_norm(&mut self, x: Slot, norm: NormId) -> Slot {
        let from = self.arena.shape(x);
        let (slot, mut data, shape) = self.new_slot(from.rows, from.width);
        let out = RowsMut::strided(&mut data, shape.rows, shape.width, shape.stride);
        layer_norm(self.isa, &self.store.norm(norm), self.arena.rows(x), out);
        self.arena.put(slot, data);
        slot
    }

    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, activation: Activation) -> Slot {
        let normed = self.layer_norm(x, norm);
        self.product(normed, linear, activation)
    }

    fn linear(&mut self, x: Slot, linear: LinearId) -> Slot {
        self.product(x, linear, Activation::None)
    }

    fn linear_add(&mut self, residual: Slot, x: Slot, linear: LinearId) -> Slot {
        let shape = self.arena.shape(residual);
        let mut data = self.arena.lend(residual);
        let out = RowsMut::strided(&mut data, shape.rows, shape.width, shape.stride);
        let (on, mut scratch) = (On::Pool(self.isa, self.pool), std::mem::take(&mut self.arena.product));
        self.store.linear(linear).product(on, Sequences::of_one(self.arena.rows(x)), out, Output::Add, &mut scratch);
        self.arena.product = scratch;
        self.arena.put(residual, data);
        residual
    }

    fn attention(&mut self, qkv: Slot, heads: Heads) -> Slot {
        self.remember(qkv);
        let (rows, width) = (self.arena.shape(qkv).rows, heads.count * heads.width);
        let shape = SlotShape { rows, width, stride: width, tokens: rows };
        let (slot, mut data) = self.arena.take(shape);
        let (pool, isa, qkv) = (self.pool, self.isa, self.arena.rows(qkv));
        let out = &mut data[..rows * width];
        match self.rows {
            NewRows::Prefix(_) => {
                let whole =
                    AttentionShape { tokens: rows, heads: heads.count, head_dim: heads.width, mask: Mask::None };
                attention_on(pool, isa, whole, qkv, out);
            }
            NewRows::Step(places) => {
                let KeyValueCache { prefix, longest, prefixes, continuations, .. } = &*self.cache;
                let (shared, own) = (&prefixes[self.layer], &continuations[self.layer]);
                let seen: Vec<Remembered> = places
                    .iter()
                    .map(|place| {
                        let shared = Rows::new(&shared[place.prefix * prefix * 2 * width..], *prefix, 2 * width);
                        let own = Rows::new(&own[place.slot * longest * 2 * width..], place.length + 1, 2 * width);
                        Remembered { keys_values: [shared, own] }
                    })
                    .collect();
                remembered_attention(pool, isa, heads.width, qkv, &seen, out);
            }
        }
        self.layer += 1;
        self.arena.put(slot, data);
        slot
    }

    fn block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Blocks, Slot) -> Slot) -> Slot {
        let mark = self.arena.mark();
        let out = body(self, x);
        assert_eq!(out, x, "a block of this executor works in place");
        self.arena.release(mark);
        out
    }
}
