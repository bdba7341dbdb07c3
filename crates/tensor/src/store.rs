//! Parameters as the CPU executor wants them: matrices packed for the instruction set, everything else plain.

use crate::{LinearId, NormId, ParamPlan, TableId};
use openvision_kernels::gemm::Linear;
use openvision_kernels::norm::LayerNorm;
use openvision_kernels::{Buffer, Isa};
use std::sync::OnceLock;

struct Norm {
    gamma: Buffer,
    beta: Buffer,
    epsilon: f32,
}

/// The parameters of a tower on the CPU. Filled once, from several threads at a time, then read only.
pub struct CpuStore {
    isa: Isa,
    linears: Vec<OnceLock<Linear>>,
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
    pub fn set_linear(&self, id: LinearId, linear: Linear) {
        assert!(self.linears[id.0].set(linear).is_ok(), "a linear map is set once");
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
    pub fn linear(&self, id: LinearId) -> &Linear {
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
        let linears = self.linears.iter().filter_map(OnceLock::get).map(|l| l.weights.bytes());
        let tables = self.tables.iter().filter_map(OnceLock::get).map(|t| t.len() * size_of::<f32>());
        linears.chain(tables).sum()
    }
}
