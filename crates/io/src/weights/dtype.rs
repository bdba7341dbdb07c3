//! Element types of checkpoints, and their conversion to f32. What the values of a block format are is in `blocks`.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use super::blocks;

/// Element type of a stored tensor; always little-endian in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed 64 bit.
    I64,
    /// Signed 32 bit.
    I32,
    /// Signed 16 bit.
    I16,
    /// Signed 8 bit.
    I8,
    /// Unsigned 8 bit.
    U8,
    /// One byte, zero or not.
    Bool,
    /// GGUF: 32 values in 18 bytes.
    Q4_0,
    /// GGUF: 32 values in 20 bytes.
    Q4_1,
    /// GGUF: 32 values in 22 bytes.
    Q5_0,
    /// GGUF: 32 values in 24 bytes.
    Q5_1,
    /// GGUF: 32 values in 34 bytes.
    Q8_0,
    /// GGUF: 32 values in 36 bytes.
    Q8_1,
    /// GGUF: 256 values in 84 bytes.
    Q2K,
    /// GGUF: 256 values in 110 bytes.
    Q3K,
    /// GGUF: 256 values in 144 bytes.
    Q4K,
    /// GGUF: 256 values in 176 bytes.
    Q5K,
    /// GGUF: 256 values in 210 bytes.
    Q6K,
    /// GGUF: 256 values in 292 bytes.
    Q8K,
}

impl DType {
    /// The types whose elements stand alone, widest first: those of safetensors files.
    pub const PLAIN: [DType; 10] = [
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::I64,
        DType::I32,
        DType::I16,
        DType::I8,
        DType::U8,
        DType::Bool,
    ];

    /// Whether elements are floating-point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
    }

    /// Elements and bytes of the smallest part that can be read alone: (1, 4) for [`DType::F32`], (32, 18) for
    /// [`DType::Q4_0`]. The last axis of a tensor is a whole number of them.
    pub const fn block(self) -> (usize, usize) {
        match self {
            DType::F64 | DType::I64 => (1, 8),
            DType::F32 | DType::I32 => (1, 4),
            DType::F16 | DType::BF16 | DType::I16 => (1, 2),
            DType::I8 | DType::U8 | DType::Bool => (1, 1),
            DType::Q4_0 => (32, 18),
            DType::Q4_1 => (32, 20),
            DType::Q5_0 => (32, 22),
            DType::Q5_1 => (32, 24),
            DType::Q8_0 => (32, 34),
            DType::Q8_1 => (32, 36),
            DType::Q2K => (256, 84),
            DType::Q3K => (256, 110),
            DType::Q4K => (256, 144),
            DType::Q5K => (256, 176),
            DType::Q6K => (256, 210),
            DType::Q8K => (256, 292),
        }
    }

    /// Whether elements stand alone.
    pub const fn is_plain(self) -> bool {
        self.block().0 == 1
    }

    /// Bytes of so many elements; None where they are no whole number of blocks, or too many.
    pub const fn bytes_of(self, elements: usize) -> Option<usize> {
        let (together, bytes) = self.block();
        if elements.is_multiple_of(together) { (elements / together).checked_mul(bytes) } else { None }
    }

    /// The name that safetensors headers and GGUF's tools use.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "F64",
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::I64 => "I64",
            DType::I32 => "I32",
            DType::I16 => "I16",
            DType::I8 => "I8",
            DType::U8 => "U8",
            DType::Bool => "BOOL",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q5_0 => "Q5_0",
            DType::Q5_1 => "Q5_1",
            DType::Q8_0 => "Q8_0",
            DType::Q8_1 => "Q8_1",
            DType::Q2K => "Q2_K",
            DType::Q3K => "Q3_K",
            DType::Q4K => "Q4_K",
            DType::Q5K => "Q5_K",
            DType::Q6K => "Q6_K",
            DType::Q8K => "Q8_K",
        }
    }

    /// The type of a safetensors name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::PLAIN.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type that a torch storage class holds, by its name without `Storage` (`Half`, `Float`, ...).
    pub(super) fn from_torch_storage(stem: &str) -> Option<DType> {
        Some(match stem {
            "Double" => DType::F64,
            "Float" => DType::F32,
            "Half" => DType::F16,
            "BFloat16" => DType::BF16,
            "Long" => DType::I64,
            "Int" => DType::I32,
            "Short" => DType::I16,
            "Char" => DType::I8,
            "Byte" => DType::U8,
            "Bool" => DType::Bool,
            _ => return None,
        })
    }
}

/// The f32 of an IEEE half, exact.
pub fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// The nearest IEEE half, ties to even; beyond 65504 infinity.
pub fn f32_to_f16(value: f32) -> u16 {
    half::f16::from_f32(value).to_bits()
}

/// The f32 of a bfloat16, exact: the bits are its upper half.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16, ties to even.
pub fn f32_to_bf16(value: f32) -> u16 {
    half::bf16::from_f32(value).to_bits()
}

