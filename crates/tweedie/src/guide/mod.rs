//! Guides: combine or correct evaluations of the denoiser.

use std::fmt::Debug;
use std::sync::Arc;

pub mod apg;
pub mod autoguidance;
pub mod cfg;
pub mod cfg_pp;
pub mod cfg_rescale;
pub mod cfg_zero_star;
pub mod classifier_guidance;
pub mod clip;
pub mod compose;
pub mod distilled;
pub mod dynamic_threshold;
pub mod elucd;
pub mod flowchef;
mod guided;
pub mod instruct;
pub mod interval;
mod memory;
pub mod minority_guidance;
pub mod pag;
mod push;
pub mod seg;
pub mod skip_layers;
pub mod steered_diffusion;
pub mod superdiff;
pub mod t_stitch;
mod weakened;

pub use apg::Apg;
pub use autoguidance::Autoguidance;
pub use cfg::Cfg;
pub use cfg_pp::CfgPp;
pub use cfg_rescale::CfgRescale;
pub use cfg_zero_star::CfgZeroStar;
pub use classifier_guidance::ClassifierGuidance;
pub use clip::Clip;
pub use compose::Compose;
pub use distilled::Distilled;
pub use dynamic_threshold::DynamicThreshold;
pub use elucd::Elucd;
pub use flowchef::Flowchef;
pub use guided::{Guided, through};
pub use instruct::Instruct;
pub use interval::Interval;
pub use minority_guidance::MinorityGuidance;
pub use pag::Pag;
pub use seg::Seg;
pub use skip_layers::SkipLayers;
pub use steered_diffusion::SteeredDiffusion;
pub use superdiff::Superdiff;
pub use t_stitch::TStitch;

use crate::catalog::{Card, Made};
use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::state::State;

/// Combines or corrects evaluations of the denoiser.
///
/// A guide knows no sampler and no count of steps. Several stand in a row by [`Guided`]: the outer
/// guide's model is the inner guide around the network.
pub trait Guide: Debug + Send {
    /// The guided estimate of the clean sample.
    ///
    /// # Errors
    ///
    /// What the denoiser says; [`crate::Error::Unsupported`] where the guide needs what the model
    /// lacks.
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State>;

    /// Told of every step that was taken: its levels, and the state before and after.
    ///
    /// # Errors
    ///
    /// What the guide's own estimate needs and does not find.
    fn stepped(&mut self, _from: Level, _to: Level, _before: &State, _after: &State) -> Result<()> {
        Ok(())
    }

    /// Moves the state that a step ended with, for guides that push the state itself.
    ///
    /// # Errors
    ///
    /// What the guide's own rule needs and does not find.
    fn settled(&mut self, _from: Level, _to: Level, after: State) -> Result<State> {
        Ok(after)
    }

    /// Forgets the last run.
    fn reset(&mut self) {}

    /// Whether it asks a second model beside the one that it guides, and has none yet.
    fn wants_second(&self) -> bool {
        false
    }

    /// Gives it the second model: one of the same data, on the same path.
    fn give_second(&mut self, _model: Arc<dyn Denoiser>) {}

    /// A copy with its memory, for a forked run.
    fn fork(&self) -> Box<dyn Guide>;

    /// Follows a resampling: row `i` goes on as a descendant of row `rows[i]`.
    fn select(&mut self, _rows: &[usize]) {}
}

/// The second model of a guide that cannot do without.
fn second<'a>(model: Option<&'a Arc<dyn Denoiser>>, owner: &str) -> Result<&'a Arc<dyn Denoiser>> {
    let needs = "a second model of the same data, which the run names or its constructor takes";
    model.ok_or_else(|| Error::unsupported(owner, needs))
}

/// Checks a guidance weight of the part `owner`.
fn weight(owner: &str, weight: f64) -> Result<()> {
    number(&format!("{owner}:weight"), weight)
}

/// Checks a setting that has to be a number.
fn number(key: &str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::setting(key, format!("{value}, wanted a finite number")))
}

/// No guidance: the conditional estimate as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unguided;

impl Guide for Unguided {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        model.x0(x, at, cond, pass)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(*self)
    }
}

/// A guide of the catalogue.
pub type Entry = Made<dyn Guide>;

