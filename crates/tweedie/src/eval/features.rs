//! A set of feature vectors.

use crate::data::Images;
use crate::{Error, Result};

/// Feature vectors, one a sample: what a network says of each picture, or its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    n: usize,
    width: usize,
    data: Vec<f32>,
}

impl Features {
    /// Vectors from `[n, width]` numbers.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not `n * width` of them or the width is 0;
    /// [`Error::NotFinite`] if one is not finite.
    pub fn new(n: usize, width: usize, data: Vec<f32>) -> Result<Self> {
        if width == 0 || n.checked_mul(width) != Some(data.len()) {
            let (what, found) = ("feature vectors".into(), vec![data.len()]);
            return Err(Error::Shape { what, wanted: vec![n, width], found });
        }
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            let what = format!("feature {} of sample {}", at % width, at / width);
            return Err(Error::NotFinite { what });
        }
        Ok(Self { n, width, data })
    }

    /// The pixels in -1..=1 as features; an honest stand-in where no network is at hand, though
    /// distances between pixels say little of what is seen.
    ///
    /// # Errors
    /// Those of [`Features::new`].
    pub fn pixels(images: &Images) -> Result<Self> {
        Self::new(images.n, images.stride(), images.to_f32())
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// How many numbers each sample has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All numbers, `[n, width]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The vectors at `indices`, in that order.
    ///
    /// # Errors
    /// [`Error::Setting`] if an index lies beyond the end.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let mut data = Vec::with_capacity(indices.len() * self.width);
        for &i in indices {
            if i >= self.n {
                let why = format!("{i} where there are only {} samples", self.n);
                return Err(Error::setting("index", why));
            }
            data.extend_from_slice(&self.data[i * self.width..(i + 1) * self.width]);
        }
        Ok(Self { n: indices.len(), width: self.width, data })
    }

    /// All numbers as f64, `[n, width]`.
    pub(super) fn widened(&self) -> Vec<f64> {
        self.data.iter().map(|v| f64::from(*v)).collect()
    }

    /// Checks that two sets can be compared and that each has at least `least` samples.
    pub(super) fn comparable(&self, other: &Self, least: usize) -> Result<()> {
        if self.width != other.width {
            return Err(Error::Shape {
                what: "width of feature vectors".into(),
                wanted: vec![self.width],
                found: vec![other.width],
            });
        }
        let fewest = self.n.min(other.n);
        if fewest < least {
            let why = format!("{fewest} where at least {least} are needed");
            return Err(Error::setting("samples", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_set_of_vectors_is_refused() {
        assert!(Features::new(2, 3, vec![0.0; 5]).is_err());
        assert!(Features::new(0, 0, vec![]).is_err());
        let said = Features::new(2, 2, vec![0.0, 0.0, 0.0, f32::INFINITY]).unwrap_err();
        assert_eq!(said.to_string(), "feature 1 of sample 1 is not finite");
        let f = Features::new(2, 2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(f.select(&[1, 0, 1]).unwrap().data(), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(f.select(&[2]).is_err());
        let other = Features::new(1, 4, vec![0.0; 4]).unwrap();
        assert!(matches!(f.comparable(&other, 1), Err(Error::Shape { .. })));
        assert!(matches!(f.comparable(&f, 3), Err(Error::Setting { .. })));
    }
}
