//! Where fresh noise comes from: an argument, drawn per sample.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

pub mod brownian;
pub mod tape;
pub mod torch;

pub use brownian::Brownian;
pub use tape::{Recording, Tape, Twice};
pub use torch::{DrawnAs, Torch};

use crate::error::{Error, Result};
use crate::random::Key;
use crate::state::State;

/// Where fresh noise comes from.
///
/// Row `i` of a draw depends on row `i`'s own seed and on the count of draws so far, never on the
/// batch, so that a sample repeats alone.
pub trait Noise: Debug + Send {
    /// Standard normal numbers for every real segment of `like`, in its type and on its device.
    ///
    /// # Errors
    ///
    /// What the source has to say: a tape that ended, rows that do not match.
    fn draw(&mut self, like: &State) -> Result<State>;

    /// The standard normal numbers of a step from one `sigma_edm` down to another: a draw like any
    /// other, unless the source is a path that knows where it is ([`Brownian`]).
    ///
    /// # Errors
    ///
    /// As [`Noise::draw`].
    fn over(&mut self, like: &State, _from: f64, _to: f64) -> Result<State> {
        self.draw(like)
    }

    /// Uniform numbers in (0, 1), `width` a row, for tokens and choices.
    ///
    /// # Errors
    ///
    /// As [`Noise::draw`].
    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>>;

    /// A source for a forked run: the same past, an independent future.
    fn fork(&self, branch: u64) -> Box<dyn Noise>;

    /// Follows a resampling: row `i` goes on as a descendant of row `rows[i]`; twins draw apart.
    fn select(&mut self, rows: &[usize]);
}

/// Whose numbers a seed stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rng {
    /// This program's own: the same on every machine.
    #[default]
    Tweedie,
    /// This program's own along one Brownian path a picture, so that runs of one seed see the same
    /// path however many steps they take.
    Brownian,
    /// Torch's CPU generator, diffusers' default in examples.
    TorchCpu,
    /// Torch on a GPU, the default of A1111's web interface.
    TorchCuda,
}

impl Rng {
    /// Every one, with its name.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Tweedie, "tweedie"),
        (Self::Brownian, "brownian"),
        (Self::TorchCpu, "torch-cpu"),
        (Self::TorchCuda, "torch-cuda"),
    ];

    /// Its name in specs and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tweedie => "tweedie",
            Self::Brownian => "brownian",
            Self::TorchCpu => "torch-cpu",
            Self::TorchCuda => "torch-cuda",
        }
    }

    /// The one of that name; `cpu`, `gpu` and `cuda`, as other programs write them, are torch's.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn find(name: &str) -> Result<Self> {
        match name {
            "cpu" => return Ok(Self::TorchCpu),
            "gpu" | "cuda" => return Ok(Self::TorchCuda),
            _ => {}
        }
        let found = Self::ALL.into_iter().find(|(_, n)| *n == name);
        let names = Self::ALL.map(|(_, n)| n);
        found.map(|(rng, _)| rng).ok_or_else(|| Error::unknown("source of noise", name, names))
    }

    /// Its noise from one seed a row. `drawn_as` counts for torch's: the type of the other program's
    /// states.
    pub fn of_seeds(
        self,
        seeds: impl IntoIterator<Item = u64>,
        drawn_as: DrawnAs,
    ) -> Box<dyn Noise> {
        match self {
            Self::Tweedie => Box::new(Seeded::of_seeds(seeds)),
            Self::Brownian => Box::new(Brownian::of_seeds(seeds)),
            Self::TorchCpu => Box::new(Torch::cpu(seeds).drawn_as(drawn_as)),
            Self::TorchCuda => Box::new(Torch::cuda(seeds).drawn_as(drawn_as)),
        }
    }
}

/// Noise from one seed a row.
#[derive(Clone, Debug)]
pub struct Seeded {
    rows: Vec<(u64, u64)>,
    draws: u64,
}

/// The stream of initial and step noise.
const SAMPLING: u64 = 0;

impl Seeded {
    /// Image `k` of seed `s` has seed `s + k`.
    pub fn new(seed: u64, count: usize) -> Self {
        Self::of_seeds((0..count as u64).map(|k| seed.wrapping_add(k)))
    }

    /// One seed a row.
    pub fn of_seeds(seeds: impl IntoIterator<Item = u64>) -> Self {
        Self { rows: seeds.into_iter().map(|seed| (seed, SAMPLING)).collect(), draws: 0 }
    }

    fn check(&self, batch: usize) -> Result<()> {
        if batch == self.rows.len() {
            return Ok(());
        }
        Err(Error::Shape {
            what: "rows of noise, one seed each".into(),
            wanted: vec![batch],
            found: vec![self.rows.len()],
        })
    }
}

impl Noise for Seeded {
    fn draw(&mut self, like: &State) -> Result<State> {
        self.check(like.batch())?;
        let width = like.real_features();
        let mut rows = vec![0.0; width * self.rows.len()];
        for (row, (seed, stream)) in rows.chunks_mut(width.max(1)).zip(&self.rows) {
            Key::new(*seed, *stream, self.draws).generator().fill_normal(row);
        }
        self.draws += 1;
        from_rows(like, &rows, width)
    }

    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        self.check(batch)?;
        let draws = self.rows.iter().map(|(seed, stream)| {
            let mut generator = Key::new(*seed, *stream, self.draws).generator();
            (0..width).map(|_| generator.uniform()).collect()
        });
        let draws = draws.collect();
        self.draws += 1;
        Ok(draws)
    }

    fn fork(&self, branch: u64) -> Box<dyn Noise> {
        let mut fork = self.clone();
        for (seed, stream) in &mut fork.rows {
            *stream = Key::new(*seed, *stream, self.draws).derive(branch);
        }
        Box::new(fork)
    }

    fn select(&mut self, rows: &[usize]) {
        let mut next = Vec::with_capacity(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            let (seed, stream) = self.rows[row];
            let twin = rows[..i].iter().filter(|&&r| r == row).count() as u64;
            let stream =
                if twin == 0 { stream } else { Key::new(seed, stream, self.draws).derive(twin) };
            next.push((seed, stream));
        }
        self.rows = next;
    }
}

