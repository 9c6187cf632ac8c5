//! Steered populations follow the law that the reward tilts.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::grid;
use tweedie::level::Level;
use tweedie::noise::{Noise, Seeded};
use tweedie::process::{self, Process};
use tweedie::reward::{Linear, Reward};
use tweedie::run::{Parts, Unwatched};
use tweedie::search::fk_steering::FkSteering;
use tweedie::search::{self, Ground};
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "fk-steering",
    file: file!(),
    claim: "weighted and resampled on the way, a population follows p(x) exp(lambda r(x)) (section 3)",
    world: "three Gaussians in the plane, exact denoiser, vp-linear, 50 steps of DDPM, r the first coordinate, lambda = 1",
    measure: "total variation between the shares of the Gaussians in 20 populations of 256 and those of the tilted law",
    arms: [
        "the best of 4 walks, 1,000 times",
        "the population as it stands after its last stop, without the last weights",
    ],
    // The entry's proposal.
    bar: Bar::AtMost(0.05),
    seeds: &[61, 62, 63],
    run,
};

const LAMBDA: f64 = 1.0;
const ALONG: [f64; 2] = [1.0, 0.0];

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let world = world::mixture()?;
    let path: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let grid = PartSpec::named("log-snr").make(grid::entries(), Seam::Grid)?;
    let levels = grid.levels(path.as_ref(), 50)?;
    let like = State::from_f64(vec![0.0; 2], &[1, 2], &Device::flex())?;
    let reward: Arc<dyn Reward> = Arc::new(Linear::new(ALONG.to_vec()));
    let parts = world.components(None)?;
    let mut shares = vec![0.0; parts.len()];
    let rounds = if arm == Arm::Baseline { 1000 } else { 20 };
    for round in 0..rounds {
        let candidates = |rows: Range<usize>, _: Option<usize>| {
            let mut noise = Seeded::of_seeds([(seed << 32) + round]);
            noise.select(&vec![0; rows.end]);
            noise.select(&rows.clone().collect::<Vec<_>>());
            Ok(Parts {
                model: &world,
                process: path.as_ref(),
                levels: levels.clone(),
                sampler: world::sampler("ddpm")?,
                guides: Vec::new(),
                taps: Vec::new(),
                noise: Box::new(noise),
                cond: Cond::default(),
                requests: rows.map(|row| row as u64).collect(),
            })
        };
        let ground =
            Ground { parts: &candidates, like: like.clone(), reward: reward.clone(), room: 256 };
        let (x, weights) = if arm == Arm::Baseline {
            let mut search =
                PartSpec::named("noise-search").make(search::entries(), Seam::Search)?;
            (search.search(&ground, &mut Unwatched)?.x, vec![1.0])
        } else {
            let fk = FkSteering { particles: 256, lambda: LAMBDA, ..FkSteering::default() };
            let population = fk.population(&ground, &mut Unwatched)?;
            let weights = match arm {
                Arm::Method => population.particles.weights(),
                _ => vec![1.0 / 256.0; 256],
            };
            (population.x, weights)
        };
        for (row, weight) in x.to_rows().iter().zip(weights) {
            let log = world.log_density(row, Level::CLEAN, None)?;
            for (share, (w, part)) in shares.iter_mut().zip(&parts) {
                let own = w.ln() + part.log_density(row, Level::CLEAN);
                *share += weight * (own - log).exp() / rounds as f64;
            }
        }
    }
    // Closed form: w_k exp(lambda a . m_k + lambda^2 a' S_k a / 2).
    let tilted: Vec<f64> = parts
        .iter()
        .map(|(w, part)| {
            let (bases, wide) = part.eigen();
            let dot = |v: &[f64]| -> f64 { v.iter().zip(ALONG).map(|(v, a)| v * a).sum() };
            let variance: f64 = (0..2)
                .map(|k| {
                    let basis: Vec<f64> = bases.iter().map(|row| row[k]).collect();
                    wide[k] * dot(&basis) * dot(&basis)
                })
                .sum();
            w * (LAMBDA * dot(part.mean()) + 0.5 * LAMBDA * LAMBDA * variance).exp()
        })
        .collect();
    let total: f64 = tilted.iter().sum();
    let apart = shares.iter().zip(&tilted).map(|(s, t)| (s - t / total).abs());
    Ok(0.5 * apart.sum::<f64>())
}
