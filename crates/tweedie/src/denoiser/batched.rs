//! Several runs share the calls of one network, and none of them knows.
//!
//! Each run walks in a thread of its own and asks through its [`Seat`]; when every run that has a
//! seat has asked, stacked calls answer all of them. Steps, levels, samplers, guides and taps may all
//! differ between the runs, and runs come and go as they like. Because no row's result depends on its
//! batch, each run gets what it would get alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::denoiser::{Cond, Cost, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::state::State;
use crate::tap::{Only, SharedTap};

/// A network whose calls are gathered over several runs.
pub struct Batched<D> {
    model: D,
    /// The most numbers of state in a stacked call.
    room: usize,
    gather: Mutex<Gather>,
    answered: Condvar,
}

#[derive(Default)]
struct Gather {
    seats: BTreeMap<u64, Slot>,
    next: u64,
    /// Calls so far, and their rows.
    calls: [u64; 2],
}

/// What a run with a seat is doing.
enum Slot {
    /// Something else; it is waited for.
    Away,
    /// It has asked.
    Asked(Box<Call>),
    /// Its answer lies there.
    Answered(Box<Result<(State, Cost)>>),
}

struct Call {
    x: State,
    at: Levels,
    cond: Cond,
    pass: Pass,
}

impl Call {
    /// Numbers of its state, all rows together.
    fn numbers(&self) -> usize {
        self.x.segments().iter().map(|s| s.shape().iter().product::<usize>()).sum()
    }

    /// Whether the two can be rows of one call, by the shapes of what they hold.
    fn goes_with(&self, other: &Self) -> bool {
        fn shapes(x: &State) -> Vec<(&str, &[usize])> {
            x.segments().iter().map(|s| (s.name(), &s.shape()[1..])).collect()
        }
        fn both<T>(a: Option<&T>, b: Option<&T>, same: impl Fn(&T, &T) -> bool) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => same(a, b),
                (None, None) => true,
                _ => false,
            }
        }
        let same = |a: &State, b: &State| shapes(a) == shapes(b) && a.dtype() == b.dtype();
        let (a, b) = (&self.cond, &other.cond);
        same(&self.x, &other.x)
            && a.class.is_some() == b.class.is_some()
            && a.guidance.is_some() == b.guidance.is_some()
            && both(a.context.as_ref(), b.context.as_ref(), |a, b| a.dims()[1..] == b.dims()[1..])
            && both(a.context_mask.as_ref(), b.context_mask.as_ref(), |a, b| {
                a.dims()[1..] == b.dims()[1..]
            })
            && both(a.vector.as_ref(), b.vector.as_ref(), |a, b| a.dims()[1] == b.dims()[1])
            && both(a.endpoint.as_ref(), b.endpoint.as_ref(), same)
            && a.fields.len() == b.fields.len()
            && a.fields.iter().zip(&b.fields).all(|((n, a), (m, b))| n == m && same(a, b))
    }
}

impl<D: Denoiser> Batched<D> {
    /// Gathers the calls to `model`, however large they become.
    pub fn new(model: D) -> Self {
        Self::with_room(model, usize::MAX)
    }

    /// Gathers the calls to `model`; the states of no call have more numbers together than `room`,
    /// unless a run asks for more by itself. Activations grow with them.
    pub fn with_room(model: D, room: usize) -> Self {
        Self { model, room, gather: Mutex::default(), answered: Condvar::new() }
    }

    /// The network.
    pub fn model(&self) -> &D {
        &self.model
    }

