//! AutoDiffusion's search of the times that a run stops at: an evolution of sets of steps.
//!
//! Li et al., "AutoDiffusion: Training-Free Optimization of Time Steps and Architectures for Automated
//! Diffusion Model Acceleration", 2023, [arXiv:2309.10438](https://arxiv.org/abs/2309.10438),
//! Algorithm 1, the search of time steps. The search of layers to skip is not part of it.
//!
//! ```text
//! first: the even set, random ones up to half, else the even one with genes replaced (0.1 each)
//! each epoch: keep the best 10; of these 25 mutants (0.25 a gene) and 15 crossovers; random ones
//! ```
//!
//! A gene is one of `choices` even times; a candidate is a set of as many as the run has steps. What
//! was tried is not tried again, in whatever order its genes stand (in the authors' program crossovers
//! of unsorted lists may hold a step twice, and then have one less).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::grid::listed::Listed;
use crate::random::{Generator, Key};
use crate::tune::{Entry, Ground, Tuned, Tuner};

pub(crate) const CARD: Card = Card {
    id: "autodiffusion",
    seam: Seam::Tune,
    title: "AutoDiffusion: Training-Free Optimization of Time Steps and Architectures for Automated Diffusion Model Acceleration",
    source: "2309.10438",
    year: 2023,
    what: "an evolution of the set of times that a run stops at",
    aliases: &[],
    ledger: "autodiffusion",
    parts: &[&crate::grid::listed::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(s.read::<Autodiffusion>()?.checked()?)),
    defaults: defaults_of::<Autodiffusion>,
    known_failures: &[],
};

/// The search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Autodiffusion {
    /// How many grids are tried at most. The default, 450, is what the paper's ten epochs come to.
    pub tries: usize,
    /// How many candidates an epoch has. The default, 50, is the paper's.
    pub population: usize,
    /// How many of them are kept. The default, 10, is the paper's.
    pub kept: usize,
    /// Mutants of an epoch. The default, 25, is the paper's.
    pub mutants: usize,
    /// Crossovers of an epoch. The default, 15, is the paper's.
    pub crossovers: usize,
    /// The probability that a mutant's gene is replaced. The default, 0.25, is the authors'.
    pub mutation: f64,
    /// How many times there are to choose from; a table's steps where it has fewer. The default is
    /// 1000.
    pub choices: usize,
    /// All draws follow from it. The default is 0.
    pub seed: u64,
}

impl Default for Autodiffusion {
    fn default() -> Self {
        Self {
            tries: 450,
            population: 50,
            kept: 10,
            mutants: 25,
            crossovers: 15,
            mutation: 0.25,
            choices: 1000,
            seed: 0,
        }
    }
}

/// The times of a candidate as numbers of choices, rising.
type Genes = Vec<usize>;

/// The stream of the search's draws.
const STREAM: u64 = 0x7475_6e65;
/// How often a candidate is drawn anew before the search is over: everything near was tried.
const PATIENCE: usize = 200;

impl Autodiffusion {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn checked(self) -> Result<Self> {
        let wrong =
            |key: &str, why: String| Err(Error::setting(format!("autodiffusion:{key}"), why));
        for (key, value) in
            [("tries", self.tries), ("population", self.population), ("kept", self.kept)]
        {
            if value == 0 {
                return wrong(key, "0, wanted at least 1".into());
            }
        }
        if !(0.0..=1.0).contains(&self.mutation) {
            return wrong("mutation", format!("{} is not in 0..=1", self.mutation));
        }
        Ok(self)
    }
}

/// A search under way.
struct Search<'a> {
    settings: &'a Autodiffusion,
    ground: &'a mut dyn Ground,
    choices: usize,
    length: usize,
    scores: BTreeMap<Genes, f64>,
    random: Generator,
}

