//! The only table of instruction sets, chosen at run time.
//!
//! | name | needs | what is its own |
//! |---|---|---|
//! | `portable` | nothing | plain Rust, in the vectors that the program is compiled for |
//! | `avx2` | AVX2, FMA | look-up by `pshufb`, bits counted by look-up of their nibbles |
//! | `avx2-vnni` | AVX-VNNI as well | one instruction for four products of bytes and for sums of four bytes, instead of three; compiled, but run on no processor yet |
//! | `avx512` | `avx2`, AVX-512 F and BW | the same as `avx2` in one register instead of two |
//! | `avx512-vnni` | VNNI as well (Cascade Lake) | one instruction for four products or sums of bytes, instead of three |
//! | `avx512-vbmi` | VBMI and VPOPCNTDQ as well (Ice Lake, Zen 4) | one instruction each for a look-up in four tables and for counting bits |
//! | `neon` | NEON, which 64-bit Arm has | look-up in 64 bytes by `tbl`, bits counted by `cnt` |
//! | `neon-dotprod` | `dotprod` as well (Cortex-A75, Neoverse N1, Apple A11) | one instruction for sums of four bytes instead of two, two for four products instead of ten |
//! | `neon-i8mm` | `i8mm` as well (Neoverse V1, Apple A15) | one instruction for four products of bytes |
//! | `simd128` | WebAssembly that is compiled with `simd128` | look-up by `swizzle`, bits counted by `popcnt`; the bits of `portable` |
//!
//! What could be wired and is not:
//!
//! | instructions | what they would serve | why not |
//! |---|---|---|
//! | AVX and SSE without AVX2 | processors of before about 2015 | `portable` runs there, and nobody has asked for more |
//! | AVX-512 without BW | Xeon Phi alone | the bytes of look-ups need BW; it takes `avx2` |
//! | AMX | products of bytes | its intrinsics are not stable in Rust 1.95 |
//! | SVE | longer vectors on 64-bit Arm | as AMX |
//! | `tbl` and `swizzle` for tables of f32 in `neon` and `simd128` | [`entry`](Simd::entry), which goes through memory there | not measured yet: tests of `neon` run on an emulator, whose times say nothing |
//! | shuffles for [`transpose`](Simd::transpose) in `avx2`, `neon` and `simd128` | convolutions, once for 16 × 16 sums; it goes through memory there | it is a small part of their time |
//! | WebAssembly's `relaxed-simd` | browsers, with a fused multiply-add and products of bytes | its results differ between processors |
//! | any of x86-64's without the feature `std` | programs without an operating system | asking the processor needs `std` |

use alloc::vec::Vec;
use core::fmt;

#[cfg(doc)]
use super::simd::Simd;
use super::simd::Task;

/// An instruction set that this processor has.
///
/// Values come from [`best`](Self::best), [`available`](Self::available) and
/// [`named`](Self::named) only, so one in hand is proof that its kernels can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Portable,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx2,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx2Vnni,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx512,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx512Vnni,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx512Vbmi,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
    NeonDotprod,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
    NeonI8mm,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
}

