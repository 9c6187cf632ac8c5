//! What one evaluation carries besides its input: who asks, what listens in, what it costs.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

use crate::denoiser::Memo;
use crate::error::Result;
use crate::level::{Level, Levels};
use crate::state::State;
use crate::tap::{Features, SharedTap, Site, Verdict};

/// Which of a guide's evaluations a row belongs to; caches keep one memory for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Branch {
    /// With the condition.
    Cond,
    /// Without it, or with the negative one.
    Uncond,
    /// With a weaker or perturbed network.
    Weak,
    /// One of several conditions of a composition.
    Part(u16),
    /// The same branch of a second model.
    Second(SecondOf),
}

/// Which branch of a second model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecondOf {
    /// With the condition.
    Cond,
    /// Without it, or with the negative one.
    Uncond,
    /// With a weaker or perturbed network.
    Weak,
    /// One of several conditions of a composition.
    Part(u16),
}

impl Branch {
    /// The same branch of a second model.
    #[must_use]
    pub fn of_second(self) -> Self {
        Self::Second(match self {
            Self::Cond => SecondOf::Cond,
            Self::Uncond => SecondOf::Uncond,
            Self::Weak => SecondOf::Weak,
            Self::Part(part) => SecondOf::Part(part),
            Self::Second(same) => same,
        })
    }
}

/// One row of a call: a request at one of its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Which sample of which run; state that a tap keeps belongs to (request, branch, site).
    pub request: u64,
    /// Which evaluation of the step.
    pub branch: Branch,
    /// The step of its run.
    pub step: usize,
    /// How many steps its run has.
    pub steps: usize,
    /// Its level.
    pub level: Level,
}

/// What a run has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Forward evaluations of a network, a row each.
    pub forward: usize,
    /// Backward evaluations, a row each.
    pub backward: usize,
}

/// What one evaluation carries besides its input.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// One entry a row of the batch.
    pub rows: Vec<Row>,
    /// What the evaluations have cost so far.
    pub cost: Cost,
    /// Ask one branch after the other instead of stacking them into one call.
    pub sequential: bool,
    /// The estimate before a guide corrected it by a rule of the numbers alone (clipping): samplers
    /// that want the direction of the noise take it from here.
    pub uncorrected: Option<State>,
    /// The estimate whose noise a step has to go on along, where a guide tells it apart from the
    /// guided one; a sampler that cannot is an error.
    pub apart: Option<State>,
    taps: Vec<SharedTap>,
    /// What the run remembers of its conditions, and the levels of its grid.
    memo: Option<(Arc<Mutex<Memo>>, Arc<[Level]>)>,
}

impl Pass {
    /// A pass over `batch` rows of one request at one level.
    pub fn single(batch: usize, level: Level) -> Self {
        let row = |i| Row { request: i, branch: Branch::Cond, step: 0, steps: 1, level };
        Self { rows: (0..batch as u64).map(row).collect(), ..Self::default() }
    }

    /// A pass over the given rows with these taps, outermost first.
    pub fn new(rows: Vec<Row>, taps: Vec<SharedTap>) -> Self {
        Self { rows, taps, ..Self::default() }
    }

    /// The same with the memory of its run, whose grid is `levels`: projections of conditions and
    /// times are then computed once a run.
    #[must_use]
    pub fn remembering(self, memo: Arc<Mutex<Memo>>, levels: Arc<[Level]>) -> Self {
        Self { memo: Some((memo, levels)), ..self }
    }

    /// Says how the network that is asked next counts its time.
    pub(crate) fn tell_times(&self, time: impl Fn(Level) -> f64) {
        if let Some((memo, levels)) = &self.memo {
            let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
            memo.expect(levels.iter().map(|level| time(*level)));
        }
    }

    /// `embed` of the times `now`, one a row; with the memory of a run it may be asked once for those
    /// of later steps too, batch behind batch. `layer` tells apart who asks.
    ///
    /// # Errors
    ///
    /// What `embed` says.
    pub(crate) fn embedded<L>(
        &self,
        layer: &L,
        now: &[f64],
        embed: impl Fn(&[f64]) -> Result<Tensor<2>>,
    ) -> Result<Tensor<2>> {
        let Some((memo, _)) = &self.memo else { return embed(now) };
        let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
        memo.embedded(std::ptr::from_ref(layer).addr(), now, embed)
    }

    /// `f` of each row of an embedded time, remembered over a run for the layer.
    pub(crate) fn of_rows<L>(
        &self,
        layer: &L,
        x: Tensor<2>,
        f: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let Some((memo, _)) = &self.memo else { return f(x) };
        let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
        memo.rows(std::ptr::from_ref(layer).addr(), x, f)
    }

