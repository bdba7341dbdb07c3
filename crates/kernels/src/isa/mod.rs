//! Instruction sets as detection tokens, and the one place where `#[target_feature]` wrapping happens.
//!
//! A token ([`Avx2`], [`Avx512`], ...) has a private field and is made only after the processor was asked, so
//! holding one proves that its instructions may run. Kernels are generic over `Simd` and compiled once a set.

mod dot;
mod portable;
mod simd;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_dot;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_brain;
#[cfg(target_arch = "x86_64")]
mod avx512_dot;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512_brain::{Avx512Brain, BrainKernel};
pub use dot::DotUnit;
pub(crate) use dot::{Dot, DotKernel};
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use portable::Portable;
pub(crate) use simd::{Kernel, LANES, Simd};

/// An instruction set that this processor has. Copies are free; each variant holds the token that proves it.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// Plain Rust; always there, the oracle of the others.
    Portable(Portable),
    /// x86-64 with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// 64-bit ARM with Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

/// The name in `OPENVISION_ISA` is unknown or this processor lacks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa {
    /// What was asked for.
    pub asked: String,
    /// The names that would work here.
    pub present: Vec<&'static str>,
}

impl std::fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "instruction set '{}' is not available here; this processor has: {}",
            self.asked,
            self.present.join(", ")
        )
    }
}

impl std::error::Error for UnknownIsa {}

impl Isa {
    /// All sets that this processor has, the slowest first.
    pub fn present() -> Vec<Isa> {
        let mut sets = vec![Isa::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(Avx2::new().map(Isa::Avx2));
            sets.extend(Avx512::new().map(Isa::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        sets.extend(Neon::new().map(Isa::Neon));
        sets
    }

    /// The fastest set that this processor has.
    pub fn best() -> Isa {
        *Self::present().last().expect("the portable set is always present")
    }

    /// The set that the environment variable `OPENVISION_ISA` names (`portable`, `avx2`, `avx512`, `neon`), or the best.
    ///
    /// # Errors
    /// The name is unknown or the processor lacks the set.
    pub fn from_environment() -> Result<Isa, UnknownIsa> {
        match std::env::var("OPENVISION_ISA") {
            Ok(name) if !name.is_empty() => Self::by_name(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The set with this name, if the processor has it.
    ///
    /// # Errors
    /// The name is unknown or the processor lacks the set.
    pub fn by_name(name: &str) -> Result<Isa, UnknownIsa> {
        let present = Self::present();
        present.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| UnknownIsa {
            asked: name.to_owned(),
            present: present.iter().map(|isa| isa.name()).collect(),
        })
    }

    /// The name that `OPENVISION_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
        }
    }

    /// Runs a kernel compiled for this set.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable(set) => Simd::vectorize(set, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(set) => set.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(set) => set.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(set) => set.vectorize(kernel),
        }
    }

    /// How many 16-column vectors wide a packed panel is on this set.
    pub(crate) fn panel_vectors(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => Avx512::PANEL_VECTORS,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on values that are hard on it: infinities, zeros of both signs, what is no number, the least
    /// and the greatest, ties.
    struct Operations([[f32; LANES]; 3]);

    impl Kernel for Operations {
        type Output = Vec<[f32; LANES]>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let [a, b, c] = [s.with_lanes(self.0[0]), s.with_lanes(self.0[1]), s.with_lanes(self.0[2])];
            let whole = s.max(s.splat(-127.0), s.min(s.splat(127.0), s.round(a)));
            let mut all = vec![
                s.to_array(s.add(a, b)),
                s.to_array(s.sub(a, b)),
                s.to_array(s.mul(a, b)),
                s.to_array(s.div(a, b)),
                s.to_array(s.fma(a, b, c)),
                s.to_array(s.max(a, b)),
                s.to_array(s.min(a, b)),
                s.to_array(s.round(a)),
                s.to_array(s.pow2(whole)),
                s.to_array(crate::act::exp2(s, a)),
            ];
            all.push([s.sum(a); LANES]);
            all.push([s.largest(a); LANES]);
            all
        }
    }

    #[test]
    fn every_operation_gives_the_same_bits_on_every_set() {
        let hard = [
            0.0,
            -0.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -126.6,
            127.4,
            1e-45,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::MIN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            16_777_217.0,
        ];
        // The sign and the payload of what is no number are the processor's choice.
        let bits = |x: f32| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() };
        for shift in 0..LANES {
            let turned = |by: usize| std::array::from_fn(|i| hard[(i + by) % LANES]);
            let operands = [turned(0), turned(shift), turned(3 * shift + 1)];
            let want = Isa::present()[0].run(Operations(operands));
            for isa in Isa::present() {
                let got = isa.run(Operations(operands));
                for (operation, (got, want)) in got.iter().zip(&want).enumerate() {
                    assert_eq!(got.map(bits), want.map(bits), "{} operation {operation} shift {shift}", isa.name());
                }
            }
        }
    }

    #[test]
    fn names_select_sets() {
        for isa in Isa::present() {
            assert_eq!(Isa::by_name(isa.name()).unwrap().name(), isa.name());
        }
        let unknown = Isa::by_name("altivec").unwrap_err();
        assert!(unknown.to_string().contains("portable"), "{unknown}");
    }
}
