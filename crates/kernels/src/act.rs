//! Activations and the exponential they share, forward and derivative.

use crate::isa::{Isa, Kernel, LANES, Simd};

/// The activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activation {
    /// y = x.
    #[default]
    None,
    /// y = x Φ(x), with the exact normal distribution (`torch.nn.GELU()`).
    GeluErf,
    /// y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))) (`GELU(approximate="tanh")`).
    GeluTanh,
    /// y = x σ(1.702 x) (OpenAI's CLIP).
    QuickGelu,
}

/// 2^x with a relative error under 2e-7; below -127 it is exactly 0, above 127 it stays at 2^127.
/// What is no number stays none (the bounds are the first operands: see [`Simd::max`]), so a broken weight shows.
///
/// Round to the nearest integer, degree-6 minimax polynomial on [-1/2, 1/2] (relative error 2e-9 before rounding).
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    const COEFFICIENTS: [f32; 6] =
        [6.931_472e-1, 2.402_264_8e-1, 5.550_332_5e-2, 9.618_437e-3, 1.339_887_5e-3, 1.535_336_2e-4];
    let x = s.max(s.splat(-127.0), s.min(s.splat(127.0), x));
    let n = s.round(x);
    let f = s.sub(x, n);
    let mut p = s.splat(COEFFICIENTS[5]);
    for i in (0..5).rev() {
        p = s.fma(p, f, s.splat(COEFFICIENTS[i]));
    }
    s.mul(s.fma(p, f, s.splat(1.0)), s.pow2(n))
}

/// 1 / (1 + e^-x).
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp2(s, s.mul(x, s.splat(-std::f32::consts::LOG2_E)));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// erf(x) as x P₆(x²)/Q₄(x²) with |x| clamped to 4 (the rational of Eigen's `generic_fast_erf_float`); error 4e-7.
#[inline(always)]
fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    const P: [f32; 7] = [
        -1.609_603_3e-2,
        -2.954_6e-3,
        -7.349_906_5e-4,
        -5.692_506_5e-5,
        -2.101_024e-6,
        2.770_681_5e-8,
        -2.726_142_3e-10,
    ];
    const Q: [f32; 5] = [-1.426_473_9e-2, -7.373_329e-3, -1.682_827e-3, -2.133_740_5e-4, -1.456_607_2e-5];
    let x = s.max(s.min(x, s.splat(4.0)), s.splat(-4.0));
    let x2 = s.mul(x, x);
    let mut p = s.splat(P[6]);
    for i in (0..6).rev() {
        p = s.fma(p, x2, s.splat(P[i]));
    }
    let mut q = s.splat(Q[4]);
    for i in (0..4).rev() {
        q = s.fma(q, x2, s.splat(Q[i]));
    }
    s.div(s.mul(x, p), q)
}

/// √(2/π), of the tanh form of GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// 1/√(2π), of the normal density.
const INV_SQRT_2_PI: f32 = 0.398_942_3;

/// The activation of sixteen values.
#[inline(always)]
pub(crate) fn apply<S: Simd>(s: S, activation: Activation, x: S::F) -> S::F {
    match activation {
        Activation::None => x,
        Activation::GeluErf => {
            let half = s.mul(x, s.splat(0.5));
            s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
        }
        // 1/2 (1 + tanh u) = sigmoid(2u)
        Activation::GeluTanh => {
            let x2 = s.mul(x, x);
            let u = s.mul(x, s.fma(x2, s.splat(2.0 * SQRT_2_OVER_PI * 0.044_715), s.splat(2.0 * SQRT_2_OVER_PI)));
            s.mul(x, sigmoid(s, u))
        }
        Activation::QuickGelu => s.mul(x, sigmoid(s, s.mul(x, s.splat(1.702)))),
    }
}

/// A GELU as x (1/2 + t P(t²)), t = x within ±limit.
pub(crate) struct CoarseGelu {
    limit: f32,
    /// Of P, the constant first.
    coefficients: [f32; 8],
}

/// Minimax for the absolute error of x Φ(x), with t P(t²) = 1/2 at the limit: error 8e-5.
const COARSE_ERF: CoarseGelu = CoarseGelu {
    limit: 4.2,
    coefficients: [
        0.398_465_87,
        -0.065_528_19,
        9.298_224e-3,
        -9.506_564e-4,
        6.689_055_6e-5,
        -3.037_922e-6,
        7.941_306e-8,
        -9.017_485e-10,
    ],
};

