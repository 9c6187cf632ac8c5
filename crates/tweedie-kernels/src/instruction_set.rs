//! Which instruction set the kernels use.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The instruction sets that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// AMX tiles of bf16 for matrix products, AVX-512 for everything else: taken only where it is
    /// asked for, since it keeps 17 bits of a factor, not 24.
    Amx,
    /// AVX-512 F, BW, DQ and VL, with FMA.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// What the compiler may assume of the target; NEON on ARM.
    Baseline,
}

impl InstructionSet {
    /// The widest set of this machine that multiplies in f32.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
            {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }

    /// The set in use.
    pub fn current() -> Self {
        match SET.load(Ordering::Relaxed) {
            1 => Self::Amx,
            2 => Self::Avx512,
            3 => Self::Avx2,
            4 => Self::Baseline,
            _ => {
                let set = Self::asked().filter(|set| set.is_there()).unwrap_or_else(Self::detect);
                SET.store(set as u8 + 1, Ordering::Relaxed);
                set
            }
        }
    }

    /// Lets large layers of networks, whose weights are packed ([`crate::PackedWeight`]), and large
    /// attentions go through AMX from now on, in the whole process, where the machine has it and the
    /// variable `TWEEDIE_INSTRUCTION_SET` asks for nothing else. Small ones take little time, and stay as
    /// exact as f32 is; so does everything that gradients flow through.
    ///
    /// For programs; a library leaves the choice to its host.
    pub fn prefer_tiles() {
        let vectors = Self::asked().is_none() && Self::detect() == Self::Avx512;
        TILES.store(vectors && Self::Amx.is_there(), Ordering::Relaxed);
    }

    /// Whether a product of so many multiplications a sample, or a layer of so many weights, goes
    /// through the tiles of AMX, where at least `large` are worth it.
    pub(crate) fn tiles_for(count: usize, large: usize) -> bool {
        Self::current() == Self::Amx || count >= large && Self::prefers_tiles()
    }

    /// Whether [`InstructionSet::prefer_tiles`] was asked for and has tiles to prefer.
    pub fn prefers_tiles() -> bool {
        TILES.load(Ordering::Relaxed)
    }

    /// Whether this machine has it.
    pub(crate) fn is_there(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            return Self::detect() == Self::Avx512 && crate::amx::available();
        }
        self as u8 >= Self::detect() as u8
    }

    /// What the variable `TWEEDIE_INSTRUCTION_SET` names: a narrower set than the machine's, to
    /// repeat what another machine does, or the faster and less exact `amx`.
    fn asked() -> Option<Self> {
        let name = std::env::var("TWEEDIE_INSTRUCTION_SET").ok()?;
        [Self::Amx, Self::Avx512, Self::Avx2, Self::Baseline].into_iter().find(|s| s.name() == name)
    }

    /// Whether the variable names one, whose instructions are then all that is used.
    pub(crate) fn is_asked_for() -> bool {
        static ASKED: OnceLock<bool> = OnceLock::new();
        *ASKED.get_or_init(|| Self::asked().is_some())
    }

    /// A stable name: `amx`, `avx512`, `avx2` or `baseline`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Baseline => "baseline",
        }
    }

    /// Runs the kernels with a narrower set from now on, for tests. Anything that this machine
    /// lacks is ignored.
    #[cfg(test)]
    pub(crate) fn force(self) {
        if self.is_there() {
            SET.store(self as u8 + 1, Ordering::Relaxed);
        }
    }
}

/// Whether large layers go through tiles.
static TILES: AtomicBool = AtomicBool::new(false);

/// 0 until the first use, then the set's number plus one.
static SET: AtomicU8 = AtomicU8::new(0);
