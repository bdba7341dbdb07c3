//! A tower as an ONNX graph: the third executor of the wiring, which writes down what the others compute.

use super::wire::{Attribute, ElementType, Message, node};
use openvision_kernels::act::Activation;
use openvision_kernels::attention::Mask;
use openvision_tensor::{
    Blocks, Exec, Heads, Layout, LinearId, NormId, ParamPlan, Patches, Pooling, Slot, TableId, Tap, Tokens,
};
use std::collections::BTreeSet;

/// A constant of the graph.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// Where a constant's values come from.
#[derive(Debug)]
pub(super) enum Values {
    /// From the graph itself.
    Given(ElementType, Vec<u8>),
    /// A parameter of our name, as stored, or with its two axes exchanged.
    Parameter { exchanged: bool },
}

/// Which position a [`Pooling::Marked`] text is pooled at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// That of the largest id.
    LargestId,
    /// The first of this id.
    FirstOf(u32),
}

/// Records a forward pass.
pub(super) struct Recorder<'a> {
    pub(super) plan: &'a ParamPlan,
    /// Name of the graph's input.
    input: &'a str,
    mark: Mark,
    /// Weights are stored as this and cast to f32 in the graph.
    stored: ElementType,
    pub(super) nodes: Vec<Message>,
    pub(super) constants: Vec<Constant>,
    known: BTreeSet<String>,
    slots: Vec<String>,
    /// The last block's output, for models that give tokens.
    pub(super) tokens: Option<Slot>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(plan: &'a ParamPlan, input: &'a str, mark: Mark, stored: ElementType) -> Self {
        Self {
            plan,
            input,
            mark,
            stored,
            nodes: Vec::new(),
            constants: Vec::new(),
            known: BTreeSet::new(),
            slots: Vec::new(),
            tokens: None,
        }
    }

    /// Gives a value its public name.
    pub(super) fn output(&mut self, value: Slot, name: &str) {
        let from = self.slots[value.0].clone();
        self.nodes.push(node("Identity", &[&from], name, &[]));
    }

    /// Patch tokens of the last block, without `leading` tokens.
    pub(super) fn without(&mut self, tokens: Slot, leading: usize) -> Slot {
        let x = self.slots[tokens.0].clone();
        let value = self.slice_from(&x, leading);
        self.slot(value)
    }

    fn slot(&mut self, name: String) -> Slot {
        self.slots.push(name);
        Slot(self.slots.len() - 1)
    }

    /// A node with one output; gives the output's name.
    fn op(&mut self, kind: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        let output = format!("{}_{}", kind.to_lowercase(), self.nodes.len());
        self.nodes.push(node(kind, inputs, &output, attributes));
        output
    }

    fn constant(&mut self, constant: Constant) -> String {
        let name = constant.name.clone();
        if self.known.insert(name.clone()) {
            self.constants.push(constant);
        }
        name
    }

    /// A constant list of whole numbers.
    fn sizes(&mut self, values: &[i64]) -> String {
        let name = format!("sizes_{}", values.iter().map(i64::to_string).collect::<Vec<_>>().join("_"));
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(Constant { name, shape: vec![values.len()], values: Values::Given(ElementType::Int64, bytes) })
    }

    /// A constant number.
    fn index(&mut self, value: i64) -> String {
        let values = Values::Given(ElementType::Int64, value.to_le_bytes().to_vec());
        self.constant(Constant { name: format!("index_{value}"), shape: vec![], values })
    }

    fn number(&mut self, value: f32) -> String {
        let values = Values::Given(ElementType::Float, value.to_le_bytes().to_vec());
        self.constant(Constant { name: format!("number_{:08x}", value.to_bits()), shape: vec![], values })
    }

    /// A parameter in f32: cast where it is stored in fewer bits.
    fn parameter(&mut self, name: &str, shape: &[usize], exchanged: bool) -> String {
        let known = self.known.contains(name);
        let values = Values::Parameter { exchanged };
        self.constant(Constant { name: name.to_owned(), shape: shape.to_vec(), values });
        if self.stored == ElementType::Float {
            return name.to_owned();
        }
        let cast = format!("{name}.f32");
        if !known {
            self.nodes.push(node("Cast", &[name], &cast, &[Attribute::Int("to", ElementType::Float as i64)]));
        }
        cast
    }

    fn table(&mut self, id: TableId) -> String {
        let spec = &self.plan.tables[id.0];
        self.parameter(&spec.name, &[spec.rows, spec.width], false)
    }

    /// [batch] of the input, as a list of one number.
    fn batch(&mut self) -> String {
        let name = "batch_size".to_owned();
        if self.known.insert(name.clone()) {
            self.nodes.push(node(
                "Shape",
                &[self.input],
                &name,
                &[Attribute::Int("start", 0), Attribute::Int("end", 1)],
            ));
        }
        name
    }

    /// One row for every item of the batch: [1, ...] to [batch, ...].
    fn for_each(&mut self, x: &str, rest: &[i64]) -> String {
        let (batch, rest) = (self.batch(), self.sizes(rest));
        let shape = self.op("Concat", &[&batch, &rest], &[Attribute::Int("axis", 0)]);
        self.op("Expand", &[x, &shape], &[])
    }

    fn matrix_product(&mut self, x: &str, linear: LinearId) -> String {
        let spec = self.plan.linears[linear.0].clone();
        let weight = self.parameter(&spec.weight, &[spec.k, spec.n], spec.layout == Layout::OutIn);
        let y = self.op("MatMul", &[x, &weight], &[]);
        match &spec.bias {
            Some(bias) => {
                let bias = self.parameter(bias, &[spec.n], false);
                self.op("Add", &[&y, &bias], &[])
            }
            None => y,
        }
    }

    fn activation(&mut self, x: String, activation: Activation) -> String {
        match activation {
            Activation::None => x,
            Activation::GeluErf => self.op("Gelu", &[&x], &[Attribute::Text("approximate", "none")]),
            Activation::GeluTanh => self.op("Gelu", &[&x], &[Attribute::Text("approximate", "tanh")]),
            Activation::QuickGelu => {
                let scale = self.number(1.702);
                let scaled = self.op("Mul", &[&x, &scale], &[]);
                let gate = self.op("Sigmoid", &[&scaled], &[]);
                self.op("Mul", &[&x, &gate], &[])
            }
        }
    }

    fn norm(&mut self, x: &str, norm: NormId) -> String {
        let spec = self.plan.norms[norm.0].clone();
        let gamma = self.parameter(&format!("{}.weight", spec.name), &[spec.width], false);
        let beta = self.parameter(&format!("{}.bias", spec.name), &[spec.width], false);
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", spec.epsilon)];
        self.op("LayerNormalization", &[x, &gamma, &beta], &attributes)
    }

    fn slice_from(&mut self, x: &str, first: usize) -> String {
        if first == 0 {
            return x.to_owned();
        }
        let (start, end, axis) = (self.sizes(&[first as i64]), self.sizes(&[i64::MAX]), self.sizes(&[1]));
        self.op("Slice", &[x, &start, &end, &axis], &[])
    }

    /// softmax(q kᵀ / √width + mask) v. q, k, v: [batch, heads, tokens, width].
    fn attend(&mut self, [q, k, v]: [&str; 3], width: usize, mask: Option<String>) -> String {
        let scale = self.number((width as f32).powf(-0.5));
        let q = self.op("Mul", &[q, &scale], &[]);
        let k = self.op("Transpose", &[k], &[Attribute::Ints("perm", &[0, 1, 3, 2])]);
        let mut scores = self.op("MatMul", &[&q, &k], &[]);
        if let Some(mask) = mask {
            scores = self.op("Add", &[&scores, &mask], &[]);
        }
        let p = self.op("Softmax", &[&scores], &[Attribute::Int("axis", -1)]);
        self.op("MatMul", &[&p, v], &[])
    }

    /// -∞ where a later token would be seen, [tokens, tokens].
    fn causal_mask(&mut self, tokens: usize) -> String {
        let value = |i: usize| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 };
        let bytes = (0..tokens * tokens).flat_map(|i| value(i).to_le_bytes()).collect();
        let values = Values::Given(ElementType::Float, bytes);
        self.constant(Constant { name: format!("causal_mask_{tokens}"), shape: vec![tokens, tokens], values })
    }

    /// Splits [batch, tokens, parts × D] into its parts, [batch, heads, tokens, width] each.
    fn heads(&mut self, x: &str, parts: usize, heads: Heads) -> Vec<String> {
        let shape = self.sizes(&[0, 0, parts as i64, heads.count as i64, heads.width as i64]);
        let x = self.op("Reshape", &[x, &shape], &[]);
        let x = self.op("Transpose", &[&x], &[Attribute::Ints("perm", &[2, 0, 3, 1, 4])]);
        (0..parts)
            .map(|part| {
                let index = self.index(part as i64);
                self.op("Gather", &[&x, &index], &[Attribute::Int("axis", 0)])
            })
            .collect()
    }
}

