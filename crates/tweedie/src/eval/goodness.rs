//! Tests of goodness of fit: do these numbers follow that distribution.
//!
//! A p-value is the probability of a statistic at least as large if they do. A test that must
//! pass on every run with a fixed seed asks for p > 0.001; a sampler that is wrong by a fifth of a
//! standard deviation is then found with 20,000 samples beyond doubt.

use rayon::prelude::*;

use super::special::chi_square_tail;
use super::{Features, STREAM, linalg};
use crate::random::Key;
use crate::{Error, Result};

/// The outcome of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The statistic.
    pub statistic: f64,
    /// The probability of a statistic at least as large under the hypothesis.
    pub p: f64,
}

/// Up to this number of samples the Kolmogorov distribution is computed exactly.
const EXACT: usize = 1000;

/// The one-sample test of Kolmogorov and Smirnov, two-sided: the largest distance between the
/// distribution function of the samples and `cdf`.
///
/// The p-value is exact up to 1,000 samples (Marsaglia, Tsang and Wang 2003) and beyond that the
/// limiting distribution at an argument corrected for finite samples (Vrbik 2018), within 2e-5 of
/// the exact one and, down to p = 1e-5, within a fiftieth of it.
///
/// # Errors
/// [`Error::Setting`] without samples; [`Error::NotFinite`] if a sample or its `cdf` is not a
/// number.
pub fn kolmogorov_smirnov(samples: &[f64], cdf: impl Fn(f64) -> f64) -> Result<Fit> {
    if samples.is_empty() {
        return Err(Error::setting("samples", "0 where at least 1 is needed"));
    }
    let mut values: Vec<f64> = samples.iter().map(|x| cdf(*x)).collect();
    if samples.iter().chain(&values).any(|v| v.is_nan()) {
        return Err(Error::NotFinite { what: "a sample or its distribution function".into() });
    }
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let apart = |(i, v): (usize, &f64)| (v - i as f64 / n).max((i as f64 + 1.0) / n - v);
    let statistic = values.iter().enumerate().map(apart).fold(0.0, f64::max);
    Ok(Fit { statistic, p: kolmogorov_tail(statistic, values.len()) })
}

