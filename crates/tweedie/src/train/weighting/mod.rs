//! How much the error at a noise level counts.

use std::fmt::Debug;

use crate::catalog::{Card, Made};
use crate::denoiser::Scaling;
use crate::level::Level;

pub mod edm_weight;
pub mod min_snr;
pub mod soft_min_snr;
pub mod uniform_weight;

/// The factor on a row's loss.
pub trait Weighting: Debug + Send + Sync {
    /// The factor on the squared error of the raw output.
    ///
    /// Papers state theirs for the error of the clean sample or of the noise; a part converts with
    /// [`of_clean`].
    fn factor(&self, level: Level, scaling: Scaling) -> f64;
}

/// A weighting of the catalogue.
pub type Entry = Made<dyn Weighting>;

/// Every weighting.
pub(crate) const ENTRIES: &[Entry] =
    &[edm_weight::ENTRY, min_snr::ENTRY, soft_min_snr::ENTRY, uniform_weight::ENTRY];

pub(crate) fn cards() -> impl Iterator<Item = &'static Card> {
    ENTRIES.iter().map(|e| e.card)
}

/// The factor on the raw output's error that is `weight` on the clean sample's.
pub(crate) fn of_clean(weight: f64, level: Level, scaling: Scaling) -> f64 {
    let slope = scaling.slope(level);
    weight / (slope * slope)
}

/// The signal-to-noise ratio, `(alpha / sigma)^2`.
pub(crate) fn snr(level: Level) -> f64 {
    let ratio = level.alpha / level.sigma;
    ratio * ratio
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Settings;
    use crate::prediction::Prediction;

    /// A weight belongs to the error of the clean sample: the loss is the same whatever the
    /// network predicts. (The uniform one is on the raw output by definition.)
    #[test]
    fn the_loss_does_not_depend_on_what_is_predicted() {
        let level = Level::new(0.4, 0.8, 0.6);
        for entry in ENTRIES.iter().filter(|e| e.card.id != "uniform-weight") {
            let part = (entry.make)(&Settings::default()).unwrap();
            let mut scalings: Vec<Scaling> =
                Prediction::ALL.into_iter().map(Scaling::Predict).collect();
            scalings.push(Scaling::Edm { sigma_data: 0.5 });
            let of_clean: Vec<f64> = scalings
                .iter()
                .map(|&s| part.factor(level, s) * s.slope(level) * s.slope(level))
                .collect();
            assert!(
                of_clean.iter().all(|w| (w / of_clean[0] - 1.0).abs() < 1e-12),
                "{}: {of_clean:?}",
                entry.card.id
            );
        }
    }

    #[test]
    fn every_weight_is_finite_and_positive_on_the_whole_path() {
        for entry in ENTRIES {
            let part = (entry.make)(&Settings::default()).unwrap();
            for i in 1..100 {
                let t = f64::from(i) / 100.0;
                let level = Level::new(t, (1.0 - t * t).sqrt(), t);
                for prediction in Prediction::ALL {
                    let w = part.factor(level, Scaling::Predict(prediction));
                    assert!(w.is_finite() && w > 0.0, "{} at {t}: {w}", entry.card.id);
                }
            }
        }
    }
}
