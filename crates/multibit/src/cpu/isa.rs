//! The only table of instruction sets, chosen at run time.

use alloc::vec::Vec;
use core::fmt;

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
    Avx512,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    Avx512Vnni,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
}

impl Isa {
    /// Plain Rust, on every processor.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The instruction sets that this processor has, the slowest first.
    ///
    /// Without the feature `std` the processor is not asked: then there are only those that the
    /// program was compiled for.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "without std, x86-64 has no more")]
        let mut found = Vec::from([Self::PORTABLE]);
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma");
            let avx512 = avx2 && has!("avx512f") && has!("avx512bw");
            let vnni = has!("avx512vbmi") && has!("avx512vnni") && has!("avx512vpopcntdq");
            let kinds = [
                (Kind::Avx2, avx2),
                (Kind::Avx512, avx512),
                (Kind::Avx512Vnni, avx512 && vnni),
            ];
            found.extend(kinds.iter().filter(|kind| kind.1).map(|kind| Self(kind.0)));
        }
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        found.push(Self(Kind::Neon));
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

    /// The name: `portable`, `avx2`, `avx512`, `avx512-vnni` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx2 => "avx2",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512 => "avx512",
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => "neon",
        }
    }

    /// Runs a kernel with these instructions.
    pub(super) fn run<T: Task>(self, task: T) {
        match self.0 {
            Kind::Portable => super::portable::run(task),
            // SAFETY: `available` has asked the processor.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx2 => unsafe { super::x86_64::avx2::run(task) },
            // SAFETY: `available` has asked the processor.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512 => unsafe { super::x86_64::avx512::run(task) },
            // SAFETY: `available` has asked the processor.
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            Kind::Avx512Vnni => unsafe { super::x86_64::avx512::run_vnni(task) },
            // SAFETY: the program is compiled for processors that have it.
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => unsafe { super::aarch64::neon::run(task) },
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
