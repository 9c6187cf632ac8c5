//! Peak signal-to-noise ratio.

use crate::data::Images;
use crate::{Error, Result};

/// `10 log10(range^2 / mse)` in decibels; infinite for equal signals.
///
/// `range` is the distance between the least and the greatest value that a signal can have: 255
/// for bytes, 2 for -1..=1.
///
/// # Errors
/// [`Error::Shape`] if the signals differ in length or are empty; [`Error::Setting`] if `range` is
/// not positive; [`Error::NotFinite`] if a value is not a number.
pub fn psnr(a: &[f32], b: &[f32], range: f64) -> Result<f64> {
    check(a.len(), b.len(), range)?;
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let decibels = decibels(sum / a.len() as f64, range);
    if decibels.is_nan() {
        return Err(Error::NotFinite { what: "the peak signal-to-noise ratio".into() });
    }
    Ok(decibels)
}

/// [`psnr`] of each pair of pictures.
///
/// # Errors
/// [`Error::Shape`] if the sets differ in shape.
pub fn psnr_each(a: &Images, b: &Images) -> Result<Vec<f64>> {
    same_shape(a, b)?;
    let pairs = a.data.chunks_exact(a.stride().max(1)).zip(b.data.chunks_exact(b.stride().max(1)));
    Ok(pairs
        .map(|(a, b)| {
            let squares = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2));
            decibels(squares.sum::<u64>() as f64 / a.len() as f64, 255.0)
        })
        .collect())
}

fn decibels(mse: f64, range: f64) -> f64 {
    10.0 * (range * range / mse).log10()
}

/// Checks that two signals can be compared.
pub(super) fn check(a: usize, b: usize, range: f64) -> Result<()> {
    if a != b || a == 0 {
        let what = "values of a signal".into();
        return Err(Error::Shape { what, wanted: vec![a.max(1)], found: vec![b] });
    }
    if !(range > 0.0 && range.is_finite()) {
        return Err(Error::setting("range", format!("{range} where a positive number was wanted")));
    }
    Ok(())
}

/// Checks that two sets of pictures can be compared one by one.
pub(super) fn same_shape(a: &Images, b: &Images) -> Result<()> {
    let shape = |i: &Images| vec![i.n, i.channels, i.height, i.width];
    if shape(a) == shape(b) && a.stride() > 0 {
        return Ok(());
    }
    Err(Error::Shape { what: "pictures to compare".into(), wanted: shape(a), found: shape(b) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_errors_have_known_ratios() {
        // An error of a tenth of the range everywhere: 20 dB.
        assert!((psnr(&[0.0; 7], &[0.1; 7], 1.0).unwrap() - 20.0).abs() < 1e-6);
        assert!((psnr(&[0.0; 7], &[0.1; 7], 2.0).unwrap() - 26.0206).abs() < 1e-4);
        assert_eq!(psnr(&[0.3; 7], &[0.3; 7], 1.0).unwrap(), f64::INFINITY);
        assert!(psnr(&[0.0; 2], &[0.0; 3], 1.0).is_err());
        assert!(psnr(&[], &[], 1.0).is_err());
        assert!(psnr(&[0.0], &[0.0], 0.0).is_err());
        assert!(psnr(&[f32::NAN], &[0.0], 1.0).is_err());
    }

    #[test]
    fn pictures_agree_with_their_numbers() {
        let a = Images::new([2, 3, 4, 5], (0..120).collect()).unwrap();
        let b = Images::new([2, 3, 4, 5], (0..120).map(|i| i ^ 5).collect()).unwrap();
        let each = psnr_each(&a, &b).unwrap();
        let floats =
            |i: &Images, k| i.get(k).unwrap().iter().map(|b| f32::from(*b)).collect::<Vec<_>>();
        for (k, found) in each.iter().enumerate() {
            let wanted = psnr(&floats(&a, k), &floats(&b, k), 255.0).unwrap();
            assert!((found - wanted).abs() < 1e-12);
        }
        assert!(psnr_each(&a, &a.slice(0..1).unwrap()).is_err());
    }
}