/// The same for the tanh form: error 8e-5.
const COARSE_TANH: CoarseGelu = CoarseGelu {
    limit: 4.1,
    coefficients: [
        0.398_494_24,
        -0.065_879_26,
        9.524_35e-3,
        -1.007_284e-3,
        7.414_144e-5,
        -3.544_149_4e-6,
        9.776_613e-8,
        -1.172_327_5e-9,
    ],
};

/// The form of an activation for values that become bytes next, which have steps of a hundredth or so; none where the
/// exact one is not to be replaced.
#[inline(always)]
pub(crate) fn coarse(activation: Activation) -> Option<&'static CoarseGelu> {
    match activation {
        Activation::GeluErf => Some(&COARSE_ERF),
        Activation::GeluTanh => Some(&COARSE_TANH),
        Activation::None | Activation::QuickGelu => None,
    }
}

impl CoarseGelu {
    /// Of sixteen values: no division and no exponential. Near 0 the relative error is small too.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, s: S, x: S::F) -> S::F {
        let t = s.max(s.min(x, s.splat(self.limit)), s.splat(-self.limit));
        let t2 = s.mul(t, t);
        let mut p = s.splat(self.coefficients[7]);
        for i in (0..7).rev() {
            p = s.fma(p, t2, s.splat(self.coefficients[i]));
        }
        s.mul(x, s.fma(t, p, s.splat(0.5)))
    }
}

/// dy/dx of the activation at sixteen values.
#[inline(always)]
fn slope<S: Simd>(s: S, activation: Activation, x: S::F) -> S::F {
    let one = s.splat(1.0);
    match activation {
        Activation::None => one,
        // Φ(x) + x φ(x)
        Activation::GeluErf => {
            let half = s.splat(0.5);
            let phi = s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half);
            let exponent = s.mul(s.mul(x, x), s.splat(-0.5 * std::f32::consts::LOG2_E));
            s.fma(s.mul(x, s.splat(INV_SQRT_2_PI)), exp2(s, exponent), phi)
        }
        // y = x σ(v): σ + x σ (1 - σ) v'
        Activation::GeluTanh => {
            let x2 = s.mul(x, x);
            let (a, b) = (2.0 * SQRT_2_OVER_PI, 2.0 * SQRT_2_OVER_PI * 0.044_715);
            let v = s.mul(x, s.fma(x2, s.splat(b), s.splat(a)));
            let slope_v = s.fma(x2, s.splat(3.0 * b), s.splat(a));
            let sig = sigmoid(s, v);
            s.fma(s.mul(s.mul(x, slope_v), sig), s.sub(one, sig), sig)
        }
        Activation::QuickGelu => {
            let sig = sigmoid(s, s.mul(x, s.splat(1.702)));
            s.fma(s.mul(s.mul(x, s.splat(1.702)), sig), s.sub(one, sig), sig)
        }
    }
}

struct Forward<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

// The two loops below are written out: a closure is a function of its own that lacks the instructions of the set.
impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut vectors = self.x.chunks_exact_mut(LANES);
        for chunk in &mut vectors {
            let y = apply(s, self.activation, s.load_slice(chunk));
            s.store_slice(chunk, y);
        }
        let tail = vectors.into_remainder();
        let y = s.to_array(apply(s, self.activation, s.load_partial(tail, 0.0)));
        tail.copy_from_slice(&y[..tail.len()]);
    }
}

struct Backward<'a> {
    activation: Activation,
    x: &'a [f32],
    gradient: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (mut x, mut gradient) = (self.x.chunks_exact(LANES), self.gradient.chunks_exact_mut(LANES));
        for (x, g) in (&mut x).zip(&mut gradient) {
            let dx = s.mul(s.load_slice(g), slope(s, self.activation, s.load_slice(x)));
            s.store_slice(g, dx);
        }
        let (x, g) = (x.remainder(), gradient.into_remainder());
        let dx = s.to_array(s.mul(s.load_partial(g, 0.0), slope(s, self.activation, s.load_partial(x, 0.0))));
        g.copy_from_slice(&dx[..g.len()]);
    }
}

/// Applies the activation to every value. In products it is fused instead: [`crate::gemm::gemm`].
pub fn activate(isa: Isa, activation: Activation, x: &mut [f32]) {
    isa.run(Forward { activation, x });
}

