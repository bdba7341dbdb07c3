//! Parameters of a tower as training wants them: one flat f32 array and a gradient array of the same layout.
//!
//! Flat, so that whatever treats all parameters alike (norms, optimisers, sums over ranks) is one loop over one slice.
//! Packed copies for the products are made on first use and dropped when the values change.

use crate::TrainError;
use openvision_kernels::gemm::{Linear, LinearGradient, MatrixSource, PackedMatrix, WeightGradient};
use openvision_kernels::norm::{LayerNorm, LayerNormGradient};
use openvision_kernels::vector::{Rows, RowsMut};
use openvision_kernels::{Buffer, Isa};
use openvision_model::Tensors;
use openvision_tensor::{Layout, LinearId, NormId, ParamPlan, TableId, TensorSpec};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Where every tensor of a plan lies in a flat array: tables, norms, linear maps, as [`ParamPlan::tensors`] lists them.
#[derive(Debug)]
struct ParamLayout {
    plan: ParamPlan,
    tensors: Vec<(TensorSpec, Range<usize>)>,
    /// First tensor of each linear map.
    linears: Vec<usize>,
}

impl ParamLayout {
    fn new(plan: &ParamPlan) -> Self {
        let mut end = 0;
        let tensors = plan.tensors().into_iter().map(|spec| {
            let start = end;
            end += spec.shape.iter().product::<usize>();
            (spec, start..end)
        });
        let tensors = tensors.collect();
        let mut next = plan.tables.len() + 2 * plan.norms.len();
        let linears = plan.linears.iter().map(|spec| {
            let first = next;
            next += 1 + usize::from(spec.bias.is_some());
            first
        });
        Self { plan: plan.clone(), tensors, linears: linears.collect() }
    }

    fn length(&self) -> usize {
        self.tensors.last().map_or(0, |(_, range)| range.end)
    }

    fn range(&self, tensor: usize) -> Range<usize> {
        self.tensors[tensor].1.clone()
    }

    fn find(&self, name: &str) -> Option<Range<usize>> {
        self.tensors.iter().find(|(spec, _)| spec.name == name).map(|(_, range)| range.clone())
    }

    fn table(&self, id: TableId) -> Range<usize> {
        self.range(id.0)
    }

    /// Gain and shift, one behind the other.
    fn norm(&self, id: NormId) -> Range<usize> {
        let gamma = self.plan.tables.len() + 2 * id.0;
        self.range(gamma).start..self.range(gamma + 1).end
    }

    /// Weight, and bias behind it where there is one.
    fn linear(&self, id: LinearId) -> (Range<usize>, Option<Range<usize>>) {
        let first = self.linears[id.0];
        (self.range(first), self.plan.linears[id.0].bias.is_some().then(|| self.range(first + 1)))
    }
}

/// One linear map packed for the forward and for the backward with respect to its input.
#[derive(Debug, Default)]
struct Packed {
    forward: OnceLock<Linear>,
    backward: OnceLock<Linear>,
}

/// The parameters of one tower.
#[derive(Debug)]
pub struct ParamValues {
    isa: Isa,
    layout: Arc<ParamLayout>,
    values: Buffer,
    packed: Vec<Packed>,
}

impl ParamValues {
    /// Reads every tensor of a plan, by the names of the plan.
    ///
    /// # Errors
    /// A tensor is missing, has another shape, cannot be read or holds a value that is no finite number.
    pub fn load(isa: Isa, plan: &ParamPlan, tensors: &dyn Tensors) -> Result<Self, TrainError> {
        let layout = ParamLayout::new(plan);
        // Checked as a whole before memory is taken by declared sizes.
        for (spec, _) in &layout.tensors {
            let missing = || TrainError::Missing { name: spec.name.clone(), shape: spec.shape.clone() };
            let found = &tensors.get(&spec.name).ok_or_else(missing)?.shape;
            if *found != spec.shape {
                let (expected, found) = (spec.shape.clone(), found.clone());
                return Err(TrainError::Shape { name: spec.name.clone(), expected, found });
            }
        }
        let mut values = Buffer::zeroed(layout.length());
        for (spec, range) in &layout.tensors {
            let out = &mut values[range.clone()];
            tensors.read_f32(&spec.name, out)?;
            if let Some(index) = out.iter().position(|v| !v.is_finite()) {
                return Err(TrainError::NotFinite { name: spec.name.clone(), index });
            }
        }
        let packed = plan.linears.iter().map(|_| Packed::default()).collect();
        Ok(Self { isa, layout: Arc::new(layout), values, packed })
    }

