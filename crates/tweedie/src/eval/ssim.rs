//! Structural similarity.
//!
//! Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
//! Structural Similarity", with their constants: a Gaussian window of 11x11 and standard deviation
//! 1.5, K1 = 0.01, K2 = 0.03, population covariances. The mean runs over the windows that lie
//! wholly inside the picture. scikit-image's `structural_similarity` gives the same number with
//! `gaussian_weights=True, use_sample_covariance=False`.

use rayon::prelude::*;

use super::psnr::{check, same_shape};
use crate::data::Images;
use crate::{Error, Result};

/// Rows and columns of the window.
pub const WINDOW: usize = 11;

/// The similarity of two pictures, `[channels, height, width]`: 1 for equal ones, near 0 or below
/// for unrelated ones. The channels are measured apart and averaged.
///
/// `range` is the distance between the least and the greatest value that a pixel can have: 255
/// for bytes, 2 for -1..=1.
///
/// # Errors
/// [`Error::Shape`] if the pictures do not have that shape or are smaller than the window;
/// [`Error::Setting`] if `range` is not positive; [`Error::NotFinite`] if a pixel is not a number.
pub fn ssim(a: &[f32], b: &[f32], shape: [usize; 3], range: f64) -> Result<f64> {
    check(a.len(), b.len(), range)?;
    let widened = |x: &[f32]| x.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let value = mean(&widened(a), &widened(b), shape, range)?;
    if value.is_nan() {
        return Err(Error::NotFinite { what: "the structural similarity".into() });
    }
    Ok(value)
}

/// [`ssim`] of each pair of pictures.
///
/// # Errors
/// [`Error::Shape`] if the sets differ in shape or the pictures are smaller than the window.
pub fn ssim_each(a: &Images, b: &Images) -> Result<Vec<f64>> {
    same_shape(a, b)?;
    let widened = |x: &[u8]| x.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    a.data
        .par_chunks_exact(a.stride())
        .zip(b.data.par_chunks_exact(b.stride()))
        .map(|(x, y)| mean(&widened(x), &widened(y), a.shape(), 255.0))
        .collect()
}

