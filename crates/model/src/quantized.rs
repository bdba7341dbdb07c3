//! Arithmetic on bytes: which maps it is used for, and the tensors of a folder that stores them so.
//!
//! `X.weight` is I8 [N, K] and `X.weight_scale` F32 `[N]`: the weight is their product, row by row. Only a block's maps
//! are stored so; everything else is as in any other folder.

use crate::ModelError;
use crate::load::{Named, Problem, Tensors};
use openvision_io::weights::{DType, TensorInfo, WeightsError};
use openvision_kernels::Isa;
use openvision_kernels::gemm::{BrainMatrix, LONGEST_QUANTIZED, quantize_weights};
use openvision_tensor::{LinearSpec, Role, TensorSpec};
use std::collections::BTreeMap;

/// What products are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Arithmetic {
    /// As the file stores its weights: 32-bit floats, or bytes.
    #[default]
    Stored,
    /// 32-bit floats; stored bytes are widened.
    Float,
    /// Bytes in the blocks; weights that are not stored so are quantised as they are read.
    Int8,
    /// bfloat16 in the blocks, weights and activations rounded, sums in 32 bits; only where the processor multiplies them.
    Bf16Dot,
}

impl Arithmetic {
    /// The name in fingerprints.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Arithmetic::Int8 => "int8",
            Arithmetic::Bf16Dot => "bf16-dot",
            Arithmetic::Stored | Arithmetic::Float => "f32",
        }
    }

    /// Whether a map's weights are bfloat16.
    pub(crate) fn rounds(self, spec: &LinearSpec) -> bool {
        self == Arithmetic::Bf16Dot && spec.role == Role::Block
    }

    /// Whether a map's weights are bytes: a block's are, but for those too long for sums of 32 bits.
    pub(crate) fn quantizes(self, spec: &LinearSpec) -> bool {
        self == Arithmetic::Int8 && spec.role == Role::Block && spec.k <= LONGEST_QUANTIZED
    }
}

/// Refuses arithmetic that this processor, or the instruction set in use, does not have.
pub(crate) fn check_possible(arithmetic: Arithmetic, isa: Isa) -> Result<(), ModelError> {
    if arithmetic == Arithmetic::Bf16Dot && !BrainMatrix::is_possible(isa) {
        return Err(ModelError::Input(format!(
            "bf16-dot needs AVX-512 with BF16 (avx512_bf16), which {} is not; use f32, bf16 or int8",
            isa.name()
        )));
    }
    Ok(())
}

/// Name of the scales of a quantised tensor.
pub(crate) fn scale_name(weight: &str) -> String {
    format!("{weight}_scale")
}

/// Tensors some of which are stored as bytes, seen as floats.
pub(crate) struct StoredInt8<'a> {
    tensors: &'a dyn Tensors,
    /// As floats, without the scales.
    infos: Vec<TensorInfo>,
    /// Scales by the name of their weight.
    scales: BTreeMap<String, Vec<f32>>,
}

