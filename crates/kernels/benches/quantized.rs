//! Speed of single products of bytes with the shapes of real layers, on one thread, quantisation of the activations
//! and layer norms included, as a share of the peak measured beside them: `cargo bench -p openvision-kernels --bench
//! quantized`. Each call takes other weights, as in a forward pass. The best of many short calls is printed: other
//! programs disturb it least.

use openvision_kernels::act::Activation;
use openvision_kernels::gemm::{
    Output, QuantizedLinear, QuantizedMatrix, QuantizedProduct, QuantizedRows, quantize_weights, quantized_gemm,
};
use openvision_kernels::norm::LayerNorm;
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::{Rows, RowsMut};
use openvision_kernels::{Buffer, Isa, peak};
use std::time::{Duration, Instant};

struct Shape {
    name: &'static str,
    rows: usize,
    k: usize,
    n: usize,
    norm: bool,
    output: Output,
}

const GELU: Output = Output::Store(Activation::GeluErf);
const PLAIN: Output = Output::Store(Activation::None);

const SHAPES: [Shape; 8] = [
    Shape { name: "Ti/16-160 qkv", rows: 101, k: 192, n: 576, norm: true, output: PLAIN },
    Shape { name: "Ti/16-160 out", rows: 101, k: 192, n: 192, norm: false, output: Output::Add },
    Shape { name: "Ti/16-160 fc1", rows: 101, k: 192, n: 768, norm: true, output: GELU },
    Shape { name: "Ti/16-160 fc2", rows: 101, k: 768, n: 192, norm: false, output: Output::Add },
    Shape { name: "B/16-224 qkv", rows: 197, k: 768, n: 2304, norm: true, output: PLAIN },
    Shape { name: "B/16-224 out", rows: 197, k: 768, n: 768, norm: false, output: Output::Add },
    Shape { name: "B/16-224 fc1", rows: 197, k: 768, n: 3072, norm: true, output: GELU },
    Shape { name: "B/16-224 fc2", rows: 197, k: 3072, n: 768, norm: false, output: Output::Add },
];

/// As the executor strides its rows.
fn stride(width: usize) -> usize {
    if width.is_multiple_of(256) { width + 16 } else { width }
}

/// Best Gop/s of `shape` over about 0.7 seconds.
fn measure(isa: Isa, shape: &Shape) -> f64 {
    let &Shape { rows, k, n, norm, output, .. } = shape;
    // As many copies as fill 64 MiB, at most twelve layers.
    let copies = ((64 << 20) / (k * n)).clamp(2, 12);
    let values: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.618_034).fract() * 0.02 - 0.01).collect();
    let (bias, gamma, beta) = (vec![0.1; n], vec![1.0; k], vec![0.0; k]);
    let (mut q, mut scales) = (vec![0; k * n], vec![0.0; n]);
    quantize_weights(isa, &values, k, &mut q, &mut scales);
    let linears: Vec<QuantizedLinear> = (0..copies)
        .map(|_| {
            let mut matrix = QuantizedMatrix::reserve(isa, k, n);
            matrix.fill(0, &q, &scales);
            QuantizedLinear::new(matrix, Some(&bias))
        })
        .collect();
    let a: Vec<f32> = (0..rows * stride(k)).map(|i| (i as f32 * 0.414_213).fract() - 0.4).collect();
    let a = Buffer::padded(&a, rows * stride(k));
    let mut c = Buffer::zeroed(rows * stride(n));
    let mut scratch = QuantizedRows::default();
    let mut best = f64::INFINITY;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(700) {
        for linear in &linears {
            let call = Instant::now();
            let out = RowsMut::strided(&mut c, rows, n, stride(n));
            let norm = norm.then_some(LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-6 });
            let product = QuantizedProduct { a: Rows::strided(&a, rows, k, stride(k)), norm, linear, output };
            quantized_gemm(&product, out, &mut scratch);
            best = best.min(call.elapsed().as_secs_f64());
        }
    }
    (2 * rows * k * n) as f64 / best / 1e9
}

fn main() {
    let pool = Pool::new(1);
    for isa in Isa::present().into_iter().filter(|isa| isa.name() != "portable") {
        for unit in isa.dot_units() {
            let peak = peak::byte_ops_per_second(unit, &pool, 50, Duration::from_millis(2)) / 1e9;
            let float = peak::flops_per_second(isa, &pool, 50, Duration::from_millis(2)) / 1e9;
            println!("{:12} inner loop alone {peak:.1} Gop/s, {:.2} times f32's {float:.1}", unit.name(), peak / float);
        }
        for shape in &SHAPES {
            let peak = peak::byte_ops_per_second(isa.dot_unit(), &pool, 50, Duration::from_millis(2)) / 1e9;
            let speed = measure(isa, shape);
            println!(
                "{:12} {:14} {speed:6.1} Gop/s, {:5.1} % of {peak:.1}",
                isa.dot_unit().name(),
                shape.name,
                100.0 * speed / peak
            );
        }
    }
}
