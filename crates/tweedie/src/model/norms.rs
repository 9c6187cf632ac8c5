//! Group norms over an image that is never in memory as a whole.
//!
//! A norm takes its mean and variance over the image. Over a tile they are others, and tiles would
//! differ in tone. So the moments are gathered over all tiles first and then given to every tile.
//! Moments of parts are joined by the formula of Chan, Golub and LeVeque, "Updating formulae and a
//! pairwise algorithm for computing sample variances", 1979, equation 2.1.

use burn::tensor::Tensor;

/// Count, mean and sum of squared deviations of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Those of `count` numbers with this mean and this variance.
    pub fn new(count: usize, mean: f64, variance: f64) -> Self {
        let count = count as f64;
        Self { count, mean, squares: variance * count }
    }

    /// Those of both together.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + apart * other.count / count,
            squares: self.squares
                + other.squares
                + apart * apart * self.count * other.count / count,
        }
    }

    /// The mean.
    pub fn mean(self) -> f64 {
        self.mean
    }

    /// The variance, over the count.
    pub fn variance(self) -> f64 {
        self.squares / self.count.max(1.0)
    }
}

/// The part of a tile that no other tile has, as shares of its height and width: rows from and to,
/// columns from and to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Core {
    /// Rows of the tile at its entry.
    pub rows: [usize; 2],
    /// Columns of the tile at its entry.
    pub columns: [usize; 2],
    /// Height and width of the tile at its entry.
    pub tile: [usize; 2],
}

impl Core {
    /// That part of a tensor of the tile, whatever its resolution; edges between two pixels go to
    /// the lower one on both sides, so that tiles still share nothing.
    pub fn cut(&self, x: &Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = x.dims();
        let at = |edge: usize, now: usize, whole: usize| edge * now / whole;
        let [top, bottom] = self.rows.map(|r| at(r, height, self.tile[0]));
        let [left, right] = self.columns.map(|c| at(c, width, self.tile[1]));
        x.clone().narrow(2, top, bottom - top).narrow(3, left, right - left)
    }
}

/// The moments of each group of channels of an image `[1, c, h, w]`.
pub fn moments(x: &Tensor<4>, groups: usize) -> Vec<Moments> {
    let [_, channels, height, width] = x.dims();
    let count = channels / groups * height * width;
    if count == 0 {
        return vec![Moments::default(); groups];
    }
    let rows = x.clone().reshape([groups, count]);
    let mean = rows.clone().mean_dim(1);
    let centred = rows - mean.clone();
    let variance = (centred.clone() * centred).mean_dim(1);
    let host = |t: Tensor<2>| t.into_data_as::<f64>().iter::<f64>().collect::<Vec<f64>>();
    let (mean, variance) = (host(mean), host(variance));
    mean.into_iter().zip(variance).map(|(m, v)| Moments::new(count, m, v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_parts_are_those_of_the_whole() {
        let numbers: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17) - 3.0).collect();
        let of = |part: &[f64]| {
            let mean = part.iter().sum::<f64>() / part.len() as f64;
            let variance = part.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / part.len() as f64;
            Moments::new(part.len(), mean, variance)
        };
        let whole = of(&numbers);
        let parts = [&numbers[..7], &numbers[7..8], &numbers[8..]];
        let joined = parts.into_iter().fold(Moments::default(), |all, part| all.joined(of(part)));
        assert!((joined.mean() - whole.mean()).abs() < 1e-12);
        assert!((joined.variance() - whole.variance()).abs() < 1e-12);
    }
}