impl<'a> StoredInt8<'a> {
    /// None where no tensor is stored as bytes.
    ///
    /// # Errors
    /// The scales of a tensor are not there, have another shape, cannot be read or are no scales.
    pub(crate) fn new(tensors: &'a dyn Tensors) -> Result<Option<Self>, Vec<Problem>> {
        let (mut infos, mut scales, mut problems) = (Vec::new(), BTreeMap::new(), Vec::new());
        for info in tensors.tensors().iter().filter(|info| info.dtype == DType::I8) {
            match read_scales(tensors, info) {
                Ok(values) => drop(scales.insert(info.name.clone(), values)),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if scales.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = scales.keys().map(|name| scale_name(name)).collect();
        for info in tensors.tensors().iter().filter(|info| !names.contains(&info.name)) {
            let dtype = if info.dtype == DType::I8 { DType::F32 } else { info.dtype };
            infos.push(TensorInfo { dtype, ..info.clone() });
        }
        Ok(Some(Self { tensors, infos, scales }))
    }

    fn widen(&self, name: &str, start: usize, out: &mut [f32]) {
        let (Some(scales), Some(info)) = (self.scales.get(name), self.tensors.get(name)) else { return };
        let k = (info.elements() / scales.len()).max(1);
        out.iter_mut().enumerate().for_each(|(i, value)| *value *= scales[(start + i) / k]);
    }
}

/// The scales of a tensor of bytes.
fn read_scales(tensors: &dyn Tensors, info: &TensorInfo) -> Result<Vec<f32>, Problem> {
    let name = scale_name(&info.name);
    let wrong = |problem: &str| Problem::Quantized { name: info.name.clone(), problem: problem.into() };
    let &[n, k] = &info.shape[..] else { return Err(wrong("bytes that are no matrix")) };
    let Some(found) = tensors.get(&name) else { return Err(Problem::Missing { name, shape: vec![n] }) };
    if found.shape != [n] || n == 0 || k == 0 {
        return Err(Problem::Shape { name, expected: vec![n], found: found.shape.clone() });
    }
    let mut scales = vec![0.0; n];
    tensors.read_f32(&name, &mut scales).map_err(|error| wrong(&error.to_string()))?;
    match scales.iter().position(|scale| !(scale.is_finite() && *scale >= 0.0)) {
        Some(index) => Err(Problem::NotFinite { name, index }),
        None => Ok(scales),
    }
}

impl Tensors for StoredInt8<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.infos.iter().find(|info| info.name == name)
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        self.tensors.read_f32(name, out)?;
        self.widen(name, 0, out);
        Ok(())
    }

    fn read_f32_part(&self, name: &str, start: usize, out: &mut [f32]) -> Result<bool, WeightsError> {
        let read = self.tensors.read_f32_part(name, start, out)?;
        if read {
            self.widen(name, start, out);
        }
        Ok(read)
    }

    fn stored_scales(&self, name: &str) -> Option<&[f32]> {
        self.scales.get(name).map(Vec::as_slice)
    }

    fn read_bytes_part(&self, name: &str, start: usize, out: &mut [f32]) -> Result<bool, WeightsError> {
        self.tensors.read_f32_part(name, start, out)
    }
}

/// A whole matrix as bytes, [N, K], and scales, `[N]`: as it is stored, or quantised.
pub(crate) fn quantize(named: Named, spec: &LinearSpec) -> Result<(Vec<i8>, Vec<f32>), ModelError> {
    let mut values = vec![0.0; spec.n * spec.k];
    if let Some((name, scales)) = named.stored_scales(&spec.weight) {
        named.tensors.read_bytes_part(name, 0, &mut values)?;
        return Ok((values.iter().map(|value| *value as i8).collect(), scales.to_vec()));
    }
    named.read(&TensorSpec { name: spec.weight.clone(), shape: spec.weight_shape() }, &mut values)?;
    let (mut bytes, mut scales) = (vec![0; values.len()], vec![0.0; spec.n]);
    quantize_weights(Isa::best(), &values, spec.k, &mut bytes, &mut scales);
    Ok((bytes, scales))
}

/// Refuses bytes that this program does not write: two neighbors of one sign are at most 128 together, or products would
/// saturate on some processors (`openvision_kernels::gemm::quantize_weights`).
pub(crate) fn check_bytes(name: &str, k: usize, q: &[i8]) -> Result<(), Problem> {
    let fits = q.chunks_exact(k).all(|row| {
        row.iter().all(|q| *q > i8::MIN)
            && row.as_chunks::<2>().0.iter().all(|[a, b]| (i32::from(*a) + i32::from(*b)).abs() <= 128)
    });
    let problem = "bytes that this program does not write (neighbors over 128 together)";
    if fits { Ok(()) } else { Err(Problem::Quantized { name: name.to_owned(), problem: problem.into() }) }
}
