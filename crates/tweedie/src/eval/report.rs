//! Figures with their noise floors, as JSON and as a table.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::accuracy::Proportion;

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A smaller figure.
    Lower,
    /// A larger figure.
    Higher,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured.
    pub name: String,
    /// The figure. JSON has no infinity: the ratio of two equal pictures is written as text.
    #[serde(with = "number")]
    pub value: f64,
    /// Its standard error, where the measure gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Its 95 % interval, where the measure gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// What two disjoint sets of real samples score at the same number of samples. A figure that
    /// reaches it cannot be told from a perfect one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_floor: Option<f64>,
    /// Which direction is better.
    pub better: Better,
}

impl Measure {
    /// A figure on its own.
    pub fn new(name: impl Into<String>, value: f64, better: Better) -> Self {
        let name = name.into();
        Self { name, value, standard_error: None, interval: None, noise_floor: None, better }
    }

    /// The same figure with its noise floor.
    #[must_use]
    pub fn with_floor(mut self, floor: f64) -> Self {
        self.noise_floor = Some(floor);
        self
    }

    /// The same figure with its standard error.
    #[must_use]
    pub fn with_standard_error(mut self, error: f64) -> Self {
        self.standard_error = Some(error);
        self
    }

    /// A share of hits, with its interval.
    pub fn share(name: impl Into<String>, share: &Proportion) -> Self {
        let interval = Some(share.interval);
        Self { interval, ..Self::new(name, share.value, Better::Higher) }
    }
}

/// Figures that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured: the model, its settings.
    pub title: String,
    /// Which features the distances are taken in. Figures of unlike features do not compare.
    pub features: String,
    /// Samples on each side.
    pub samples: usize,
    /// The figures.
    pub measures: Vec<Measure>,
    /// What a reader has to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    /// The figure of that name.
    pub fn get(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|m| m.name == name)
    }

    /// The report as a table for people.
    pub fn table(&self) -> String {
        let mut out = format!("{}\n", self.title);
        let _ = writeln!(out, "{} samples, features: {}", self.samples, self.features);
        let wide = self.measures.iter().map(|m| m.name.chars().count()).max().unwrap_or(0).max(7);
        let _ = writeln!(
            out,
            "{:wide$}  {:>10}  {:>17}  {:>11}",
            "measure", "value", "+-", "noise floor"
        );
        for m in &self.measures {
            let spread = match (m.standard_error, m.interval) {
                (Some(e), _) => short(e),
                (None, Some([low, high])) => format!("{} .. {}", short(low), short(high)),
                (None, None) => String::new(),
            };
            let floor = m.noise_floor.map(short).unwrap_or_default();
            let better = if m.better == Better::Lower { "lower" } else { "higher" };
            let _ = writeln!(
                out,
                "{:wide$}  {:>10}  {spread:>17}  {floor:>11}  {better} is better",
                m.name,
                short(m.value)
            );
        }
        for note in &self.notes {
            let _ = writeln!(out, "- {note}");
        }
        out
    }
}

/// A number with four significant digits, or fewer where it is large.
pub(super) fn short(v: f64) -> String {
    let size = v.abs();
    if !v.is_finite() || size >= 1e6 || (size > 0.0 && size < 1e-3) {
        return format!("{v:.3e}").replace("inf", "infinite");
    }
    let digits = (3 - size.max(1e-3).log10().floor() as i32).clamp(0, 6) as usize;
    format!("{v:.digits$}")
}

/// A number in JSON, or the text `inf`, `-inf` or `nan`.
mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(v: &f64, to: S) -> Result<S::Ok, S::Error> {
        if v.is_finite() {
            to.serialize_f64(*v)
        } else {
            to.serialize_str(&v.to_string().to_lowercase())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        match Written::deserialize(from)? {
            Written::Number(v) => Ok(v),
            Written::Text(t) => {
                t.parse().map_err(|_| D::Error::custom(format!("`{t}` is no number")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::accuracy::proportion;

    fn report() -> Report {
        Report {
            title: "builtin:fashion, 20 steps".into(),
            features: "classifier b".into(),
            samples: 2000,
            measures: vec![
                Measure::new("frechet distance", 12.345_678, Better::Lower).with_floor(3.0),
                Measure::new("kernel distance", 1.5e-5, Better::Lower).with_standard_error(2e-4),
                Measure::share("accuracy", &proportion(1840, 2000)),
                Measure::new("psnr", f64::INFINITY, Better::Higher),
            ],
            notes: vec!["a note".into()],
        }
    }

    #[test]
    fn the_table_says_it_all_in_columns() {
        let table = report().table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[3],
            "frechet distance       12.35                           3.000  lower is better"
        );
        assert_eq!(
            lines[4],
            "kernel distance     1.500e-5           2.000e-4               lower is better"
        );
        assert_eq!(
            lines[5],
            "accuracy              0.9200   0.9073 .. 0.9311               higher is better"
        );
        assert!(lines[6].contains("infinite") && lines[7] == "- a note", "{table}");
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let mut report = report();
        // Numbers that serde_json's fast parser reads back exactly.
        report.measures[2].interval = Some([0.25, 0.75]);
        let json = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        assert!(json.contains(r#""value": "inf""#) && !json.contains("null"), "{json}");
    }

    #[test]
    fn numbers_are_short() {
        for (v, wanted) in [
            (0.0, "0.000000"),
            (1.0, "1.000"),
            (0.123_456, "0.1235"),
            (123.456, "123.5"),
            (-0.001_234_56, "-0.001235"),
            (99_999.5, "100000"),
            (1e-9, "1.000e-9"),
        ] {
            assert_eq!(short(v), wanted);
        }
    }
}