/// Every guide.
pub(crate) const ENTRIES: &[Entry] = &[
    apg::ENTRY,
    autoguidance::ENTRY,
    cfg::ENTRY,
    cfg_pp::ENTRY,
    cfg_rescale::ENTRY,
    cfg_zero_star::ENTRY,
    classifier_guidance::ENTRY,
    clip::ENTRY,
    compose::ENTRY,
    distilled::ENTRY,
    dynamic_threshold::ENTRY,
    elucd::ENTRY,
    flowchef::ENTRY,
    instruct::ENTRY,
    interval::ENTRY,
    minority_guidance::ENTRY,
    pag::ENTRY,
    seg::ENTRY,
    skip_layers::ENTRY,
    steered_diffusion::ENTRY,
    superdiff::ENTRY,
    t_stitch::ENTRY,
];

/// Every guide of the catalogue, by id.
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}

/// Two numbers a row through a guide, for the tests of special cases.
#[cfg(test)]
pub(crate) mod testing {
    use burn::tensor::Device;

    use super::{Cond, Denoiser, Guide, Level, Levels, Pass, Result, State};
    use crate::tap::{Features, Site, SiteKind};

    /// Says two numbers with a condition and two others without.
    pub(crate) struct Says(pub(crate) [f64; 2], pub(crate) [f64; 2]);

    impl Denoiser for Says {
        fn x0(&self, x: &State, _at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
            pass.count_forward();
            let [a, b] = if cond.class.is_some() { self.0 } else { self.1 };
            x.filled_like(&[a, b].repeat(x.batch()))
        }
    }

    /// The guided numbers of one row with a class, and what they cost.
    pub(crate) fn ask(guide: &mut dyn Guide, model: &dyn Denoiser, at: Level) -> (Vec<f64>, usize) {
        let x = State::from_f64(vec![0.1, -0.2], &[1, 2], &Device::flex()).unwrap();
        let mut pass = Pass::single(1, at);
        let cond = Cond::of_class(vec![3]);
        let x0 = guide.x0(model, &x, &Levels::One(at), &cond, &mut pass).unwrap();
        (x0.to_rows().concat(), pass.cost.forward)
    }

    /// Two tokens of one channel through one self-attention, with keys of -1 and 1.
    struct Attends([f64; 2], [f64; 2]);

    impl Denoiser for Attends {
        fn x0(&self, x: &State, _at: &Levels, _: &Cond, pass: &mut Pass) -> Result<State> {
            let tokens = |v: [f64; 2]| {
                let data = burn::tensor::TensorData::new(v.to_vec(), [1, 1, 2, 1]);
                burn::tensor::Tensor::<4>::from_data(data, &Device::flex())
            };
            let site = Site::new("net", "mid_block.attention", SiteKind::Attention, 0);
            let qkv = [tokens(self.0), tokens([-1.0, 1.0]), tokens(self.1)];
            let out = crate::model::attention::attend(pass, &site, qkv, None)?;
            let out = out.into_data().convert::<f64>().try_to_vec::<f64>().unwrap_or_default();
            x.filled_like(&out)
        }
    }

    /// The guided tokens of a network that is one self-attention with these queries and values.
    pub(crate) fn attends(
        guide: &mut dyn Guide,
        queries: [f64; 2],
        values: [f64; 2],
    ) -> Result<Vec<f64>> {
        through(guide, &Attends(queries, values), vec![0.0, 0.0])
    }

    /// One block that adds its input to itself.
    struct Doubles;

    impl Denoiser for Doubles {
        fn x0(&self, x: &State, _at: &Levels, _: &Cond, pass: &mut Pass) -> Result<State> {
            let site = Site::new("net", "blocks.0", SiteKind::Block, 0);
            let input = Features::hidden(x.rows_tensor()?);
            let mut out = pass.at(&site, input, |_, mut input| {
                let hidden: burn::tensor::Tensor<2> = input.take("hidden")?;
                Ok(Features::hidden(hidden.clone() + hidden))
            })?;
            let out: burn::tensor::Tensor<2> = out.take("hidden")?;
            Ok(x.map(|_| out.clone()))
        }
    }

    /// The guided number of a network whose one block doubles it; the second of two evaluations.
    pub(crate) fn blocked(guide: &mut dyn Guide, x: f64) -> Result<f64> {
        Ok(through(guide, &Doubles, vec![x])?[0])
    }

    fn through(guide: &mut dyn Guide, model: &dyn Denoiser, x: Vec<f64>) -> Result<Vec<f64>> {
        let shape = [1, x.len()];
        let x = State::from_f64(x, &shape, &Device::flex())?;
        let at = Level::vp(0.5, 0.0);
        let mut pass = Pass::single(1, at);
        let x0 = guide.x0(model, &x, &Levels::One(at), &Cond::default(), &mut pass)?;
        Ok(x0.to_rows().concat())
    }
}
