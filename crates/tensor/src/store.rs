//! Parameters as the CPU executor wants them: matrices packed for the instruction set, everything else plain.

use crate::{LinearId, NormId, ParamPlan, TableId};
use openvision_kernels::act::Activation;
use openvision_kernels::gemm::{
    BrainLinear, BrainProduct, BrainRows, Linear, Output, QuantizedLinear, QuantizedProduct, QuantizedRows, Sequences,
    brain_gemm, brain_gemm_on, gemm_on, gemm_tokens, quantized_gemm, quantized_gemm_on,
};
use openvision_kernels::norm::LayerNorm;
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::{Rows, RowsMut};
use openvision_kernels::{Buffer, Isa};
use std::sync::OnceLock;

struct Norm {
    gamma: Buffer,
    beta: Buffer,
    epsilon: f32,
}

/// The weights of a linear map: how they are stored is nobody else's business.
#[derive(Debug)]
pub enum Weights {
    /// 32-bit floats.
    Float(Linear),
    /// Bytes with a scale an output; inputs are quantised row by row.
    Quantized(QuantizedLinear),
    /// bfloat16; inputs are rounded.
    Brain(BrainLinear),
}

impl Weights {
    /// Number of outputs.
    pub fn n(&self) -> usize {
        match self {
            Weights::Float(linear) => linear.weights.n(),
            Weights::Quantized(linear) => linear.weights.n(),
            Weights::Brain(linear) => linear.weights.n(),
        }
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        match self {
            Weights::Float(linear) => linear.weights.bytes(),
            Weights::Quantized(linear) => linear.weights.bytes(),
            Weights::Brain(linear) => linear.weights.bytes(),
        }
    }

    /// The weights as floats, for those maps that always are.
    ///
    /// # Panics
    /// Where they are not.
    pub fn float(&self) -> &Linear {
        match self {
            Weights::Float(linear) => linear,
            _ => panic!("a map of a block where one is meant that stays in 32 bits"),
        }
    }

    /// C = act(LN(A) B + bias) where the norm is part of rounding the rows.
    ///
    /// # Panics
    /// For floats, whose rows are normed by themselves.
    pub(crate) fn norm_product(
        &self,
        a: Rows,
        norm: LayerNorm,
        c: RowsMut,
        activation: Activation,
        scratch: &mut ProductScratch,
    ) {
        let (norm, output) = (Some(norm), Output::Store(activation));
        match self {
            Weights::Float(_) => panic!("floats are normed by themselves"),
            Weights::Quantized(linear) => {
                quantized_gemm(&QuantizedProduct { a, norm, linear, output }, c, &mut scratch.quantized);
            }
            Weights::Brain(linear) => brain_gemm(&BrainProduct { a, norm, linear, output }, c, &mut scratch.rounded),
        }
    }

    /// C = act(A B + bias) or C += A B + bias, on one thread or on all of a pool.
    pub(crate) fn product(&self, on: On, a: Sequences, c: RowsMut, output: Output, scratch: &mut ProductScratch) {
        let ProductScratch { sums, quantized, rounded } = scratch;
        match (self, on) {
            (Weights::Float(linear), On::Thread(isa)) => gemm_tokens(isa, a, linear, c, output, sums),
            (Weights::Float(linear), On::Pool(isa, pool)) => gemm_on(pool, isa, a.rows, linear, c, output),
            (Weights::Quantized(linear), on) => {
                let product = QuantizedProduct { a: a.rows, norm: None, linear, output };
                match on {
                    On::Thread(_) => quantized_gemm(&product, c, quantized),
                    On::Pool(_, pool) => quantized_gemm_on(pool, &product, c, quantized),
                }
            }
            (Weights::Brain(linear), on) => {
                let product = BrainProduct { a: a.rows, norm: None, linear, output };
                match on {
                    On::Thread(_) => brain_gemm(&product, c, rounded),
                    On::Pool(_, pool) => brain_gemm_on(pool, &product, c, rounded),
                }
            }
        }
    }
}

/// Working memory of products.
#[derive(Debug, Default)]
pub(crate) struct ProductScratch {
    sums: Buffer,
    pub(crate) quantized: QuantizedRows,
    pub(crate) rounded: BrainRows,
}

/// Where a product is computed.
#[derive(Clone, Copy)]
pub(crate) enum On<'a> {
    /// On the calling thread.
    Thread(Isa),
    /// On all threads of a pool.
    Pool(Isa, &'a Pool),
}

/// The parameters of a tower on the CPU. Filled once, from several threads at a time, then read only.
pub struct CpuStore {
    isa: Isa,
    linears: Vec<OnceLock<Weights>>,
    norms: Vec<OnceLock<Norm>>,
    tables: Vec<OnceLock<Buffer>>,
    table_widths: Vec<usize>,
}

impl CpuStore {
    /// An empty store for a plan.
    pub fn new(isa: Isa, plan: &ParamPlan) -> Self {
        Self {
            isa,
            linears: plan.linears.iter().map(|_| OnceLock::new()).collect(),
            norms: plan.norms.iter().map(|_| OnceLock::new()).collect(),
            tables: plan.tables.iter().map(|_| OnceLock::new()).collect(),
            table_widths: plan.tables.iter().map(|spec| spec.width).collect(),
        }
    }

    /// Sets a linear map, packed for this store's instruction set.
    pub fn set_linear(&self, id: LinearId, weights: Weights) {
        assert!(self.linears[id.0].set(weights).is_ok(), "a linear map is set once");
    }

    /// Sets a layer norm.
    pub fn set_norm(&self, id: NormId, gamma: Buffer, beta: Buffer, epsilon: f32) {
        assert!(self.norms[id.0].set(Norm { gamma, beta, epsilon }).is_ok(), "a norm is set once");
    }

    /// Sets a table.
    pub fn set_table(&self, id: TableId, table: Buffer) {
        assert!(self.tables[id.0].set(table).is_ok(), "a table is set once");
    }

    /// The instruction set that the weights are packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// A linear map.
    pub fn linear(&self, id: LinearId) -> &Weights {
        self.linears[id.0].get().expect("loading sets every linear map")
    }

    /// A layer norm.
    pub fn norm(&self, id: NormId) -> LayerNorm<'_> {
        let norm = self.norms[id.0].get().expect("loading sets every norm");
        LayerNorm { gamma: &norm.gamma, beta: &norm.beta, epsilon: norm.epsilon }
    }

    /// A table, [rows × width].
    pub fn table(&self, id: TableId) -> &[f32] {
        self.tables[id.0].get().expect("loading sets every table")
    }

    /// Width of a table's rows.
    pub fn table_width(&self, id: TableId) -> usize {
        self.table_widths[id.0]
    }

    /// Bytes that the parameters take.
    pub fn bytes(&self) -> usize {
        let linears = self.linears.iter().filter_map(OnceLock::get).map(Weights::bytes);
        let tables = self.tables.iter().filter_map(OnceLock::get).map(|t| t.len() * size_of::<f32>());
        linears.chain(tables).sum()
    }
}
