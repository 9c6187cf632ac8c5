//! A Gaussian fitted to pixels: the least that a model has to beat.
//!
//! It has the mean and every covariance of the training pictures, and no notion of an edge. A
//! model's distances are reported beside those of its samples.

use rayon::prelude::*;

use super::{Features, STREAM, linalg};
use crate::data::Images;
use crate::random::Key;
use crate::{Error, Result};

/// The mean and a factor of the covariance of the pixels of a set.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelGaussian {
    shape: [usize; 3],
    mean: Vec<f64>,
    factor: linalg::Factor,
}

impl PixelGaussian {
    /// Fits the Gaussian to all pictures of a set. Time grows with the square of the pixels of a
    /// picture and memory as well: 1,024 pixels take a few seconds, 12,288 (64x64 RGB) are
    /// refused.
    ///
    /// # Errors
    /// [`Error::Setting`] for fewer than 2 pictures or more than 8,192 pixels and channels each.
    pub fn fit(images: &Images) -> Result<Self> {
        let d = images.stride();
        if d > 8192 {
            let why = format!("{d} a picture where at most 8192 are possible");
            return Err(Error::setting("pixels", why));
        }
        if images.n < 2 {
            let why = format!("{} where at least 2 are needed", images.n);
            return Err(Error::setting("pictures", why));
        }
        let (mean, covariance) = linalg::moments(&Features::pixels(images)?);
        Ok(Self { shape: images.shape(), mean, factor: linalg::factor(&covariance, d) })
    }

    /// Draws `n` pictures, rounded to bytes and cut to their range. Picture `i` depends on the
    /// seed and on `i` alone.
    ///
    /// # Errors
    /// [`Error::Shape`] if the pictures would not fit into memory's range.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Images> {
        let rows: Vec<Vec<f32>> = (0..n as u64)
            .into_par_iter()
            .map(|i| {
                let mut z = vec![0.0; self.factor.rank];
                Key::new(seed, STREAM + 2, i).generator().fill_normal(&mut z);
                let pixel =
                    |(k, m): (usize, &f64)| (m + linalg::dot(self.factor.row(k), &z)) as f32;
                self.mean.iter().enumerate().map(pixel).collect()
            })
            .collect();
        let [channels, height, width] = self.shape;
        Images::from_f32([n, channels, height, width], &rows.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::frechet::frechet;

    /// Pictures whose pixels rise and fall together, with a border that never changes.
    fn gradients(n: usize) -> Images {
        let mut g = Key::new(3, 0, 0).generator();
        let mut data = Vec::new();
        for _ in 0..n {
            let (a, b) = (20.0 * g.normal(), 20.0 * g.normal());
            for y in 0..4 {
                for x in 0..4 {
                    let inner = 128.0 + a * f64::from(x) / 3.0 + b * f64::from(y) / 3.0;
                    data.push(if x == 0 && y == 0 { 17 } else { inner as u8 });
                }
            }
        }
        Images::new([n, 1, 4, 4], data).unwrap()
    }

    #[test]
    fn samples_have_the_moments_of_the_set() {
        let set = gradients(4000);
        let gaussian = PixelGaussian::fit(&set).unwrap();
        let drawn = gaussian.sample(4000, 1).unwrap();
        assert!(drawn.data.chunks_exact(16).all(|p| p[0] == 17), "a constant pixel stays");
        let (m1, s1) = linalg::moments(&Features::pixels(&set).unwrap());
        let (m2, s2) = linalg::moments(&Features::pixels(&drawn).unwrap());
        let apart =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart(&m1, &m2) < 0.01, "{}", apart(&m1, &m2));
        let largest = s1.iter().copied().fold(0.0, f64::max);
        assert!(apart(&s1, &s2) < 0.1 * largest, "{} of {largest}", apart(&s1, &s2));
    }

    #[test]
    fn a_picture_depends_on_seed_and_place_alone() {
        let gaussian = PixelGaussian::fit(&gradients(50)).unwrap();
        let (three, nine) = (gaussian.sample(3, 7).unwrap(), gaussian.sample(9, 7).unwrap());
        assert_eq!(three, nine.slice(0..3).unwrap());
        assert_ne!(three, gaussian.sample(3, 8).unwrap());
    }

    #[test]
    fn fashion_is_told_from_its_gaussian() {
        let folder = crate::data_or_skip!("fashion-mnist");
        let set = crate::data::sets::load_from(
            &crate::data::sets::FASHION_MNIST,
            &folder,
            crate::data::sets::Split::Test,
        );
        // Every second pixel of every second row keeps the test short.
        let set = set.unwrap();
        let thin: Vec<u8> = set
            .data
            .chunks_exact(784)
            .flat_map(|p| (0..196).map(|i| p[i / 14 * 56 + i % 14 * 2]))
            .collect();
        let set = Images::new([set.n, 1, 14, 14], thin).unwrap();
        let drawn = PixelGaussian::fit(&set).unwrap().sample(3000, 1).unwrap();
        let pixels = |i: &Images| Features::pixels(i).unwrap();
        let (first, second) = (set.slice(0..3000).unwrap(), set.slice(3000..6000).unwrap());
        let floor = frechet(&pixels(&first), &pixels(&second)).unwrap().distance;
        let found = frechet(&pixels(&first), &pixels(&drawn)).unwrap().distance;
        // Cutting to the range of bytes is all that sets them apart in their moments.
        assert!(found > 1.5 * floor && found < 20.0 * floor, "{found} beside {floor}");
    }

    #[test]
    fn too_little_and_too_much_are_refused() {
        assert!(PixelGaussian::fit(&gradients(1)).is_err());
        let large = Images::new([2, 3, 64, 64], vec![0; 2 * 12_288]).unwrap();
        assert!(PixelGaussian::fit(&large).unwrap_err().to_string().contains("12288"));
    }
}
