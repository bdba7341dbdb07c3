//! The two towers as wiring over an executor. One block serves every family, in inference and in training.

use crate::ModelError;
use crate::config::{ImageConfig, ImagePooling, ModelConfig, TextConfig, TextPooling, TransformerConfig};
use openvision_kernels::act::Activation;
use openvision_kernels::attention::Mask;
use openvision_kernels::merge::Merge;
use openvision_kernels::patch::PatchGrid;
use openvision_tensor::{
    Blocks, Exec, Heads, Layout, LinearId, LinearSpec, NormId, ParamPlan, Patches, Pooling, Role, Slot, TableId,
    TableSpec, Tap, Tokens,
};

/// A pre-norm transformer block: x += attn(LN(x)); x += mlp(LN(x)).
#[derive(Clone, Copy, Debug)]
struct Block {
    attention_norm: NormId,
    qkv: LinearId,
    out: LinearId,
    mlp_norm: NormId,
    expand: LinearId,
    contract: LinearId,
    /// Tokens to merge between attention and MLP.
    merge: Option<Merge>,
}

impl Block {
    /// Declares the parameters under open_clip's names.
    fn declare(plan: &mut ParamPlan, prefix: &str, config: &TransformerConfig) -> Self {
        let (width, mlp) = (config.width, config.mlp_width);
        let mut linear = |weight: &str, bias: &str, k: usize, n: usize| {
            plan.linear(LinearSpec {
                weight: format!("{prefix}.{weight}"),
                bias: Some(format!("{prefix}.{bias}")),
                k,
                n,
                layout: Layout::OutIn,
                shape: None,
                role: Role::Block,
            })
        };
        let qkv = linear("attn.in_proj_weight", "attn.in_proj_bias", width, 3 * width);
        let out = linear("attn.out_proj.weight", "attn.out_proj.bias", width, width);
        let expand = linear("mlp.c_fc.weight", "mlp.c_fc.bias", width, mlp);
        let contract = linear("mlp.c_proj.weight", "mlp.c_proj.bias", mlp, width);
        Self {
            attention_norm: plan.norm(format!("{prefix}.ln_1"), width, config.epsilon),
            mlp_norm: plan.norm(format!("{prefix}.ln_2"), width, config.epsilon),
            qkv,
            out,
            expand,
            contract,
            merge: None,
        }
    }

    fn forward(&self, ex: &mut dyn Blocks, x: Slot, heads: Heads, activation: Activation) -> Slot {
        let qkv = ex.norm_linear(x, self.attention_norm, self.qkv, Activation::None);
        let attended = ex.attention(qkv, heads);
        let x = ex.linear_add(x, attended, self.out);
        let x = self.merge.map_or(x, |merge| ex.merge_tokens(x, qkv, heads, merge));
        let hidden = ex.norm_linear(x, self.mlp_norm, self.expand, activation);
        ex.linear_add(x, hidden, self.contract)
    }
}

impl Block {
    /// The block, then pooling, without what pooling does not read: of the mean, the last linear map of the mean is the
    /// mean of the last linear maps; of one position, only that position attends and goes through the MLP.
    fn forward_pooled(&self, ex: &mut dyn Exec, x: Slot, of: &Transformer, pooling: Pooling) -> Slot {
        let qkv = ex.norm_linear(x, self.attention_norm, self.qkv, Activation::None);
        if let Pooling::MeanFrom(_) = pooling {
            let attended = ex.attention(qkv, of.heads);
            let x = ex.linear_add(x, attended, self.out);
            let hidden = ex.norm_linear(x, self.mlp_norm, self.expand, of.activation);
            let (x, hidden) = (ex.pool(x, pooling), ex.pool(hidden, pooling));
            return ex.linear_add(x, hidden, self.contract);
        }
        let attended = ex.pooled_attention(qkv, of.heads, pooling);
        let x = ex.pool(x, pooling);
        let x = ex.linear_add(x, attended, self.out);
        let hidden = ex.norm_linear(x, self.mlp_norm, self.expand, of.activation);
        ex.linear_add(x, hidden, self.contract)
    }
}

/// The blocks of a tower.
#[derive(Clone, Debug)]
pub(crate) struct Transformer {
    blocks: Vec<Block>,
    heads: Heads,
    activation: Activation,
}

