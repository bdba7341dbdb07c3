//! Where the time of a tower goes: operations under names that a user knows, with the work that each of them is.

use crate::encoder::Encoder;
use openvision_kernels::attention::AttentionShape;
use openvision_tensor::{LinearId, Operation, ParamPlan, Times};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Times of operations, added up over passes and threads.
#[derive(Debug, Default)]
pub struct Profile {
    times: Mutex<HashMap<Operation, Duration>>,
}

/// The share of one kind of operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperationTime {
    /// What it is.
    pub name: &'static str,
    /// Time of all threads together.
    pub time: Duration,
    /// Floating-point operations of one item (2 a multiply-add; products and attention only), by the sizes alone:
    /// an executor does less where the last block computes only what pooling reads.
    pub flops: u64,
}

/// Names by the last part of a weight's name.
const PRODUCTS: [(&str, &str); 5] = [
    ("visual.conv1.weight", "patches"),
    ("attn.in_proj_weight", "norm, q k v"),
    ("attn.out_proj.weight", "output projection"),
    ("mlp.c_fc.weight", "norm, mlp expand"),
    ("mlp.c_proj.weight", "mlp contract"),
];
const TOKENS: &str = "tokens";
const ATTENTION: &str = "attention";
const NORMS: &str = "norms";
const POOLING: &str = "pooling";
const HEAD: &str = "pooling head";
const PROJECTION: &str = "projection";
const MERGING: &str = "merging tokens";
const WAITING: &str = "waiting at barriers";
/// The order in which names are shown.
const ORDER: [&str; 13] = [
    "patches",
    TOKENS,
    "norm, q k v",
    ATTENTION,
    "output projection",
    "norm, mlp expand",
    "mlp contract",
    MERGING,
    NORMS,
    POOLING,
    HEAD,
    PROJECTION,
    WAITING,
];

impl Profile {
    /// Adds the times of one forward pass on one thread.
    pub(crate) fn add(&self, times: Times) {
        let mut sum = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        for (operation, time) in times.into_inner() {
            *sum.entry(operation).or_default() += time;
        }
    }

    /// The times by name, in the order of a forward pass. Names that took no time and are no work are left out.
    pub fn operations(&self, encoder: &Encoder) -> Vec<OperationTime> {
        let work = work(encoder.plan(), encoder.attention());
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let all = ORDER.map(|name| {
            let of_name = times.iter().filter(|(operation, _)| operation_name(encoder.plan(), **operation) == name);
            let time = of_name.map(|(_, time)| *time).sum();
            OperationTime { name, time, flops: work.get(name).copied().unwrap_or(0) }
        });
        all.into_iter().filter(|row| !row.time.is_zero() || row.flops > 0).collect()
    }
}

fn product_name(plan: &ParamPlan, id: LinearId) -> &'static str {
    let weight = &plan.linears[id.0].weight;
    if weight.starts_with("visual.attn_pool.") {
        return HEAD;
    }
    PRODUCTS.iter().find(|(end, _)| weight.ends_with(end)).map_or(PROJECTION, |(_, name)| name)
}

fn operation_name(plan: &ParamPlan, operation: Operation) -> &'static str {
    match operation {
        Operation::EmbedPatches(id) | Operation::NormLinear(id) | Operation::Linear(id) | Operation::LinearAdd(id) => {
            product_name(plan, id)
        }
        Operation::EmbedTokens => TOKENS,
        Operation::LayerNorm => NORMS,
        Operation::Attention | Operation::PooledAttention => ATTENTION,
        Operation::ProbeAttention => HEAD,
        Operation::Pool => POOLING,
        Operation::MergeTokens => MERGING,
        Operation::Waiting => WAITING,
    }
}

/// Floating-point operations of one item by name. Their sum is [`crate::config::ModelConfig::flops`].
fn work(plan: &ParamPlan, attention: AttentionShape) -> BTreeMap<&'static str, u64> {
    let mut work: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (tokens, width) = (attention.tokens as u64, attention.width() as u64);
    let leading = u64::from(plan.tables.iter().any(|table| table.name == "visual.class_embedding"));
    for (id, linear) in plan.linears.iter().enumerate() {
        let name = &linear.weight;
        let rows = match name.as_str() {
            "visual.conv1.weight" => tokens - leading,
            "visual.attn_pool.kv.weight" => tokens,
            name if name.contains(".resblocks.") => tokens,
            // What comes after pooling has one row.
            _ => 1,
        };
        *work.entry(product_name(plan, LinearId(id))).or_default() += 2 * rows * (linear.k * linear.n) as u64;
        // Scores and weighted values of the layer that these projections belong to.
        if name.ends_with("attn.in_proj_weight") {
            *work.entry(ATTENTION).or_default() += 4 * tokens * tokens * width;
        }
        if name == "visual.attn_pool.kv.weight" {
            *work.entry(HEAD).or_default() += 4 * tokens * width;
        }
    }
    work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{image_shape, text_shape};
    use crate::registry;
    use crate::tower::plans;

    #[test]
    fn the_work_of_all_operations_is_that_of_the_model() {
        for entry in registry::all() {
            let plans = plans(&entry.config);
            let flops = entry.config.flops();
            let image = work(&plans[0], image_shape(&entry.config).attention);
            assert_eq!(image.values().sum::<u64>(), flops.image, "{}: {image:?}", entry.name);
            if let Some(text) = &entry.config.text {
                let text = work(&plans[1], text_shape(text).attention);
                assert_eq!(text.values().sum::<u64>(), flops.text, "{}: {text:?}", entry.name);
            }
        }
    }
}
