//! What of a run hangs on its conditions and times alone, and is computed once for all its steps.
//!
//! Projections of the embedded time read as many weights as a small layer of the image does, for a
//! single vector: for all steps of the grid together they read them once. Keys and values of a text
//! stay the same from step to step. Both are found again by the numbers that they are made from, so
//! that whatever changes these (a tap, another prompt halfway) is computed anew.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};

use crate::error::Result;

/// Most rows of embedded times that are computed ahead: with more in a step, sharing them between
/// steps gains nothing.
const ROWS: usize = 128;

/// Most sets of rows and most sequences of one layer that are kept.
const KEPT: usize = 4;

/// One run's memory. It belongs to a run and ends with it.
#[derive(Debug, Default)]
pub struct Memo {
    /// The network's times of the run's grid, in their order.
    times: Vec<f64>,
    /// Rows of embedded times that will be asked for, by the layer that embeds.
    ahead: BTreeMap<usize, Vec<Ahead>>,
    /// What layers made of them.
    rows: BTreeMap<usize, Made>,
    /// Sequences and what layers made of each.
    sequences: BTreeMap<usize, Vec<(Tensor<3>, [Tensor<3>; 2])>>,
}

#[derive(Debug, Clone)]
struct Ahead {
    numbers: Vec<f32>,
    rows: Tensor<2>,
}

#[derive(Debug)]
struct Made {
    of: Vec<f32>,
    rows: Tensor<2>,
}

/// The numbers of a tensor that may be remembered: neither tracked nor of another type.
fn numbers<const D: usize>(x: &Tensor<D>) -> Option<Vec<f32>> {
    let plain = !x.is_autodiff() && x.dtype() == DType::F32;
    plain.then(|| x.to_data().try_to_vec().ok()).flatten()
}

/// Where each row of `x` stands among `rows`; the same place for rows that are the same.
fn places(x: &[f32], rows: &[f32], width: usize) -> Option<Vec<usize>> {
    let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits());
    let find = |row: &[f32]| rows.chunks_exact(width).position(|other| same(row, other));
    x.chunks_exact(width).map(find).collect()
}

fn picked(rows: &Tensor<2>, places: &[usize]) -> Tensor<2> {
    let parts = places.iter().map(|&i| rows.clone().narrow(0, i, 1)).collect();
    Tensor::cat(parts, 0)
}

impl Memo {
    /// Says which times the run will ask for.
    pub fn expect(&mut self, times: impl Iterator<Item = f64>) {
        self.times.clear();
        self.times.extend(times);
    }

    /// The times from `now` on that are worth embedding together, where a batch has that one time.
    fn upcoming(&self, now: &[f64]) -> Option<&[f64]> {
        let first = *now.first()?;
        if now.iter().any(|t| t.to_bits() != first.to_bits()) {
            return None;
        }
        let at = self.times.iter().position(|t| t.to_bits() == first.to_bits())?;
        let count = (ROWS / now.len()).min(self.times.len() - at);
        (count > 1).then(|| &self.times[at..at + count])
    }

    /// What `embed` says of the times `now`, one a row. The first time that it is asked of a layer, it
    /// is asked of the coming steps too, whose times stand behind each other (`embed` gets a
    /// multiple of the batch).
    ///
    /// # Errors
    ///
    /// What `embed` says.
    pub(super) fn embedded(
        &mut self,
        layer: usize,
        now: &[f64],
        embed: impl Fn(&[f64]) -> Result<Tensor<2>>,
    ) -> Result<Tensor<2>> {
        let x = embed(now)?;
        let (width, Some(own)) = (x.dims()[1], numbers(&x)) else { return Ok(x) };
        let known = self.ahead.get(&layer).into_iter().flatten();
        if known.clone().any(|ahead| places(&own, &ahead.numbers, width).is_some()) {
            return Ok(x);
        }
        let Some(times) = self.upcoming(now) else { return Ok(x) };
        let all: Vec<f64> = times.iter().flat_map(|t| vec![*t; now.len()]).collect();
        let rows = embed(&all)?;
        if let Some(numbers) = numbers(&rows) {
            let sets = self.ahead.entry(layer).or_default();
            sets.truncate(KEPT - 1);
            sets.insert(0, Ahead { numbers, rows });
        }
        Ok(x)
    }

