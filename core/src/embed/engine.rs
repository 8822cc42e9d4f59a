//! The ways to run the encoder on this machine, and the single choice between them.
//!
//! Owns: one compiled pass for each instruction set of `kernel`, which is handed out only where the CPU has it. Any
//! thread; the choice is made once per process.

use super::bert::{Bench, Pass};
use super::kernel::{self, Isa};
use std::sync::OnceLock;

/// A way to run the encoder.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// What serves, for INFO and the configuration.
    pub name: &'static str,
    /// Whether weights are to be clipped for it.
    pub(super) clips: bool,
    run: unsafe fn(&Pass<'_>, usize, usize, &mut Bench),
}

impl Engine {
    /// Runs a step of a part.
    ///
    /// # Safety
    /// As for `Pass::run`; the instructions are there, as this engine was handed out.
    pub(super) unsafe fn run(&self, pass: &Pass<'_>, step: usize, part: usize, bench: &mut Bench) {
        // SAFETY: says the caller.
        unsafe { (self.run)(pass, step, part, bench) };
    }
}

const SCALAR: Engine = Engine { name: "scalar", clips: kernel::scalar::Scalar::CLIPS, run: scalar };

unsafe fn scalar(pass: &Pass<'_>, step: usize, part: usize, bench: &mut Bench) {
    // SAFETY: plain Rust runs everywhere; the rest says the caller.
    unsafe { pass.run::<kernel::scalar::Scalar>(step, part, bench) };
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use super::{Bench, Engine, Isa, Pass};
    use crate::embed::kernel::{avx2::Avx2, vnni::Vnni};

    pub(super) const AVX2: Engine = Engine { name: "avx2", clips: Avx2::CLIPS, run: with_avx2 };
    pub(super) const VNNI: Engine = Engine { name: "vnni", clips: Vnni::CLIPS, run: with_vnni };

    #[target_feature(enable = "avx2,fma")]
    unsafe fn with_avx2(pass: &Pass<'_>, step: usize, part: usize, bench: &mut Bench) {
        // SAFETY: the instructions are there; the rest says the caller.
        unsafe { pass.run::<Avx2>(step, part, bench) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
    unsafe fn with_vnni(pass: &Pass<'_>, step: usize, part: usize, bench: &mut Bench) {
        // SAFETY: the instructions are there; the rest says the caller.
        unsafe { pass.run::<Vnni>(step, part, bench) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod arm {
    use super::{Bench, Engine, Isa, Pass};
    use crate::embed::kernel::neon::Neon;

    pub(super) const NEON: Engine = Engine { name: "neon", clips: Neon::CLIPS, run: with_neon };

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn with_neon(pass: &Pass<'_>, step: usize, part: usize, bench: &mut Bench) {
        // SAFETY: the instructions are there; the rest says the caller.
        unsafe { pass.run::<Neon>(step, part, bench) };
    }
}

/// The engine that serves on this machine.
pub fn engine() -> Engine {
    static CHOSEN: OnceLock<Engine> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let available = engines();
        available[available.len() - 1]
    })
}

/// Every engine this machine can run, the oracle first and the one that serves last.
pub fn engines() -> Vec<Engine> {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    let faster = [(x86::AVX2, kernel::avx2::runs()), (x86::VNNI, kernel::vnni::runs())];
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    let faster = [(arm::NEON, kernel::neon::runs())];
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    let faster: [(Engine, bool); 0] = [];
    let faster = faster.into_iter().filter(|(_, runs)| *runs).map(|(engine, _)| engine);
    std::iter::once(SCALAR).chain(faster).collect()
}
