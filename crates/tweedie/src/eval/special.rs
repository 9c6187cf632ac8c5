//! The special functions behind p-values.

/// The logarithm of the gamma function for positive `x`, to about 1e-14 relative.
///
/// Stirling's series, after raising the argument to where six of its terms suffice
/// (Abramowitz and Stegun 6.1.41).
pub(super) fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    // Each factor divides out one step of x; the product stays far from overflow.
    while x < 15.0 {
        product *= x;
        x += 1.0;
    }
    let z = 1.0 / (x * x);
    let series =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    let sum = series.iter().rev().fold(0.0, |sum, c| sum * z + c) / x;
    let half_ln_two_pi = 0.918_938_533_204_672_7;
    (x - 0.5) * x.ln() - x + half_ln_two_pi + sum - f64::ln(product)
}

/// The regularised upper incomplete gamma function `Q(a, x)` for `a > 0` and `x >= 0`, precise
/// also where it is tiny: a series below the mean, a continued fraction above it (Abramowitz and
/// Stegun 6.5.29 and 6.5.31, the latter by Lentz's method).
pub(super) fn gamma_q(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x == f64::INFINITY {
        return 0.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    // Both need more terms the larger `a` is, about its root.
    let most = 1000 + (20.0 * a.sqrt()) as usize;
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..most {
            term *= x / (a + n as f64);
            sum += term;
            if term < sum * f64::EPSILON {
                break;
            }
        }
        return (1.0 - front * sum).clamp(0.0, 1.0);
    }
    let tiny = f64::MIN_POSITIVE / f64::EPSILON;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for n in 1..most {
        let n = n as f64;
        let numerator = -n * (n - a);
        b += 2.0;
        let away = |v: f64| if v.abs() < tiny { tiny } else { v };
        d = 1.0 / away(b + numerator * d);
        c = away(b + numerator / c);
        fraction *= c * d;
        if (c * d - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    (front * fraction).clamp(0.0, 1.0)
}

/// The probability that a chi-square variable with `freedom` degrees exceeds `x`.
pub fn chi_square_tail(x: f64, freedom: f64) -> f64 {
    gamma_q(freedom / 2.0, x / 2.0)
}

/// The distribution function of the standard normal distribution, precise in both tails.
pub fn normal_cdf(x: f64) -> f64 {
    let tail = 0.5 * gamma_q(0.5, 0.5 * x * x);
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal_quantile;

    fn near(found: f64, wanted: f64, tolerance: f64) {
        assert!((found / wanted - 1.0).abs() < tolerance, "{found:e} is not {wanted:e}");
    }

    #[test]
    fn gamma_meets_factorials_and_halves() {
        let mut factorial = 1.0f64;
        for n in 3..40 {
            factorial *= f64::from(n - 1);
            near(ln_gamma(f64::from(n)), factorial.ln(), 1e-14);
        }
        near(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln(), 1e-13);
        assert!(ln_gamma(1.0).abs() < 1e-13 && ln_gamma(2.0).abs() < 1e-13);
    }

    #[test]
    fn tails_meet_closed_forms() {
        // Q(1, x) = exp(-x); Q(2, x) = (1 + x) exp(-x).
        for x in [0.01f64, 0.5, 1.0, 2.0, 2.5, 10.0, 300.0] {
            near(gamma_q(1.0, x), (-x).exp(), 1e-12);
            near(gamma_q(2.0, x), (1.0 + x) * (-x).exp(), 1e-12);
        }
        assert_eq!(gamma_q(3.0, 0.0), 1.0);
        // A chi-square table: 0.95 and 0.999 quantiles for 1, 10 and 100 degrees of freedom.
        near(chi_square_tail(3.841458820694124, 1.0), 0.05, 1e-12);
        near(chi_square_tail(29.58829844507442, 10.0), 0.001, 1e-12);
        near(chi_square_tail(124.34211340400407, 100.0), 0.05, 1e-11);
        near(chi_square_tail(10_233.748_897_677_937, 10_000.0), 0.05, 1e-10);
    }

    #[test]
    fn the_normal_distribution_inverts_its_quantile() {
        for p in [1e-15, 1e-9, 0.001, 0.1, 0.4, 0.5, 0.8, 0.999] {
            near(normal_cdf(normal_quantile(p)), p, 1e-12);
        }
        near(normal_cdf(-30.0), 4.906713927148187e-198, 1e-11);
        assert_eq!(normal_cdf(40.0), 1.0);
    }
}
