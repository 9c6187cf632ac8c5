//! What adapters add to a weight: low-rank updates (Hu et al., "LoRA: Low-Rank Adaptation of Large
//! Language Models", arXiv:2106.09685, section 4.1), beside the stored numbers and not in them.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::Weight;
use crate::error::{Error, Result};

/// The factors of an update of a matrix or of a convolution's kernel.
///
/// Without a middle factor the update is `up down`, where `down` is `[rank, in]` or, for a kernel,
/// `[rank, in, kh, kw]`, and `up` is `[out, rank]`. With one (Tucker's form, which adapters of
/// convolutions use), `down` is `[rank, in]` and `mid` is `[rank, rank, kh, kw]`: the three are
/// convolutions one after the other.
#[derive(Clone, Debug)]
pub struct LowRank {
    down: Weight,
    mid: Option<Weight>,
    up: Weight,
}

impl LowRank {
    /// Factors for a weight of shape `target`, `[out, in]` or `[out, in, kh, kw]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where they do not multiply to that shape.
    pub fn new(down: Weight, mid: Option<Weight>, up: Weight, target: &[usize]) -> Result<Self> {
        let rank = up.shape().get(1).copied().unwrap_or(0);
        let bad = |what: &str, wanted: Vec<usize>, found: &Weight| Error::Shape {
            what: format!("the {what} of a low-rank update of {target:?}"),
            wanted,
            found: found.shape().to_vec(),
        };
        let (Some(&out), Some(&inputs)) = (target.first(), target.get(1)) else {
            return Err(bad("weight", vec![rank, 0], &up));
        };
        if up.shape() != [out, rank] || rank == 0 {
            return Err(bad("way up", vec![out, rank], &up));
        }
        let inner = down.shape().first().copied().unwrap_or(0);
        let wanted = match &mid {
            Some(mid) => {
                let mut wanted = vec![rank, inner];
                wanted.extend(&target[2..]);
                if mid.shape() != wanted || target.len() != 4 {
                    return Err(bad("middle", wanted, mid));
                }
                vec![inner, inputs]
            }
            None => [&[rank], &target[1..]].concat(),
        };
        if down.shape() != wanted {
            return Err(bad("way down", wanted, &down));
        }
        Ok(Self { down, mid, up })
    }

    /// The way down, the middle where there is one, and the way up.
    pub fn factors(&self) -> (&Weight, Option<&Weight>, &Weight) {
        (&self.down, self.mid.as_ref(), &self.up)
    }

    /// The update itself, flat in the order of the weight.
    pub(super) fn product(&self) -> Tensor<1> {
        let matrix = |w: &Weight, rows: usize, columns: usize| w.value().reshape([rows, columns]);
        let rank = self.up.shape()[1];
        let down = match &self.mid {
            None => matrix(&self.down, rank, self.down.count() / rank),
            Some(mid) => {
                let [inner, inputs] = [self.down.shape()[0], self.down.shape()[1]];
                let pixels = mid.count() / (rank * inner);
                // [rank, inner, pixels] to [rank * pixels, inner], times [inner, in].
                let mid = mid.value().reshape([rank, inner, pixels]).swap_dims(1, 2);
                let both = mid.reshape([rank * pixels, inner]);
                let both = both.matmul(matrix(&self.down, inner, inputs));
                let both = both.reshape([rank, pixels, inputs]).swap_dims(1, 2);
                both.reshape([rank, inputs * pixels])
            }
        };
        let product = matrix(&self.up, self.up.shape()[0], rank).matmul(down);
        let [rows, columns] = product.dims();
        product.reshape([rows * columns])
    }
}

/// A low-rank update and how strongly it acts.
#[derive(Clone, Debug)]
pub struct Added {
    /// The factors.
    pub factors: Arc<LowRank>,
    /// What the product is multiplied by: `alpha / rank` times the strength that was asked for.
    pub scale: f64,
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::weight::{Initial, Plan};

    fn weight(shape: &[usize], seed: u64) -> Weight {
        let mut weight = Weight::new(shape, Initial::Normal(1.0), &Device::flex());
        weight.draw(seed, "w").unwrap();
        weight
    }

    #[test]
    fn shapes_must_multiply() {
        let of = |down: &[usize], mid: Option<&[usize]>, up: &[usize], target: &[usize]| {
            LowRank::new(weight(down, 1), mid.map(|m| weight(m, 2)), weight(up, 3), target)
        };
        assert!(of(&[2, 5], None, &[3, 2], &[3, 5]).is_ok());
        assert!(of(&[2, 5, 3, 3], None, &[4, 2], &[4, 5, 3, 3]).is_ok());
        assert!(of(&[2, 5], Some(&[2, 2, 3, 3]), &[4, 2], &[4, 5, 3, 3]).is_ok());
        // The ways swapped, another rank, another width, a kernel for a matrix.
        assert!(of(&[3, 2], None, &[2, 5], &[3, 5]).is_err());
        assert!(of(&[2, 5], None, &[3, 4], &[3, 5]).is_err());
        assert!(of(&[2, 6], None, &[3, 2], &[3, 5]).is_err());
        assert!(of(&[2, 5, 1, 1], None, &[3, 2], &[3, 5]).is_err());
        assert!(of(&[2, 5], Some(&[2, 2, 1, 3]), &[4, 2], &[4, 5, 3, 3]).is_err());
        assert!(of(&[0, 5], None, &[3, 0], &[3, 5]).is_err());
    }

    #[test]
    fn an_update_is_in_the_value_and_not_in_the_stored_numbers() {
        let mut w = weight(&[2, 3], 4);
        let plain = w.to_vec();
        let mut down = Weight::new([1, 3], Initial::Zeros, &Device::flex());
        down.set_vec(vec![1.0, 0.0, 2.0]).unwrap();
        let mut up = Weight::new([2, 1], Initial::Zeros, &Device::flex());
        up.set_vec(vec![3.0, -1.0]).unwrap();
        let factors = Arc::new(LowRank::new(down, None, up, &[2, 3]).unwrap());
        w.add(Added { factors, scale: 0.5 }).unwrap();
        let wanted: Vec<f32> = plain
            .iter()
            .zip([1.5, 0.0, 3.0, -0.5, 0.0, -1.0])
            .map(|(a, b): (&f32, f32)| a + b)
            .collect();
        assert_eq!(w.to_vec(), wanted);
        // The prepared form is that of the stored numbers; the update stays beside it.
        w.prepare(&Plan { expand: true, ..Plan::default() });
        assert_eq!(w.to_vec(), wanted);
        w.remove_added();
        assert_eq!(w.to_vec(), plain);
    }

    #[test]
    fn a_middle_factor_stands_between_the_two() {
        let low = LowRank::new(
            weight(&[2, 3], 5),
            Some(weight(&[4, 2, 1, 2], 6)),
            weight(&[3, 4], 7),
            &[3, 3, 1, 2],
        );
        let low = low.unwrap();
        let (down, mid, up) =
            (low.down.to_vec(), low.mid.as_ref().unwrap().to_vec(), low.up.to_vec());
        let found: Vec<f32> = low.product().into_data_as::<f32>().iter::<f32>().collect();
        for (at, found) in found.iter().enumerate() {
            let (o, i, k) = (at / 6, at % 6 / 2, at % 2);
            let mut wanted = 0.0;
            for a in 0..4 {
                for b in 0..2 {
                    wanted += up[o * 4 + a] * mid[(a * 2 + b) * 2 + k] * down[b * 3 + i];
                }
            }
            assert!((found - wanted).abs() < 1e-4, "{at}: {found} {wanted}");
        }
    }
}
