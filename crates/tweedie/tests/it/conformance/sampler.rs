//! Every sampler: the order that it claims, what it spends, and that it remembers nothing it should
//! not.

use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Pass};
use tweedie::level::Level;
use tweedie::noise::{Noise, Recorded, Seeded};
use tweedie::process::{Flow, Process, VpCosine};
use tweedie::run::Unwatched;
use tweedie::sampler;
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::world::{
    apart, ask, flow, gaussian, interior, mixture, order, path, run, sampler as made, silence,
    state, uneven, walk,
};
use super::{Found, cases, ensure, hold};

/// Settings that make another method of a sampler.
pub(super) const VARIANTS: &[&str] = &[
    "ddim:eta=1",
    "ddim:eta=0.4",
    "ddpm:variance=large",
    "dpm-singlestep:solver=heun",
    "dpm-solver:order=1,space=noise",
    "dpm-solver:order=2,space=noise",
    "dpm-solver:order=3,space=noise,lower_order_final=false",
    "dpm-solver:order=3,solver=heun,stochastic=true,lower_order_final=false",
    "dpm-solver:order=3,solver=heun,stochastic=true,eta=0.5,lower_order_final=false",
    "dpmpp-2m:solver=heun",
    "dpmpp-2m-sde:solver=heun",
    "dpmpp-2m-sde:eta=0.5",
    "dpmpp-2m-sde:eta=0",
    "dpmpp-2s-ancestral:eta=0",
    "dpmpp-2s-ancestral:eta=0.5",
    "er-sde:order=1",
    "er-sde:order=2,scale=sde",
    "er-sde:order=3,scale=ode",
    "euler:s_churn=6",
    "euler-ancestral:eta=0",
    "euler-ancestral:eta=0.5",
    "heun:s_churn=6",
    "res:order=1",
    "res:order=4",
    "res-singlestep:stages=3",
    "res-singlestep:stages=3,c2=0.4,c3=0.8",
    "sa-solver:tau=0",
    "sa-solver:tau=0,corrector_order=0",
    "sa-solver:tau=0,predictor_order=1,corrector_order=0",
    "sa-solver:tau=0,predictor_order=3,corrector_order=4,lower_order_final=false",
    "sa-solver:tau=1,low=0,high=1",
    "sa-solver:tau=0.6,low=0,high=1,predictor_order=3,corrector_order=3,simple=false",
    "unipc:variant=bh1",
    "unipc:order=1",
    "unipc:order=1,lower_order_final=false",
    "unipc:order=2,lower_order_final=false",
    "unipc:order=2,space=noise",
    "unipc:order=3",
    "unipc:order=3,lower_order_final=false",
    "unipc:order=3,lower_order_final=false,variant=bh1",
];

pub(super) fn over(name: &str, check: impl Fn(&PartSpec) -> Found) {
    let parts = cases(sampler::entries(), VARIANTS);
    hold(sampler::entries(), Seam::Sampler, &parts, name, check);
}

fn start() -> State {
    state(&[vec![0.9, -1.4], vec![-0.2, 0.6], vec![1.7, 0.3]])
}

/// Noise that is no noise, for every step of a run.
fn tape(steps: usize, like: &State) -> Box<dyn Noise> {
    let draw = |k: usize| {
        let value = |j: usize| (1.3 * (k + 1) as f64 + 0.7 * j as f64).sin();
        let data: Vec<f64> = (0..like.to_rows().concat().len()).map(value).collect();
        like.filled_like(&data).unwrap()
    };
    // Up to two draws a step.
    Box::new(Recorded::new((0..2 * steps).map(draw).collect()))
}

#[test]
fn the_reference_solves_the_gaussian_world() {
    // On Gaussian data the flow stretches each axis by the ratio of the standard deviations.
    let (world, path) = (gaussian(), path());
    let levels = interior(&path, 1);
    let (basis, wide) = world.eigen();
    let end = flow(&world, &path, &start(), 512).to_rows();
    for (x, end) in start().to_rows().iter().zip(end) {
        for i in 0..2 {
            let mut wanted = levels[1].alpha * world.mean()[i];
            for (j, w) in wide.iter().enumerate() {
                let deviation = |l: Level| (l.alpha * l.alpha * w + l.sigma * l.sigma).sqrt();
                let along: f64 =
                    (0..2).map(|k| (x[k] - levels[0].alpha * world.mean()[k]) * basis[k][j]).sum();
                wanted += basis[i][j] * along * deviation(levels[1]) / deviation(levels[0]);
            }
            assert!((wanted - end[i]).abs() < 1e-9, "{wanted} {}", end[i]);
        }
    }
}

