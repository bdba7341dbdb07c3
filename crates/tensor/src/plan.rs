//! What parameters a tower has: names, shapes and how each is used.

/// Index of a linear map in a [`ParamPlan`] and in every store made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearId(pub usize);

/// Index of a layer norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NormId(pub usize);

/// Index of a table: positions, token embeddings, the class token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableId(pub usize);

/// How a matrix lies in its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// [N, K]: `torch.nn.Linear.weight`, y = x Wᵀ.
    OutIn,
    /// [K, N]: CLIP's projections, y = x W.
    InOut,
}

/// A linear map K → N.
#[derive(Clone, Debug)]
pub struct LinearSpec {
    /// Tensor of the weight.
    pub weight: String,
    /// Tensor of the bias, `[N]`.
    pub bias: Option<String>,
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// How the weight lies in its tensor.
    pub layout: Layout,
    /// Shape of the weight tensor where it is not a plain matrix (a convolution: [N, 3, P, P]).
    pub shape: Option<Vec<usize>>,
    /// What the map is in its model.
    pub role: Role,
}

/// What a linear map is in its model, hence how exact it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One of a transformer block's maps: nearly all of the weights and of the work.
    Block,
    /// Everything else: patches, projections, pooling heads, the scores of words. Always in 32 bits.
    Edge,
}

/// A layer norm over rows of `width`.
#[derive(Clone, Debug)]
pub struct NormSpec {
    /// Prefix of the tensors `.weight` and `.bias`.
    pub name: String,
    /// Width of the rows.
    pub width: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

/// A table of `rows` × `width`.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Tensor name.
    pub name: String,
    /// Rows.
    pub rows: usize,
    /// Width of a row.
    pub width: usize,
    /// Whether the tensor has one axis only, `[width]`.
    pub flat: bool,
}

/// A tensor that a checkpoint has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its canonical name (open_clip's).
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// All parameters of a tower, in the order in which they were declared.
#[derive(Clone, Debug, Default)]
pub struct ParamPlan {
    /// Linear maps by [`LinearId`].
    pub linears: Vec<LinearSpec>,
    /// Layer norms by [`NormId`].
    pub norms: Vec<NormSpec>,
    /// Tables by [`TableId`].
    pub tables: Vec<TableSpec>,
}

impl LinearSpec {
    /// Shape of the weight tensor.
    pub fn weight_shape(&self) -> Vec<usize> {
        match (&self.shape, self.layout) {
            (Some(shape), _) => shape.clone(),
            (None, Layout::OutIn) => vec![self.n, self.k],
            (None, Layout::InOut) => vec![self.k, self.n],
        }
    }
}

impl TableSpec {
    /// Shape of the tensor.
    pub fn shape(&self) -> Vec<usize> {
        if self.flat { vec![self.width] } else { vec![self.rows, self.width] }
    }
}

impl ParamPlan {
    /// Declares a linear map.
    pub fn linear(&mut self, spec: LinearSpec) -> LinearId {
        self.linears.push(spec);
        LinearId(self.linears.len() - 1)
    }

    /// Declares a layer norm.
    pub fn norm(&mut self, name: impl Into<String>, width: usize, epsilon: f32) -> NormId {
        self.norms.push(NormSpec { name: name.into(), width, epsilon });
        NormId(self.norms.len() - 1)
    }

    /// Declares a table.
    pub fn table(&mut self, spec: TableSpec) -> TableId {
        self.tables.push(spec);
        TableId(self.tables.len() - 1)
    }

    /// Every tensor of the plan.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut all = Vec::new();
        for spec in &self.tables {
            all.push(TensorSpec { name: spec.name.clone(), shape: spec.shape() });
        }
        for spec in &self.norms {
            for part in ["weight", "bias"] {
                all.push(TensorSpec { name: format!("{}.{part}", spec.name), shape: vec![spec.width] });
            }
        }
        for spec in &self.linears {
            all.push(TensorSpec { name: spec.weight.clone(), shape: spec.weight_shape() });
            all.extend(spec.bias.iter().map(|name| TensorSpec { name: name.clone(), shape: vec![spec.n] }));
        }
        all
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }
}
