//! Where a step of a table's even stride lands, beside where the grid goes on.
//!
//! diffusers' DDIM and PNDM classes step from training step `i` to `i - floor(N / steps)`, whatever
//! step the network is asked at next. On a spacing that is not exactly even the two differ, and the
//! next evaluation takes a state for noisier or cleaner than it is.

use crate::level::Level;
use crate::sampler::Step;

/// The level that a step lands on: an even stride below `from`, where `even` asks for it and the
/// process is a table, else the grid's next.
pub(crate) fn landing(step: &Step<'_>, even: bool) -> Level {
    let Some((tau, stride, n)) = place(step, even) else { return step.to };
    if tau < stride { step.to } else { step.process.at((tau - stride) / n) }
}

/// The level that an even stride above `to` would come from; `from` itself where strides do not count.
pub(crate) fn origin(step: &Step<'_>, even: bool) -> Level {
    let Some((_, stride, n)) = place(step, even) else { return step.from };
    step.process.at(((step.to.t * n).round() + stride) / n)
}

/// The training step of `from`, the stride and the table's length.
pub(crate) fn place(step: &Step<'_>, even: bool) -> Option<(f64, f64, f64)> {
    let table = step.process.table_steps().filter(|_| even)?;
    let stride = (table / step.count.max(1)) as f64;
    let n = table as f64;
    Some(((step.from.t * n).round(), stride, n))
}