#[test]
fn deterministic_samplers_have_the_order_that_they_claim() {
    let (world, path) = (mixture(), path());
    let wanted = flow(&world, &path, &start(), 4096);
    over("order", |part| {
        let claims = made(part).claims();
        if claims.stochastic {
            return Ok(());
        }
        // A multistep formula that takes its steps for even ones is found on uneven ones only.
        for (name, grid) in [("uniform", interior as Grid), ("uneven", uneven as Grid)] {
            let error = |n: &usize| {
                let levels = grid(&path, *n);
                let (end, _) =
                    walk(&world, &path, &levels, made(part), silence(), start()).unwrap();
                apart(&end, &wanted)
            };
            // Four halvings, where the error's leading term leads: later for a higher order.
            let first = if claims.order > 2 { 128 } else { 32 };
            let steps = [1, 2, 4, 8, 16].map(|k| k * first);
            let errors: Vec<f64> = steps.iter().map(error).collect();
            let measured = order(&steps, &errors);
            let claimed = claims.order;
            println!("order of {part}, {name}: claimed {claimed}, measured {measured:.3}");
            ensure((measured - f64::from(claimed)).abs() < 0.2, || {
                format!("claims order {claimed}, measured {measured:.3} {name} from {errors:?}")
            })?;
            ensure(errors[4] > 1e-12, || format!("the errors reach rounding: {errors:?}"))?;
        }
        Ok(())
    });
}

/// How the levels of an interval are laid.
type Grid = fn(&dyn Process, usize) -> Vec<Level>;

#[test]
fn what_is_spent_is_what_is_claimed() {
    let (world, path) = (mixture(), path());
    over("evaluations", |part| {
        let levels = interior(&path, 5);
        let noise = tape(5, &start());
        let (_, cost) = walk(&world, &path, &levels, made(part), noise, start()).unwrap();
        let claims = made(part).claims();
        let wanted = 3 * (5 * usize::from(claims.nfe) + usize::from(claims.first));
        ensure(cost.forward == wanted, || format!("{} for {wanted}", cost.forward))
    });
}

#[test]
fn a_row_does_not_know_its_batch() {
    let (world, path) = (mixture(), path());
    over("batch", |part| {
        let levels = interior(&path, 6);
        let noise = |seed, count| Box::new(Seeded::new(seed, count));
        let (all, _) = walk(&world, &path, &levels, made(part), noise(5, 3), start()).unwrap();
        for i in 0..3 {
            let alone = start().select(&[i]);
            let noise = noise(5 + i as u64, 1);
            let (one, _) = walk(&world, &path, &levels, made(part), noise, alone).unwrap();
            let same = one.to_rows()[0] == all.to_rows()[i];
            ensure(same, || format!("row {i}: {:?} {:?}", one.to_rows(), all.to_rows()[i]))?;
        }
        Ok(())
    });
}

#[test]
fn a_reset_forgets_the_last_run() {
    let (world, path) = (mixture(), path());
    over("reset", |part| {
        let levels = interior(&path, 6);
        let clean = || walk(&world, &path, &levels, made(part), tape(6, &start()), start());
        let mut used = made(part);
        // A run of another start and length, left in the middle of nowhere.
        let mut other =
            run(&world, &path, &interior(&path, 4), used.fork(), tape(4, &start()), start() * 2.0);
        other.advance(&mut Unwatched).unwrap();
        other.advance(&mut Unwatched).unwrap();
        let mut eval = Asked(&world);
        let long = interior(&path, 4);
        for index in 0..2 {
            let step = sampler::Step {
                from: long[index],
                to: long[index + 1],
                index,
                count: 4,
                process: &path,
            };
            used.step(&mut eval, start() * 2.0, &step, tape(1, &start()).as_mut()).unwrap();
        }
        let (again, _) = walk(&world, &path, &levels, used, tape(6, &start()), start()).unwrap();
        ensure(again.to_rows() == clean().unwrap().0.to_rows(), || "the last run shows".into())
    });
}

