//! Speed of single matrix products with the shapes of real layers, on one thread, as a share of the peak measured
//! beside them: `cargo bench -p openvision-kernels`. Each call takes other weights, as in a forward pass, so that
//! they come from as far away as they do there. The best of many short calls is printed: other programs disturb it
//! least.

use openvision_kernels::act::Activation;
use openvision_kernels::gemm::{Linear, MatrixSource, Output, PackedMatrix, Sequences, gemm, gemm_tokens};
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::{Rows, RowsMut};
use openvision_kernels::{Buffer, Isa, peak};
use std::time::{Duration, Instant};

struct Shape {
    name: &'static str,
    rows: usize,
    k: usize,
    n: usize,
    output: Output,
}

const GELU: Output = Output::Store(Activation::GeluErf);
const PLAIN: Output = Output::Store(Activation::None);

const SHAPES: [Shape; 8] = [
    Shape { name: "Ti/16-160 qkv", rows: 101, k: 192, n: 576, output: PLAIN },
    Shape { name: "Ti/16-160 out", rows: 101, k: 192, n: 192, output: Output::Add },
    Shape { name: "Ti/16-160 fc1", rows: 101, k: 192, n: 768, output: GELU },
    Shape { name: "Ti/16-160 fc2", rows: 101, k: 768, n: 192, output: Output::Add },
    Shape { name: "B/16-224 qkv", rows: 197, k: 768, n: 2304, output: PLAIN },
    Shape { name: "B/16-224 out", rows: 197, k: 768, n: 768, output: Output::Add },
    Shape { name: "B/16-224 fc1", rows: 197, k: 768, n: 3072, output: GELU },
    Shape { name: "B/16-224 fc2", rows: 197, k: 3072, n: 768, output: Output::Add },
];

/// As the executor strides its rows.
fn stride(width: usize) -> usize {
    if width.is_multiple_of(256) { width + 16 } else { width }
}

/// Best GFLOP/s of `shape` over about 1.5 seconds.
fn measure(isa: Isa, shape: &Shape) -> [f64; 2] {
    let &Shape { rows, k, n, output, .. } = shape;
    // As many copies as fill 64 MiB, at most twelve layers.
    let copies = ((64 << 20) / (4 * k * n)).clamp(2, 12);
    let values: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.618_034).fract() * 0.02 - 0.01).collect();
    let bias = vec![0.1; n];
    let linears: Vec<Linear> = (0..copies)
        .map(|_| Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&values, n, k)), Some(&bias)))
        .collect();
    let a = Buffer::padded(&vec![0.5; rows * stride(k)], rows * stride(k));
    let mut c = Buffer::zeroed(rows * stride(n));
    let mut best = [f64::INFINITY; 2];
    let mut scratch = Buffer::default();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        for linear in &linears {
            let a = Rows::strided(&a, rows, k, stride(k));
            for (way, best) in best.iter_mut().enumerate() {
                let out = RowsMut::strided(&mut c, rows, n, stride(n));
                let call = Instant::now();
                match way {
                    0 => gemm(isa, a, linear, out, output),
                    _ => {
                        let a = Sequences { rows: a, tokens: rows, here: rows };
                        gemm_tokens(isa, a, linear, out, output, &mut scratch);
                    }
                }
                *best = best.min(call.elapsed().as_secs_f64());
            }
        }
    }
    best.map(|best| (2 * rows * k * n) as f64 / best / 1e9)
}

fn main() {
    let pool = Pool::new(1);
    for isa in Isa::present().into_iter().filter(|isa| isa.name() != "portable") {
        for shape in &SHAPES {
            let peak = peak::flops_per_second(isa, &pool, 50, Duration::from_millis(2)) / 1e9;
            let [plain, seven] = measure(isa, shape);
            println!(
                "{:7} {:14} {plain:6.1} GFLOP/s, {:5.1} % of {peak:.1}; with seven products for eight {seven:6.1}, {:5.1} %",
                isa.name(),
                shape.name,
                100.0 * plain / peak,
                100.0 * seven / peak
            );
        }
    }
}
