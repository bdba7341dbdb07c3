//! GGUF's block formats to f32: quants share a scale (and a minimum) with their block. Layouts and formulas: ggml's
//! `ggml-common.h` and `ggml-quants.c`; every product and sum is in their order, so values are theirs bit for bit.

use super::dtype::{DType, f16_to_f32};

/// Most elements of a block.
pub(super) const LARGEST: usize = 256;

/// Whole blocks of `dtype` to f32. Further bytes are ignored; what is short of a block is left as it was.
pub(super) fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => each(bytes, out, q4_0),
        DType::Q4_1 => each(bytes, out, q4_1),
        DType::Q5_0 => each(bytes, out, q5_0),
        DType::Q5_1 => each(bytes, out, q5_1),
        DType::Q8_0 => each(bytes, out, q8_0),
        DType::Q8_1 => each(bytes, out, q8_1),
        DType::Q2K => each(bytes, out, q2_k),
        DType::Q3K => each(bytes, out, q3_k),
        DType::Q4K => each(bytes, out, q4_k),
        DType::Q5K => each(bytes, out, q5_k),
        DType::Q6K => each(bytes, out, q6_k),
        DType::Q8K => each(bytes, out, q8_k),
        _ => debug_assert!(false, "{dtype:?} has no blocks"),
    }
}

/// Block by block; the fixed sizes let the compiler drop the bounds checks.
fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    one: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (values, _) = out.as_chunks_mut::<VALUES>();
    for (block, values) in blocks.iter().zip(values) {
        one(block, values);
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

fn signed(byte: u8) -> f32 {
    f32::from(byte.cast_signed())
}

// Quants of 32: low nibbles are values 0 to 15, high nibbles 16 to 31.

fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let d = half(block, 0);
    for (j, q) in block[2..].iter().enumerate() {
        y[j] = (f32::from(q & 15) - 8.0) * d;
        y[j + 16] = (f32::from(q >> 4) - 8.0) * d;
    }
}

fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (j, q) in block[4..].iter().enumerate() {
        y[j] = f32::from(q & 15) * d + m;
        y[j + 16] = f32::from(q >> 4) * d + m;
    }
}

/// The fifth bits lie together, bit j of value j.
fn five_bits(high: &[u8], j: usize, q: u8) -> (f32, f32) {
    let bit = |i: usize| (high[i / 8] >> (i % 8) & 1) << 4;
    (f32::from(q & 15 | bit(j)), f32::from(q >> 4 | bit(j + 16)))
}

fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let d = half(block, 0);
    for (j, q) in block[6..].iter().enumerate() {
        let (low, high) = five_bits(&block[2..6], j, *q);
        y[j] = (low - 16.0) * d;
        y[j + 16] = (high - 16.0) * d;
    }
}

fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (j, q) in block[8..].iter().enumerate() {
        let (low, high) = five_bits(&block[4..8], j, *q);
        y[j] = low * d + m;
        y[j + 16] = high * d + m;
    }
}

fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let d = half(block, 0);
    for (value, q) in y.iter_mut().zip(&block[2..]) {
        *value = signed(*q) * d;
    }
}

/// After the scale comes the scaled sum of the quants, which products use and values do not.
fn q8_1(block: &[u8; 36], y: &mut [f32; 32]) {
    let d = half(block, 0);
    for (value, q) in y.iter_mut().zip(&block[4..]) {
        *value = signed(*q) * d;
    }
}

// Quants of 256 in groups of 16 or 32, each with a scale of a few bits.

fn q2_k(block: &[u8; 84], y: &mut [f32; 256]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, minimum) = (half(block, 80), half(block, 82));
    for (i, value) in y.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let q = quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *value = d * f32::from(scale & 15) * f32::from(q) - minimum * f32::from(scale >> 4);
    }
}

fn q3_k(block: &[u8; 110], y: &mut [f32; 256]) {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(block, 108);
    for (i, value) in y.iter_mut().enumerate() {
        let group = i / 16;
        let low = if group < 8 { packed[group] & 15 } else { packed[group - 8] >> 4 };
        let scale = low | (packed[8 + group % 4] >> (group / 4 * 2) & 3) << 4;
        let q = quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let third = high[i % 32] >> (i / 32) & 1;
        *value = d * (f32::from(scale) - 32.0) * (f32::from(q) - f32::from(4 * (1 - third)));
    }
}