    /// A place for one run. From here on the others wait for its calls, until it is dropped: it is
    /// taken when the run begins to walk, and given back when it has walked.
    pub fn seat(&self) -> Seat<'_, D> {
        let mut gather = self.lock();
        let number = gather.next;
        gather.next += 1;
        gather.seats.insert(number, Slot::Away);
        Seat { table: self, number }
    }

    /// Calls to the network so far, and their rows.
    pub fn calls(&self) -> [u64; 2] {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, Gather> {
        self.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers everybody if everybody who has a seat has asked.
    fn answer_if_complete(&self, gather: &mut Gather) {
        if gather.seats.is_empty() || gather.seats.values().any(|s| !matches!(s, Slot::Asked(_))) {
            return;
        }
        let mut groups: Vec<Vec<(u64, Box<Call>)>> = Vec::new();
        for (number, slot) in &mut gather.seats {
            let Slot::Asked(call) = std::mem::replace(slot, Slot::Away) else { continue };
            let held = |group: &[(u64, Box<Call>)]| -> usize {
                group.iter().map(|(_, c)| c.numbers()).sum()
            };
            let fits = |group: &&mut Vec<(u64, Box<Call>)>| {
                held(group).saturating_add(call.numbers()) <= self.room
                    && group[0].1.goes_with(&call)
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push((*number, call)),
                None => groups.push(vec![(*number, call)]),
            }
        }
        for group in groups {
            for (number, answer) in self.answer(group, &mut gather.calls) {
                gather.seats.insert(number, Slot::Answered(Box::new(answer)));
            }
        }
        self.answered.notify_all();
    }

    fn answer(
        &self,
        mut group: Vec<(u64, Box<Call>)>,
        calls: &mut [u64; 2],
    ) -> Vec<(u64, Result<(State, Cost)>)> {
        let mut count = |rows: usize| {
            calls[0] += 1;
            calls[1] += rows as u64;
        };
        if group.len() > 1
            && let Ok(answers) = guarded(|| self.stacked(&group))
        {
            count(group.iter().map(|(_, c)| c.x.batch()).sum());
            return group
                .iter()
                .map(|(number, _)| *number)
                .zip(answers.into_iter().map(Ok))
                .collect();
        }
        // What cannot be stacked, and what fails, is asked alone: each gets its own error.
        let alone = |(number, call): &mut (u64, Box<Call>)| {
            count(call.x.batch());
            (*number, guarded(|| self.alone(call)))
        };
        group.iter_mut().map(alone).collect()
    }

    fn alone(&self, call: &mut Call) -> Result<(State, Cost)> {
        let x0 = self.model.x0(&call.x, &call.at, &call.cond, &mut call.pass)?;
        Ok((x0, call.pass.cost))
    }

    fn stacked(&self, group: &[(u64, Box<Call>)]) -> Result<Vec<(State, Cost)>> {
        let calls = || group.iter().map(|(_, call)| call);
        let states: Vec<State> = calls().map(|c| c.x.clone()).collect();
        let x = State::cat(&states)?;
        let levels: Vec<_> = calls().map(|c| (c.at.clone(), c.x.batch())).collect();
        let at = Levels::cat(&levels)?;
        let cond = Cond::cat(&calls().map(|c| &c.cond).collect::<Vec<_>>())?;
        let rows = calls().flat_map(|c| c.pass.rows.iter().copied()).collect();
        let taps = calls().flat_map(|c| {
            let requests: Vec<u64> = c.pass.rows.iter().map(|r| r.request).collect();
            let own = move |t: &SharedTap| SharedTap::new(Only::new(requests.clone(), t.clone()));
            c.pass.taps().iter().map(own).collect::<Vec<_>>()
        });
        let mut pass = Pass::new(rows, taps.collect());
        let x0 = self.model.x0(&x, &at, &cond, &mut pass)?;
        let total = pass.rows.len().max(1);
        let (forward, backward) = (pass.cost.forward / total, pass.cost.backward / total);
        let mut start = 0;
        let mut part = |call: &Call| {
            let batch = call.x.batch();
            let rows: Vec<usize> = (start..start + batch).collect();
            start += batch;
            let mut cost = call.pass.cost;
            cost.forward += forward * batch;
            cost.backward += backward * batch;
            (x0.select(&rows), cost)
        };
        Ok(calls().map(|call| part(call)).collect())
    }
}

/// A panic in one call must not leave the others waiting for ever.
fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Error::unsupported("the network", "a call that does not panic")))
}

/// One run's place at a [`Batched`] network.
pub struct Seat<'t, D: Denoiser> {
    table: &'t Batched<D>,
    number: u64,
}

impl<D: Denoiser> Seat<'_, D> {
    /// A number that no other seat of this network has or had.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl<D: Denoiser> Denoiser for Seat<'_, D> {
    fn is_told_guidance(&self) -> bool {
        self.table.model.is_told_guidance()
    }

    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let mut gather = self.table.lock();
        let call = Call { x: x.clone(), at: at.clone(), cond: cond.clone(), pass: pass.clone() };
        gather.seats.insert(self.number, Slot::Asked(Box::new(call)));
        self.table.answer_if_complete(&mut gather);
        loop {
            if let Some(slot) = gather.seats.get_mut(&self.number)
                && matches!(slot, Slot::Answered(_))
                && let Slot::Answered(answer) = std::mem::replace(slot, Slot::Away)
            {
                let (x0, cost) = (*answer)?;
                pass.cost = cost;
                return Ok(x0);
            }
            gather = self.table.answered.wait(gather).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn jump(
        &self,
        x: &State,
        from: Level,
        to: Level,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<Option<State>> {
        // Networks that are told where to go are asked alone.
        self.table.model.jump(x, from, to, cond, pass)
    }
}

impl<D: Denoiser> Drop for Seat<'_, D> {
    fn drop(&mut self) {
        let mut gather = self.table.lock();
        gather.seats.remove(&self.number);
        self.table.answer_if_complete(&mut gather);
    }
}
