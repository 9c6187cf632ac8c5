//! The Mersenne twister, as torch's CPU generator seeds and reads it.
//!
//! Matsumoto and Nishimura, "Mersenne Twister: A 623-Dimensionally Equidistributed Uniform
//! Pseudo-Random Number Generator", 1998; MT19937 with the initialisation of 2002.

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// The generator of torch on a CPU: MT19937, seeded with the low 32 bits of the seed.
#[derive(Clone, Debug)]
pub struct Mersenne {
    state: Box<[u32; WORDS]>,
    next: usize,
}

impl Mersenne {
    /// A generator. Torch keeps a 64-bit seed and feeds 32 bits of it to the twister, so that seeds
    /// which differ by a multiple of `2^32` draw alike; so they do here.
    #[expect(clippy::cast_possible_truncation, reason = "torch seeds with the low half")]
    pub fn new(seed: u64) -> Self {
        let mut state = Box::new([0_u32; WORDS]);
        state[0] = seed as u32;
        for i in 1..WORDS {
            let before = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: WORDS }
    }

    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..WORDS {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % WORDS] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// Uniform in `[0, 1)` in steps of 2^-24: torch's for 32-bit numbers.
    pub fn uniform_single(&mut self) -> f32 {
        (self.bits() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[0, 1)` in steps of 2^-53 from two draws, the high half first: torch's for 64-bit
    /// numbers.
    pub fn uniform_double(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        let high = u64::from(self.bits()) << 32;
        let bits = high | u64::from(self.bits());
        (bits & ((1 << 53) - 1)) as f64 * STEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_numbers() {
        // The first outputs for the reference seed, and the ten thousandth, which the C++ standard
        // requires of `mt19937`.
        let mut twister = Mersenne::new(5489);
        assert_eq!(twister.bits(), 3_499_211_612);
        assert_eq!(twister.bits(), 581_869_302);
        let mut twister = Mersenne::new(5489);
        let last = (0..10_000).map(|_| twister.bits()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn only_the_low_half_of_a_seed_counts() {
        assert_eq!(Mersenne::new(7).bits(), Mersenne::new((3 << 32) + 7).bits());
    }
}
