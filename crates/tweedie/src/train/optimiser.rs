//! AdamW and the average of the weights, by parameter path.

use burn::tensor::{Tensor, TensorData};
use tweedie_kernels::{AdamwStep, adamw};

use super::schedule::{EmaSettings, OptimiserSettings};
use crate::error::{Error, Result};
use crate::weight::{Parameters, Weight};

/// What training keeps beside one parameter, flat and without a tape.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The parameter's path.
    pub path: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// The moving mean of its gradients.
    pub first: Tensor<1>,
    /// The moving mean of their squares.
    pub second: Tensor<1>,
    /// The moving average of the parameter itself.
    pub ema: Tensor<1>,
}

/// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) over every weight
/// of a task, and their moving average; one slot a parameter, in the order of the walk.
#[derive(Clone, Debug)]
pub struct Optimiser {
    slots: Vec<Slot>,
}

impl Optimiser {
    /// Zero moments, and an average that begins at the weights.
    pub fn new(network: &(impl Parameters + ?Sized)) -> Self {
        let mut slots = Vec::new();
        network.each("", &mut |path, weight| {
            let value = weight.value().without_autodiff();
            slots.push(Slot {
                path: path.to_owned(),
                shape: weight.shape().to_vec(),
                first: value.zeros_like(),
                second: value.zeros_like(),
                ema: value,
            });
        });
        Self { slots }
    }

    /// As it was: every slot from a checkpoint.
    pub fn of_slots(slots: Vec<Slot>) -> Self {
        Self { slots }
    }

    /// Every slot, in the order of the walk.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// One step; `step` counts from 0 and `gradients` stand in the order of the walk. A parameter
    /// without a gradient stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where gradients and parameters differ in number.
    pub fn step(
        &mut self,
        network: &mut (impl Parameters + ?Sized),
        gradients: Vec<Option<Tensor<1>>>,
        settings: &OptimiserSettings,
        ema: &EmaSettings,
        (step, lr): (u64, f64),
    ) -> Result<()> {
        if gradients.len() != self.slots.len() {
            return Err(Error::Shape {
                what: "gradients, one a parameter".into(),
                wanted: vec![self.slots.len()],
                found: vec![gradients.len()],
            });
        }
        let keep = ema.keep(step);
        let mut pairs = self.slots.iter_mut().zip(gradients);
        let mut result = Ok(());
        network.each_mut("", &mut |_, weight| {
            let (Some((slot, gradient)), Ok(())) = (pairs.next(), &result) else { return };
            result = advance(slot, weight, gradient, settings, (step, lr));
            let value = weight.value().without_autodiff();
            let old = std::mem::replace(&mut slot.ema, value.clone());
            if keep > 0.0 {
                slot.ema = old * keep + value * (1.0 - keep);
            }
        });
        result
    }
}

fn advance(
    slot: &mut Slot,
    weight: &mut Weight,
    gradient: Option<Tensor<1>>,
    settings: &OptimiserSettings,
    (step, lr): (u64, f64),
) -> Result<()> {
    let Some(gradient) = gradient else { return Ok(()) };
    let decay = if slot.shape.len() > 1 { settings.weight_decay } else { 0.0 };
    let now = AdamwStep {
        lr,
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.eps,
        weight_decay: decay,
        step: step + 1,
    };
    let value = weight.value().without_autodiff();
    let (value, first, second) =
        adamw(value, gradient, slot.first.clone(), slot.second.clone(), &now);
    slot.first = first;
    slot.second = second;
    weight.set(value)
}

/// The norm of all gradients together, summed on the host in a fixed order.
pub fn norm(gradients: &[Option<Tensor<1>>]) -> f64 {
    let square = |g: &Tensor<1>| -> f64 {
        let values = g.clone().into_data_as::<f32>();
        values.iter::<f32>().map(|v| f64::from(v) * f64::from(v)).sum()
    };
    gradients.iter().flatten().map(square).sum::<f64>().sqrt()
}

/// Scales all gradients so that their norm is at most `clip`; 0 leaves them.
pub fn clipped(gradients: Vec<Option<Tensor<1>>>, norm: f64, clip: f64) -> Vec<Option<Tensor<1>>> {
    if clip == 0.0 || norm <= clip {
        return gradients;
    }
    let factor = clip / (norm + 1e-12);
    gradients.into_iter().map(|g| g.map(|g| g * factor)).collect()
}

