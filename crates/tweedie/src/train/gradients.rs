//! The loss of a micro-batch with its gradients, and the sum over those of a step.

use burn::tensor::Tensor;

use super::objective::Place;
use super::task::Task;
use crate::error::Result;
use crate::weight::Parameters;

/// A loss and the gradient of every weight, in the order of the walk.
pub type LossAndGradients = (f64, Vec<Option<Tensor<1>>>);

/// The loss of one batch and its gradients.
pub(super) fn gradients(
    task: &mut dyn Task,
    examples: &[usize],
    place: Place,
) -> Result<LossAndGradients> {
    loss_and_gradients(task, |task| task.loss(examples, place))
}

/// A loss of a network and the gradient of every weight, in the order of the walk. The weights are on
/// the tape while `loss` runs.
///
/// # Errors
///
/// What `loss` says.
pub fn loss_and_gradients<T: Parameters + ?Sized>(
    task: &mut T,
    loss: impl FnOnce(&mut T) -> Result<Tensor<1>>,
) -> Result<LossAndGradients> {
    task.each_mut("", &mut |_, weight| weight.track());
    let loss = loss(task)?;
    let value = loss.clone().without_autodiff().into_data_as::<f32>();
    let value = value.iter::<f32>().map(f64::from).sum();
    let tape = loss.backward();
    let mut all = Vec::new();
    task.each("", &mut |_, weight| {
        all.push(weight.value().grad(&tape).map(Tensor::without_autodiff));
    });
    untrack(task);
    Ok((value, all))
}

/// The gradients of micro-batches, added up in their order.
#[derive(Default)]
pub(super) struct Sum {
    loss: f64,
    sum: Vec<Option<Tensor<1>>>,
}

impl Sum {
    pub(super) fn add(&mut self, (loss, part): (f64, Vec<Option<Tensor<1>>>)) {
        self.loss += loss;
        if self.sum.is_empty() {
            self.sum = part;
            return;
        }
        for (sum, part) in self.sum.iter_mut().zip(part) {
            *sum = match (sum.take(), part) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
        }
    }

    pub(super) fn mean(self, parts: usize) -> (f64, Vec<Option<Tensor<1>>>) {
        if parts == 1 {
            return (self.loss, self.sum);
        }
        let factor = 1.0 / parts as f64;
        (self.loss * factor, self.sum.into_iter().map(|g| g.map(|g| g * factor)).collect())
    }
}

/// Takes the weights off the tape.
pub(super) fn untrack(network: &mut (impl Parameters + ?Sized)) {
    network.each_mut("", &mut |_, weight| weight.untrack());
}
