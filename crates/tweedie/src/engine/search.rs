//! A search over the candidates of one picture.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::catalog::Seam;
use crate::denoiser::{Cond, Denoiser};
use crate::engine::generate::parts_of;
use crate::engine::open::Model;
use crate::engine::sizes;
use crate::engine::task::Plan;
use crate::error::{Error, Result};
use crate::process::Process;
use crate::run::Observer;
use crate::search::{self, Found, Ground};
use crate::spec::Spec;
use crate::state::State;

/// What the candidates of a picture have in common.
pub(super) struct Searched<'a> {
    pub(super) model: &'a Model,
    pub(super) spec: &'a Spec,
    pub(super) plan: &'a Plan,
    pub(super) process: &'a dyn Process,
    pub(super) denoiser: &'a dyn Denoiser,
    /// What requests are called from.
    pub(super) names: u64,
}

impl Searched<'_> {
    /// The best of picture `k`, whose condition is `cond`, of one row.
    ///
    /// # Errors
    ///
    /// What a part says; [`Error::Unsupported`] for runs that do not begin with noise.
    pub(super) fn picture(
        &self,
        part: &crate::spec::PartSpec,
        k: usize,
        cond: &Cond,
        observer: &mut dyn Observer,
    ) -> Result<Found> {
        if self.plan.has_picture() {
            let needs = "a run that begins with noise, and no picture to start from";
            return Err(Error::unsupported(&part.name, needs));
        }
        let Some(reward) = cond.reward.clone() else {
            return Err(Error::unsupported(&part.name, "a reward to choose by"));
        };
        let [channels, height, width] = self.plan.shape;
        let shape = [1, channels, height, width];
        let like = State::new(Tensor::<4>::zeros(shape, self.model.device()));
        let size = [height, width].map(|side| side * self.model.scale());
        let parts = |rows: Range<usize>, steps: Option<usize>| {
            let spec = match steps {
                Some(steps) => &Spec { steps, ..self.spec.clone() },
                None => self.spec,
            };
            let alike = vec![0; rows.len()];
            let cond = cond.select(&alike);
            let mut parts =
                parts_of(self.model, self.denoiser, spec, self.process, cond, k, k + 1)?;
            // Candidate 0 draws as the picture would without a search.
            parts.noise.select(&vec![0; rows.end]);
            parts.noise.select(&rows.clone().collect::<Vec<_>>());
            parts.requests = rows.map(|row| self.names + row as u64).collect();
            sizes::tell(&mut parts.cond, &*self.model.denoiser.network, size)?;
            self.plan.show_hints(&mut parts.cond, alike.len());
            Ok(parts)
        };
        let room = self.spec.batch.max(1);
        let ground = Ground { parts: &parts, like, reward, room };
        part.make(search::entries(), Seam::Search)?.search(&ground, observer)
    }
}
