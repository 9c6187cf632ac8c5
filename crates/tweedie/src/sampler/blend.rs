//! A part of the state kept: every step ends with the known part at the level that was reached.
//!
//! Avrahami, Fried and Lischinski, "Blended Latent Diffusion", 2022,
//! [arXiv:2206.02779](https://arxiv.org/abs/2206.02779), section 3.2, algorithm 1; what diffusers'
//! inpainting pipeline does for networks that were not trained to inpaint. Every sampler can be
//! wrapped so.
//!
//! ```text
//! x_to = mask * step(x) + (1 - mask) * (alpha_to known + sigma_to eps),   eps the same at every step
//! ```
//!
//! After the last step the known part is put in clean, whatever level the grid ends at. What a step
//! evaluates on its way, at another level than it starts from, is seen with the known part at that
//! level too, or at the one that the sampler names ([`Sampler::kept_on_the_way`]).

use crate::error::Result;
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::sampler::{Claims, Estimate, Eval, Sampler, Step};
use crate::state::State;

/// A sampler that repaints where the mask is 1 and keeps where it is 0.
#[derive(Debug)]
pub struct Blend {
    inner: Box<dyn Sampler>,
    /// 1 where the sampler's result counts; of the state's shape.
    mask: State,
    /// The clean sample that is kept.
    known: State,
    /// The noise that the known part is seen under.
    eps: State,
}

impl Blend {
    /// Wraps a sampler; all states have the shape of the run's.
    pub fn new(inner: Box<dyn Sampler>, mask: State, known: State, eps: State) -> Self {
        Self { inner, mask, known, eps }
    }
}

/// The network as the wrapped sampler sees it: what is asked on the way has the known part in it.
struct Between<'a> {
    eval: &'a mut dyn Eval,
    mask: &'a State,
    known: &'a State,
    eps: &'a State,
    /// Where the step starts: there it is in it already.
    from: Level,
    /// Where the known part stands on the way; `None` is the evaluation's own level.
    kept: Option<Level>,
}

impl Between<'_> {
    fn seen(&self, x: &State, at: &Levels) -> State {
        match at {
            Levels::One(level) if *level != self.from => {
                let Self { mask, known, eps, .. } = *self;
                // As much noise as the other level has, in the scale of the state.
                let sigma = self.kept.map_or(level.sigma, |kept| level.alpha * kept.sigma_edm());
                blended(x.clone(), mask, known, eps, (level.alpha, sigma))
            }
            _ => x.clone(),
        }
    }
}

impl Eval for Between<'_> {
    fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
        self.eval.x0(&self.seen(x, at), at)
    }

    fn estimate(&mut self, x: &State, level: Level) -> Result<Estimate> {
        self.eval.estimate(&self.seen(x, &Levels::One(level)), level)
    }

    fn jump(&mut self, x: &State, from: Level, to: Level) -> Result<Option<State>> {
        self.eval.jump(&self.seen(x, &Levels::One(from)), from, to)
    }
}

/// `x` where the mask is 1, and `alpha known + sigma eps` where it is 0.
fn blended(
    x: State,
    mask: &State,
    known: &State,
    eps: &State,
    (alpha, sigma): (f64, f64),
) -> State {
    let kept = known.clone() * alpha + eps.clone() * sigma;
    kept.clone() + (x - kept).zip(mask, |x, mask| x * mask)
}

impl Sampler for Blend {
    fn claims(&self) -> Claims {
        self.inner.claims()
    }

    fn reset(&mut self) {
        self.inner.reset();
    }

    fn enter(&mut self, levels: &[Level], first: usize) -> usize {
        self.inner.enter(levels, first)
    }