/// Scale and minimum number `s` of 8, six bits each, packed in twelve bytes.
fn scale_and_minimum(packed: &[u8], s: usize) -> (f32, f32) {
    let (scale, minimum) = if s < 4 {
        (packed[s] & 63, packed[s + 4] & 63)
    } else {
        (packed[s + 4] & 15 | packed[s - 4] >> 6 << 4, packed[s + 4] >> 4 | packed[s] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    let (d, minimum) = (half(block, 0), half(block, 2));
    for (s, values) in y.chunks_exact_mut(32).enumerate() {
        let (scale, least) = scale_and_minimum(&block[4..16], s);
        let (d, m) = (d * scale, minimum * least);
        for (value, q) in values.iter_mut().zip(&block[16 + s / 2 * 32..]) {
            *value = d * f32::from(q >> (s % 2 * 4) & 15) - m;
        }
    }
}

fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    let (d, minimum) = (half(block, 0), half(block, 2));
    let high = &block[16..48];
    for (s, values) in y.chunks_exact_mut(32).enumerate() {
        let (scale, least) = scale_and_minimum(&block[4..16], s);
        let (d, m) = (d * scale, minimum * least);
        for ((value, q), high) in values.iter_mut().zip(&block[48 + s / 2 * 32..]).zip(high) {
            *value = d * f32::from(q >> (s % 2 * 4) & 15 | (high >> s & 1) << 4) - m;
        }
    }
}

fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (i, value) in y.iter_mut().enumerate() {
        // Of each 128 values: quarters of 32; two quarters share the low bytes, four the high ones.
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let q = low[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
        let top = high[half * 32 + l] >> (quarter * 2) & 3;
        *value = d * signed(scales[i / 16]) * (f32::from(q | top << 4) - 32.0);
    }
}

/// Sums of the quants follow, which products use and values do not.
fn q8_k(block: &[u8; 292], y: &mut [f32; 256]) {
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (value, q) in y.iter_mut().zip(&block[4..260]) {
        *value = d * signed(*q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One block of bytes (37 i + 11) mod 256, then the scales at their offsets: 0.125 for d, -0.5 for m, 0.0625 for
    /// dmin. Values of gguf-py 0.19 for it: the first four, two from the middle, the last, the sum.
    #[test]
    fn known_blocks_have_known_values() {
        type Case = (DType, &'static [(usize, u16)], [f32; 4], [f32; 2], f32, f64);
        const D: u16 = 0x3000;
        const M: u16 = 0xb800;
        const DMIN: u16 = 0x2c00;
        let cases: [Case; 9] = [
            (DType::Q4_0, &[(0, D)], [-0.375, 0.25, 0.875, -0.5], [-0.375, -0.125], 0.0, -2.625),
            (DType::Q4_1, &[(0, D), (2, M)], [1.375, 0.0, 0.625, 1.25], [0.625, 1.0], 1.0, 14.625),
            (DType::Q5_0, &[(0, D)], [1.125, -0.25, 0.375, -1.0], [1.75, 0.0], 0.125, 1.875),
            (DType::Q5_1, &[(0, D), (2, M)], [1.875, 2.5, 3.125, 1.75], [1.875, 0.125], 0.125, 47.125),
            (DType::Q8_0, &[(0, D)], [10.625, 15.25, -12.125, -7.5], [-11.375, -6.75], -6.0, -22.0),
            // By the formula: gguf-py takes this block for 40 bytes and has no dequantizer.
            (DType::Q8_1, &[(0, D)], [-12.125, -7.5, -2.875, 1.75], [-2.125, 2.5], 3.25, -46.0),
            (DType::Q4K, &[(0, D), (2, DMIN)], [39.4375, -3.1875, 16.1875, 35.5625], [52.875, -0.75], 6.0625, 6805.0),
            (
                DType::Q5K,
                &[(0, D), (2, DMIN)],
                [101.4375, -3.1875, 78.1875, 35.5625],
                [130.875, -0.75],
                13.5625,
                14527.0,
            ),
            (DType::Q6K, &[(208, D)], [-178.875, 212.0, 72.875, -66.25], [-43.875, 52.0], -7.5, 576.5),
        ];
        for (dtype, scales, first, middle, last, sum) in cases {
            let (values, bytes) = dtype.block();
            let mut block: Vec<u8> = (0..bytes).map(|i| (37 * i + 11) as u8).collect();
            for (at, bits) in scales {
                block[*at..at + 2].copy_from_slice(&bits.to_le_bytes());
            }
            let mut y = vec![f32::NAN; values];
            dequantize(dtype, &block, &mut y);
            assert_eq!(y[..4], first, "{dtype:?}");
            assert_eq!(y[values / 2..values / 2 + 2], middle, "{dtype:?}");
            assert_eq!(y[values - 1], last, "{dtype:?}");
            assert_eq!(y.iter().map(|v| f64::from(*v)).sum::<f64>(), sum, "{dtype:?}");
        }
    }
}
