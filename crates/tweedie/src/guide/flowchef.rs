//! FlowChef: where paths are straight, the loss at the estimate says where to push the state, and the
//! network is not asked for its gradient.
//!
//! Patel et al., "Steering Rectified Flow Models in the Vector Field for Controlled Image Generation",
//! 2024, [arXiv:2412.00100](https://arxiv.org/abs/2412.00100), Algorithm 1.
//!
//! ```text
//! x0   = x - t v(x)
//! p    = 0, then `inner` times:  p = p + scale grad r(x0 + p)
//! x_t' = x_t + (alpha_t + sigma_t) p             after the step, which goes along the old v
//! ```
//!
//! Scaled by `alpha + sigma` every path without a second endpoint is the straight one, so that the rule
//! holds on each; how well it works hangs on how straight the model's own trajectories are. The
//! authors' losses are means over all numbers with scales to match; rewards here are sums. No push
//! follows the last step.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::guide::push::{Push, followed};
use crate::guide::{Entry, Guide, number};
use crate::level::{Level, Levels};
use crate::reward::gradient;
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "flowchef",
    seam: Seam::Guide,
    title: "Steering Rectified Flow Models in the Vector Field for Controlled Image Generation",
    source: "2412.00100",
    year: 2024,
    what: "the state pushed by the loss at the estimate, without the network's gradient",
    aliases: &[],
    ledger: "flowchef",
    parts: &[],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(Flowchef::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of FlowChef.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The step of the push, for a reward that is a sum. The default, 0.5, goes half the way to a
    /// measurement that is met exactly.
    pub scale: f64,
    /// Pushes of a step. The default, 1, is the paper's.
    pub inner: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { scale: 0.5, inner: 1 }
    }
}

/// FlowChef.
#[derive(Clone, Debug)]
pub struct Flowchef {
    settings: Settings,
    push: Push,
}

impl Flowchef {
    /// A guide.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        number("flowchef:scale", settings.scale)?;
        if !(1..=1000).contains(&settings.inner) {
            let why = format!("{}, wanted 1 to 1000", settings.inner);
            return Err(Error::setting("flowchef:inner", why));
        }
        Ok(Self { settings, push: Push::default() })
    }
}

impl Guide for Flowchef {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let reward = followed("flowchef", cond)?;
        if reward.reads_noise() {
            return Err(Error::unsupported("flowchef", "a reward of clean samples"));
        }
        let x0 = model.x0(x, at, cond, pass)?;
        if self.push.is_open() {
            let clean = Levels::One(Level::CLEAN);
            let mut moved = x0.clone();
            for _ in 0..self.settings.inner {
                let along = gradient("flowchef", reward, &moved, &clean)?;
                moved = moved + along * self.settings.scale;
            }
            self.push.keep(at, moved - x0.clone());
        }
        Ok(x0)
    }

    fn settled(&mut self, from: Level, to: Level, after: State) -> Result<State> {
        match self.push.take("flowchef", from, &after)? {
            Some(along) if to.sigma > 0.0 => Ok(after + along * (to.alpha + to.sigma)),
            _ => Ok(after),
        }
    }

    fn reset(&mut self) {
        self.push.clear();
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::Device;

    use super::*;
    use crate::guide::testing::Says;
    use crate::noise::Silent;
    use crate::process::Flow;
    use crate::process::Process;
    use crate::reward::Linear;
    use crate::run::{Parts, Run, Unwatched};
    use crate::sampler::Euler;

    /// On the straight path a step is `x + (s - t) v` and the push, and the network runs forward only.
    #[test]
    fn a_step_is_the_papers() {
        let model = Says([1.0, 2.0], [0.5, 3.0]);
        let flow = Flow::default();
        let (s, t) = (flow.at(0.6), flow.at(0.4));
        let x = State::from_f64(vec![0.1, -0.2], &[1, 2], &Device::flex()).unwrap();
        let settings = Settings { scale: 0.2, inner: 3 };
        let cond = Cond {
            reward: Some(Arc::new(Linear::new(vec![1.0, -2.0]))),
            ..Cond::of_class(vec![0])
        };
        let parts = Parts {
            model: &model,
            process: &flow,
            levels: vec![s, t],
            sampler: Box::new(Euler::default()),
            guides: vec![Box::new(Flowchef::new(settings).unwrap())],
            taps: Vec::new(),
            noise: Box::new(Silent),
            cond,
            requests: vec![0],
        };
        let (end, cost) = Run::new(parts, x).unwrap().finish(&mut Unwatched).unwrap();
        assert_eq!((cost.forward, cost.backward), (1, 0));
        for (i, found) in end.to_rows().concat().into_iter().enumerate() {
            let (x, x0) = ([0.1, -0.2][i], [1.0, 2.0][i]);
            let v = (x - x0) / 0.6;
            let wanted = x - 0.2 * v + 0.6 * [1.0, -2.0][i];
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
    }
}
