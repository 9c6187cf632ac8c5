//! How often a class is right, with the interval that the number of samples allows.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A share of hits with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Proportion {
    /// How many were right.
    pub hits: u64,
    /// Of how many.
    pub of: u64,
    /// `hits / of`; 0 for none of none.
    pub value: f64,
    /// The 95 % interval of Wilson (1927), which stays in 0..=1 and holds for few samples and for
    /// shares near 0 and 1.
    pub interval: [f64; 2],
}

/// The share `hits / of` with its 95 % interval.
pub fn proportion(hits: u64, of: u64) -> Proportion {
    if of == 0 {
        return Proportion { hits, of, value: 0.0, interval: [0.0, 1.0] };
    }
    // The standard normal quantile at 0.975.
    let z2 = 1.959_963_984_540_054_f64.powi(2);
    let n = of as f64;
    let p = hits as f64 / n;
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = (z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))).max(0.0).sqrt() / (1.0 + z2 / n);
    let interval = [(middle - half).max(0.0), (middle + half).min(1.0)];
    Proportion { hits, of, value: p, interval }
}

/// Counts of what was asked for against what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    classes: usize,
    /// `[asked, found]`.
    counts: Vec<u64>,
}

impl Confusion {
    /// An empty table.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// A table of two lists of labels.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lists differ in length; those of [`Confusion::add`].
    pub fn of(classes: usize, asked: &[u32], found: &[u32]) -> Result<Self> {
        if asked.len() != found.len() {
            return Err(Error::Shape {
                what: "labels that were found".into(),
                wanted: vec![asked.len()],
                found: vec![found.len()],
            });
        }
        let mut table = Self::new(classes);
        for (a, f) in asked.iter().zip(found) {
            table.add(*a, *f)?;
        }
        Ok(table)
    }

    /// Counts one sample.
    ///
    /// # Errors
    /// [`Error::Setting`] if a label is not below the number of classes.
    pub fn add(&mut self, asked: u32, found: u32) -> Result<()> {
        let highest = asked.max(found) as usize;
        if highest >= self.classes {
            let why = format!("{highest} where there are {} classes", self.classes);
            return Err(Error::setting("label", why));
        }
        self.counts[asked as usize * self.classes + found as usize] += 1;
        Ok(())
    }

    /// How often `found` was found where `asked` was asked for; 0 beyond the classes.
    pub fn count(&self, asked: usize, found: usize) -> u64 {
        if asked.max(found) >= self.classes {
            return 0;
        }
        self.counts[asked * self.classes + found]
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The share of all samples that are right (top-1).
    pub fn accuracy(&self) -> Proportion {
        let hits = (0..self.classes).map(|c| self.count(c, c)).sum();
        proportion(hits, self.counts.iter().sum())
    }

    /// The share of the samples of each asked class that are right.
    pub fn each(&self) -> Vec<Proportion> {
        let of = |c| (0..self.classes).map(|f| self.count(c, f)).sum();
        (0..self.classes).map(|c| proportion(self.count(c, c), of(c))).collect()
    }

    /// The table as text: a row for each asked class, a column for each found one. Classes without
    /// a name go by their number.
    pub fn table(&self, names: &[String]) -> String {
        let name = |c: usize| names.get(c).cloned().unwrap_or_else(|| c.to_string());
        let wide = (0..self.classes).map(|c| name(c).chars().count()).max().unwrap_or(0).max(5);
        let digits = self.counts.iter().max().map_or(1, |m| m.to_string().len()).max(3);
        let mut out = format!("{:wide$}", "asked");
        for c in 0..self.classes {
            let _ = write!(out, " {c:>digits$}");
        }
        out.push_str("   right\n");
        for (c, right) in self.each().iter().enumerate() {
            let _ = write!(out, "{:wide$}", name(c));
            for f in 0..self.classes {
                let _ = write!(out, " {:>digits$}", self.count(c, f));
            }
            let _ = writeln!(out, "  {:5.1} %", 100.0 * right.value);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // scipy.stats.binomtest(hits, of).proportion_ci(method="wilson").
        for (hits, of, low, high) in [
            (92, 100, 0.850_018_92, 0.958_906_54),
            (0, 10, 0.0, 0.277_532_80),
            (10, 10, 0.722_467_20, 1.0),
            (1840, 2000, 0.907_289_25, 0.931_100_43),
        ] {
            let p = proportion(hits, of);
            let ok = (p.interval[0] - low).abs() < 2e-8 && (p.interval[1] - high).abs() < 2e-8;
            assert!(ok, "{p:?} is not {low} {high}");
        }
        assert_eq!(proportion(0, 0).interval, [0.0, 1.0]);
    }

    #[test]
    fn rows_are_asked_and_columns_found() {
        let t = Confusion::of(3, &[0, 0, 1, 2, 2, 2], &[0, 1, 1, 2, 2, 0]).unwrap();
        assert_eq!((t.count(0, 1), t.count(1, 0), t.count(2, 0), t.count(3, 0)), (1, 0, 1, 0));
        assert_eq!((t.accuracy().hits, t.accuracy().of), (4, 6));
        assert_eq!(t.each()[2].hits, 2);
        assert!(t.clone().add(3, 0).is_err());
        assert!(Confusion::of(3, &[0], &[]).is_err());
        let table = t.table(&["cat".into(), "dog".into()]);
        assert_eq!(table.lines().nth(1).unwrap(), "cat     1   1   0   50.0 %");
        assert_eq!(table.lines().nth(3).unwrap(), "2       1   0   2   66.7 %");
        let json = serde_json::to_string(&t).unwrap();
        assert_eq!(serde_json::from_str::<Confusion>(&json).unwrap(), t);
    }
}
