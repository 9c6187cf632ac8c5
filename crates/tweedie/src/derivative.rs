//! Derivatives of a denoiser: one backward for each forward, and differences for the other way.

use burn::tensor::Tensor;

use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::state::{State, Values};

/// The gradient of a scalar of the clean estimate with respect to the state.
///
/// `objective` gets the estimate, tracked, and returns one number a row `[batch, 1]` or any tensor
/// that is summed; rows do not mix, so that each row's gradient is its own. Two gradients through
/// one forward do not exist: combine the scalars, or pay a second forward.
///
/// # Errors
///
/// What the denoiser or the objective says; [`Error::Unsupported`] where nothing depends on `x`.
pub fn gradient(
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    cond: &Cond,
    pass: &mut Pass,
    objective: impl FnOnce(&State) -> Result<Tensor<2>>,
) -> Result<(State, State)> {
    let leaf = x.tracked();
    let x0 = model.x0(&leaf, at, cond, pass)?;
    let scalar = objective(&x0)?.sum();
    if !scalar.is_tracked() {
        return Err(Error::unsupported(
            "gradient",
            "a denoiser and an objective that depend on the state",
        ));
    }
    pass.count_backward();
    let grads = scalar.backward();
    let mut missing = false;
    let gradient = leaf.map(|x| {
        let grad = x.grad(&grads);
        missing |= grad.is_none();
        grad.unwrap_or_else(|| x.without_autodiff().zeros_like())
    });
    if missing && leaf.segments().len() == 1 {
        return Err(Error::unsupported("gradient", "a denoiser that keeps the state's gradient"));
    }
    Ok((x0.untracked(), gradient))
}

/// The vector-Jacobian product: `v^T dx0/dx`, with the estimate itself.
///
/// # Errors
///
/// As [`gradient`].
pub fn vjp(
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    cond: &Cond,
    pass: &mut Pass,
    v: &State,
) -> Result<(State, State)> {
    gradient(model, x, at, cond, pass, |x0| {
        let batch = x0.batch();
        let mut sum: Option<Tensor<2>> = None;
        for (a, b) in x0.segments().iter().zip(v.segments()) {
            if let (Values::Float(a), Values::Float(b)) = (a.values(), b.values()) {
                let b = b.clone().with_autodiff_context_of(a);
                let term = (a.clone() * b).sum_dim(1);
                sum = Some(match sum {
                    Some(sum) => sum + term,
                    None => term,
                });
            }
        }
        sum.ok_or_else(|| Error::unsupported("vjp", format!("a real field over {batch} rows")))
    })
}

/// Lifts constants onto the device of a tracked tensor.
pub(crate) trait AutodiffContext {
    /// The same numbers, on the autodiff side where `other` is.
    fn with_autodiff_context_of(self, other: &Self) -> Self;
}

impl<const D: usize> AutodiffContext for Tensor<D> {
    fn with_autodiff_context_of(self, other: &Self) -> Self {
        if other.is_autodiff() && !self.is_autodiff() { self.autodiff() } else { self }
    }
}

/// The Jacobian-vector product `dx0/dx v` by central differences; meant for f64.
///
/// The step is scaled so that the displacement of each row has norm `h`.
///
/// # Errors
///
/// What the denoiser says; [`Error::Setting`] for a step that is not positive.
pub fn jvp(
    model: &dyn Denoiser,
    x: &State,
    at: &Levels,
    cond: &Cond,
    pass: &mut Pass,
    v: &State,
    h: f64,
) -> Result<State> {
    if h.is_nan() || h <= 0.0 {
        return Err(Error::setting(
            "h",
            format!("a difference needs a positive step, this is {h}"),
        ));
    }
    let lengths: Vec<f64> =
        v.square_norms().iter().map(|n| n.sqrt().max(f64::MIN_POSITIVE)).collect();
    let forward: Vec<f64> = lengths.iter().map(|n| h / n).collect();
    let back: Vec<f64> = lengths.iter().map(|n| n / (2.0 * h)).collect();
    let step = v.scaled_rows(&forward);
    let ahead = model.x0(&(x.clone() + step.clone()), at, cond, pass)?;
    let behind = model.x0(&(x.clone() - step), at, cond, pass)?;
    Ok((ahead - behind).scaled_rows(&back))
}
