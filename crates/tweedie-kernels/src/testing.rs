//! What the tests of this crate share.

use std::sync::Mutex;

use crate::simd::InstructionSet;

/// `len` numbers in (-1, 1), the same for one `seed`.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// One test at a time changes the instruction set; the others do not care which they run on,
/// except while they compare bits.
static SET: Mutex<()> = Mutex::new(());

/// Runs `test` on every instruction set of this machine, the widest last.
pub(crate) fn with_each_set(mut test: impl FnMut(InstructionSet)) {
    let _guard = SET.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for set in [
        InstructionSet::Baseline,
        InstructionSet::Avx2,
        InstructionSet::Avx512,
        InstructionSet::Amx,
    ] {
        if set.is_there() {
            set.force();
            test(set);
        }
    }
    InstructionSet::detect().force();
}

/// Runs `test` while no other test changes the instruction set.
pub(crate) fn with_one_set<T>(test: impl FnOnce() -> T) -> T {
    let _guard = SET.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    test()
}

/// How much wider bounds of rounding are on the set in use than on one that multiplies in f32: the
/// tiles of AMX keep 17 bits of a factor, not 24.
pub(crate) fn rounding() -> f64 {
    if InstructionSet::current() == InstructionSet::Amx { 5.0 } else { 1.0 }
}
