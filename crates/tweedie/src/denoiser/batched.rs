//! Several runs share the calls of one network, and none of them knows.
//!
//! Each run walks in a thread of its own and asks through its [`Seat`]; when every run that is still
//! under way has asked, one stacked call answers all of them. Steps, levels, samplers, guides and
//! taps may all differ between the runs. Because no row's result depends on its batch, each run gets
//! what it would get alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::denoiser::{Cond, Cost, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::Levels;
use crate::state::State;
use crate::tap::{Only, SharedTap};

/// A network whose calls are gathered over several runs.
pub struct Batched<'m> {
    model: &'m dyn Denoiser,
    gather: Mutex<Gather>,
    answered: Condvar,
}

#[derive(Default)]
struct Gather {
    active: usize,
    waiting: Vec<Option<Call>>,
    answers: Vec<Option<Result<(State, Cost)>>>,
}

struct Call {
    x: State,
    at: Levels,
    cond: Cond,
    pass: Pass,
}

impl<'m> Batched<'m> {
    /// Gathers the calls to `model`.
    pub fn new(model: &'m dyn Denoiser) -> Self {
        Self { model, gather: Mutex::default(), answered: Condvar::new() }
    }

    /// A place for one run. All seats are taken before the runs start; a seat that is dropped is
    /// waited for no more.
    pub fn seat(&self) -> Seat<'_, 'm> {
        let mut gather = self.lock();
        let index = gather.waiting.len();
        gather.waiting.push(None);
        gather.answers.push(None);
        gather.active += 1;
        Seat { table: self, index }
    }

    fn lock(&self) -> MutexGuard<'_, Gather> {
        self.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers everybody if everybody who is still there has asked.
    fn answer_if_complete(&self, gather: &mut Gather) {
        let asked: Vec<usize> =
            (0..gather.waiting.len()).filter(|&i| gather.waiting[i].is_some()).collect();
        if asked.is_empty() || asked.len() < gather.active {
            return;
        }
        let mut calls: Vec<Call> = asked.iter().filter_map(|&i| gather.waiting[i].take()).collect();
        match self.stacked(&calls) {
            Ok(answers) => {
                for (i, answer) in asked.into_iter().zip(answers) {
                    gather.answers[i] = Some(Ok(answer));
                }
            }
            // What cannot be stacked, and what fails, is asked alone: each gets its own error.
            Err(_) => {
                for (i, call) in asked.into_iter().zip(&mut calls) {
                    gather.answers[i] = Some(self.alone(call));
                }
            }
        }
        self.answered.notify_all();
    }

    fn alone(&self, call: &mut Call) -> Result<(State, Cost)> {
        let x0 = self.model.x0(&call.x, &call.at, &call.cond, &mut call.pass)?;
        Ok((x0, call.pass.cost))
    }

    fn stacked(&self, calls: &[Call]) -> Result<Vec<(State, Cost)>> {
        if calls.len() < 2 {
            return Err(Error::unsupported("stacking", "two calls"));
        }
        let states: Vec<State> = calls.iter().map(|c| c.x.clone()).collect();
        let x = State::cat(&states)?;
        let levels: Vec<_> = calls.iter().map(|c| (c.at.clone(), c.x.batch())).collect();
        let at = Levels::cat(&levels)?;
        let cond = Cond::cat(&calls.iter().map(|c| &c.cond).collect::<Vec<_>>())?;
        let rows = calls.iter().flat_map(|c| c.pass.rows.iter().copied()).collect();
        let taps = calls.iter().flat_map(|c| {
            let requests: Vec<u64> = c.pass.rows.iter().map(|r| r.request).collect();
            let own = move |t: &SharedTap| SharedTap::new(Only::new(requests.clone(), t.clone()));
            c.pass.taps().iter().map(own).collect::<Vec<_>>()
        });
        let mut pass = Pass::new(rows, taps.collect());
        let x0 = self.model.x0(&x, &at, &cond, &mut pass)?;
        let total = pass.rows.len().max(1);
        let (forward, backward) = (pass.cost.forward / total, pass.cost.backward / total);
        let mut start = 0;
        let part = |call: &Call| {
            let batch = call.x.batch();
            let rows: Vec<usize> = (start..start + batch).collect();
            start += batch;
            let mut cost = call.pass.cost;
            cost.forward += forward * batch;
            cost.backward += backward * batch;
            (x0.select(&rows), cost)
        };
        Ok(calls.iter().map(part).collect())
    }
}

/// One run's place at a [`Batched`] network.
pub struct Seat<'t, 'm> {
    table: &'t Batched<'m>,
    index: usize,
}

impl Denoiser for Seat<'_, '_> {
    fn is_told_guidance(&self) -> bool {
        self.table.model.is_told_guidance()
    }

    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let mut gather = self.table.lock();
        let call = Call { x: x.clone(), at: at.clone(), cond: cond.clone(), pass: pass.clone() };
        gather.waiting[self.index] = Some(call);
        self.table.answer_if_complete(&mut gather);
        loop {
            if let Some(answer) = gather.answers[self.index].take() {
                let (x0, cost) = answer?;
                pass.cost = cost;
                return Ok(x0);
            }
            gather = self.table.answered.wait(gather).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Seat<'_, '_> {
    fn drop(&mut self) {
        let mut gather = self.table.lock();
        gather.active -= 1;
        self.table.answer_if_complete(&mut gather);
    }
}