    /// `f` of each row of `x`, from what it made of the rows that were foreseen.
    pub(super) fn rows(
        &mut self,
        layer: usize,
        x: Tensor<2>,
        f: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let (width, Some(own)) = (x.dims()[1], numbers(&x)) else { return f(x) };
        if let Some(made) = self.rows.get(&layer)
            && let Some(places) = places(&own, &made.of, width)
        {
            return picked(&made.rows, &places);
        }
        let sets = self.ahead.values().flatten();
        let found = sets
            .filter(|ahead| ahead.rows.dims()[1] == width)
            .find_map(|ahead| Some((ahead, places(&own, &ahead.numbers, width)?)));
        let Some((ahead, places)) = found else { return f(x) };
        let made = Made { of: ahead.numbers.clone(), rows: f(ahead.rows.clone()) };
        let rows = picked(&made.rows, &places);
        self.rows.insert(layer, made);
        rows
    }

    /// What `f` makes of a sequence `[batch, tokens, channels]`.
    pub(super) fn sequence(
        &mut self,
        layer: usize,
        x: Tensor<3>,
        f: impl Fn(Tensor<3>) -> [Tensor<3>; 2],
    ) -> [Tensor<3>; 2] {
        if x.is_autodiff() {
            return f(x);
        }
        let kept = self.sequences.entry(layer).or_default();
        let same = |other: &Tensor<3>| {
            other.dims() == x.dims() && other.to_data().as_bytes() == x.to_data().as_bytes()
        };
        if let Some(at) = kept.iter().position(|(other, _)| same(other)) {
            return kept[at].1.clone();
        }
        let made = f(x.clone());
        // What is tracked by its weights is another tensor every time.
        if !made[0].is_autodiff() {
            kept.truncate(KEPT - 1);
            kept.insert(0, (x, made.clone()));
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use burn::tensor::{Device, TensorData};

    use super::*;

    fn tensor(values: &[f32], width: usize) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [values.len() / width, width]);
        Tensor::from_data(data, &Device::default())
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    /// Two numbers a time.
    fn embed(times: &[f64]) -> Result<Tensor<2>> {
        let numbers: Vec<f32> = times.iter().flat_map(|t| [*t as f32, 1.0]).collect();
        Ok(tensor(&numbers, 2))
    }

    #[test]
    fn a_layer_is_asked_once_for_all_times_of_the_grid() {
        let mut memo = Memo::default();
        memo.expect([9.0, 5.0, 1.0].into_iter());
        let asked = Cell::new(0);
        let layer = |x: Tensor<2>| {
            asked.set(asked.get() + 1);
            x * 2.0
        };
        for t in [9.0, 5.0, 1.0] {
            let x = memo.embedded(0, &[t, t], embed).unwrap();
            let y = memo.rows(1, x, layer);
            assert_eq!(values(y), [2.0 * t as f32, 2.0, 2.0 * t as f32, 2.0]);
        }
        assert_eq!(asked.get(), 1);
        // Times beside the grid, and rows that something else has changed.
        let x = memo.embedded(0, &[3.0], embed).unwrap();
        assert_eq!(values(memo.rows(1, x, layer)), [6.0, 2.0]);
        let x = memo.embedded(0, &[5.0], embed).unwrap();
        assert_eq!(values(memo.rows(1, x + 1.0, layer)), [12.0, 4.0]);
        assert_eq!(asked.get(), 3);
        // Rows of different times in one batch are known too.
        let x = memo.embedded(0, &[1.0, 9.0], embed).unwrap();
        assert_eq!(values(memo.rows(1, x, layer)), [2.0, 2.0, 18.0, 2.0]);
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn a_sequence_is_projected_once_and_another_one_anew() {
        let mut memo = Memo::default();
        let asked = Cell::new(0);
        let project = |x: Tensor<3>| {
            asked.set(asked.get() + 1);
            [x.clone() * 2.0, x * 3.0]
        };
        let sequence = |v: f32| Tensor::<3>::full([1, 2, 3], v, &Device::default());
        for v in [1.0, 2.0, 1.0, 2.0] {
            let [k, v2] = memo.sequence(0, sequence(v), project);
            assert_eq!(k.into_data().try_to_vec::<f32>().unwrap(), [2.0 * v; 6]);
            assert_eq!(v2.into_data().try_to_vec::<f32>().unwrap(), [3.0 * v; 6]);
        }
        assert_eq!(asked.get(), 2);
        // Another layer.
        memo.sequence(1, sequence(1.0), project);
        assert_eq!(asked.get(), 3);
    }
}
