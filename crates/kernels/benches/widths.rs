//! Head widths and MLP widths that are no multiple of the vector, beside regular ones, on one thread:
//! `cargo bench -p openvision-kernels --bench widths [-- GROUP]`. All cases take turns, so that a change of the machine's load meets
//! all of them; the ratio is to the regular case of the group, in the best calls and in the median of the turns.

use openvision_kernels::act::Activation;
use openvision_kernels::attention::{AttentionShape, Mask, attention};
use openvision_kernels::gemm::{Linear, MatrixSource, Output, PackedMatrix, gemm};
use openvision_kernels::pool::{Member, Pool, TeamMemory};
use openvision_kernels::vector::{Rows, RowsMut};
use openvision_kernels::{Buffer, Isa, peak};
use std::time::{Duration, Instant};

const TOKENS: usize = 257;
const TURNS: usize = 15;
const TURN: Duration = Duration::from_millis(60);

/// Something to call again and again.
struct Case {
    group: &'static str,
    name: String,
    flops: usize,
    call: Box<dyn FnMut()>,
    /// The best call of each turn, in seconds.
    turns: Vec<f64>,
}

/// As the executor strides its rows.
fn stride(width: usize) -> usize {
    let stride = width.next_multiple_of(16);
    if stride.is_multiple_of(256) { stride + 16 } else { stride }
}

fn product(isa: Isa, group: &'static str, k: usize, n: usize, output: Output) -> Case {
    let values: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.618_034).fract() * 0.02 - 0.01).collect();
    let bias = vec![0.1; n];
    // A few copies, used in turn: weights come from memory as far away as in a forward pass.
    let linears: Vec<Linear> = (0..4)
        .map(|_| Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&values, n, k)), Some(&bias)))
        .collect();
    let a = Buffer::padded(&vec![0.5; TOKENS * stride(k)], TOKENS * stride(k));
    let mut c = Buffer::zeroed(TOKENS * stride(n));
    let mut next = 0;
    let call = move || {
        let out = RowsMut::strided(&mut c, TOKENS, n, stride(n));
        gemm(isa, Rows::strided(&a, TOKENS, k, stride(k)), &linears[next % linears.len()], out, output);
        next += 1;
    };
    Case { group, name: format!("{k} x {n}"), flops: 2 * TOKENS * k * n, call: Box::new(call), turns: Vec::new() }
}

fn heads(isa: Isa, head_dim: usize) -> Case {
    let shape = AttentionShape { tokens: TOKENS, heads: 16, head_dim, mask: Mask::None };
    let (width, from, to) = (shape.width(), stride(3 * shape.width()), stride(shape.width()));
    let values: Vec<f32> = (0..TOKENS * from).map(|i| (i as f32 * 0.618_034).fract() - 0.5).collect();
    let qkv = Buffer::padded(&values, values.len());
    let (mut out, mut memory, mut scratch) = (Buffer::zeroed(TOKENS * to), TeamMemory::default(), Buffer::default());
    let call = move || {
        let rows = Rows::strided(&qkv, TOKENS, 3 * width, from);
        let target = RowsMut::strided(&mut out, TOKENS, width, to);
        attention(isa, &mut Member::solo(&mut memory), shape, rows, target, &mut scratch);
    };
    let flops = 4 * TOKENS * TOKENS * width;
    Case { group: "attention", name: format!("16 heads of {head_dim}"), flops, call: Box::new(call), turns: Vec::new() }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let pool = Pool::new(1);
    // Cargo passes `--bench`.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let gelu = Output::Store(Activation::GeluErf);
    for isa in Isa::present().into_iter().filter(|isa| isa.name() != "portable") {
        // The first of each group is the regular one.
        let mut cases: Vec<Case> = [64, 72, 80, 88].map(|width| heads(isa, width)).into();
        cases.extend([4096, 4304, 4300].map(|mlp| product(isa, "expand", 1152, mlp, gelu)));
        cases.extend([4096, 4304, 4300].map(|mlp| product(isa, "contract", mlp, 1152, Output::Add)));
        cases.extend(
            [1024, 1152, 1280, 1408]
                .map(|width| product(isa, "q k v", width, 3 * width, Output::Store(Activation::None))),
        );
        cases.retain(|case| only.as_ref().is_none_or(|only| case.group == only));
        let mut best_peak = 0.0f64;
        for turn in 0..TURNS {
            best_peak = best_peak.max(peak::flops_per_second(isa, &pool, 10, Duration::from_millis(2)) / 1e9);
            // The order rotates: who comes first after the peak would always be in the same state of the processor.
            for i in 0..cases.len() {
                let at = (i + turn) % cases.len();
                let case = &mut cases[at];
                let (started, mut best) = (Instant::now(), f64::INFINITY);
                while started.elapsed() < TURN {
                    let call = Instant::now();
                    (case.call)();
                    best = best.min(call.elapsed().as_secs_f64());
                }
                case.turns.push(best);
            }
        }
        let speed = |case: &Case, seconds: f64| case.flops as f64 / seconds / 1e9;
        let best = |case: &Case| speed(case, case.turns.iter().copied().fold(f64::INFINITY, f64::min));
        for case in &cases {
            let regular = cases.iter().find(|other| other.group == case.group).expect("the case itself at least");
            let ratios: Vec<f64> = case
                .turns
                .iter()
                .zip(&regular.turns)
                .map(|(own, other)| speed(case, *own) / speed(regular, *other))
                .collect();
            println!(
                "{:7} {:9} {:16} {:6.1} GFLOP/s, {:5.1} % of {best_peak:.1}; to the regular one {:.3} best, {:.3} by turn",
                isa.name(),
                case.group,
                case.name,
                best(case),
                100.0 * best(case) / best_peak,
                best(case) / best(regular),
                median(&ratios)
            );
        }
    }
}
