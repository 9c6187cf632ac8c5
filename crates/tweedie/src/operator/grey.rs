//! A picture without its colours: the mean of its channels.

use crate::error::Result;
use crate::operator::{Linear, Operator};
use crate::state::State;

/// `y = ` the mean of the channels.
#[derive(Clone, Copy, Debug)]
pub struct Grey {
    /// Channels of the coloured picture.
    pub channels: usize,
}

impl Operator for Grey {
    fn apply(&self, x: &State) -> Result<State> {
        Ok(State::new(x.view::<4>()?.mean_dim(1)))
    }

    fn linear(&self) -> Option<&dyn Linear> {
        Some(self)
    }
}

impl Linear for Grey {
    fn adjoint(&self, y: &State) -> Result<State> {
        Ok(self.pseudo_inverse(y)? * (1.0 / self.channels as f64))
    }

    fn pseudo_inverse(&self, y: &State) -> Result<State> {
        Ok(State::new(y.view::<4>()?.repeat_dim(1, self.channels)))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::operator::{Downsample, Mask};

    fn random(shape: &[usize], seed: u64) -> State {
        let mut data = vec![0.0; shape.iter().product()];
        crate::random::Key::new(seed, 0, 0).generator().fill_normal(&mut data);
        State::from_f64(data, shape, &Device::flex()).unwrap()
    }

    /// The adjoint is the adjoint, and what is measured of the pseudo-inverse is what was measured.
    #[test]
    fn every_operator_has_its_adjoint_and_its_inverse() {
        let (grey, small) = (Grey { channels: 3 }, Downsample::new(2).unwrap());
        let seen: Vec<bool> = (0..48).map(|i| i % 3 != 1).collect();
        let mask = Mask::new(&seen).unwrap();
        let operators: [&dyn Operator; 3] = [&grey, &small, &mask];
        for operator in operators {
            let x = random(&[2, 3, 4, 4], 1);
            let linear = operator.linear().unwrap();
            let ax = operator.apply(&x).unwrap();
            let y = random(ax.shape(), 2);
            let (left, right) = (ax.dots(&y), x.dots(&linear.adjoint(&y).unwrap()));
            for (left, right) in left.iter().zip(right) {
                assert!((left - right).abs() < 1e-12, "{operator:?}: {left} {right}");
            }
            let again = operator.apply(&linear.pseudo_inverse(&ax).unwrap()).unwrap();
            for (a, b) in again.to_rows().concat().iter().zip(ax.to_rows().concat()) {
                assert!((a - b).abs() < 1e-14, "{operator:?}");
            }
        }
        assert!(Mask::new(&[false]).is_err());
        assert!(Downsample::new(1).is_err());
    }
}