    /// What `f` makes of a sequence `[batch, tokens, channels]`, remembered over a run for the layer.
    pub(crate) fn of_sequence<L>(
        &self,
        layer: &L,
        x: Tensor<3>,
        f: impl Fn(Tensor<3>) -> [Tensor<3>; 2],
    ) -> [Tensor<3>; 2] {
        let Some((memo, _)) = &self.memo else { return f(x) };
        let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
        memo.sequence(std::ptr::from_ref(layer).addr(), x, f)
    }

    /// The taps, outermost first.
    pub fn taps(&self) -> &[SharedTap] {
        &self.taps
    }

    /// Counts a forward evaluation of every row.
    pub fn count_forward(&mut self) {
        self.cost.forward += self.rows.len();
    }

    /// Counts a backward evaluation of every row.
    pub fn count_backward(&mut self) {
        self.cost.backward += self.rows.len();
    }

    /// Runs `f` with all rows on one branch and at the given levels.
    pub fn on_branch<T>(
        &mut self,
        branch: Branch,
        at: &Levels,
        f: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let saved = self.rows.clone();
        for (i, row) in self.rows.iter_mut().enumerate() {
            row.branch = branch;
            row.level = at.row(i);
        }
        let result = f(self);
        self.rows = saved;
        result
    }

    /// Runs `f` over other rows.
    pub fn over_rows<T>(
        &mut self,
        rows: Vec<Row>,
        f: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let saved = std::mem::replace(&mut self.rows, rows);
        let result = f(self);
        self.rows = saved;
        result
    }

    /// Runs `f` with one more tap, inside the others; how a guide perturbs its weak branch.
    pub fn lend<T>(&mut self, tap: SharedTap, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.taps.push(tap);
        let result = f(self);
        self.taps.pop();
        result
    }

    /// Whether some tap acts at this site.
    pub fn wants(&self, site: &Site) -> bool {
        self.taps.iter().any(|t| t.lock().wants(site))
    }

    /// Whether some tap wants the attention map of this site, which costs memory.
    pub fn needs_map(&self, site: &Site) -> bool {
        self.taps.iter().any(|t| t.lock().needs_map(site))
    }

    /// Announces a site: `compute` runs for the rows whose taps do not supply the result.
    ///
    /// Without taps this is the call and nothing else.
    ///
    /// # Errors
    ///
    /// What `compute` or a tap says.
    pub fn at(
        &mut self,
        site: &Site,
        input: Features,
        compute: impl FnMut(&mut Self, Features) -> Result<Features>,
    ) -> Result<Features> {
        let mut compute = compute;
        if self.taps.is_empty() {
            return compute(self, input);
        }
        self.around(0, site, input, &mut compute)
    }

    fn around(
        &mut self,
        depth: usize,
        site: &Site,
        input: Features,
        compute: &mut dyn FnMut(&mut Self, Features) -> Result<Features>,
    ) -> Result<Features> {
        let Some(tap) = self.taps.get(depth).cloned() else {
            return compute(self, input);
        };
        // A lock is never held across `compute`: the tap may act at sites inside this one.
        if !tap.lock().wants(site) {
            return self.around(depth + 1, site, input, compute);
        }
        let verdicts = tap.lock().decide(site, &self.rows, &input)?;
        let supplied: Vec<usize> = rows_with(&verdicts, Verdict::Supply);
        if supplied.is_empty() {
            return self.through(depth, &tap, site, input, compute);
        }
        let rows: Vec<Row> = supplied.iter().map(|&r| self.rows[r]).collect();
        let given = tap.lock().supply(site, &rows, input.select(&supplied))?;
        let computed = rows_with(&verdicts, Verdict::Compute);
        if computed.is_empty() {
            return Ok(given);
        }
        let rows = computed.iter().map(|&r| self.rows[r]).collect();
        let part = input.select(&computed);
        let made = self.over_rows(rows, |pass| pass.through(depth, &tap, site, part, compute))?;
        Features::merge(&computed, &made, &supplied, &given)
    }

    fn through(
        &mut self,
        depth: usize,
        tap: &SharedTap,
        site: &Site,
        input: Features,
        compute: &mut dyn FnMut(&mut Self, Features) -> Result<Features>,
    ) -> Result<Features> {
        let input = tap.lock().before(site, &self.rows, input)?;
        let output = self.around(depth + 1, site, input, compute)?;
        tap.lock().after(site, &self.rows, output)
    }
}

fn rows_with(verdicts: &[Verdict], wanted: Verdict) -> Vec<usize> {
    let hits = verdicts.iter().enumerate().filter(|(_, v)| **v == wanted);
    hits.map(|(i, _)| i).collect()
}