/// Swaps the average in and gives the weights back, for sampling, measuring and export.
///
/// # Errors
///
/// Never in practice: the shapes are the parameters' own.
pub fn swap_in(
    network: &mut (impl Parameters + ?Sized),
    values: impl IntoIterator<Item = Tensor<1>>,
) -> Result<Vec<Tensor<1>>> {
    let mut values = values.into_iter();
    let mut held = Vec::new();
    let mut result = Ok(());
    network.each_mut("", &mut |_, weight| {
        if let (Some(value), Ok(())) = (values.next(), &result) {
            held.push(weight.value().without_autodiff());
            result = weight.set(value);
        }
    });
    result.map(|()| held)
}

/// A flat tensor from host numbers, on the device of another.
pub(crate) fn beside(like: &Tensor<1>, values: Vec<f32>) -> Tensor<1> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &like.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::Initial;
    use burn::tensor::Device;

    struct Pair {
        matrix: Weight,
        bias: Weight,
    }
    crate::parameters!(Pair { matrix, bias });

    fn pair() -> Pair {
        let device = Device::flex();
        let mut pair = Pair {
            matrix: Weight::new([1, 2], Initial::Ones, &device),
            bias: Weight::new([2], Initial::Ones, &device),
        };
        crate::weight::draw(&mut pair, 0).unwrap();
        pair
    }

    fn flat(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
    }

    /// The reference is the update written out in f64.
    #[test]
    fn two_steps_match_the_formula_and_biases_do_not_decay() {
        let settings = OptimiserSettings { weight_decay: 0.1, ..OptimiserSettings::default() };
        let ema = EmaSettings { decay: 0.5, warmup: 1 };
        let mut network = pair();
        let mut optimiser = Optimiser::new(&network);
        let gradients = [[0.5_f32, -2.0], [0.25, 1.0]];
        let lr = 0.1;
        for (i, g) in gradients.iter().enumerate() {
            let g = vec![Some(flat(g)), Some(flat(g))];
            optimiser.step(&mut network, g, &settings, &ema, (i as u64, lr)).unwrap();
        }
        for (decay, found, average) in [
            (0.1, network.matrix.to_vec(), optimiser.slots()[0].ema.clone()),
            (0.0, network.bias.to_vec(), optimiser.slots()[1].ema.clone()),
        ] {
            let average: Vec<f32> = average.into_data_as::<f32>().iter::<f32>().collect();
            for k in 0..2 {
                let (mut w, mut m, mut v, mut e) = (1.0, 0.0, 0.0, 1.0);
                for (i, g) in gradients.iter().enumerate() {
                    let g = f64::from(g[k]);
                    m = 0.9 * m + 0.1 * g;
                    v = 0.999 * v + 0.001 * g * g;
                    let n = i as i32 + 1;
                    let root = (v / (1.0 - 0.999_f64.powi(n))).sqrt() + 1e-8;
                    w = w * (1.0 - lr * decay) - lr * m / (1.0 - 0.9_f64.powi(n)) / root;
                    e = 0.5 * e + 0.5 * w;
                }
                assert!((f64::from(found[k]) - w).abs() < 1e-5, "{found:?} {w}");
                assert!((f64::from(average[k]) - e).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let g = vec![Some(flat(&[3.0])), None, Some(flat(&[0.0, 4.0]))];
        assert!((norm(&g) - 5.0).abs() < 1e-6);
        let c = clipped(g.clone(), 5.0, 1.0);
        assert!((norm(&c) - 1.0).abs() < 1e-6);
        assert!((norm(&clipped(g.clone(), 5.0, 0.0)) - 5.0).abs() < 1e-6);
        assert!((norm(&clipped(g, 5.0, 6.0)) - 5.0).abs() < 1e-6);
    }

    #[test]
    fn swapping_twice_gives_the_weights_back() {
        let mut network = pair();
        let held = swap_in(&mut network, [flat(&[5.0, 6.0]), flat(&[7.0, 8.0])]).unwrap();
        assert_eq!(network.bias.to_vec(), [7.0, 8.0]);
        swap_in(&mut network, held).unwrap();
        assert_eq!(network.matrix.to_vec(), [1.0, 1.0]);
    }
}
