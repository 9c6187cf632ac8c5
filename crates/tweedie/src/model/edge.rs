//! The edge of a network: states in, states out, one cast each way.

use burn::tensor::{DType, Tensor};

use super::embed::lifted;
use crate::denoiser::{Cond, Times, field};
use crate::error::{Error, Result};
use crate::state::State;
use crate::weight::Weight;

/// What masked tokens get added to their scores, as in the published code: far from every score,
/// and finite, so that a row without any token left is an average rather than not a number.
const MASKED: f64 = -10_000.0;

/// An image that goes into a network.
#[derive(Clone, Debug)]
pub struct Image {
    /// The numbers, `[batch, channels, height, width]` in f32.
    pub x: Tensor<4>,
    dtype: DType,
}

/// Checks a state, with the channels that the condition puts behind its own ([`field::BESIDE`]),
/// against what a network takes, and lifts it to the autodiff side where weights or conditions are
/// on it.
///
/// # Errors
///
/// [`Error::Rank`] or [`Error::Shape`]; [`Error::Setting`] for `dropout` above zero while the
/// weights are trained, which no network here has.
pub fn image(
    x: &State,
    channels: usize,
    cond: &Cond,
    weight: &Weight,
    dropout: f64,
) -> Result<Image> {
    let x = x.view::<4>()?;
    let dtype = x.dtype();
    let x = if dtype == DType::F32 { x } else { x.cast(DType::F32) };
    let x = with_beside(x, cond)?;
    let shape = x.dims();
    if shape[1] != channels || shape.contains(&0) {
        let beside = cond.fields.contains_key(field::BESIDE);
        let what = if beside {
            "image for the network, with what goes beside it"
        } else {
            "image for the network"
        };
        return Err(Error::Shape {
            what: what.into(),
            wanted: vec![shape[0].max(1), channels, shape[2].max(1), shape[3].max(1)],
            found: shape.to_vec(),
        });
    }
    let trained = weight.is_autodiff();
    if trained && dropout > 0.0 {
        let why = format!("training with dropout is not supported, found {dropout}; set it to 0");
        return Err(Error::setting("dropout", why));
    }
    let tracked = trained
        || cond.context.as_ref().is_some_and(Tensor::is_autodiff)
        || cond.vector.as_ref().is_some_and(Tensor::is_autodiff);
    Ok(Image { x: if tracked { x.autodiff() } else { x }, dtype })
}

/// The image with the channels of the condition behind its own.
fn with_beside(x: Tensor<4>, cond: &Cond) -> Result<Tensor<4>> {
    let Some(beside) = cond.fields.get(field::BESIDE) else { return Ok(x) };
    let beside = beside.view::<4>()?;
    let ([batch, _, height, width], found) = (x.dims(), beside.dims());
    if [found[0], found[2], found[3]] != [batch, height, width] {
        return Err(Error::Shape {
            what: "channels beside the image".into(),
            wanted: vec![batch, found[1], height, width],
            found: found.to_vec(),
        });
    }
    let beside = if beside.dtype() == DType::F32 { beside } else { beside.cast(DType::F32) };
    Ok(Tensor::cat(vec![x.clone(), lifted(beside, &x)], 1))
}

impl Image {
    /// The output as a state of the type that came in.
    pub fn state(&self, y: Tensor<4>) -> State {
        State::new(if self.dtype == DType::F32 { y } else { y.cast(self.dtype) })
    }

    /// A tensor of the condition in f32, on the side of the image.
    pub fn with<const D: usize>(&self, other: &Tensor<D>) -> Tensor<D> {
        let other = other.clone();
        let other = if other.dtype() == DType::F32 { other } else { other.cast(DType::F32) };
        lifted(other, &self.x)
    }
}

/// The sequence of a condition, `width` features a token, and what is added to the scores of
/// attention to it, `[batch, 1, 1, tokens]`.
///
/// # Errors
///
/// [`Error::Unsupported`] where there is none, [`Error::Shape`] where it does not fit.
pub fn sequence(
    cond: &Cond,
    image: &Image,
    width: usize,
    part: &str,
) -> Result<(Tensor<3>, Option<Tensor<4>>)> {
    let batch = image.x.dims()[0];
    let Some(context) = &cond.context else {
        return Err(Error::unsupported(part, "a context in the condition"));
    };
    let [rows, tokens, found] = context.dims();
    if rows != batch || found != width || tokens == 0 {
        return Err(Error::Shape {
            what: "context of the condition".into(),
            wanted: vec![batch, tokens.max(1), width],
            found: vec![rows, tokens, found],
        });
    }
    let bias = match &cond.context_mask {
        Some(mask) if mask.dims() == [batch, tokens] => {
            let mask = image.with(mask).reshape([batch, 1, 1, tokens]);
            Some((mask * -1.0 + 1.0) * MASKED)
        }
        Some(mask) => {
            return Err(Error::Shape {
                what: "mask of the context".into(),
                wanted: vec![batch, tokens],
                found: mask.dims().to_vec(),
            });
        }
        None => None,
    };
    Ok((image.with(context), bias))
}

/// One time a row.
///
/// # Errors
///
/// [`Error::Unsupported`] for a time a position, [`Error::Shape`] for another number of rows.
pub fn row_times<'a>(time: &'a Times, batch: usize, part: &str) -> Result<&'a [f64]> {
    if time.positions != 1 {
        return Err(Error::unsupported(part, "one level a row"));
    }
    if time.values.len() != batch {
        return Err(Error::Shape {
            what: "times of a batch".into(),
            wanted: vec![batch],
            found: vec![time.values.len()],
        });
    }
    Ok(&time.values)
}

/// Checks an image that is no state against the channels that a network takes, in f32 and on the
/// autodiff side where the weights are on it.
///
/// # Errors
///
/// [`Error::Shape`].
pub fn numbers(what: &str, x: &Tensor<4>, channels: usize, weight: &Weight) -> Result<Tensor<4>> {
    let [batch, found, height, width] = x.dims();
    if found != channels || x.dims().contains(&0) {
        return Err(Error::Shape {
            what: what.to_owned(),
            wanted: vec![batch.max(1), channels, height.max(1), width.max(1)],
            found: x.dims().to_vec(),
        });
    }
    let x = x.clone();
    let x = if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) };
    Ok(if weight.is_autodiff() { x.autodiff() } else { x })
}
