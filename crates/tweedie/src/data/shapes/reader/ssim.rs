//! Structural similarity of a part of two pictures.

use crate::data::shapes::render::Bounds;
use crate::data::shapes::scene::SIDE;

/// The Gaussian window of standard deviation 1.5 and 11 taps of Wang et al., "Image quality
/// assessment: from error visibility to structural similarity", 2004, from its middle outwards.
const WINDOW: [f64; 6] =
    [0.266_011_72, 0.213_005_54, 0.109_360_69, 0.036_000_77, 0.007_598_76, 0.001_028_38];
const C1: f64 = 0.01 * 255.0 * 0.01 * 255.0;
const C2: f64 = 0.03 * 255.0 * 0.03 * 255.0;

/// The mean structural similarity of two pictures of `SIDE` x `SIDE` over `bounds` and the three
/// channels, -1 to 1; the windows reach beyond `bounds` and repeat the picture's border.
pub(super) fn similarity(a: &[[f64; 3]], b: &[[f64; 3]], bounds: Bounds) -> f64 {
    let (width, height) = (bounds.right - bounds.left, bounds.bottom - bounds.top);
    let rows = height + 10;
    let mut sum = 0.0;
    for channel in 0..3 {
        // For each row that a window reaches: the five means along the row.
        let mut along = vec![[0.0; 5]; rows * width];
        for row in 0..rows {
            let y = (bounds.top + row).saturating_sub(5).min(SIDE - 1);
            let mut line = [[0.0; 5]; SIDE + 10];
            for (k, moments) in line[..width + 10].iter_mut().enumerate() {
                let x = (bounds.left + k).saturating_sub(5).min(SIDE - 1);
                let (u, v) = (a[y * SIDE + x][channel], b[y * SIDE + x][channel]);
                *moments = [u, v, u * u, v * v, u * v];
            }
            for x in 0..width {
                along[row * width + x] = weigh(|k| line[x + k]);
            }
        }
        for y in 0..height {
            for x in 0..width {
                let [u, v, uu, vv, uv] = weigh(|k| along[(y + k) * width + x]);
                let light = (2.0 * u * v + C1) / (u * u + v * v + C1);
                let spread = uu - u * u + vv - v * v;
                sum += light * (2.0 * (uv - u * v) + C2) / (spread + C2);
            }
        }
    }
    sum / (3 * width * height).max(1) as f64
}

/// The mean of eleven moments under the window.
fn weigh(moments: impl Fn(usize) -> [f64; 5]) -> [f64; 5] {
    let mut mean = moments(5).map(|m| m * WINDOW[0]);
    for (k, weight) in WINDOW.iter().enumerate().skip(1) {
        let (before, after) = (moments(5 - k), moments(5 + k));
        for i in 0..5 {
            mean[i] += weight * (before[i] + after[i]);
        }
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_gaussian_it_claims_to_be() {
        let bell: Vec<f64> = (0..6).map(|k| (-f64::from(k * k) / 4.5).exp()).collect();
        let total = bell[0] + 2.0 * bell[1..].iter().sum::<f64>();
        for (tap, expected) in WINDOW.iter().zip(&bell) {
            assert!((tap - expected / total).abs() < 1e-8);
        }
    }

    #[test]
    fn flat_pictures_follow_the_formula() {
        let bounds = Bounds { left: 0, top: 3, right: SIDE, bottom: 20 };
        let flat = |v: f64| vec![[v; 3]; SIDE * SIDE];
        assert!((similarity(&flat(80.0), &flat(80.0), bounds) - 1.0).abs() < 1e-9);
        let expected = (2.0 * 80.0 * 120.0 + C1) / (80.0 * 80.0 + 120.0 * 120.0 + C1);
        assert!((similarity(&flat(80.0), &flat(120.0), bounds) - expected).abs() < 1e-9);
        // A checkerboard against a flat picture of the same mean: only the constants are left.
        let board: Vec<_> = (0..SIDE * SIDE)
            .map(|p| [100.0 + 20.0 * f64::from((p + p / SIDE) as u8 % 2); 3])
            .collect();
        let inner = Bounds { left: 10, top: 10, right: 20, bottom: 20 };
        let value = similarity(&board, &flat(110.0), inner);
        assert!((value - C2 / (100.0 + C2)).abs() < 0.01, "{value}");
    }
}
