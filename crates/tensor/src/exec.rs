//! The executor interface: some fifteen fused units, from which every tower is wired.

use crate::{LinearId, NormId, TableId};
use openvision_kernels::act::Activation;
use openvision_kernels::attention::Mask;
use openvision_kernels::merge::Merge;
use openvision_kernels::patch::PatchGrid;

/// A value of an executor: a small copyable handle. The data stay where the executor has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub usize);

/// The head structure of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Number of heads.
    pub count: usize,
    /// Width of one.
    pub width: usize,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// The first step of an image tower: convolution, class token, positions.
#[derive(Clone, Copy, Debug)]
pub struct Patches {
    /// How the picture is cut.
    pub grid: PatchGrid,
    /// Patch convolution as a linear map 3P² → D.
    pub convolution: LinearId,
    /// Class token, [1, D], put before the patches.
    pub class: Option<TableId>,
    /// Positions, [class + patches, D].
    pub positions: TableId,
}

/// The first step of a text tower: token and position embeddings.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Token embeddings, [vocabulary, D].
    pub table: TableId,
    /// Positions, [context, D].
    pub positions: TableId,
    /// Tokens of a sequence; at most the context.
    pub length: usize,
    /// Whether the result depends on nothing behind the marked position: the mask is causal and pooling takes that one. An
    /// executor may leave out what is behind the last mark; the numbers of what is before are the same.
    pub until_mark: bool,
}

/// How the tokens of a sequence become one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Mean of tokens from this index on (1 leaves the class token out).
    MeanFrom(usize),
    /// One position.
    At(usize),
    /// The position that the input names for each sequence, e.g. that of the end token.
    Marked,
}

impl Pooling {
    /// The position in a sequence that is taken, or the first of those whose mean is. `marks`: one position a sequence.
    ///
    /// # Errors
    /// It is a mean.
    pub fn position(self, marks: &[usize], sequence: usize) -> Result<usize, usize> {
        match self {
            Pooling::MeanFrom(first) => Err(first),
            Pooling::At(position) => Ok(position),
            Pooling::Marked => Ok(marks[sequence]),
        }
    }
}

/// A value that an observer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tap {
    /// After embedding (and the first norm, where there is one), before block 0.
    Embedded,
    /// Output of block i, [tokens, D].
    Block(usize),
    /// All tokens after the final norm.
    FinalNorm,
    /// The pooled row, normed, before the projection.
    Pooled,
}

/// Operations of a transformer block. Rows are `[sequences × tokens, D]`.
///
/// What an operation saves for its backward is the training executor's business and is documented there.
pub trait Blocks {
    /// Layer norm of every row.
    fn layer_norm(&mut self, x: Slot, norm: NormId) -> Slot;
    /// act(LN(x) W + b).
    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, activation: Activation) -> Slot;
    /// x W + b.
    fn linear(&mut self, x: Slot, linear: LinearId) -> Slot;
    /// residual + x W + b. The residual slot may be reused for the result and must not be read afterwards.
    fn linear_add(&mut self, residual: Slot, x: Slot, linear: LinearId) -> Slot;
    /// Self-attention within each sequence over fused rows [q | k | v]; gives [same rows, D].
    fn attention(&mut self, qkv: Slot, heads: Heads) -> Slot;
    /// Merges similar tokens of each sequence of `x`, by the keys in `qkv`; later attentions and means count a token as
    /// often as it stands for others. Gives `x` itself, with fewer rows.
    ///
    /// # Panics
    /// Only the inference executor can, on one thread a sequence: towers that merge are wired for nothing else.
    fn merge_tokens(&mut self, _x: Slot, _qkv: Slot, _heads: Heads, _merge: Merge) -> Slot {
        panic!("this executor does not merge tokens")
    }
    /// Runs a block: temporaries end with it, and a training executor may keep only `x` and the result, and compute
    /// the rest again from its own records. The result is a new slot, or `x` itself reused.
    fn block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Blocks, Slot) -> Slot) -> Slot;
}

/// Operations of a whole tower. Inputs belong to the executor.
pub trait Exec: Blocks {
    /// Patches of the input pictures, embedded: [pictures × (class + patches), D].
    fn embed_patches(&mut self, patches: Patches) -> Slot;
    /// Tokens of the input texts, embedded: [texts × length, D].
    fn embed_tokens(&mut self, tokens: Tokens) -> Slot;
    /// The one row of a table for every sequence: [sequences, D]. Learned queries of pooling heads.
    fn probe(&mut self, table: TableId) -> Slot;
    /// Attention of one query a sequence, [sequences, D], over the sequence's tokens [k | v], [rows, 2 D]; gives
    /// [sequences, D]. The mask of `heads` is not used.
    fn probe_attention(&mut self, query: Slot, keys_values: Slot, heads: Heads) -> Slot;
    /// [`Blocks::block`] for the last one, whose result is pooled.
    fn last_block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Exec, Slot) -> Slot) -> Slot;
    /// Attention of one position of each sequence over fused rows [q | k | v], as far as the mask lets it see: what
    /// `pool(attention(qkv))` gives, without the rows that nobody reads. Gives [sequences, D]. `pooling` names a position.
    fn pooled_attention(&mut self, qkv: Slot, heads: Heads, pooling: Pooling) -> Slot {
        let all = self.attention(qkv, heads);
        self.pool(all, pooling)
    }
    /// One row a sequence: [sequences, D].
    fn pool(&mut self, x: Slot, pooling: Pooling) -> Slot;
    /// Whether somebody looks at taps: then all tokens have to be computed, else only those that the embedding needs.
    fn is_observed(&self) -> bool;
    /// Shows a value to an observer, if there is one.
    fn tap(&mut self, tap: Tap, x: Slot);
}
