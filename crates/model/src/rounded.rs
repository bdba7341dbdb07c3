//! Tensors rounded to a 16-bit type as they are read: what a converted folder of that precision would give.

use crate::Tensors;
use openvision_io::weights::{DType, TensorInfo, WeightsError, narrow_from_f32, widen_to_f32};

pub(crate) struct Rounded<'a> {
    pub(crate) tensors: &'a dyn Tensors,
    pub(crate) dtype: DType,
}

impl Rounded<'_> {
    fn round(&self, values: &mut [f32]) {
        // A few at a time, so that nothing large is allocated.
        for part in values.chunks_mut(4096) {
            if let Some(bytes) = narrow_from_f32(self.dtype, part) {
                widen_to_f32(self.dtype, &bytes, part);
            }
        }
    }
}

impl Tensors for Rounded<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        self.tensors.tensors()
    }

    fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        self.tensors.read_f32(name, out)?;
        self.round(out);
        Ok(())
    }

    fn read_f32_part(&self, name: &str, start: usize, out: &mut [f32]) -> Result<bool, WeightsError> {
        let read = self.tensors.read_f32_part(name, start, out)?;
        if read {
            self.round(out);
        }
        Ok(read)
    }
}