/// The probability that the statistic of Kolmogorov and Smirnov with `n` samples exceeds `d`.
fn kolmogorov_tail(d: f64, n: usize) -> f64 {
    let n_f = n as f64;
    if d <= 0.5 / n_f {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    // Far out in the tail, below 1e-8, one minus the exact value would be rounding.
    if n <= EXACT && n_f * d * d < 10.0 {
        return 1.0 - kolmogorov_exact(d, n);
    }
    let x = n_f.sqrt() * d;
    let x = x + 1.0 / (6.0 * n_f.sqrt()) + (x - 1.0) / (4.0 * n_f);
    limiting_tail(x)
}

/// One minus the limiting distribution of Kolmogorov, by the series that converges fast at `x`.
fn limiting_tail(x: f64) -> f64 {
    if x < 1.0 {
        let pi = std::f64::consts::PI;
        let term = |k: i32| (-(f64::from(2 * k - 1) * pi / x).powi(2) / 8.0).exp();
        return 1.0 - (2.0 * pi).sqrt() / x * (1..=6).map(term).sum::<f64>();
    }
    let term = |k: i32| {
        let value = (-2.0 * f64::from(k * k) * x * x).exp();
        if k % 2 == 1 { value } else { -value }
    };
    2.0 * (1..=8).map(term).sum::<f64>()
}

/// The exact distribution function: an entry of the `n`-th power of a matrix of `2 k - 1` rows,
/// `k` the integer above `n d`, times `n! / n^n`.
fn kolmogorov_exact(d: f64, n: usize) -> f64 {
    let k = (n as f64 * d) as usize + 1;
    let size = 2 * k - 1;
    let h = k as f64 - n as f64 * d;
    let mut matrix = vec![0.0; size * size];
    for i in 0..size {
        for j in 0..size.min(i + 2) {
            let mut value = 1.0;
            let mut correction = 0.0;
            if j == 0 {
                correction += h.powi(i as i32 + 1);
            }
            if i == size - 1 {
                correction += h.powi((size - j) as i32);
            }
            if j == 0 && i == size - 1 && h > 0.5 {
                correction -= (2.0 * h - 1.0).powi(size as i32);
            }
            value -= correction;
            for g in 1..=(i + 1 - j) {
                value /= g as f64;
            }
            matrix[i * size + j] = value;
        }
    }
    // n! / n^n goes into the power step by step, so that nothing leaves the range of f64.
    let mut row = vec![0.0; size];
    row[k - 1] = 1.0;
    for step in 1..=n {
        let mut next = vec![0.0; size];
        for (value, line) in row.iter().zip(matrix.chunks_exact(size)) {
            next.iter_mut().zip(line).for_each(|(n, m)| *n += value * m);
        }
        let scale = step as f64 / n as f64;
        for v in &mut next {
            *v *= scale;
        }
        row = next;
    }
    row[k - 1].clamp(0.0, 1.0)
}

/// Pearson's chi-square test of counts against the probabilities of their cells.
///
/// `fitted` is the number of parameters of the probabilities that were fitted to the same counts;
/// 0 for a distribution that was known before.
///
/// # Errors
/// [`Error::Shape`] if there is not one probability a cell; [`Error::Setting`] if the
/// probabilities are negative or do not add up to 1, if fewer than 5 counts are expected in a cell
/// (join cells until there are), or if no degree of freedom is left.
pub fn chi_square(counts: &[u64], probabilities: &[f64], fitted: usize) -> Result<Fit> {
    if counts.len() != probabilities.len() {
        return Err(Error::Shape {
            what: "probabilities of the cells".into(),
            wanted: vec![counts.len()],
            found: vec![probabilities.len()],
        });
    }
    let sum: f64 = probabilities.iter().sum();
    if (sum - 1.0).abs() > 1e-9 || probabilities.iter().any(|p| *p < 0.0) || sum.is_nan() {
        let why = format!("they add up to {sum}, wanted 1 from numbers that are not negative");
        return Err(Error::setting("probabilities", why));
    }
    let freedom = counts.len().saturating_sub(1).saturating_sub(fitted);
    if freedom == 0 {
        let why = format!("{} leave no degree of freedom", counts.len());
        return Err(Error::setting("cells", why));
    }
    let total = counts.iter().sum::<u64>() as f64;
    let mut statistic = 0.0;
    for (i, (count, p)) in counts.iter().zip(probabilities).enumerate() {
        let expected = total * p;
        if expected < 5.0 {
            let why = format!("cell {i} expects {expected:.3} counts, the test needs 5");
            return Err(Error::setting("cells", why));
        }
        statistic += (*count as f64 - expected).powi(2) / expected;
    }
    Ok(Fit { statistic, p: chi_square_tail(statistic, freedom as f64) })
}

/// The most samples in both sets together of [`energy`], which keeps all their distances.
pub const MAX_ENERGY_SAMPLES: usize = 8192;

/// The energy test of two samples in any dimension: is their distribution the same.
///
/// The statistic is `n m / (n + m) (2 E|X - Y| - E|X - X'| - E|Y - Y'|)` (Szekely and Rizzo 2004).
/// The p-value comes from `permutations` random relabellings, so that it is exact for any number
/// of samples and never below `1 / (permutations + 1)`.
///
/// # Errors
/// [`Error::Shape`] if the samples differ in width; [`Error::Setting`] if a set is empty, if both
/// hold more than [`MAX_ENERGY_SAMPLES`] or if there are no permutations.
pub fn energy(a: &Features, b: &Features, permutations: usize, seed: u64) -> Result<Fit> {
    a.comparable(b, 1)?;
    let (n, m) = (a.len(), b.len());
    let total = n + m;
    if total > MAX_ENERGY_SAMPLES {
        let why = format!("{total} where at most {MAX_ENERGY_SAMPLES} are possible");
        return Err(Error::setting("samples", why));
    }
    if permutations == 0 {
        return Err(Error::setting("permutations", "0 where at least 1 is needed"));
    }
    let width = a.width();
    let mut all = a.widened();
    all.extend(b.widened());
    let distances: Vec<f64> = (0..total)
        .into_par_iter()
        .flat_map_iter(|i| {
            let all = &all;
            let at = move |i: usize| &all[i * width..(i + 1) * width];
            (0..total).map(move |j| linalg::squared_distance(at(i), at(j)).sqrt())
        })
        .collect();
    // With weights 1/n on one set and -1/m on the other the statistic is a quadratic form.
    let scale = (n * m) as f64 / total as f64;
    let of = |first: &[usize]| {
        let mut weights = vec![-1.0 / m as f64; total];
        for i in first {
            weights[*i] = 1.0 / n as f64;
        }
        let rows = distances.chunks_exact(total).zip(&weights);
        -scale * rows.map(|(row, w)| w * linalg::dot(row, &weights)).sum::<f64>()
    };
    let statistic = of(&(0..n).collect::<Vec<_>>());
    let as_large = (0..permutations as u64)
        .into_par_iter()
        .filter(|index| {
            let order = Key::new(seed, STREAM + 1, *index).generator().permutation(total);
            of(&order[..n]) >= statistic
        })
        .count();
    Ok(Fit { statistic, p: (as_large + 1) as f64 / (permutations + 1) as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::normal_cdf;

    fn normals(n: usize, seed: u64) -> Vec<f64> {
        let mut out = vec![0.0; n];
        Key::new(seed, 0, 0).generator().fill_normal(&mut out);
        out
    }

    #[test]
    fn the_kolmogorov_distribution_is_scipys() {
        // scipy.stats.kstwo.sf(d, n): (n, d, p). It is exact up to 140 samples and good to seven
        // digits beyond (Simard and L'Ecuyer 2011).
        let table: Vec<(usize, f64, f64)> =
            serde_json::from_str(include_str!("../../tests/data/kolmogorov.json")).unwrap();
        assert!(table.len() > 30);
        for (n, d, p) in table {
            let found = kolmogorov_tail(d, n);
            let tolerance = match n {
                ..=140 => 1e-11,
                141..=EXACT => 1e-6,
                _ => 2e-5_f64.min(0.02 * p),
            };
            assert!((found - p).abs() < tolerance, "n {n}, d {d}: {found:e} is not {p:e}");
        }
        assert_eq!(kolmogorov_tail(0.0, 7), 1.0);
        assert_eq!(kolmogorov_tail(1.0, 7), 0.0);
    }

    #[test]
    fn the_statistic_sees_both_sides_of_each_step() {
        let uniform = |x: f64| x;
        let of = |x: &[f64]| kolmogorov_smirnov(x, uniform).unwrap().statistic;
        assert!((of(&[0.2, 0.1]) - 0.8).abs() < 1e-15, "after the last step: 1 against 0.2");
        assert!((of(&[0.9, 0.8]) - 0.8).abs() < 1e-15, "before the first step: 0 against 0.8");
        assert!((of(&[0.25, 0.75]) - 0.25).abs() < 1e-15);
    }

    #[test]
    fn p_values_are_uniform_under_the_hypothesis() {
        // 400 tests of 150 true normals each; their p-values pass the same test, and a twentieth
        // lies below 0.05.
        let ps: Vec<f64> =
            (0..400).map(|s| kolmogorov_smirnov(&normals(150, s), normal_cdf).unwrap().p).collect();
        assert!(kolmogorov_smirnov(&ps, |p| p).unwrap().p > 0.001);
        let low = ps.iter().filter(|p| **p < 0.05).count();
        assert!((8..=34).contains(&low), "{low} of 400");
    }

    #[test]
    fn small_faults_are_found_with_many_samples() {
        let good = normals(20_000, 1);
        assert!(kolmogorov_smirnov(&good, normal_cdf).unwrap().p > 0.001);
        let shifted: Vec<f64> = good.iter().map(|x| x + 0.05).collect();
        assert!(kolmogorov_smirnov(&shifted, normal_cdf).unwrap().p < 1e-6);
        let wide: Vec<f64> = good.iter().map(|x| x * 1.05).collect();
        assert!(kolmogorov_smirnov(&wide, normal_cdf).unwrap().p < 0.01);
        assert!(kolmogorov_smirnov(&[], normal_cdf).is_err());
        assert!(kolmogorov_smirnov(&[f64::NAN], normal_cdf).is_err());
    }

    #[test]
    fn counts_are_tested_against_their_cells() {
        // A textbook die: 22 24 38 30 46 44 of 204 throws is 15.294 at 5 degrees of freedom.
        let fit = chi_square(&[22, 24, 38, 30, 46, 44], &[1.0 / 6.0; 6], 0).unwrap();
        assert!((fit.statistic - 15.294_117_647_058_824).abs() < 1e-12);
        assert!((fit.p - 0.009_176_837_433_704_661).abs() < 1e-12, "{fit:?}");
        assert!(chi_square(&[34; 6], &[1.0 / 6.0; 6], 0).unwrap().p > 1.0 - 1e-12);
        assert!(chi_square(&[1, 2], &[0.5, 0.5], 0).unwrap_err().to_string().contains("needs 5"));
        assert!(chi_square(&[10, 20], &[0.5, 0.6], 0).is_err());
        assert!(chi_square(&[10, 20], &[0.5, 0.5], 1).is_err());
        assert!(chi_square(&[10, 20, 5], &[0.5, 0.5], 0).is_err());
    }

    #[test]
    fn energy_tells_samples_apart_in_several_dimensions() {
        let set = |n: usize, seed, f: &dyn Fn(f64) -> f64| {
            let data = normals(2 * n, seed).iter().map(|v| f(*v) as f32).collect();
            Features::new(n, 2, data).unwrap()
        };
        let same = energy(&set(200, 1, &|v| v), &set(150, 2, &|v| v), 499, 0).unwrap();
        assert!(same.p > 0.01, "{same:?}");
        // Equal in mean and spread along each axis, but one lies on the diagonal.
        let diagonal: Vec<f32> = normals(200, 3).iter().flat_map(|v| [*v as f32; 2]).collect();
        let diagonal = Features::new(200, 2, diagonal).unwrap();
        let apart = energy(&diagonal, &set(200, 4, &|v| v), 499, 0).unwrap();
        assert_eq!(apart.p, 1.0 / 500.0, "{apart:?}");
        assert!(energy(&same_width(9), &set(9, 1, &|v| v), 9, 0).is_err());
        assert!(energy(&set(9, 1, &|v| v), &set(9, 1, &|v| v), 0, 0).is_err());
    }

    fn same_width(n: usize) -> Features {
        Features::new(n, 3, vec![0.0; 3 * n]).unwrap()
    }
}
