//! The multiply-adds a processor can do at best, measured: what a forward pass is compared with.

use crate::gemm::DotBurst;
use crate::isa::{DotUnit, Isa, Kernel, LANES, Simd};
use crate::pool::Pool;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Steps of one chain between two looks at the clock: some ten microseconds.
const STEPS: usize = 4096;

/// `CHAINS` independent chains of multiply-adds, enough of them to hide the latency of one.
struct Chains<const CHAINS: usize> {
    factor: f32,
    addend: f32,
}

impl<const CHAINS: usize> Kernel for Chains<CHAINS> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (factor, addend) = (s.splat(self.factor), s.splat(self.addend));
        let mut chains: [S::F; CHAINS] = std::array::from_fn(|i| s.splat(i as f32));
        for _ in 0..STEPS {
            for chain in &mut chains {
                *chain = s.fma(*chain, factor, addend);
            }
        }
        chains.into_iter().map(|chain| s.sum(chain)).sum()
    }
}

/// Runs the chains once; returns the floating-point operations done (2 a multiply-add).
fn burst(isa: Isa) -> u64 {
    // The factor is below one, so the chains converge: neither infinities nor denormals slow them down.
    let (factor, addend) = (black_box(0.999), black_box(0.5));
    // As many chains as the accumulators of the set's widest matrix tile half: they stay in registers.
    let chains = match isa.panel_vectors() {
        1 => {
            black_box(isa.run(Chains::<6> { factor, addend }));
            6
        }
        _ => {
            black_box(isa.run(Chains::<12> { factor, addend }));
            12
        }
    };
    (2 * chains * LANES * STEPS) as u64
}

/// Floating-point operations a second that all threads of the pool reach together: the best of `rounds` rounds of
/// `length` each, since a round that was disturbed by other programs says nothing about the processor.
pub fn flops_per_second(isa: Isa, pool: &Pool, rounds: usize, length: Duration) -> f64 {
    per_second(pool, rounds, length, &|| burst(isa))
}

/// The same of operations on bytes (2 a multiply-add).
pub fn byte_ops_per_second(unit: DotUnit, pool: &Pool, rounds: usize, length: Duration) -> f64 {
    let data = vec![1i8; DotBurst::BYTES];
    per_second(pool, rounds, length, &|| unit.run(DotBurst { data: black_box(&data) }))
}

fn per_second(pool: &Pool, rounds: usize, length: Duration, burst: &(dyn Fn() -> u64 + Sync)) -> f64 {
    let mut best = 0.0f64;
    for _ in 0..rounds {
        let total = Mutex::new(0.0);
        pool.run(&|_| {
            let (started, mut done) = (Instant::now(), 0);
            while started.elapsed() < length {
                done += burst();
            }
            let rate = done as f64 / started.elapsed().as_secs_f64();
            *total.lock().expect("adding does not panic") += rate;
        });
        best = best.max(total.into_inner().expect("adding does not panic"));
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_a_peak_and_chains_converge() {
        let pool = Pool::new(2);
        for isa in Isa::present() {
            let rate = flops_per_second(isa, &pool, 1, Duration::from_millis(5));
            assert!(rate.is_finite() && rate > 1e6, "{} {rate}", isa.name());
            let sum = isa.run(Chains::<6> { factor: 0.5, addend: 1.0 });
            // Each lane's fixed point is 1 / (1 - 0.5).
            assert_eq!(sum, (6 * LANES) as f32 * 2.0, "{}", isa.name());
            for unit in isa.dot_units() {
                let rate = byte_ops_per_second(unit, &pool, 1, Duration::from_millis(5));
                assert!(rate.is_finite() && rate > 1e6, "{} {rate}", unit.name());
            }
        }
    }
}
