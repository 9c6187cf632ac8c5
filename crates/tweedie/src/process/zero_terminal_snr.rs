//! The variance-preserving table whose last step is pure noise.
//!
//! Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2023,
//! [arXiv:2305.08891](https://arxiv.org/abs/2305.08891), algorithm 1.
//!
//! ```text
//! alpha' = (alpha - alpha_T) alpha_1 / (alpha_1 - alpha_T)          sigma' = sqrt(1 - alpha'^2)
//! ```
//!
//! applied to the scaled-linear table of latent diffusion. At the last step `alpha = 0`: a network
//! that predicts `eps` cannot be asked there, one that predicts `v` or `x0` can; the paper trains
//! with `v`. diffusers' multistep and Euler classes set `alpha^2 = 2^-24` there instead; here the
//! samplers take the limit.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::Result;
use crate::level::Level;
use crate::noise::Noise;
use crate::process::vp_table::{Betas, Table, VpTable};
use crate::process::{Entry, Process, Rate};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "zero-terminal-snr",
    seam: Seam::Process,
    title: "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    source: "2305.08891",
    year: 2023,
    what: "variance-preserving table whose last step is pure noise",
    aliases: &["ztsnr"],
    ledger: "",
    parts: &[&crate::process::vp_table::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(ZeroTerminalSnr::new(&s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[],
};

/// The settings of the table before it is rescaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Training steps. The default is 1000.
    pub steps: usize,
    /// How the betas run. The default, scaled-linear, is that of the model in the paper.
    pub betas: Betas,
    /// The first beta. The default, 0.00085, is that of the model in the paper.
    pub beta_start: f64,
    /// The last beta. The default, 0.012, is that of the model in the paper.
    pub beta_end: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { steps: 1000, betas: Betas::ScaledLinear, beta_start: 8.5e-4, beta_end: 0.012 }
    }
}

/// The variance-preserving table whose last step is pure noise.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroTerminalSnr(VpTable);

impl ZeroTerminalSnr {
    /// A rescaled table.
    ///
    /// # Errors
    ///
    /// As [`VpTable::new`].
    pub fn new(settings: &Settings) -> Result<Self> {
        let table = Table {
            steps: settings.steps,
            betas: settings.betas,
            beta_start: settings.beta_start,
            beta_end: settings.beta_end,
            zero_terminal_snr: true,
            ..Table::default()
        };
        Ok(Self(VpTable::new(&table)?))
    }
}

impl Process for ZeroTerminalSnr {
    fn at(&self, t: f64) -> Level {
        self.0.at(t)
    }

    fn rate(&self, t: f64) -> Rate {
        self.0.rate(t)
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        self.0.t_of_lambda(lambda)
    }

    fn at_lambda(&self, lambda: f64) -> Level {
        self.0.at_lambda(lambda)
    }

    fn ends(&self) -> (f64, f64) {
        self.0.ends()
    }

    fn table_steps(&self) -> Option<usize> {
        self.0.table_steps()
    }

    fn prior(
        &self,
        like: &State,
        endpoint: Option<&State>,
        at: Level,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        self.0.prior(like, endpoint, at, noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_dark_and_the_first_stays() {
        let settings = Settings::default();
        let path = ZeroTerminalSnr::new(&settings).unwrap();
        let plain = VpTable::new(&Table {
            betas: settings.betas,
            beta_start: settings.beta_start,
            beta_end: settings.beta_end,
            ..Table::default()
        })
        .unwrap();
        assert_eq!((path.at(0.999).alpha, path.at(0.999).sigma), (0.0, 1.0));
        assert!((path.at(0.0).alpha - plain.at(0.0).alpha).abs() < 1e-15);
        let (a, t) = (plain.at(0.5).alpha, plain.at(0.999).alpha);
        let wanted = (a - t) * plain.at(0.0).alpha / (plain.at(0.0).alpha - t);
        assert!((path.at(0.5).alpha - wanted).abs() < 1e-14);
    }
}