impl Transformer {
    /// `prefix` is what stands before the number of a block in its tensors' names.
    pub(crate) fn declare(plan: &mut ParamPlan, prefix: &str, config: &TransformerConfig, mask: Mask) -> Self {
        Self {
            blocks: (0..config.layers).map(|i| Block::declare(plan, &format!("{prefix}.{i}"), config)).collect(),
            heads: Heads { count: config.heads, width: config.head_width(), mask },
            activation: config.activation.into(),
        }
    }

    /// Runs all blocks.
    pub(crate) fn run(&self, ex: &mut dyn Blocks, mut x: Slot) -> Slot {
        for block in &self.blocks {
            x = ex.block(x, &|ex, x| block.forward(ex, x, self.heads, self.activation));
        }
        x
    }

    /// Runs blocks as far as is wanted and shows what is on the way; gives the tokens where an embedding is wanted.
    fn forward(&self, ex: &mut dyn Exec, mut x: Slot, until: Until, final_norm: NormId) -> Option<Slot> {
        ex.tap(Tap::Embedded, x);
        let layers = match until {
            Until::Blocks(layers) | Until::BlocksThenNorm(layers) => layers,
            Until::Embedding | Until::EmbeddingWithNormedTokens => self.blocks.len(),
        };
        for (i, block) in self.blocks.iter().take(layers).enumerate() {
            x = ex.block(x, &|ex, x| block.forward(ex, x, self.heads, self.activation));
            ex.tap(Tap::Block(i), x);
        }
        if matches!(until, Until::EmbeddingWithNormedTokens | Until::BlocksThenNorm(_)) {
            let normed = ex.layer_norm(x, final_norm);
            ex.tap(Tap::FinalNorm, normed);
        }
        matches!(until, Until::Embedding | Until::EmbeddingWithNormedTokens).then_some(x)
    }

    /// As [`Transformer::forward`], and pooled: [sequences, D].
    fn forward_pooled(
        &self,
        ex: &mut dyn Exec,
        mut x: Slot,
        until: Until,
        final_norm: NormId,
        pooling: Pooling,
    ) -> Option<Slot> {
        if let (Until::Embedding, false, Some((last, blocks))) = (until, ex.is_observed(), self.blocks.split_last())
            && last.merge.is_none()
        {
            for block in blocks {
                x = ex.block(x, &|ex, x| block.forward(ex, x, self.heads, self.activation));
            }
            return Some(ex.last_block(x, &|ex, x| last.forward_pooled(ex, x, self, pooling)));
        }
        self.forward(ex, x, until, final_norm).map(|x| ex.pool(x, pooling))
    }
}

/// How far a forward pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Until {
    /// To the embedding.
    #[default]
    Embedding,
    /// To the embedding, also showing all tokens after the final norm to the observer.
    EmbeddingWithNormedTokens,
    /// Through this many blocks only; there is no embedding.
    Blocks(usize),
    /// Through this many blocks, then the final norm of every token; there is no embedding.
    BlocksThenNorm(usize),
}

/// An image tower: parameter ids and sizes, no numbers.
#[derive(Clone, Debug)]
pub struct ImageTower {
    /// The parameters, by name.
    pub plan: ParamPlan,
    patches: Patches,
    pre_norm: Option<NormId>,
    transformer: Transformer,
    final_norm: NormId,
    projection: Option<LinearId>,
    pooling: ImagePooling,
    attention_head: Option<AttentionHead>,
}

/// SigLIP's pooling head: y = attention(probe, tokens), then y + mlp(LN(y)).
#[derive(Clone, Copy, Debug)]
struct AttentionHead {
    probe: TableId,
    query: LinearId,
    keys_values: LinearId,
    out: LinearId,
    norm: NormId,
    expand: LinearId,
    contract: LinearId,
}

impl AttentionHead {
    fn declare(plan: &mut ParamPlan, config: &TransformerConfig) -> Self {
        let (width, mlp) = (config.width, config.mlp_width);
        let mut linear = |name: &str, k: usize, n: usize| {
            plan.linear(LinearSpec {
                weight: format!("visual.attn_pool.{name}.weight"),
                bias: Some(format!("visual.attn_pool.{name}.bias")),
                k,
                n,
                layout: Layout::OutIn,
                shape: None,
                role: Role::Edge,
            })
        };
        Self {
            query: linear("q", width, width),
            keys_values: linear("kv", width, 2 * width),
            out: linear("out_proj", width, width),
            expand: linear("mlp.c_fc", width, mlp),
            contract: linear("mlp.c_proj", mlp, width),
            probe: plan.table(TableSpec { name: "visual.attn_pool.probe".into(), rows: 1, width, flat: true }),
            norm: plan.norm("visual.attn_pool.norm", width, config.epsilon),
        }
    }