impl Isa {
    /// Plain Rust, on every processor.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The fastest of those that give the bits of [`PORTABLE`](Self::PORTABLE).
    #[cfg(all(feature = "chain", target_arch = "wasm32", target_feature = "simd128"))]
    pub(crate) const PLAIN: Self = Self(Kind::Simd128);
    #[cfg(all(
        feature = "chain",
        not(all(target_arch = "wasm32", target_feature = "simd128"))
    ))]
    pub(crate) const PLAIN: Self = Self::PORTABLE;

    /// The instruction sets that this processor has, the slowest first.
    ///
    /// Without the feature `std` the processor is not asked: then there are only those that every
    /// processor of the target has.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "without std, x86-64 has no more")]
        let mut found = Vec::from([Self::PORTABLE]);
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw");
            let vnni = avx512 && has!("avx512vnni");
            let vbmi = vnni && has!("avx512vbmi") && has!("avx512vpopcntdq");
            let kinds = [
                (Kind::Avx2, avx2),
                (Kind::Avx2Vnni, avx2 && has!("avxvnni")),
                (Kind::Avx512, avx512),
                (Kind::Avx512Vnni, vnni),
                (Kind::Avx512Vbmi, vbmi),
            ];
            found.extend(kinds.iter().filter(|kind| kind.1).map(|kind| Self(kind.0)));
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        found.push(Self(Kind::Neon));
        #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
        {
            use std::arch::is_aarch64_feature_detected as has;
            let dotprod = has!("dotprod");
            let kinds = [
                (Kind::NeonDotprod, dotprod),
                (Kind::NeonI8mm, dotprod && has!("i8mm")),
            ];
            found.extend(kinds.iter().filter(|kind| kind.1).map(|kind| Self(kind.0)));
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        found.push(Self(Kind::Simd128));
        found
    }

    /// The instruction set with this name, if this processor has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// The fastest instruction set of this processor. The environment variable `MULTIBIT_ISA`
    /// pins another one, for debugging.
    ///
    /// # Panics
    /// If `MULTIBIT_ISA` names one that this processor does not have.
    pub fn best() -> Self {
        #[cfg(feature = "std")]
        {
            static BEST: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
            *BEST.get_or_init(|| match std::env::var("MULTIBIT_ISA") {
                Ok(name) => Self::named(&name).unwrap_or_else(|| {
                    let names: Vec<_> = Self::available().iter().map(|isa| isa.name()).collect();
                    panic!("MULTIBIT_ISA is {name:?}, but this processor has {names:?}")
                }),
                Err(_) => Self::fastest(),
            })
        }
        #[cfg(not(feature = "std"))]
        Self::fastest()
    }

    fn fastest() -> Self {
        Self::available().pop().unwrap_or(Self::PORTABLE)
    }

    /// The name: `portable`, `avx2`, `avx2-vnni`, `avx512`, `avx512-vnni`, `avx512-vbmi`, `neon`,
    /// `neon-dotprod`, `neon-i8mm` or `simd128`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx2 => "avx2",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx2Vnni => "avx2-vnni",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512 => "avx512",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512Vbmi => "avx512-vbmi",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => "neon",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
            Kind::NeonDotprod => "neon-dotprod",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
            Kind::NeonI8mm => "neon-i8mm",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => "simd128",
        }
    }

    /// Whether it looks up sixteen floats in a table of sixteen by one instruction.
    pub(super) fn looks_up_floats(self) -> bool {
        self.name().starts_with("avx512")
    }

    /// Whether it counts the bits of words by few instructions.
    pub(super) fn counts_bits(self) -> bool {
        self.name() == "avx512-vbmi" || self.name().starts_with("neon")
    }

    /// Runs a kernel with these instructions; one that only its family's first set serves, with
    /// that, so that it is compiled once for all of a family.
    pub(super) fn run<T: Task>(self, task: T) {
        match self.0 {
            Kind::Portable => super::portable::run(task),
            // SAFETY: `available` has asked the processor.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx2Vnni if T::BYTES => unsafe { super::x86_64::avx2::run_vnni(task) },
            // SAFETY: as above; each set has those before it in its family.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx2 | Kind::Avx2Vnni => unsafe { super::x86_64::avx2::run(task) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512Vbmi if T::BYTES => unsafe { super::x86_64::avx512::run_vbmi(task) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512Vnni if T::BYTES => unsafe { super::x86_64::avx512::run_vnni(task) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512 | Kind::Avx512Vnni | Kind::Avx512Vbmi => unsafe {
                super::x86_64::avx512::run(task)
            },
            // SAFETY: as above.
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
            Kind::NeonDotprod if T::BYTES => unsafe { super::aarch64::neon::run_dotprod(task) },
            // SAFETY: as above.
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
            Kind::NeonI8mm if T::BYTES => unsafe { super::aarch64::neon::run_i8mm(task) },
            // SAFETY: the program is compiled for processors that have it.
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            _ => unsafe { super::aarch64::neon::run(task) },
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => super::wasm32::simd128::run(task),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
