//! What networks are told of the size of a picture, beside its text.

use burn::tensor::{Tensor, TensorData};

use crate::denoiser::{Cond, Network, field};
use crate::error::{Error, Result};
use crate::state::State;

/// The aesthetic score that a picture is asked for, and the one that it is to keep away from: the
/// defaults of the published pipeline of the refiner.
const SCORES: [f64; 2] = [6.0, 2.5];

/// Tells a network that asks for it that the picture of `[height, width]` pixels is whole: its
/// original size, no crop, and its target size or an aesthetic score (Podell et al., "SDXL", 2023,
/// section 2.2). Both the condition and its negative have a pooled text already.
///
/// # Errors
///
/// [`Error::Unsupported`] where the network asks for a pooled text that the model does not have, or
/// for another count of numbers.
pub(super) fn tell(cond: &mut Cond, network: &dyn Network, size: [usize; 2]) -> Result<()> {
    let asks = network.asks();
    if asks.sizes.is_none() {
        return Ok(());
    }
    add(cond, network, size, SCORES[0])?;
    match &mut cond.negative {
        Some(negative) => add(negative, network, size, SCORES[1]),
        None => Ok(()),
    }
}

fn add(cond: &mut Cond, network: &dyn Network, size: [usize; 2], score: f64) -> Result<()> {
    let wanted = |what: &str| Error::unsupported("a network that is told sizes", what);
    let Some(pooled) = &cond.vector else {
        return Err(wanted("a text encoder with a pooled output"));
    };
    let [rows, width] = pooled.dims();
    let [height, across] = size.map(|s| s as f64);
    let mut numbers = vec![height, across, 0.0, 0.0];
    match network.asks().size_count(width) {
        Some(6) => numbers.extend([height, across]),
        Some(5) => numbers.push(score),
        _ => return Err(wanted("a pooled text of the width that leaves room for 5 or 6 sizes")),
    }
    let count = numbers.len();
    let all: Vec<f32> = numbers.iter().map(|n| *n as f32).cycle().take(rows * count).collect();
    let data = TensorData::new(all, [rows, count]);
    let ids = State::new(Tensor::<2>::from_data(data, &pooled.device()));
    cond.fields.insert(field::TIME_IDS.into(), ids);
    Ok(())
}
