//! What a guide remembers of a row from one evaluation to the next.

use crate::denoiser::Pass;
use crate::state::State;

/// A state a request. Rows of a call may be some of the run's only, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    requests: Vec<u64>,
    kept: Option<State>,
}

impl Memory {
    pub(crate) fn clear(&mut self) {
        self.requests.clear();
        self.kept = None;
    }

    /// What is kept of the call's rows, and 0 of those that are new; `None` where nothing is kept.
    pub(crate) fn of(&self, pass: &Pass) -> Option<State> {
        let kept = self.kept.as_ref()?;
        let place = |request| self.requests.iter().position(|r| *r == request);
        let places: Vec<_> = pass.rows.iter().map(|row| place(row.request)).collect();
        let rows: Vec<usize> = places.iter().map(|p| p.unwrap_or(0)).collect();
        let known: Vec<f64> = places.iter().map(|p| f64::from(u8::from(p.is_some()))).collect();
        Some(kept.select(&rows).scaled_rows(&known))
    }

    /// Keeps a state of the call's rows in place of what was kept of them.
    pub(crate) fn keep(&mut self, pass: &Pass, state: State) {
        let new: Vec<u64> = pass.rows.iter().map(|row| row.request).collect();
        let others = |i: &usize| !new.contains(&self.requests[*i]);
        let left: Vec<usize> = (0..self.requests.len()).filter(others).collect();
        let joined = match &self.kept {
            Some(kept) if !left.is_empty() => State::cat(&[kept.select(&left), state.clone()]),
            _ => Ok(state.clone()),
        };
        let left = left.iter().map(|&i| self.requests[i]);
        match joined {
            Ok(all) => {
                self.requests = left.chain(new).collect();
                self.kept = Some(all);
            }
            // States of another shape are of another run.
            Err(_) => {
                self.requests = new;
                self.kept = Some(state);
            }
        }
    }

    /// Follows a resampling of the rows, whose requests keep their places.
    pub(crate) fn select(&mut self, rows: &[usize]) {
        if self.requests.len() == rows.len() {
            self.kept = self.kept.take().map(|kept| kept.select(rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::level::Level;

    #[test]
    fn rows_are_found_by_their_request() {
        let number =
            |x: &[f64]| State::from_f64(x.to_vec(), &[x.len(), 1], &Device::flex()).unwrap();
        let pass = |requests: &[u64]| {
            let mut pass = Pass::single(requests.len(), Level::vp(0.5, 0.0));
            for (row, request) in pass.rows.iter_mut().zip(requests) {
                row.request = *request;
            }
            pass
        };
        let mut memory = Memory::default();
        assert!(memory.of(&pass(&[1])).is_none());
        memory.keep(&pass(&[1, 2]), number(&[10.0, 20.0]));
        memory.keep(&pass(&[2, 3]), number(&[21.0, 30.0]));
        let found = memory.of(&pass(&[3, 9, 1, 2])).unwrap().to_rows().concat();
        assert_eq!(found, [30.0, 0.0, 10.0, 21.0]);
    }
}