impl Blocks for Recorder<'_> {
    fn layer_norm(&mut self, x: Slot, norm: NormId) -> Slot {
        let x = self.slots[x.0].clone();
        let y = self.norm(&x, norm);
        self.slot(y)
    }

    fn norm_linear(&mut self, x: Slot, norm: NormId, linear: LinearId, activation: Activation) -> Slot {
        let x = self.slots[x.0].clone();
        let normed = self.norm(&x, norm);
        let product = self.matrix_product(&normed, linear);
        let y = self.activation(product, activation);
        self.slot(y)
    }

    fn linear(&mut self, x: Slot, linear: LinearId) -> Slot {
        let x = self.slots[x.0].clone();
        let y = self.matrix_product(&x, linear);
        self.slot(y)
    }

    fn linear_add(&mut self, residual: Slot, x: Slot, linear: LinearId) -> Slot {
        let (residual, x) = (self.slots[residual.0].clone(), self.slots[x.0].clone());
        let product = self.matrix_product(&x, linear);
        let y = self.op("Add", &[&residual, &product], &[]);
        self.slot(y)
    }

    fn attention(&mut self, qkv: Slot, heads: Heads) -> Slot {
        let qkv = self.slots[qkv.0].clone();
        let parts = self.heads(&qkv, 3, heads);
        let mask = match heads.mask {
            Mask::None => None,
            Mask::Causal => {
                let context = self.plan.tables.iter().find(|table| table.name == "positional_embedding");
                Some(self.causal_mask(context.expect("causal towers read texts").rows))
            }
        };
        let y = self.attend([&parts[0], &parts[1], &parts[2]], heads.width, mask);
        let y = self.op("Transpose", &[&y], &[Attribute::Ints("perm", &[0, 2, 1, 3])]);
        let shape = self.sizes(&[0, 0, (heads.count * heads.width) as i64]);
        let y = self.op("Reshape", &[&y, &shape], &[]);
        self.slot(y)
    }

    fn block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Blocks, Slot) -> Slot) -> Slot {
        body(self, x)
    }
}

