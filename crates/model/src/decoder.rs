//! OpenVision 2's caption decoder as wiring: projected patch tokens, then words that see them and what came before.
//!
//! There is no position on the words (openvision.md 1.3): their order shows in what each of them sees.

use crate::config::DecoderConfig;
use crate::tower::Transformer;
use openvision_kernels::attention::Mask;
use openvision_kernels::vector::Rows;
use openvision_tensor::{
    Blocks, CachedExec, CpuStore, Layout, LinearId, LinearSpec, NormId, ParamPlan, Role, Slot, TableId, TableSpec,
};

/// Parameter ids and sizes of a decoder, no numbers.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The parameters, by the names of `caption_decoder.safetensors`.
    pub plan: ParamPlan,
    words: TableId,
    projection: LinearId,
    transformer: Transformer,
    final_norm: NormId,
    head: LinearId,
}

impl Decoder {
    /// Wires a decoder and names its parameters.
    pub fn new(config: &DecoderConfig) -> Self {
        let mut plan = ParamPlan::default();
        let width = config.transformer.width;
        let map = |weight: &str, k: usize, n: usize| LinearSpec {
            weight: weight.into(),
            bias: None,
            k,
            n,
            layout: Layout::OutIn,
            shape: None,
            role: Role::Edge,
        };
        let words = TableSpec { name: "token_embedding.weight".into(), rows: config.vocabulary, width, flat: false };
        let words = plan.table(words);
        let projection = plan.linear(map("image_projection.weight", config.vision_width, width));
        // The mask is the executor's: a prefix sees itself, a word what came before.
        let transformer = Transformer::declare(&mut plan, "blocks", &config.transformer, Mask::None);
        let final_norm = plan.norm("ln_final", width, config.transformer.epsilon);
        let head = plan.linear(map("lm_head.weight", width, config.vocabulary));
        Self { plan, words, projection, transformer, final_norm, head }
    }

    /// Lets the executor remember a picture. `tokens`: [patches, vision width].
    pub(crate) fn read_picture(&self, ex: &mut CachedExec, tokens: Rows) {
        let x = ex.input(tokens.width, (0..tokens.count).map(|i| tokens.row(i)));
        let x = ex.linear(x, self.projection);
        self.transformer.run(ex, x);
    }

    /// Scores of the next word after one more word of every continuation, [rows, vocabulary].
    pub(crate) fn next_words(&self, ex: &mut CachedExec, store: &CpuStore, ids: &[u32]) -> Slot {
        let (table, width) = (store.table(self.words), store.table_width(self.words));
        let x = ex.input(width, ids.iter().map(|id| &table[*id as usize * width..][..width]));
        let x = self.transformer.run(ex, x);
        let x = ex.layer_norm(x, self.final_norm);
        ex.linear(x, self.head)
    }
}
