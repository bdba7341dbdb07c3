//! An executor around another that takes the time of its operations. The plain executor knows nothing of it and pays
//! nothing for it.

use crate::exec::{Blocks, Exec, Heads, Patches, Pooling, Slot, Tap, Tokens};
use crate::{LinearId, NormId, TableId};
use openvision_kernels::act::Activation;
use openvision_kernels::merge::Merge;
use openvision_kernels::pool::waited;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What an executor was doing. Products name their linear map, since what they are for is the model's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Cutting pictures into patches and embedding them.
    EmbedPatches(LinearId),
    /// Looking up token embeddings.
    EmbedTokens,
    /// A layer norm by itself.
    LayerNorm,
    /// A layer norm and the product after it.
    NormLinear(LinearId),
    /// A product.
    Linear(LinearId),
    /// A product added to a residual.
    LinearAdd(LinearId),
    /// Attention within sequences, the exchange of keys and values included.
    Attention,
    /// Attention of one query a sequence, its row included.
    ProbeAttention,
    /// Attention of one position a sequence.
    PooledAttention,
    /// Merging similar tokens.
    MergeTokens,
    /// One row a sequence.
    Pool,
    /// Waiting for the other members of a team, whichever operation that was in.
    Waiting,
}

/// Times of one thread, by operation.
#[derive(Debug, Default)]
pub struct Times {
    by_operation: RefCell<HashMap<Operation, Duration>>,
}

impl Times {
    fn add(&self, operation: Operation, time: Duration) {
        *self.by_operation.borrow_mut().entry(operation).or_default() += time;
    }

    /// The times so far, each operation once.
    pub fn into_inner(self) -> HashMap<Operation, Duration> {
        self.by_operation.into_inner()
    }
}

/// An executor, or the part of one that a block sees, with a clock.
pub struct Timed<'a, E: ?Sized> {
    inner: &'a mut E,
    times: &'a Times,
}

impl<'a, E: Blocks + ?Sized> Timed<'a, E> {
    /// Puts a clock to an executor.
    pub fn new(inner: &'a mut E, times: &'a Times) -> Self {
        Self { inner, times }
    }

    fn time(&mut self, operation: Operation, run: impl FnOnce(&mut E) -> Slot) -> Slot {
        let (waited_before, started) = (waited(), Instant::now());
        let slot = run(self.inner);
        let (time, waiting) = (started.elapsed(), waited() - waited_before);
        self.times.add(operation, time.saturating_sub(waiting));
        if !waiting.is_zero() {
            self.times.add(Operation::Waiting, waiting);
        }
        slot
    }
}

impl<E: Blocks + ?Sized> Blocks for Timed<'_, E> {
    fn layer_norm(&mut self, x: Slot, norm: NormId) -> Slot {
        self.time(Operation::LayerNorm, |ex| ex.layer_norm(x, norm))
    }

    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, activation: Activation) -> Slot {
        self.time(Operation::NormLinear(linear), |ex| ex.norm_linear(x, norm, linear, activation))
    }

    fn linear(&mut self, x: Slot, linear: LinearId) -> Slot {
        self.time(Operation::Linear(linear), |ex| ex.linear(x, linear))
    }

    fn linear_add(&mut self, residual: Slot, x: Slot, linear: LinearId) -> Slot {
        self.time(Operation::LinearAdd(linear), |ex| ex.linear_add(residual, x, linear))
    }

    fn attention(&mut self, qkv: Slot, heads: Heads) -> Slot {
        self.time(Operation::Attention, |ex| ex.attention(qkv, heads))
    }

    fn merge_tokens(&mut self, x: Slot, qkv: Slot, heads: Heads, merge: Merge) -> Slot {
        self.time(Operation::MergeTokens, |ex| ex.merge_tokens(x, qkv, heads, merge))
    }

    fn block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Blocks, Slot) -> Slot) -> Slot {
        let times = self.times;
        self.inner.block(x, &|inner, x| body(&mut Timed { inner, times }, x))
    }
}

impl<E: Exec + ?Sized> Exec for Timed<'_, E> {
    fn embed_patches(&mut self, patches: Patches) -> Slot {
        self.time(Operation::EmbedPatches(patches.convolution), |ex| ex.embed_patches(patches))
    }

    fn embed_tokens(&mut self, tokens: Tokens) -> Slot {
        self.time(Operation::EmbedTokens, |ex| ex.embed_tokens(tokens))
    }

    fn probe(&mut self, table: TableId) -> Slot {
        self.time(Operation::ProbeAttention, |ex| ex.probe(table))
    }

    fn probe_attention(&mut self, query: Slot, keys_values: Slot, heads: Heads) -> Slot {
        self.time(Operation::ProbeAttention, |ex| ex.probe_attention(query, keys_values, heads))
    }

    fn last_block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Exec, Slot) -> Slot) -> Slot {
        let times = self.times;
        self.inner.last_block(x, &|inner, x| body(&mut Timed { inner, times }, x))
    }

    fn pooled_attention(&mut self, qkv: Slot, heads: Heads, pooling: Pooling) -> Slot {
        self.time(Operation::PooledAttention, |ex| ex.pooled_attention(qkv, heads, pooling))
    }

    fn pool(&mut self, x: Slot, pooling: Pooling) -> Slot {
        self.time(Operation::Pool, |ex| ex.pool(x, pooling))
    }

    fn is_observed(&self) -> bool {
        self.inner.is_observed()
    }

    fn tap(&mut self, tap: Tap, x: Slot) {
        self.inner.tap(tap, x);
    }
}
