//! Philox 4x32-10, as CUDA's library reads it.
//!
//! Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011.

/// The four words of one counter under one key, after ten rounds.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key[0] = key[0].wrapping_add(0x9e37_79b9);
            key[1] = key[1].wrapping_add(0xbb67_ae85);
        }
        let halves = |a: u32, b: u32| {
            let product = u64::from(a) * u64::from(b);
            ((product >> 32) as u32, product as u32)
        };
        let (high0, low0) = halves(0xd251_1f53, counter[0]);
        let (high1, low1) = halves(0xcd9e_8d57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
    }
    counter
}

/// A standard normal number from two words, the first of the pair that CUDA's library makes: with
/// `u` and `v` uniform in `(0, 1)` and `(0, 2 pi)`, `sqrt(-2 ln u) sin v`, in 32 bits.
pub fn box_muller(x: u32, y: u32) -> f32 {
    const UNIT: f32 = 2.328_306_4e-10;
    const TURN: f32 = UNIT * std::f32::consts::TAU;
    let u = x as f32 * UNIT + UNIT / 2.0;
    let v = y as f32 * TURN + TURN / 2.0;
    (-2.0 * u.ln()).sqrt() * v.sin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authors_numbers() {
        // Of the known-answer tests that the authors publish.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let full = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(full, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