/// The mean over channels and windows.
fn mean(a: &[f64], b: &[f64], shape: [usize; 3], range: f64) -> Result<f64> {
    let [channels, height, width] = shape;
    let wanted = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b));
    if wanted != Some(a.len()) {
        let what = "pixels of a picture".into();
        return Err(Error::Shape { what, wanted: shape.to_vec(), found: vec![a.len()] });
    }
    if height < WINDOW || width < WINDOW {
        return Err(Error::Shape {
            what: "picture at least as large as the window".into(),
            wanted: vec![WINDOW, WINDOW],
            found: vec![height, width],
        });
    }
    let weights = weights();
    let blur = |x: &dyn Fn(usize) -> f64| blurred(x, height, width, &weights);
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let plane = height * width;
    let mut sum = 0.0;
    for (x, y) in a.chunks_exact(plane).zip(b.chunks_exact(plane)) {
        let (mx, my) = (blur(&|i| x[i]), blur(&|i| y[i]));
        let (xx, yy) = (blur(&|i| x[i] * x[i]), blur(&|i| y[i] * y[i]));
        let xy = blur(&|i| x[i] * y[i]);
        let values = (0..mx.len()).map(|i| {
            let (mx, my) = (mx[i], my[i]);
            let (vx, vy, cov) = (xx[i] - mx * mx, yy[i] - my * my, xy[i] - mx * my);
            ((2.0 * mx * my + c1) * (2.0 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        });
        sum += values.sum::<f64>() / mx.len() as f64;
    }
    Ok(sum / channels as f64)
}

/// The Gaussian along one side of the window, normalised.
fn weights() -> [f64; WINDOW] {
    let mut weights = [0.0; WINDOW];
    for (i, w) in weights.iter_mut().enumerate() {
        let x = i as f64 - 5.0;
        *w = (-x * x / (2.0 * 1.5 * 1.5)).exp();
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|w| w / sum)
}

/// Weighted means over all windows inside a plane, along rows and then along columns.
fn blurred(
    pixel: &dyn Fn(usize) -> f64,
    height: usize,
    width: usize,
    weights: &[f64; WINDOW],
) -> Vec<f64> {
    let inner = width + 1 - WINDOW;
    let mut rows = Vec::with_capacity(height * inner);
    let mut line = vec![0.0; width];
    for y in 0..height {
        line.iter_mut().enumerate().for_each(|(x, v)| *v = pixel(y * width + x));
        rows.extend(line.windows(WINDOW).map(|w| weighted(w.iter(), weights)));
    }
    let at = |y: usize, x: usize| {
        weighted(rows[y * inner + x..].iter().step_by(inner).take(WINDOW), weights)
    };
    (0..height + 1 - WINDOW)
        .flat_map(|y| (0..inner).map(move |x| (y, x)))
        .map(|(y, x)| at(y, x))
        .collect()
}

fn weighted<'a>(values: impl Iterator<Item = &'a f64>, weights: &[f64; WINDOW]) -> f64 {
    values.zip(weights).map(|(v, w)| v * w).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    /// Pictures that a line of Python can make too.
    fn pattern(shape: [usize; 3], f: impl Fn(usize, usize, usize) -> usize) -> Vec<u8> {
        let [c, h, w] = shape;
        (0..c * h * w).map(|i| (f(i / (h * w), i / w % h, i % w) % 256) as u8).collect()
    }

    /// `tests/data/ssim.json` holds what scikit-image says of the same pictures.
    #[derive(serde::Deserialize)]
    struct Case {
        shape: [usize; 3],
        pair: String,
        ssim: f64,
        psnr: f64,
    }

    fn pictures(case: &Case) -> [Vec<u8>; 2] {
        let base = pattern(case.shape, |c, y, x| 7 * x + 3 * y + 40 * c + x * y / 3);
        let other = match case.pair.as_str() {
            "equal" => base.clone(),
            "shifted" => {
                pattern(case.shape, |c, y, x| 7 * (x + 1) + 3 * y + 40 * c + (x + 1) * y / 3)
            }
            "inverted" => base.iter().map(|b| 255 - b).collect(),
            "coarse" => base.iter().map(|b| b / 32 * 32).collect(),
            "unrelated" => pattern(case.shape, |c, y, x| x * x * 5 + y * y * y + 11 * c),
            other => panic!("{other}"),
        };
        [base, other]
    }

    #[test]
    fn the_numbers_are_those_of_scikit_image() {
        let text = include_str!("../../tests/data/ssim.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 15);
        for case in cases {
            let [a, b] = pictures(&case);
            let [c, h, w] = case.shape;
            let images = [a, b].map(|p| Images::new([1, c, h, w], p).unwrap());
            let found = ssim_each(&images[0], &images[1]).unwrap()[0];
            assert!(
                (found - case.ssim).abs() < 1e-9,
                "{:?} {}: {found} {}",
                case.shape,
                case.pair,
                case.ssim
            );
            let floats = images.each_ref().map(Images::to_f32);
            let found = ssim(&floats[0], &floats[1], case.shape, 2.0).unwrap();
            // Not the same number: the constants act on means, and -1..=1 has another zero.
            assert!(found <= 1.0 + 1e-12);
            if case.pair != "equal" {
                let found = super::super::psnr::psnr_each(&images[0], &images[1]).unwrap()[0];
                assert!((found - case.psnr).abs() < 1e-9, "{found} {}", case.psnr);
            }
        }
    }

    #[test]
    fn more_noise_is_less_similar() {
        let shape = [3, 32, 40];
        let clean: Vec<f32> = pattern(shape, |c, y, x| 4 * x + 2 * y + 30 * c)
            .iter()
            .map(|b| f32::from(*b))
            .collect();
        let mut last = 1.0 + 1e-12;
        for noise in [0.0, 2.0, 5.0, 12.0, 30.0, 80.0] {
            let mut g = Key::new(1, 0, 0).generator();
            let other: Vec<f32> = clean.iter().map(|v| v + (noise * g.normal()) as f32).collect();
            let found = ssim(&clean, &other, shape, 255.0).unwrap();
            assert!(found < last, "{noise}: {found}");
            last = found;
        }
        assert!(last < 0.5);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let p = vec![0.0; 3 * 10 * 40];
        assert!(matches!(ssim(&p, &p, [3, 10, 40], 1.0), Err(Error::Shape { .. })));
        assert!(matches!(ssim(&p, &p, [3, 20, 40], 1.0), Err(Error::Shape { .. })));
        assert!(ssim(&p, &p[1..], [3, 20, 20], 1.0).is_err());
        assert!(ssim(&p, &p, [3, 20, 20], -1.0).is_err());
        assert!(ssim(&[f32::NAN; 144], &[0.0; 144], [1, 12, 12], 1.0).is_err());
    }
}