impl Search<'_> {
    fn grid(&self, genes: &Genes) -> Listed {
        let process = self.ground.process();
        let time = |gene: &usize| match process.table_steps() {
            // The last step that a share of the table reaches.
            Some(n) => ((gene + 1) * n / self.choices - 1) as f64 / n as f64,
            None => (gene + 1) as f64 / self.choices as f64 * process.ends().1,
        };
        Listed { times: genes.iter().rev().map(time).collect(), ..Listed::default() }
    }

    fn is_over(&self) -> bool {
        self.scores.len() >= self.settings.tries
    }

    fn try_out(&mut self, genes: Genes) -> Result<()> {
        if self.is_over() || self.scores.contains_key(&genes) {
            return Ok(());
        }
        let grid = self.grid(&genes);
        let score = self.ground.score(&grid)?;
        let score = if score.is_nan() { f64::INFINITY } else { score };
        self.scores.insert(genes, score);
        Ok(())
    }

    fn gene(&mut self) -> usize {
        self.random.below(self.choices as u64) as usize
    }

    /// As many different genes as a candidate has.
    fn filled(&mut self, genes: impl IntoIterator<Item = usize>) -> Genes {
        let mut set: BTreeSet<usize> = genes.into_iter().collect();
        while set.len() < self.length {
            let gene = self.gene();
            set.insert(gene);
        }
        set.into_iter().collect()
    }

    fn drawn(&mut self) -> Genes {
        self.filled([])
    }

    fn mutant(&mut self, of: &Genes, share: f64) -> Genes {
        let kept: Vec<usize> =
            of.iter().copied().filter(|_| self.random.uniform() >= share).collect();
        self.filled(kept)
    }

    fn crossover(&mut self, a: &Genes, b: &Genes) -> Genes {
        let picked: Vec<usize> = a
            .iter()
            .zip(b)
            .map(|(a, b)| if self.random.uniform() < 0.5 { *a } else { *b })
            .collect();
        self.filled(picked)
    }

    /// Tries `count` candidates that were not tried before, as far as such are drawn.
    fn breed(&mut self, count: usize, mut draw: impl FnMut(&mut Self) -> Genes) -> Result<()> {
        let mut fresh = 0;
        for _ in 0..count + PATIENCE {
            if fresh == count || self.is_over() {
                break;
            }
            let genes = draw(self);
            if !self.scores.contains_key(&genes) {
                fresh += 1;
                self.try_out(genes)?;
            }
        }
        Ok(())
    }

    /// The best so far, the first one of equals.
    fn best(&self, count: usize) -> Vec<Genes> {
        let mut all: Vec<(&Genes, &f64)> = self.scores.iter().collect();
        all.sort_by(|a, b| a.1.total_cmp(b.1));
        all.into_iter().take(count).map(|(genes, _)| genes.clone()).collect()
    }
}

/// Evenly spread times from the noisiest on, as a trailing grid has them.
fn even(choices: usize, length: usize) -> Genes {
    (1..=length).map(|i| i * choices / length - 1).collect()
}

