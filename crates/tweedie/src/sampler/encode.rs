//! The noise that leads a sampler along a given path: each step goes where the path goes, and what it
//! would have had to draw is written onto a tape.
//!
//! A step of the wrapped sampler is `x_to = mean + std z` ([`Gaussian`]). The path's next state being
//! known, `z = (x_to - mean) / std`. The state goes on as `mean + std z`, so that rounding does not add
//! up. At the end the path is at the clean sample. A last step that draws nothing cannot be led there:
//! it returns its mean, and who walks notes what it leaves out.

use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::noise::{Noise, Tape};
use crate::sampler::{Claims, Eval, Gaussian, Sampler, Step};
use crate::state::State;

/// Which path from the clean sample to noise is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A draw of the sampler's own process given the clean sample: each state follows from the one
    /// before, and the noises of a step are independent of each other (Wu and De la Torre 2022).
    Posterior,
    /// Every state noised by itself: the noises of neighbouring steps are opposed, and larger
    /// (Huberman-Spiegelglas et al. 2023).
    Independent,
}

/// A sampler that is led along a path.
#[derive(Debug)]
pub struct Encode {
    inner: Box<dyn Sampler>,
    x0: State,
    path: Path,
    tape: Tape,
}

impl Encode {
    /// Leads `inner` to `x0` and writes its noises onto `tape`.
    pub fn new(inner: Box<dyn Sampler>, x0: State, path: Path, tape: &Tape) -> Self {
        Self { inner, x0, path, tape: tape.clone() }
    }

    fn gaussian(&mut self) -> Result<&mut dyn Gaussian> {
        let needs = "a sampler whose step is one draw: ddim, ddpm or euler-ancestral";
        self.inner.gaussian().ok_or_else(|| Error::unsupported("a tape of noises", needs))
    }

    /// The state that the path has at the end of the step.
    fn target(&mut self, x: &State, step: &Step<'_>, noise: &mut dyn Noise) -> Result<State> {
        if step.is_last() {
            return Ok(self.x0.clone());
        }
        match self.path {
            Path::Posterior => {
                let mut known = Known(self.x0.clone());
                self.gaussian()?.moments(&mut known, x, step)?.drawn(step.from, noise)
            }
            Path::Independent => {
                Ok(self.x0.clone() * step.to.alpha + noise.draw(&self.x0)? * step.to.sigma)
            }
        }
    }
}

/// Knows the clean sample.
struct Known(State);

impl Eval for Known {
    fn x0(&mut self, _x: &State, _at: &Levels) -> Result<State> {
        Ok(self.0.clone())
    }
}

impl Sampler for Encode {
    fn claims(&self) -> Claims {
        self.inner.claims()
    }

    fn reset(&mut self) {
        self.inner.reset();
    }

    fn enter(&mut self, levels: &[Level], first: usize) -> usize {
        self.inner.enter(levels, first)
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let target = self.target(&x, step, noise)?;
        let moments = self.gaussian()?.moments(eval, &x, step)?;
        if moments.std == 0.0 {
            if step.is_last() {
                return Ok(moments.mean);
            }
            let needs = "steps that draw noise; with eta = 0 there is none to solve for";
            return Err(Error::unsupported("a tape of noises", needs));
        }
        let z = (target - moments.mean.clone()) * (1.0 / moments.std);
        self.tape.push(z.clone());
        Ok(moments.mean + z * moments.std)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        let tape = Tape::new();
        self.tape.draws().into_iter().for_each(|draw| tape.push(draw));
        Box::new(Self { inner: self.inner.fork(), x0: self.x0.clone(), path: self.path, tape })
    }

    fn select(&mut self, rows: &[usize]) {
        self.inner.select(rows);
        self.x0 = self.x0.select(rows);
        self.tape.edit(|_, draw| draw.select(rows));
    }
}