    fn forward(&self, ex: &mut dyn Exec, tokens: Slot, heads: Heads, activation: Activation) -> Slot {
        let keys_values = ex.linear(tokens, self.keys_values);
        let probe = ex.probe(self.probe);
        let query = ex.linear(probe, self.query);
        let attended = ex.probe_attention(query, keys_values, heads);
        let pooled = ex.linear(attended, self.out);
        let hidden = ex.norm_linear(pooled, self.norm, self.expand, activation);
        ex.linear_add(pooled, hidden, self.contract)
    }
}

/// A projection [K, N] without bias, as CLIP stores it.
fn projection(name: &str, k: usize, n: usize) -> LinearSpec {
    LinearSpec { weight: name.to_owned(), bias: None, k, n, layout: Layout::InOut, shape: None, role: Role::Edge }
}

impl ImageTower {
    /// Wires a tower and names its parameters.
    pub fn new(config: &ImageConfig, embed_dim: usize) -> Self {
        let mut plan = ParamPlan::default();
        let (width, patch, epsilon) = (config.transformer.width, config.patch, config.transformer.epsilon);
        let grid = PatchGrid { height: config.height, width: config.width, patch };
        let class = TableSpec { name: "visual.class_embedding".into(), rows: 1, width, flat: true };
        let positions =
            TableSpec { name: "visual.positional_embedding".into(), rows: config.tokens(), width, flat: false };
        let convolution = LinearSpec {
            weight: "visual.conv1.weight".into(),
            bias: config.patch_bias.then(|| "visual.conv1.bias".into()),
            k: grid.patch_length(),
            n: width,
            layout: Layout::OutIn,
            shape: Some(vec![width, 3, patch, patch]),
            role: Role::Edge,
        };
        let patches = Patches {
            grid,
            class: config.class_token.then(|| plan.table(class)),
            positions: plan.table(positions),
            convolution: plan.linear(convolution),
        };
        let pre_norm = config.pre_norm.then(|| plan.norm("visual.ln_pre", width, epsilon));
        let transformer =
            Transformer::declare(&mut plan, "visual.transformer.resblocks", &config.transformer, Mask::None);
        let final_norm = plan.norm("visual.ln_post", width, epsilon);
        let projection = config.projected.then(|| plan.linear(projection("visual.proj", width, embed_dim)));
        let attention_head = (config.pooling == ImagePooling::AttentionHead)
            .then(|| AttentionHead::declare(&mut plan, &config.transformer));
        let pooling = config.pooling;
        Self { plan, patches, pre_norm, transformer, final_norm, projection, pooling, attention_head }
    }

    /// The tower with `remove` tokens merged in each block; no executor but that of inference runs it.
    ///
    /// # Errors
    /// Its pooling head attends to all tokens.
    pub(crate) fn merging(mut self, remove: usize) -> Result<Self, ModelError> {
        if self.attention_head.is_some() && remove > 0 {
            return Err(ModelError::Input("tokens are not merged under an attention pooling head (SigLIP)".into()));
        }
        let merge = Merge { remove, keep_first: self.patches.class.is_some() };
        self.transformer.blocks.iter_mut().for_each(|block| block.merge = (remove > 0).then_some(merge));
        Ok(self)
    }

    /// Whether tokens are merged on the way.
    pub(crate) fn merges(&self) -> bool {
        self.transformer.blocks.iter().any(|block| block.merge.is_some())
    }

    /// The position table's id, which loading fills by the grid.
    pub fn positions(&self) -> TableId {
        self.patches.positions
    }

    /// Tokens before the patches, which means leave out.
    fn leading(&self) -> usize {
        usize::from(self.patches.class.is_some())
    }