impl Tuner for Autodiffusion {
    fn tune(&self, ground: &mut dyn Ground) -> Result<Tuned> {
        let length = ground.steps();
        let choices = ground.process().table_steps().unwrap_or(self.choices).min(self.choices);
        if length == 0 || length > choices {
            let why = format!("{length} steps of {choices} times");
            return Err(Error::setting("autodiffusion:choices", why));
        }
        let random = Key::new(self.seed, STREAM, 0).generator();
        let scores = BTreeMap::new();
        let mut search = Search { settings: self, ground, choices, length, scores, random };
        let first = even(choices, length);
        search.try_out(first.clone())?;
        search.breed(self.population / 2, Search::drawn)?;
        search.breed(self.population - self.population / 2 - 1, |s| s.mutant(&first, 0.1))?;
        loop {
            let before = search.scores.len();
            let parents = search.best(self.kept);
            let count = parents.len() as u64;
            let pick = |s: &mut Search<'_>| parents[s.random.below(count) as usize].clone();
            search.breed(self.mutants, |s| {
                let parent = pick(s);
                s.mutant(&parent, self.mutation)
            })?;
            search.breed(self.crossovers, |s| {
                let (a, b) = (pick(s), pick(s));
                s.crossover(&a, &b)
            })?;
            let made = search.scores.len() - before;
            search.breed(
                (self.population - self.kept.min(self.population)).saturating_sub(made),
                Search::drawn,
            )?;
            if search.is_over() || search.scores.len() == before {
                break;
            }
        }
        let best = search.best(1);
        let Some(genes) = best.first() else {
            return Err(Error::setting("autodiffusion:tries", "nothing was tried"));
        };
        Ok(Tuned {
            grid: search.grid(genes),
            score: search.scores[genes],
            even: search.scores[&first],
            tried: search.scores.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, VpLinear};

    /// The distance from a hidden set of times.
    struct Hidden(Vec<f64>, VpLinear, BTreeSet<String>);

    impl Ground for Hidden {
        fn process(&self) -> &dyn Process {
            &self.1
        }

        fn steps(&self) -> usize {
            self.0.len()
        }

        fn score(&mut self, grid: &Listed) -> Result<f64> {
            assert_eq!(grid.times.len(), self.0.len());
            assert!(self.2.insert(format!("{:?}", grid.times)), "tried twice");
            Ok(grid.times.iter().zip(&self.0).map(|(a, b)| (a - b).abs()).sum())
        }
    }

    #[test]
    fn a_hidden_set_is_approached_and_nothing_is_tried_twice() {
        let hidden = || Hidden(vec![0.95, 0.5, 0.42, 0.07], VpLinear::default(), BTreeSet::new());
        for seed in 0..3 {
            let search = Autodiffusion { seed, choices: 100, ..Autodiffusion::default() };
            let mut ground = hidden();
            let found = search.tune(&mut ground).unwrap();
            assert_eq!((found.tried, ground.2.len()), (450, 450));
            assert!(found.score < 0.15 && found.even > 0.5, "{found:?}");
            assert_eq!(found, search.tune(&mut hidden()).unwrap());
        }
    }

    /// Whether every grid can be laid on a path.
    struct Laid(Box<dyn Process>);

    impl Ground for Laid {
        fn process(&self) -> &dyn Process {
            self.0.as_ref()
        }

        fn steps(&self) -> usize {
            4
        }

        fn score(&mut self, grid: &Listed) -> Result<f64> {
            let levels = crate::grid::Grid::levels(grid, self.0.as_ref(), 4)?;
            assert_eq!(levels.len(), 5);
            Ok(levels[0].sigma)
        }
    }

    #[test]
    fn every_candidate_is_a_grid_on_tables_and_on_continuous_paths() {
        for path in ["vp-table:betas=squaredcos-cap-v2", "vp-table:steps=60", "flow", "edm"] {
            let part: crate::spec::PartSpec = path.parse().unwrap();
            for choices in [1000, 40] {
                let process = part.make(crate::process::entries(), Seam::Process).unwrap();
                let search = Autodiffusion { choices, tries: 120, ..Autodiffusion::default() };
                search.tune(&mut Laid(process)).unwrap();
            }
        }
    }

    #[test]
    fn small_spaces_are_exhausted_and_impossible_ones_refused() {
        let ground = |times: Vec<f64>| Hidden(times, VpLinear::default(), BTreeSet::new());
        let search = Autodiffusion { choices: 5, ..Autodiffusion::default() };
        let found = search.tune(&mut ground(vec![0.8, 0.2])).unwrap();
        assert!(found.tried == 10 && found.score < 1e-12, "{found:?}");
        assert!(search.tune(&mut ground(vec![0.5; 6])).is_err());
        assert!(Autodiffusion { kept: 0, ..search }.checked().is_err());
    }
}