/// Backward of [`activate`]: `gradient` is multiplied by the slope at the pre-activations `x`.
pub fn activate_backward(isa: Isa, activation: Activation, x: &[f32], gradient: &mut [f32]) {
    assert_eq!(x.len(), gradient.len(), "pre-activations and gradient have one length");
    isa.run(Backward { activation, x, gradient });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Abramowitz and Stegun: the series 7.1.5 for |x| < 3, the asymptotic expansion 7.1.23 beyond.
    fn erf64(x: f64) -> f64 {
        if x.abs() >= 3.0 {
            let (mut term, mut sum) = (1.0, 1.0);
            for n in 1..8 {
                term *= -f64::from(2 * n - 1) / (2.0 * x * x);
                sum += term;
            }
            return x.signum() - (-x * x).exp() / (x * std::f64::consts::PI.sqrt()) * sum;
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        2.0 / std::f64::consts::PI.sqrt() * sum
    }

    fn oracle(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::None => x,
            Activation::GeluErf => 0.5 * x * (1.0 + erf64(x / 2f64.sqrt())),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        }
    }

    const ALL: [Activation; 4] = [Activation::None, Activation::GeluErf, Activation::GeluTanh, Activation::QuickGelu];

    fn points() -> Vec<f32> {
        let last = if cfg!(miri) { 202 } else { 4002 };
        (0..=last).map(|i| -10.0 + 20.0 * i as f32 / last as f32).collect()
    }

    #[test]
    fn activations_match_f64_on_every_set() {
        for activation in ALL {
            let mut first: Option<Vec<u32>> = None;
            for isa in Isa::present() {
                let mut y = points();
                activate(isa, activation, &mut y);
                for (x, y) in points().iter().zip(&y) {
                    let want = oracle(activation, f64::from(*x));
                    let error = (f64::from(*y) - want).abs();
                    assert!(error <= 1e-6 * (1.0 + want.abs()), "{activation:?} {} x {x} {y} {want}", isa.name());
                }
                let bits: Vec<u32> = y.iter().map(|v| v.to_bits()).collect();
                assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{activation:?} {}", isa.name());
            }
        }
    }

    #[test]
    fn coarse_forms_are_within_a_ten_thousandth_on_every_set() {
        struct Coarse(Activation, Vec<f32>);
        impl Kernel for Coarse {
            type Output = Vec<f32>;
            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> Vec<f32> {
                let form = coarse(self.0).expect("both forms of GELU have one");
                self.1.chunks(LANES).flat_map(|x| s.to_array(form.apply(s, s.load_partial(x, 0.0)))).collect()
            }
        }
        for activation in [Activation::GeluErf, Activation::GeluTanh] {
            let mut first: Option<Vec<u32>> = None;
            let points = || [points(), vec![-3e4, -100.0, 100.0, 3e4, f32::NAN]].concat();
            for isa in Isa::present() {
                let y = isa.run(Coarse(activation, points()));
                for (x, y) in points().iter().zip(&y).filter(|(x, _)| !x.is_nan()) {
                    let want = oracle(activation, f64::from(*x));
                    let bound = 1e-4 + 1e-6 * f64::from(x.abs());
                    assert!((f64::from(*y) - want).abs() <= bound, "{activation:?} {} {x} {y} {want}", isa.name());
                }
                assert!(y[points().len() - 1].is_nan(), "{}", isa.name());
                let bits: Vec<u32> = y.iter().map(|v| v.to_bits()).collect();
                assert_eq!(first.get_or_insert_with(|| bits.clone()), &bits, "{activation:?} {}", isa.name());
            }
        }
    }

    #[test]
    fn slopes_match_central_differences() {
        for activation in ALL {
            for isa in Isa::present() {
                let mut g = vec![1.0; points().len()];
                activate_backward(isa, activation, &points(), &mut g);
                for (x, g) in points().iter().zip(&g) {
                    let (x, h) = (f64::from(*x), 1e-5);
                    let want = (oracle(activation, x + h) - oracle(activation, x - h)) / (2.0 * h);
                    assert!((f64::from(*g) - want).abs() < 3e-6, "{activation:?} {} {x} {g} {want}", isa.name());
                }
            }
        }
    }

    #[test]
    fn exponential_is_exact_zero_far_below() {
        struct Probe;
        impl Kernel for Probe {
            type Output = [f32; LANES];
            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> [f32; LANES] {
                let mut x = [0.0; LANES];
                x[..6].copy_from_slice(&[f32::NEG_INFINITY, -200.0, -1.0, 10.0, 0.5, f32::NAN]);
                s.to_array(exp2(s, s.with_lanes(x)))
            }
        }
        for isa in Isa::present() {
            let y = isa.run(Probe);
            assert_eq!(&y[..4], &[0.0, 0.0, 0.5, 1024.0], "{}", isa.name());
            assert!((y[4] - 2f32.sqrt()).abs() < 3e-7);
            assert!(y[5].is_nan(), "{}", isa.name());
        }
    }
}