/// Widens little-endian elements to f32: halves exactly, f64 and integers to the nearest f32, booleans to 0 or 1,
/// blocks as llama.cpp does. `bytes` holds at least `out.len()` elements of `dtype`, whole blocks; further bytes are
/// ignored.
pub fn widen_to_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F16 => widen_f16(bytes, out),
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::BF16 => each(bytes, out, |b| bf16_to_f32(u16::from_le_bytes(b))),
        DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::U8 => each(bytes, out, |[b]| f32::from(b)),
        DType::Bool => each(bytes, out, |[b]| f32::from(u8::from(b != 0))),
        _ => blocks::dequantize(dtype, bytes, out),
    }
}

/// Rounds to a half type ([`DType::F16`] or [`DType::BF16`]), ties to even, as little-endian bytes; f32 is copied.
/// None for every other type: weights are never rounded to integers here.
pub fn narrow_from_f32(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    match dtype {
        DType::F32 => Some(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F16 => Some(values.iter().flat_map(|v| f32_to_f16(*v).to_le_bytes()).collect()),
        DType::BF16 => Some(values.iter().flat_map(|v| f32_to_bf16(*v).to_le_bytes()).collect()),
        _ => None,
    }
}

/// Converts element by element; the fixed size lets the compiler vectorize.
fn each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (value, element) in out.iter_mut().zip(elements) {
        *value = convert(*element);
    }
}

/// Uses the conversion instructions of the processor when the bytes happen to be aligned (our buffers are).
fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    let wanted = &bytes[..out.len().saturating_mul(2).min(bytes.len())];
    match bytemuck::try_cast_slice::<u8, u16>(wanted) {
        Ok(bits) if cfg!(target_endian = "little") && bits.len() == out.len() => {
            bits.reinterpret_cast::<half::f16>().convert_to_f32_slice(out);
        }
        _ => each(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes_are_the_formats() {
        let sizes = [8, 4, 2, 2, 8, 4, 2, 1, 1, 1];
        for (dtype, size) in DType::PLAIN.into_iter().zip(sizes) {
            assert_eq!(dtype.block(), (1, size), "{dtype:?}");
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(DType::from_name("F99"), None);
        assert_eq!(DType::from_name("f32"), None);
        assert_eq!(DType::from_name("Q4_0"), None);
        assert_eq!(DType::Q4_0.bytes_of(64), Some(36));
        assert_eq!(DType::Q4_0.bytes_of(65), None);
        assert_eq!(DType::F64.bytes_of(usize::MAX), None);
    }

    #[test]
    fn every_half_survives_the_way_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16_to_f32(bits), bf16_to_f32(bits));
            if half.is_nan() {
                assert!(bits & 0x7c00 == 0x7c00 && bits & 0x03ff != 0);
            } else {
                assert_eq!(f32_to_f16(half), bits);
            }
            if brain.is_nan() {
                assert!(bits & 0x7f80 == 0x7f80 && bits & 0x007f != 0);
            } else {
                assert_eq!(f32_to_bf16(brain), bits);
            }
        }
    }

    #[test]
    fn slices_convert_as_single_values_do_at_any_alignment() {
        let mut bytes = vec![0u8];
        bytes.extend((0..=u16::MAX).flat_map(u16::to_le_bytes));
        let mut out = vec![0.0; 65536];
        for start in [0, 1] {
            let shifted: Vec<u8> = bytes[1..].to_vec();
            let mut holder = vec![0u8; start];
            holder.extend(shifted);
            widen_to_f32(DType::F16, &holder[start..], &mut out);
            for (bits, value) in out.iter().enumerate() {
                let want = f16_to_f32(bits as u16);
                assert!(value.to_bits() == want.to_bits() || (value.is_nan() && want.is_nan()), "{bits:#x}");
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        for (value, f16, bf16) in [(1.0f32, 0x3c00, 0x3f80), (65504.0, 0x7bff, 0x4780), (65520.0, 0x7c00, 0x4780)] {
            assert_eq!((f32_to_f16(value), f32_to_bf16(value)), (f16, bf16), "{value}");
        }
        // Half way between two halves: the even one.
        assert_eq!(f32_to_f16(1.0 + 1.0 / 2048.0), 0x3c00);
        assert_eq!(f32_to_f16(1.0 + 3.0 / 2048.0), 0x3c02);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(f32_to_bf16(f32::from_bits(0x3f81_8000)), 0x3f82);
    }

    #[test]
    fn integers_and_booleans_widen() {
        let mut out = [0.0; 2];
        widen_to_f32(DType::I64, &[5, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255], &mut out);
        assert_eq!(out, [5.0, -1.0]);
        widen_to_f32(DType::I8, &[128, 127], &mut out);
        assert_eq!(out, [-128.0, 127.0]);
        widen_to_f32(DType::U8, &[128, 127], &mut out);
        assert_eq!(out, [128.0, 127.0]);
        widen_to_f32(DType::Bool, &[0, 7], &mut out);
        assert_eq!(out, [0.0, 1.0]);
    }
}