/// Splits rows over the segments of `like`.
fn from_rows(like: &State, rows: &[f64], width: usize) -> Result<State> {
    if like.segments().len() == 1 {
        return like.filled_like(rows);
    }
    let mut data = Vec::with_capacity(rows.len());
    let mut start = 0;
    for segment in like.segments() {
        if matches!(segment.values(), crate::state::Values::Float(_)) {
            let features: usize = segment.shape()[1..].iter().product();
            for row in rows.chunks(width.max(1)) {
                data.extend_from_slice(&row[start..start + features]);
            }
            start += features;
        }
    }
    like.filled_like(&data)
}

/// No noise at all: for deterministic runs of stochastic parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Noise for Silent {
    fn draw(&mut self, like: &State) -> Result<State> {
        Ok(like.zeros_like())
    }

    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        Ok(vec![vec![0.5; width]; batch])
    }

    fn fork(&self, _branch: u64) -> Box<dyn Noise> {
        Box::new(*self)
    }

    fn select(&mut self, _rows: &[usize]) {}
}

/// A tape: the given draws in order, such as the noise that another program used.
#[derive(Clone, Debug)]
pub struct Recorded {
    draws: Vec<State>,
    next: usize,
}

impl Recorded {
    /// A tape of whole-batch draws.
    pub fn new(draws: Vec<State>) -> Self {
        Self { draws, next: 0 }
    }
}

impl Noise for Recorded {
    fn draw(&mut self, like: &State) -> Result<State> {
        let Some(draw) = self.draws.get(self.next) else {
            return Err(Error::setting(
                "noise",
                format!("the tape holds {} draws and the run asks for more", self.draws.len()),
            ));
        };
        if draw.shape() != like.shape() {
            return Err(Error::Shape {
                what: format!("draw {} of the noise tape", self.next),
                wanted: like.shape().to_vec(),
                found: draw.shape().to_vec(),
            });
        }
        self.next += 1;
        Ok(draw.clone())
    }

    fn uniform(&mut self, _batch: usize, _width: usize) -> Result<Vec<Vec<f64>>> {
        Err(Error::unsupported("uniform numbers", "a seeded source: a tape holds normal draws"))
    }

    fn fork(&self, _branch: u64) -> Box<dyn Noise> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        for draw in &mut self.draws[self.next..] {
            *draw = draw.select(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn blank(batch: usize) -> State {
        State::from_f64(vec![0.0; batch * 4], &[batch, 2, 2], &Device::flex()).unwrap()
    }

    /// The seed's meaning is part of the file format: these numbers never change.
    #[test]
    fn first_numbers_of_seed_42() {
        let like = State::from_f64(vec![0.0; 16], &[1, 16], &Device::flex()).unwrap();
        let draw = Seeded::new(42, 1).draw(&like).unwrap().to_rows().remove(0);
        assert_eq!(draw.len(), 16);
        let again = Seeded::new(42, 1).draw(&like).unwrap().to_rows().remove(0);
        assert_eq!(draw, again);
        assert_eq!(draw, PINNED);
    }

    const PINNED: [f64; 16] = [
        0.20311419032666492,
        -1.4196640694465013,
        0.800725115973126,
        0.8319610440590847,
        1.1014964496874102,
        -1.5084786404521315,
        -0.2674660769561265,
        -0.9192331552483329,
        1.4567506506229966,
        0.9819140626399475,
        0.2823362549575889,
        0.10447234672708261,
        0.07995180541198532,
        0.596319044429733,
        -1.6940233244569178,
        -1.3850577800685206,
    ];

    #[test]
    fn a_row_does_not_know_its_batch() {
        let (mut one, mut three) = (Seeded::new(8, 1), Seeded::new(6, 3));
        for _ in 0..2 {
            let alone = one.draw(&blank(1)).unwrap().to_rows();
            assert_eq!(alone[0], three.draw(&blank(3)).unwrap().to_rows()[2]);
        }
    }

    #[test]
    fn forks_share_the_past_and_differ_in_future() {
        let mut source = Seeded::new(1, 2);
        source.draw(&blank(2)).unwrap();
        let (mut a, mut b) = (source.fork(1), source.fork(2));
        let (a, b) = (a.draw(&blank(2)).unwrap(), b.draw(&blank(2)).unwrap());
        assert_ne!(a.to_rows(), b.to_rows());
        assert_ne!(a.to_rows(), source.draw(&blank(2)).unwrap().to_rows());
    }

    #[test]
    fn twins_of_a_resampling_draw_apart() {
        let mut source = Seeded::new(1, 2);
        source.select(&[1, 1]);
        let rows = source.draw(&blank(2)).unwrap().to_rows();
        assert_ne!(rows[0], rows[1]);
        assert_eq!(rows[0], Seeded::new(2, 1).draw(&blank(1)).unwrap().to_rows()[0]);
    }

    #[test]
    fn a_tape_ends_with_an_error() {
        let mut tape = Recorded::new(vec![blank(1)]);
        tape.draw(&blank(1)).unwrap();
        assert!(tape.draw(&blank(1)).is_err());
        assert!(Recorded::new(vec![blank(2)]).draw(&blank(1)).is_err());
    }
}
