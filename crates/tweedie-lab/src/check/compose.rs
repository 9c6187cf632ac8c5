//! Two conditions at once: samples show what both ask for.

use burn::tensor::Device;
use tweedie::Result;
use tweedie::catalog::Seam;
use tweedie::denoiser::Cond;
use tweedie::guide::{Cfg, Compose, Guide, compose};
use tweedie::noise::Seeded;
use tweedie::process::{self, Process};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::sampler::Ddim;
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::{Arm, Bar, Check, world};

pub(crate) const CHECK: Check = Check {
    id: "compose",
    file: file!(),
    claim: "the sum of what two conditions add asks for both at once (equation 11)",
    world: "three Gaussians in the plane; one class has the first and the third, the other the second and the third; exact denoiser, vp-linear, 200 steps of DDIM",
    measure: "share of 500 samples that lie with the Gaussian that both classes have",
    arms: [
        "the first class alone, of which the shared Gaussian is two in seven",
        "the first class in place of the second: guidance of weight 2",
    ],
    // Three times the share in the first class, the entry's proposal.
    bar: Bar::AtLeast(0.857),
    seeds: &[81, 82, 83],
    run,
};

/// The middles of the three Gaussians.
const MEANS: [[f64; 2]; 3] = [[-1.0, 0.3], [1.1, 0.8], [0.4, -1.2]];

fn run(arm: Arm, seed: u64) -> Result<f64> {
    let world = world::mixture()?.with_classes(vec![vec![0, 2], vec![1, 2]])?;
    let path: Box<dyn Process> =
        PartSpec::named("vp-linear").make(process::entries(), Seam::Process)?;
    let count = 500;
    let levels: Vec<_> =
        (0..=200).map(|i| path.at_lambda(-4.0 + 8.0 * f64::from(i) / 200.0)).collect();
    let mut noise = Seeded::of_seeds((0..count as u64).map(|k| (seed << 32) + k));
    let like = State::from_f64(vec![0.0; 2 * count], &[count, 2], &Device::flex())?;
    let x = path.prior(&like, None, levels[0], &mut noise)?;
    let other = |class| compose::Part { weight: 1.0, cond: compose::Which::Class(class) };
    let guide: Box<dyn Guide> = match arm {
        Arm::Baseline => Box::new(Cfg { weight: 1.0 }),
        Arm::Method => Box::new(Compose::with(1.0, vec![other(1)])?),
        Arm::Ablation => Box::new(Compose::with(1.0, vec![other(0)])?),
    };
    let parts = Parts {
        model: &world,
        process: path.as_ref(),
        levels,
        sampler: Box::new(Ddim { eta: 0.0, even: false }),
        guides: vec![guide],
        taps: Vec::new(),
        noise: Box::new(noise),
        cond: Cond::of_class(vec![0; count]),
        requests: (0..count as u64).collect(),
    };
    let (x, _) = Run::new(parts, x)?.finish(&mut Unwatched)?;
    let nearest = |row: &Vec<f64>| {
        let square = |m: &[f64; 2]| (row[0] - m[0]).powi(2) + (row[1] - m[1]).powi(2);
        let all = MEANS.map(|m| square(&m));
        (0..3).min_by(|&a, &b| all[a].total_cmp(&all[b])).unwrap_or(0)
    };
    let rows = x.to_rows();
    Ok(rows.iter().filter(|row| nearest(row) == 2).count() as f64 / count as f64)
}