    /// The instruction set that products run on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// All values, in the order of [`ParamValues::tensors`].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, to change them; packed copies are made again when they are next used.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.packed.iter_mut().for_each(|packed| *packed = Packed::default());
        &mut self.values
    }

    /// Names and shapes, with their places in the flat arrays of values and gradients.
    pub fn tensors(&self) -> &[(TensorSpec, Range<usize>)] {
        &self.layout.tensors
    }

    /// Gradients of zero for these parameters.
    pub fn gradients(&self) -> ParamGradients {
        ParamGradients { layout: Arc::clone(&self.layout), values: Buffer::zeroed(self.values.len()) }
    }

    /// The linear map of the forward: act(x W + b).
    pub(crate) fn linear(&self, id: LinearId) -> &Linear {
        self.packed[id.0].forward.get_or_init(|| {
            let bias = self.layout.linear(id).1.map(|range| &self.values[range]);
            Linear::new(PackedMatrix::pack(self.isa, self.source(id)), bias)
        })
    }

    /// The linear map of the backward: dx = dy Wᵀ.
    pub(crate) fn turned(&self, id: LinearId) -> &Linear {
        self.packed[id.0]
            .backward
            .get_or_init(|| Linear::new(PackedMatrix::pack(self.isa, self.source(id).transposed()), None))
    }

    fn source(&self, id: LinearId) -> MatrixSource<'_> {
        let spec = &self.layout.plan.linears[id.0];
        let weight = &self.values[self.layout.linear(id).0];
        match spec.layout {
            Layout::OutIn => MatrixSource::out_in(weight, spec.n, spec.k),
            Layout::InOut => MatrixSource::in_out(weight, spec.k, spec.n),
        }
    }

    pub(crate) fn norm(&self, id: NormId) -> LayerNorm<'_> {
        let spec = &self.layout.plan.norms[id.0];
        let (gamma, beta) = self.values[self.layout.norm(id)].split_at(spec.width);
        LayerNorm { gamma, beta, epsilon: spec.epsilon }
    }

    pub(crate) fn table(&self, id: TableId) -> &[f32] {
        &self.values[self.layout.table(id)]
    }

    pub(crate) fn table_width(&self, id: TableId) -> usize {
        self.layout.plan.tables[id.0].width
    }
}

/// Gradients of a tower's parameters: d loss / d parameter, added up over the tapes that ran backward into it.
#[derive(Debug)]
pub struct ParamGradients {
    layout: Arc<ParamLayout>,
    values: Buffer,
}

impl ParamGradients {
    /// All gradients, in the order of [`ParamValues::tensors`].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All gradients, to scale, clip or zero them.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The gradient of one tensor, if the tower has it.
    pub fn get(&self, name: &str) -> Option<&[f32]> {
        Some(&self.values[self.layout.find(name)?])
    }

    pub(crate) fn belongs_to(&self, params: &ParamValues) -> bool {
        Arc::ptr_eq(&self.layout, &params.layout)
    }

    /// The job of [`openvision_kernels::gemm::linear_backward`] for this map; `bias` is left out where a caller treats
    /// it by itself.
    pub(crate) fn linear<'a>(&'a mut self, id: LinearId, x: Rows<'a>, dy: Rows<'a>) -> LinearGradient<'a> {
        let (weight, bias) = self.layout.linear(id);
        let values = &mut self.values[weight.start..bias.as_ref().map_or(weight.end, |bias| bias.end)];
        let (weight, bias_values) = values.split_at_mut(weight.len());
        let weight = match self.layout.plan.linears[id.0].layout {
            Layout::OutIn => WeightGradient::OutIn(weight),
            Layout::InOut => WeightGradient::InOut(weight),
        };
        LinearGradient { x, dy, weight, bias: bias.map(|_| bias_values) }
    }

    pub(crate) fn norm(&mut self, id: NormId) -> LayerNormGradient<'_> {
        let width = self.layout.plan.norms[id.0].width;
        let (gamma, beta) = self.values[self.layout.norm(id)].split_at_mut(width);
        LayerNormGradient { gamma, beta }
    }

    pub(crate) fn table(&mut self, id: TableId) -> RowsMut<'_> {
        let spec = &self.layout.plan.tables[id.0];
        RowsMut::new(&mut self.values[self.layout.table(id)], spec.rows, spec.width)
    }
}