    /// Pictures to embeddings, [pictures, embed_dim] (not normalised); nothing where `until` stops before.
    pub fn forward(&self, ex: &mut dyn Exec, until: Until) -> Option<Slot> {
        let mut x = ex.embed_patches(self.patches);
        if let Some(norm) = self.pre_norm {
            x = ex.layer_norm(x, norm);
        }
        let mean = Pooling::MeanFrom(self.leading());
        let pooled = match self.pooling {
            ImagePooling::Class | ImagePooling::MeanThenNorm => {
                let pooling = if self.pooling == ImagePooling::Class { Pooling::At(0) } else { mean };
                let pooled = self.transformer.forward_pooled(ex, x, until, self.final_norm, pooling)?;
                ex.layer_norm(pooled, self.final_norm)
            }
            ImagePooling::NormThenMean => {
                let x = self.transformer.forward(ex, x, until, self.final_norm)?;
                let normed = ex.layer_norm(x, self.final_norm);
                ex.pool(normed, mean)
            }
            ImagePooling::AttentionHead => {
                let head = self.attention_head.expect("declared with this pooling");
                let x = self.transformer.forward(ex, x, until, self.final_norm)?;
                let normed = ex.layer_norm(x, self.final_norm);
                head.forward(ex, normed, self.transformer.heads, self.transformer.activation)
            }
        };
        ex.tap(Tap::Pooled, pooled);
        Some(self.projection.map_or(pooled, |projection| ex.linear(pooled, projection)))
    }
}

/// A text tower: parameter ids and sizes, no numbers.
#[derive(Clone, Debug)]
pub struct TextTower {
    /// The parameters, by name.
    pub plan: ParamPlan,
    tokens: Tokens,
    transformer: Transformer,
    final_norm: NormId,
    projection: LinearId,
    pooling: Pooling,
}

impl TextTower {
    /// Wires a tower and names its parameters.
    pub fn new(config: &TextConfig, embed_dim: usize) -> Self {
        let mut plan = ParamPlan::default();
        let width = config.transformer.width;
        let words = TableSpec { name: "token_embedding.weight".into(), rows: config.vocabulary, width, flat: false };
        let positions = TableSpec { name: "positional_embedding".into(), rows: config.context, width, flat: false };
        let mut tokens = Tokens {
            table: plan.table(words),
            positions: plan.table(positions),
            length: config.context,
            until_mark: false,
        };
        let transformer = Transformer::declare(&mut plan, "transformer.resblocks", &config.transformer, config.mask());
        let final_norm = plan.norm("ln_final", width, config.transformer.epsilon);
        let projection = plan.linear(match config.projection_bias {
            false => projection("text_projection", width, embed_dim),
            true => LinearSpec {
                weight: "text_projection.weight".into(),
                bias: Some("text_projection.bias".into()),
                k: width,
                n: embed_dim,
                layout: Layout::OutIn,
                shape: None,
                role: Role::Edge,
            },
        });
        let pooling = match config.pooling {
            TextPooling::Last => Pooling::At(config.context - 1),
            TextPooling::First => Pooling::At(0),
            TextPooling::LargestId | TextPooling::FirstOf(_) => Pooling::Marked,
        };
        tokens.until_mark = config.mask() == Mask::Causal && pooling == Pooling::Marked;
        Self { plan, tokens, transformer, final_norm, projection, pooling }
    }

    /// Whether a text costs only as many tokens as it has.
    pub(crate) fn ends_with_the_text(&self) -> bool {
        self.tokens.until_mark
    }

    /// Texts to embeddings, [texts, embed_dim] (not normalised); nothing where `until` stops before.
    ///
    /// The norm is per token, so pooling first and norming the one row afterwards gives the same result.
    pub fn forward(&self, ex: &mut dyn Exec, until: Until) -> Option<Slot> {
        let x = ex.embed_tokens(self.tokens);
        let pooled = self.transformer.forward_pooled(ex, x, until, self.final_norm, self.pooling)?;
        let pooled = ex.layer_norm(pooled, self.final_norm);
        ex.tap(Tap::Pooled, pooled);
        Some(ex.linear(pooled, self.projection))
    }
}

/// The parameters of a model's towers, image first.
pub fn plans(config: &ModelConfig) -> Vec<ParamPlan> {
    let image = ImageTower::new(&config.image, config.embed_dim).plan;
    let text = config.text.iter().map(|text| TextTower::new(text, config.embed_dim).plan);
    std::iter::once(image).chain(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::Decoder;
    use crate::registry;

    #[test]
    fn plans_and_configurations_count_the_same() {
        for entry in registry::all() {
            let plans = plans(&entry.config);
            let counts = entry.config.parameters();
            assert_eq!(plans[0].parameters(), counts.image + counts.position + counts.projection, "{}", entry.name);
            assert_eq!(plans.get(1).map_or(0, ParamPlan::parameters), counts.text, "{}", entry.name);
            let decoder = entry.config.decoder.map_or(0, |decoder| Decoder::new(&decoder).plan.parameters());
            assert_eq!(decoder, counts.decoder, "{}", entry.name);
        }
    }
}
