//! Which noise levels training shows.
//!
//! A part is a quantile function: it turns a number that is uniform in (0, 1) into a level, so that
//! the caller decides how the numbers are drawn (apart, or spread evenly over a batch).

use std::fmt::Debug;

use crate::catalog::{Card, Made};
use crate::level::Level;
use crate::process::Process;

pub mod edm_log_normal;
pub mod logit_normal;
pub mod uniform_time;

/// How often each noise level is shown.
pub trait LevelSampling: Debug + Send + Sync {
    /// The level at this quantile, `u` in (0, 1); levels of a table are hit exactly.
    fn level(&self, process: &dyn Process, u: f64) -> Level;
}

/// A level sampling of the catalogue.
pub type Entry = Made<dyn LevelSampling>;

/// Every level sampling.
pub(crate) const ENTRIES: &[Entry] =
    &[edm_log_normal::ENTRY, logit_normal::ENTRY, uniform_time::ENTRY];

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}

/// The level at time `t`; of a table's steps the one whose share of the path holds `t`.
pub(crate) fn at_step(process: &dyn Process, t: f64) -> Level {
    match process.table_steps() {
        Some(steps) => {
            let n = steps as f64;
            process.at((t * n).floor().clamp(0.0, n - 1.0) / n)
        }
        None => process.at(t),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::process::Rate;

    /// `x = (1 - t) x0 + t eps`, as a table of `steps` or continuous.
    #[derive(Debug)]
    pub(crate) struct Line {
        pub(crate) steps: Option<usize>,
    }

    impl Process for Line {
        fn at(&self, t: f64) -> Level {
            let t = t.clamp(0.0, 1.0);
            Level::new(t, 1.0 - t, t)
        }

        fn rate(&self, _t: f64) -> Rate {
            Rate { alpha: -1.0, anchor: 0.0, sigma: 1.0 }
        }

        fn t_of_lambda(&self, lambda: f64) -> f64 {
            1.0 / (1.0 + lambda.exp())
        }

        fn table_steps(&self) -> Option<usize> {
            self.steps
        }
    }

    #[test]
    fn every_sampling_is_monotone_and_inside_the_path() {
        for entry in ENTRIES {
            let part = (entry.make)(&crate::catalog::Settings::default()).unwrap();
            for steps in [None, Some(10)] {
                let line = Line { steps };
                let times: Vec<f64> =
                    (1..400).map(|i| part.level(&line, f64::from(i) / 400.0).t).collect();
                assert!(times.windows(2).all(|w| w[0] <= w[1]), "{}", entry.card.id);
                assert!(times.iter().all(|t| (0.0..=1.0).contains(t)), "{}", entry.card.id);
                assert!(times[0] < times[398], "{}", entry.card.id);
            }
        }
    }

    #[test]
    fn a_table_is_hit_exactly_and_evenly() {
        let line = Line { steps: Some(4) };
        let mut hits = [0; 4];
        for i in 0..400 {
            let t = uniform_time::UniformTime {}.level(&line, (f64::from(i) + 0.5) / 400.0).t * 4.0;
            assert_eq!(t, t.round());
            hits[t as usize] += 1;
        }
        assert_eq!(hits, [100; 4]);
    }
}
