//! How weights change what an encoder made of a window.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the weights of a prompt act on the encoder's output. A prompt whose weights are all 1 comes
/// out untouched, whatever is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emphasis {
    /// Each position times its weight, then the whole window times one number that brings its mean
    /// back to what it was: A1111's way (its setting `Original`).
    #[default]
    KeepMean,
    /// Each position times its weight (A1111's `No norm`).
    Multiply,
    /// Each position `e + w (h - e)`, between `e` of an empty prompt and `h`: ComfyUI's way.
    Interpolate,
    /// Brackets are text like any other.
    Off,
}

impl Emphasis {
    /// Names that the command line takes, in order.
    pub const NAMES: [&'static str; 4] = ["keep-mean", "multiply", "interpolate", "off"];

    /// Whether weights need the encoding of an empty prompt.
    pub fn needs_empty(self) -> bool {
        self == Self::Interpolate
    }

    /// Changes one window, `[positions, width]` row-major, by the weight of each position; `empty`
    /// is the same window of an empty prompt.
    pub fn apply(self, hidden: &mut [f32], weights: &[f64], empty: &[f32]) {
        if self == Self::Off || weights.iter().all(|w| *w == 1.0) || weights.is_empty() {
            return;
        }
        let width = hidden.len() / weights.len();
        let before = mean(hidden);
        for (position, weight) in weights.iter().enumerate() {
            let weight = *weight as f32;
            let range = position * width..(position + 1) * width;
            if self == Self::Interpolate && weight != 1.0 {
                for (h, e) in hidden[range.clone()].iter_mut().zip(&empty[range]) {
                    *h = e + weight * (*h - e);
                }
            } else if self != Self::Interpolate {
                hidden[range].iter_mut().for_each(|h| *h *= weight);
            }
        }
        if self == Self::KeepMean {
            let factor = before / mean(hidden);
            // A window whose mean vanishes has no factor; it stays as its weights made it.
            if factor.is_finite() {
                hidden.iter_mut().for_each(|h| *h *= factor as f32);
            }
        }
    }
}

impl fmt::Display for Emphasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeepMean => Self::NAMES[0],
            Self::Multiply => Self::NAMES[1],
            Self::Interpolate => Self::NAMES[2],
            Self::Off => Self::NAMES[3],
        })
    }
}

impl FromStr for Emphasis {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::KeepMean, Self::Multiply, Self::Interpolate, Self::Off];
        let found = all.into_iter().find(|e| e.to_string() == name);
        found.ok_or_else(|| Error::unknown("emphasis", name, Self::NAMES))
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: [f32; 6] = [1.0, 2.0, -1.0, 4.0, 0.5, 0.5];

    fn weighed(how: Emphasis, weights: [f64; 3]) -> Vec<f32> {
        let mut hidden = HIDDEN;
        how.apply(&mut hidden, &weights, &[0.5; 6]);
        hidden.to_vec()
    }

    #[test]
    fn plain_weights_change_no_bit() {
        for how in [Emphasis::KeepMean, Emphasis::Multiply, Emphasis::Interpolate, Emphasis::Off] {
            assert_eq!(weighed(how, [1.0; 3]), HIDDEN);
        }
    }

    #[test]
    fn weights_act_as_each_way_says() {
        let twice = [1.0, 2.0, 1.0];
        assert_eq!(weighed(Emphasis::Multiply, twice), [1.0, 2.0, -2.0, 8.0, 0.5, 0.5]);
        assert_eq!(weighed(Emphasis::Interpolate, twice), [1.0, 2.0, -2.5, 7.5, 0.5, 0.5]);
        assert_eq!(weighed(Emphasis::Off, twice), HIDDEN);
        let kept = weighed(Emphasis::KeepMean, twice);
        // Sums 7 before, 10 after.
        let wanted = [0.7, 1.4, -1.4, 5.6, 0.35, 0.35];
        assert!(
            kept.iter().zip(wanted).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6),
            "{kept:?}"
        );
    }

    #[test]
    fn a_mean_that_vanishes_divides_nothing() {
        let mut hidden = [1.0, 1.0, 1.0, 1.0];
        Emphasis::KeepMean.apply(&mut hidden, &[1.0, -1.0], &[]);
        assert_eq!(hidden, [1.0, 1.0, -1.0, -1.0]);
    }

    #[test]
    fn names_are_those_of_the_record() {
        for name in Emphasis::NAMES {
            let read: Emphasis = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), format!("\"{name}\""));
            assert_eq!((read.to_string(), name.parse().unwrap()), (name.to_owned(), read));
        }
        assert!("mean".parse::<Emphasis>().is_err());
    }
}
