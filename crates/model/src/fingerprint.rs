//! What an embedding depends on, as one short number: it is in every file of vectors, and mixing is refused by it.

use crate::config::ModelConfig;
use crate::quantized::Arithmetic;

/// Hash of one tensor, given by parts in order: its name and its values as f32 in our layout, so that the same numbers
/// in another container or layout hash the same.
pub(crate) struct TensorHash(blake3::Hasher);

impl TensorHash {
    pub(crate) fn new(name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        Self(hasher)
    }

    pub(crate) fn update(&mut self, values: &[f32]) {
        self.0.update(bytemuck::cast_slice(values));
    }

    /// The bytes of a quantised matrix, whose scales follow by [`TensorHash::update`].
    pub(crate) fn update_bytes(&mut self, values: &[i8]) {
        self.0.update(bytemuck::cast_slice(values));
    }

    pub(crate) fn finish(self) -> blake3::Hash {
        self.0.finalize()
    }
}

/// Combines the hashes of a tower's tensors, whatever order they were loaded in.
pub(crate) fn tower(mut tensors: Vec<blake3::Hash>) -> blake3::Hash {
    tensors.sort_unstable_by_key(|hash| *hash.as_bytes());
    let mut hasher = blake3::Hasher::new();
    for hash in &tensors {
        hasher.update(hash.as_bytes());
    }
    hasher.finalize()
}

/// The first half of a hash, in hexadecimal.
pub(crate) fn short(hash: &blake3::Hash) -> String {
    hash.to_hex().as_str()[..32].to_owned()
}

/// Fingerprint of image embeddings: weights, image tower, preprocessing with orientation, decoder, precision, and the
/// tokens merged in each block where there are any.
pub(crate) fn image(
    weights: &blake3::Hash,
    config: &ModelConfig,
    arithmetic: Arithmetic,
    merge_tokens: usize,
) -> String {
    let mut recipe = serde_json::json!({
        "image": config.image,
        "preprocess": config.preprocess,
        "decoder": openvision_io::image::DECODER,
        "precision": arithmetic.name(),
    });
    if merge_tokens > 0 {
        recipe["merge_tokens"] = merge_tokens.into();
    }
    combine(weights, &recipe.to_string())
}

/// Fingerprint of text embeddings: weights, text tower, tokenizer with its cleaning and layout, precision.
pub(crate) fn text(weights: &blake3::Hash, config: &ModelConfig, tokenizer: &str, arithmetic: Arithmetic) -> String {
    let precision = arithmetic.name();
    let recipe = serde_json::json!({ "text": config.text, "tokenizer": tokenizer, "precision": precision });
    combine(weights, &recipe.to_string())
}

fn combine(weights: &blake3::Hash, recipe: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(weights.as_bytes());
    hasher.update(recipe.as_bytes());
    short(&hasher.finalize())
}