impl Exec for Recorder<'_> {
    fn embed_patches(&mut self, patches: Patches) -> Slot {
        let spec = self.plan.linears[patches.convolution.0].clone();
        let (width, side) = (spec.n, patches.grid.patch);
        let weight = self.parameter(&spec.weight, &[width, 3, side, side], false);
        let mut inputs = vec![self.input.to_owned(), weight];
        if let Some(bias) = &spec.bias {
            inputs.push(self.parameter(bias, &[width], false));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let x = self.op("Conv", &inputs, &[Attribute::Ints("strides", &[side as i64; 2])]);
        let shape = self.sizes(&[0, width as i64, -1]);
        let x = self.op("Reshape", &[&x, &shape], &[]);
        let mut x = self.op("Transpose", &[&x], &[Attribute::Ints("perm", &[0, 2, 1])]);
        if let Some(class) = patches.class {
            let class = self.table(class);
            let class = self.for_each(&class, &[1, width as i64]);
            x = self.op("Concat", &[&class, &x], &[Attribute::Int("axis", 1)]);
        }
        let positions = self.table(patches.positions);
        let x = self.op("Add", &[&x, &positions], &[]);
        self.slot(x)
    }

    fn embed_tokens(&mut self, tokens: Tokens) -> Slot {
        let (words, positions) = (self.table(tokens.table), self.table(tokens.positions));
        let input = self.input.to_owned();
        let x = self.op("Gather", &[&words, &input], &[Attribute::Int("axis", 0)]);
        let x = self.op("Add", &[&x, &positions], &[]);
        self.slot(x)
    }

    fn probe(&mut self, table: TableId) -> Slot {
        let width = self.plan.tables[table.0].width as i64;
        let probe = self.table(table);
        let x = self.for_each(&probe, &[width]);
        self.slot(x)
    }

    fn probe_attention(&mut self, query: Slot, keys_values: Slot, heads: Heads) -> Slot {
        let (query, keys_values) = (self.slots[query.0].clone(), self.slots[keys_values.0].clone());
        let shape = self.sizes(&[0, heads.count as i64, 1, heads.width as i64]);
        let query = self.op("Reshape", &[&query, &shape], &[]);
        let parts = self.heads(&keys_values, 2, heads);
        let y = self.attend([&query, &parts[0], &parts[1]], heads.width, None);
        let shape = self.sizes(&[0, (heads.count * heads.width) as i64]);
        let y = self.op("Reshape", &[&y, &shape], &[]);
        self.slot(y)
    }

    fn last_block(&mut self, x: Slot, body: &dyn Fn(&mut dyn Exec, Slot) -> Slot) -> Slot {
        body(self, x)
    }

    fn pool(&mut self, x: Slot, pooling: Pooling) -> Slot {
        let x = self.slots[x.0].clone();
        let y = match pooling {
            Pooling::MeanFrom(first) => {
                let (x, axes) = (self.slice_from(&x, first), self.sizes(&[1]));
                self.op("ReduceMean", &[&x, &axes], &[Attribute::Int("keepdims", 0)])
            }
            Pooling::At(position) => {
                let position = self.index(position as i64);
                self.op("Gather", &[&x, &position], &[Attribute::Int("axis", 1)])
            }
            Pooling::Marked => {
                let ids = self.input.to_owned();
                let marks = match self.mark {
                    Mark::LargestId => ids,
                    Mark::FirstOf(id) => {
                        let id = self.index(i64::from(id));
                        let equal = self.op("Equal", &[&ids, &id], &[]);
                        self.op("Cast", &[&equal], &[Attribute::Int("to", ElementType::Int64 as i64)])
                    }
                };
                // The first of equals, as everywhere.
                let attributes = [Attribute::Int("axis", 1), Attribute::Int("keepdims", 1)];
                let position = self.op("ArgMax", &[&marks], &attributes);
                self.op("GatherND", &[&x, &position], &[Attribute::Int("batch_dims", 1)])
            }
        };
        self.slot(y)
    }

    /// Graphs have all tokens.
    fn is_observed(&self) -> bool {
        true
    }

    fn tap(&mut self, tap: Tap, x: Slot) {
        if let Tap::Block(_) = tap {
            self.tokens = Some(x);
        }
    }
}
