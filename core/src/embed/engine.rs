//! The ways to run the encoder on this machine, and the single choice between them.
//!
//! Owns: one compiled pass for each instruction set of `kernel`, which is handed out only where the CPU has it. Any
//! thread; the choice is made once per process.

use super::bert::{Encoder, Pass, Pooling, Scratch, forward, pool};
use super::kernel;
use std::sync::OnceLock;

/// A way to run the encoder.
#[derive(Debug, Clone, Copy)]
pub struct Engine {
    /// What serves, for INFO and the configuration.
    pub name: &'static str,
    /// The hidden states of the last layer, into the scratch memory of the pass.
    forward: fn(&Encoder, &mut Pass<'_>),
}

impl Engine {
    /// The vector of some tokens, not normalised.
    pub(super) fn embed(
        &self,
        encoder: &Encoder,
        tokens: &[u32],
        pooling: Pooling,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        assert!(!tokens.is_empty() && tokens.len() <= encoder.shape.positions);
        (self.forward)(encoder, &mut Pass { tokens, scratch });
        pool(encoder, tokens.len(), pooling, scratch)
    }
}

const SCALAR: Engine = Engine { name: "scalar", forward: scalar };

fn scalar(encoder: &Encoder, pass: &mut Pass<'_>) {
    // SAFETY: plain Rust runs everywhere.
    unsafe { forward::<kernel::scalar::Scalar>(encoder, pass) };
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use super::{Encoder, Engine, Pass, forward};
    use crate::embed::kernel::{avx2::Avx2, vnni::Vnni};

    pub(super) const AVX2: Engine = Engine { name: "avx2", forward: checked_avx2 };
    pub(super) const VNNI: Engine = Engine { name: "vnni", forward: checked_vnni };

    fn checked_avx2(encoder: &Encoder, pass: &mut Pass<'_>) {
        // SAFETY: handed out where `runs` found the features.
        unsafe { with_avx2(encoder, pass) };
    }

    #[target_feature(enable = "avx2,fma")]
    fn with_avx2(encoder: &Encoder, pass: &mut Pass<'_>) {
        // SAFETY: the instructions are there, see above.
        unsafe { forward::<Avx2>(encoder, pass) };
    }

    fn checked_vnni(encoder: &Encoder, pass: &mut Pass<'_>) {
        // SAFETY: handed out where `runs` found the features.
        unsafe { with_vnni(encoder, pass) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,fma")]
    fn with_vnni(encoder: &Encoder, pass: &mut Pass<'_>) {
        // SAFETY: the instructions are there, see above.
        unsafe { forward::<Vnni>(encoder, pass) };
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod arm {
    use super::{Encoder, Engine, Pass, forward};
    use crate::embed::kernel::neon::Neon;

    pub(super) const NEON: Engine = Engine { name: "neon", forward: checked_neon };

    fn checked_neon(encoder: &Encoder, pass: &mut Pass<'_>) {
        // SAFETY: handed out where `runs` found the features.
        unsafe { with_neon(encoder, pass) };
    }

    #[target_feature(enable = "neon,dotprod")]
    fn with_neon(encoder: &Encoder, pass: &mut Pass<'_>) {
        // SAFETY: the instructions are there, see above.
        unsafe { forward::<Neon>(encoder, pass) };
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
