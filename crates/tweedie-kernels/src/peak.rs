//! How fast this machine's cores multiply when nothing else holds them up.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::simd::InstructionSet;
use crate::simd::{LANES, Simd, dispatch};

/// How long it is measured, in seconds.
const LONG: f64 = 0.1;

/// Floating-point operations a second (two for a product and its sum) that the threads of the current
/// pool reach together on the instruction set in use, from registers; with AMX, where a product of
/// f32 takes three of bf16, a third of what its tiles reach from the first-level cache. Takes a tenth of
/// a second.
pub fn peak() -> f64 {
    let threads = rayon::current_num_threads();
    let rates: Vec<f64> =
        (0..threads).into_par_iter().with_max_len(1).map(|_| one_thread()).collect();
    rates.iter().sum()
}

fn one_thread() -> f64 {
    let (begun, mut operations) = (Instant::now(), 0.0);
    while begun.elapsed().as_secs_f64() < LONG {
        operations += run();
    }
    operations / begun.elapsed().as_secs_f64()
}

/// Multiplies for a while; gives the operations.
fn run() -> f64 {
    const TIMES: usize = 10_000;
    #[cfg(target_arch = "x86_64")]
    if InstructionSet::tiles_for(1, 1) {
        return crate::amx::sums::exercise(TIMES / 10);
    }
    // SAFETY: no condition.
    let products = unsafe { chains(black_box(TIMES)) };
    (2 * products * LANES) as f64
}

/// Sums that do not wait for each other, more than the units that multiply hold at once, and not more
/// than there are registers.
#[inline(always)]
fn chains_body<S: Simd>(times: usize) -> usize {
    // SAFETY: the set of the caller.
    unsafe {
        match S::WIDTH {
            3 => chain::<S, 12>(times),
            _ => chain::<S, 5>(times),
        }
    }
}

#[inline(always)]
unsafe fn chain<S: Simd, const N: usize>(times: usize) -> usize {
    // SAFETY: registers alone.
    unsafe {
        let (x, y) = (S::splat(black_box(0.5)), S::splat(black_box(0.25)));
        let mut sums = [S::splat(0.0); N];
        for _ in 0..times {
            for sum in &mut sums {
                *sum = sum.fma(x, y);
            }
        }
        black_box(sums.iter().fold(S::splat(0.0), |a, b| a.add(*b)).sum());
    }
    times * N
}

dispatch! {
    /// Multiplies and adds `times` times in each of some vectors; gives how many vectors that makes.
    ///
    /// # Safety
    /// None of the caller.
    fn chains(times: usize) -> usize = chains_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::with_each_set;

    #[test]
    fn a_core_multiplies() {
        with_each_set(|set| {
            let rate = one_thread();
            assert!(rate > 1e7 && rate < 1e14, "{set:?}: {rate}");
        });
    }
}