/// The world as a sampler sees it.
struct Asked<'a>(&'a dyn tweedie::denoiser::Denoiser);

impl sampler::Eval for Asked<'_> {
    fn x0(&mut self, x: &State, at: &tweedie::level::Levels) -> tweedie::Result<State> {
        let mut pass = Pass::single(x.batch(), at.row(0));
        self.0.x0(x, at, &Cond::default(), &mut pass)
    }
}

#[test]
fn forks_go_on_alike_and_selected_rows_keep_their_past() {
    let (world, path) = (mixture(), path());
    over("fork and select", |part| {
        let levels = interior(&path, 7);
        let mut run = run(&world, &path, &levels, made(part), tape(7, &start()), start());
        for _ in 0..3 {
            run.advance(&mut Unwatched).unwrap();
        }
        // A tape forks into the same future.
        let fork = run.fork(1, Vec::new());
        let mut chosen = run.fork(2, Vec::new());
        chosen.select(&[2, 0, 0]);
        let (end, _) = run.finish(&mut Unwatched).unwrap();
        let (twin, _) = fork.finish(&mut Unwatched).unwrap();
        ensure(end.to_rows() == twin.to_rows(), || "the fork goes another way".into())?;
        let (picked, _) = chosen.finish(&mut Unwatched).unwrap();
        let wanted = end.select(&[2, 0, 0]).to_rows();
        ensure(picked.to_rows() == wanted, || {
            format!("selected rows end at {:?}, not {wanted:?}", picked.to_rows())
        })
    });
}

#[test]
fn noise_is_drawn_where_it_is_claimed_and_nowhere_else() {
    let (world, path) = (mixture(), path());
    over("noise", |part| {
        let levels = interior(&path, 5);
        let end = walk(&world, &path, &levels, made(part), silence(), start());
        let stochastic = made(part).claims().stochastic;
        ensure(end.is_err() == stochastic, || {
            format!("claims {}, an empty tape gives {:?}", stochastic, end.map(|_| "an end"))
        })
    });
}

#[test]
fn runs_go_from_pure_noise_to_clean_data() {
    let world = mixture();
    let flow = Flow::default();
    let cosine = VpCosine::default();
    let paths: [&dyn Process; 2] = [&flow, &cosine];
    over("ends", |part| {
        for process in paths {
            for steps in [1, 2, 3, 20] {
                let at = |i: usize| process.at(1.0 - i as f64 / steps as f64);
                let mut levels: Vec<Level> = (0..steps).map(at).collect();
                levels.push(Level::CLEAN);
                ensure(levels[0].alpha == 0.0, || format!("{:?} holds signal", levels[0]))?;
                let noise = tape(steps, &start());
                let (end, _) = walk(&world, process, &levels, made(part), noise, start()).unwrap();
                let worst = end.to_rows().concat().iter().fold(0.0_f64, |m, v| m.max(v.abs()));
                let finite = end.to_rows().concat().iter().all(|v| v.is_finite());
                ensure(finite && worst < 10.0, || format!("{steps} steps end at {end:?}"))?;
                // The last step is to the estimate itself.
                if steps == 1 {
                    let wanted = ask(&world, &start(), levels[0]);
                    ensure(apart(&end, &wanted) < 1e-12, || "one step is not the estimate".into())?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn three_names_for_one_step() {
    // Euler's method is DDIM without noise; DDPM, DDIM with eta = 1 and Euler ancestral are one.
    let (world, path) = (mixture(), path());
    let levels = interior(&path, 9);
    let end = |part: &str| {
        let part = part.parse().unwrap();
        walk(&world, &path, &levels, made(&part), tape(9, &start()), start()).unwrap().0
    };
    assert!(apart(&end("ddim"), &end("euler")) < 1e-13);
    assert!(apart(&end("ddim:eta=1"), &end("ddpm")) < 1e-12);
    assert!(apart(&end("ddim:eta=1"), &end("euler-ancestral")) < 1e-12);
    assert!(apart(&end("dpmpp-2m"), &end("dpmpp-2m-sde:eta=0")) < 1e-13);
    assert!(apart(&end("ddim"), &end("ddpm")) > 1e-2);
}