    fn kept_on_the_way(&self, step: &Step<'_>) -> Option<Level> {
        self.inner.kept_on_the_way(step)
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        let Self { inner, mask, known, eps } = self;
        let kept = inner.kept_on_the_way(step);
        let mut between = Between { eval, mask, known, eps, from: step.from, kept };
        let x = inner.step(&mut between, x, step, noise)?;
        let to = if step.index + 1 == step.count { Level::CLEAN } else { step.to };
        Ok(blended(x, mask, known, eps, (to.alpha, to.sigma)))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(Self {
            inner: self.inner.fork(),
            mask: self.mask.clone(),
            known: self.known.clone(),
            eps: self.eps.clone(),
        })
    }

    fn select(&mut self, rows: &[usize]) {
        self.inner.select(rows);
        for state in [&mut self.mask, &mut self.known, &mut self.eps] {
            *state = state.select(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::level::Levels;
    use crate::noise::Silent;
    use crate::process::{Process, VpLinear};
    use crate::sampler::{Ddim, dpm2::Dpm2, heun::Heun};

    /// Says that everything is 5.
    struct Fives;

    impl Eval for Fives {
        fn x0(&mut self, x: &State, _at: &Levels) -> Result<State> {
            Ok(x.map(|x| x * 0.0 + 5.0))
        }
    }

    fn row(values: [f64; 2]) -> State {
        State::from_f64(values.to_vec(), &[1, 2], &Device::flex()).unwrap()
    }

    #[test]
    fn the_kept_part_is_on_the_path_and_ends_clean() {
        let levels = [Level::vp(0.9, -2.0), Level::vp(0.4, 0.5), Level::vp(0.1, 2.0)];
        let inner = Box::new(Ddim::default());
        let (mask, known, eps) = (row([1.0, 0.0]), row([8.0, 9.0]), row([0.3, -0.7]));
        let mut sampler = Blend::new(inner, mask, known, eps);
        let mut x = row([0.1, 0.2]);
        for index in 0..2 {
            let (from, to) = (levels[index], levels[index + 1]);
            let step = Step { from, to, index, count: 2, process: &VpLinear::default() };
            let alone = Ddim::default().step(&mut Fives, x.clone(), &step, &mut Silent).unwrap();
            x = sampler.step(&mut Fives, x, &step, &mut Silent).unwrap();
            let (found, alone) = (x.to_rows().concat(), alone.to_rows().concat());
            assert!((found[0] - alone[0]).abs() < 1e-12, "the painted part is the sampler's");
            let kept = if index == 1 { 9.0 } else { 9.0 * to.alpha - 0.7 * to.sigma };
            assert!((found[1] - kept).abs() < 1e-12, "{} {kept}", found[1]);
        }
    }

    /// Remembers what was evaluated last.
    struct Last(Vec<f64>, Level);

    impl Eval for Last {
        fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
            let Levels::One(level) = at else { panic!("one level") };
            *self = Self(x.to_rows().concat(), *level);
            Ok(x.clone() * 0.5)
        }
    }

    #[test]
    fn the_kept_part_on_the_way_stands_where_the_sampler_says() {
        let process = VpLinear::default();
        let (from, to) = (process.at_lambda(-1.0), process.at_lambda(0.5));
        let step = Step { from, to, index: 0, count: 2, process: &process };
        let own: [(Box<dyn Sampler>, f64); 2] = [
            (Box::new(Heun::default()), to.sigma_edm()),
            (Box::new(Dpm2::default()), to.sigma_edm()),
        ];
        for (inner, noise) in own {
            let known = from.alpha * 9.0 - 0.7 * from.sigma;
            let (mask, eps) = (row([1.0, 0.0]), row([0.3, -0.7]));
            let mut sampler = Blend::new(inner, mask, row([8.0, 9.0]), eps);
            let mut last = Last(Vec::new(), from);
            sampler.step(&mut last, row([0.1, known]), &step, &mut Silent).unwrap();
            let Last(seen, at) = last;
            assert!(at != from, "a second evaluation");
            let wanted = at.alpha * (9.0 - 0.7 * noise);
            assert!((seen[1] - wanted).abs() < 1e-9, "{} {wanted}", seen[1]);
        }
    }
}
