//! Stochastic samplers on a Gaussian world, where a run is an affine map of the start and the noise:
//! its mean and covariance are computed, not sampled.

use tweedie::eval::{goodness, normal_cdf};
use tweedie::level::Level;
use tweedie::noise::{DrawnAs, Noise, Recorded, Rng, Seeded};
use tweedie::oracle::{Gaussian, GaussianMixture};
use tweedie::process::Process;
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::sampler::over;
use super::world::{gaussian, interior, mixture, order, path, sampler as made, state, walk};
use super::{Found, ensure};

/// A number that is affine in the start and in the draws: a constant, the coefficient of the start,
/// and one of each draw.
#[derive(Clone, Debug)]
struct Affine(Vec<f64>);

impl Affine {
    fn plus(&self, factor: f64, other: &Self) -> Self {
        let width = self.0.len().max(other.0.len());
        let at = |v: &Self, i: usize| v.0.get(i).copied().unwrap_or(0.0);
        Self((0..width).map(|i| at(self, i) + factor * at(other, i)).collect())
    }

    fn times(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|v| v * factor).collect())
    }

    /// With a fresh draw of this standard deviation.
    fn draw(&self, deviation: f64) -> Self {
        let mut next = self.0.clone();
        next.push(deviation);
        Self(next)
    }

    fn mean(&self, start: f64) -> f64 {
        self.0[0] + self.0[1] * start
    }

    fn variance(&self, start: f64) -> f64 {
        let draws: f64 = self.0[2..].iter().map(|v| v * v).sum();
        self.0[1] * self.0[1] * start + draws
    }
}

/// One axis of the world: data `N(m, w)`.
#[derive(Clone, Copy)]
struct Axis {
    m: f64,
    w: f64,
}

impl Axis {
    fn x0(self, x: &Affine, at: Level) -> Affine {
        let gain = at.alpha * self.w / (at.alpha * at.alpha * self.w + at.sigma * at.sigma);
        Affine(vec![self.m]).plus(gain, &x.plus(-at.alpha, &Affine(vec![self.m])))
    }
}

/// What a step needs of the run.
struct Run<'a> {
    process: &'a dyn Process,
    levels: &'a [Level],
}

/// The recursion of a sampler on one axis, written as its authors write it and not as the crate
/// does.
fn recursion(part: &PartSpec, axis: Axis, run: &Run<'_>) -> Affine {
    let number = |key: &str, default: f64| {
        part.settings.get(key).and_then(serde_json::Value::as_f64).unwrap_or(default)
    };
    let word = |key: &str| part.settings.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let mut x = Affine(vec![0.0, 1.0]);
    let mut old: Option<(f64, Affine)> = None;
    let mut olds: Vec<(f64, Affine)> = Vec::new();
    let mut begun: Option<(Affine, Affine)> = None;
    let count = run.levels.len() - 1;
    for (index, pair) in run.levels.windows(2).enumerate() {
        let (s, t) = (pair[0], pair[1]);
        let few = index + 1 == count && count < 15;
        let d = axis.x0(&x, s);
        // DDPM's and DDIM's notation: products of alphas.
        let (bar, bar_prev) = (s.alpha * s.alpha, t.alpha * t.alpha);
        let (a, b) = (bar / bar_prev, 1.0 - bar / bar_prev);
        let posterior = (1.0 - bar_prev) / (1.0 - bar) * b;
        // k-diffusion's and EDM's: states divided by alpha.
        let (si, sj) = (s.sigma / s.alpha, t.sigma / t.alpha);
        let y = x.times(1.0 / s.alpha);
        x = match part.name.as_str() {
            "ddpm" => {
                let mean = d
                    .times(bar_prev.sqrt() * b / (1.0 - bar))
                    .plus(a.sqrt() * (1.0 - bar_prev) / (1.0 - bar), &x);
                mean.draw(if word("variance") == "large" { b.sqrt() } else { posterior.sqrt() })
            }
            "ddim" => {
                let std = number("eta", 0.0) * posterior.sqrt();
                let eps = x.plus(-bar.sqrt(), &d).times(1.0 / (1.0 - bar).sqrt());
                let mean = d.times(bar_prev.sqrt());
                mean.plus((1.0 - bar_prev - std * std).sqrt(), &eps).draw(std)
            }
            "euler-ancestral" => {
                let up =
                    sj.min(number("eta", 1.0) * (sj * sj * (si * si - sj * sj) / (si * si)).sqrt());
                let down = (sj * sj - up * up).sqrt();
                let slope = y.plus(-1.0, &d).times(1.0 / si);
                y.plus(down - si, &slope).draw(up).times(t.alpha)
            }
            "dpmpp-2m-sde" => {
                let h = t.lambda() - s.lambda();
                let eta_h = number("eta", 1.0) * h;
                let decay = 1.0 - (-h - eta_h).exp();
                let mut next = y.times(sj / si * (-eta_h).exp()).plus(decay, &d);
                if let Some((h_last, d_old)) = old.as_ref().filter(|_| !few) {
                    let slope = d.plus(-1.0, d_old).times(h / h_last);
                    let weight = if word("solver") == "heun" {
                        decay / (-h - eta_h) + 1.0
                    } else {
                        0.5 * decay
                    };
                    next = next.plus(weight, &slope);
                }
                old = Some((h, d));
                next.draw(sj * (1.0 - (-2.0 * eta_h).exp()).sqrt()).times(t.alpha)
            }
            "dpm2-ancestral" => {
                let up =
                    sj.min(number("eta", 1.0) * (sj * sj * (si * si - sj * sj) / (si * si)).sqrt());
                let down = (sj * sj - up * up).sqrt();
                let slope = y.plus(-1.0, &d).times(1.0 / si);
                let middle = (0.5 * (si.ln() + down.ln())).exp();
                let at = run.process.at_lambda(-middle.ln());
                let half = y.plus(middle - si, &slope);
                let there = axis.x0(&half.times(at.alpha), at);
                let slope = half.plus(-1.0, &there).times(1.0 / middle);
                y.plus(down - si, &slope).draw(up).times(t.alpha)
            }
            "dpmpp-2s-ancestral" => {
                let up =
                    sj.min(number("eta", 1.0) * (sj * sj * (si * si - sj * sj) / (si * si)).sqrt());
                let down = (sj * sj - up * up).sqrt();
                // In t = -ln sigma.
                let h = si.ln() - down.ln();
                let middle = (-(-si.ln() + 0.5 * h)).exp();
                let at = run.process.at_lambda(-middle.ln());
                let half = y.times(middle / si).plus(-(-0.5 * h).exp_m1(), &d);
                let there = axis.x0(&half.times(at.alpha), at);
                y.times(down / si).plus(-(-h).exp_m1(), &there).draw(up).times(t.alpha)
            }
            "er-sde" => {
                let scale = |l: f64| match word("scale").as_str() {
                    "sde" => l * l,
                    "ode" => l,
                    _ => l * (l.powf(0.3).exp() + 10.0),
                };
                let r = scale(sj) / scale(si);
                let mut next = y.times(r).plus(1.0 - r, &d);
                let order = number("order", 3.0) as usize;
                let dt = sj - si;
                if let Some((l_1, d_1)) = olds.last().filter(|_| order > 1) {
                    let slope = d.plus(-1.0, d_1).times(1.0 / (si - l_1));
                    let sum = simpson(sj, si, |l| 1.0 / scale(l));
                    next = next.plus(dt + sum * scale(sj), &slope);
                    if let Some((l_2, slope_1)) = old.as_ref().filter(|_| order > 2) {
                        let bend = slope.plus(-1.0, slope_1).times(2.0 / (si - l_2));
                        let sum = simpson(sj, si, |l| (l - si) / scale(l));
                        next = next.plus(0.5 * dt * dt + sum * scale(sj), &bend);
                    }
                    old = Some((*l_1, slope));
                }
                olds.push((si, d));
                next.draw((sj * sj - si * si * r * r).sqrt()).times(t.alpha)
            }
            "sa-solver" => {
                let (p, c) = (number("predictor_order", 2.0), number("corrector_order", 2.0));
                let (p, c) = (p as usize, c as usize);
                let simple = part.settings.get("simple") != Some(&serde_json::Value::Bool(false));
                let tau_of = |at: Level| {
                    let inside = number("low", 0.2) <= at.t && at.t <= number("high", 0.8);
                    if inside { number("tau", 1.0) } else { 0.0 }
                };
                // b_i of equations 15 and 18, with the form for order 2 of the authors' program.
                let adams = |a: f64, b: f64, tau: f64, of: &[(f64, Affine)], corrects: bool| {
                    let k = 1.0 + tau * tau;
                    let h = b - a;
                    let mut weights: Vec<f64> = (0..of.len())
                        .map(|i| {
                            let basis = |u: f64| {
                                let others = of.iter().enumerate().filter(|(j, _)| *j != i);
                                others.map(|(_, o)| (u - o.0) / (of[i].0 - o.0)).product::<f64>()
                            };
                            simpson(a, b, |u| k * (k * (u - b)).exp() * basis(u))
                        })
                        .collect();
                    if let (true, [old, new]) = (simple, weights.as_mut_slice()) {
                        let exact = (h * k - 1.0 + (-k * h).exp()) / (k * k);
                        let extra = if corrects {
                            h / 2.0 - exact / h
                        } else {
                            (h * h / 2.0 - exact) / (of[1].0 - of[0].0)
                        };
                        *new += k * extra;
                        *old -= k * extra;
                    }
                    let zero = Affine(vec![0.0]);
                    weights.iter().zip(of).fold(zero, |sum, (w, (_, d))| sum.plus(*w, d))
                };
                let last =
                    |n: usize, all: &[(f64, Affine)]| all[all.len() - n.min(all.len())..].to_vec();
                let (lower_p, lower_c) = (count - index, count - index + 2);
                olds.push((s.lambda(), d));
                // `begun` is the state before the last step, corrected, and its noise.
                let base = match (&begun, index) {
                    (Some((before, z)), 1..) if c > 0 => {
                        let from = run.levels[index - 1];
                        let (tau, h) = (tau_of(from), s.lambda() - from.lambda());
                        let kept = s.sigma / from.sigma * (-tau * tau * h).exp();
                        let past = last(c.min(lower_c), &olds);
                        let sum = adams(from.lambda(), s.lambda(), tau, &past, true);
                        let std = s.sigma * (1.0 - (-2.0 * tau * tau * h).exp()).sqrt();
                        before.times(kept).plus(s.alpha, &sum).plus(std, z)
                    }
                    _ => x.clone(),
                };
                let mut z = vec![0.0; x.0.len().max(base.0.len())];
                z.push(1.0);
                let z = Affine(z);
                let (tau, h) = (tau_of(s), t.lambda() - s.lambda());
                let past = last(p.min(lower_p), &olds);
                let sum = adams(s.lambda(), t.lambda(), tau, &past, false);
                let kept = t.sigma / s.sigma * (-tau * tau * h).exp();
                let std = t.sigma * (1.0 - (-2.0 * tau * tau * h).exp()).sqrt();
                let next = base.times(kept).plus(t.alpha, &sum).plus(std, &z);
                begun = Some((base, z));
                next
            }
            "dpmpp-sde" => {
                let split = |v: f64| {
                    let up = v.min((v * v * (si * si - v * v) / (si * si)).sqrt());
                    ((v * v - up * up).sqrt(), up)
                };
                let middle = (0.5 * (si.ln() + sj.ln())).exp();
                let at = run.process.at_lambda(-middle.ln());
                let (down, up) = split(middle);
                let half = y.times(down / si).plus(1.0 - down / si, &d).draw(up);
                let there = axis.x0(&half.times(at.alpha), at);
                let (down, up) = split(sj);
                let mut first = vec![0.0; half.0.len()];
                first[half.0.len() - 1] = ((si - middle) / (si - sj)).sqrt();
                let next = y.times(down / si).plus(1.0 - down / si, &there);
                let next = next.plus(up, &Affine(first));
                next.draw(up * ((middle - sj) / (si - sj)).sqrt()).times(t.alpha)
            }
            "dpm-solver" => {
                // k-diffusion's DPM++ 3M SDE; sigma_t / sigma_s is e^-h in y.
                let h = t.lambda() - s.lambda();
                let eta = number("eta", 1.0);
                let h_eta = (1.0 + eta) * h;
                let mut next = y.times((-h_eta).exp()).plus(1.0 - (-h_eta).exp(), &d);
                let phi_2 = ((-h_eta).exp() - 1.0) / h_eta + 1.0;
                match olds.as_slice() {
                    [] => {}
                    [(h_1, d_1)] => next = next.plus(phi_2, &d.plus(-1.0, d_1).times(h / h_1)),
                    [.., (h_2, d_2), (h_1, d_1)] => {
                        let (r0, r1) = (h_1 / h, h_2 / h);
                        let a = d.plus(-1.0, d_1).times(1.0 / r0);
                        let b = d_1.plus(-1.0, d_2).times(1.0 / r1);
                        let bend = a.plus(-1.0, &b).times(1.0 / (r0 + r1));
                        let phi_3 = phi_2 / h_eta - 0.5;
                        next = next.plus(phi_2, &a.plus(r0, &bend)).plus(-phi_3, &bend);
                    }
                }
                olds.push((h, d));
                next.draw(sj * (1.0 - (-2.0 * eta * h).exp()).sqrt()).times(t.alpha)
            }
            "lcm" => {
                let scaled: f64 = s.t * 1000.0 * 10.0;
                let (skip, out) =
                    (0.25 / (scaled * scaled + 0.25), scaled / (scaled * scaled + 0.25).sqrt());
                d.times(out).plus(skip, &x).times(t.alpha).draw(t.sigma)
            }
            "tcd" => {
                let below = run.process.at(0.7 * t.t);
                let eps = x.plus(-s.alpha, &d).times(1.0 / s.sigma);
                let ratio = t.alpha / below.alpha;
                let reached = d.times(below.alpha).plus(below.sigma, &eps).times(ratio);
                reached.draw((t.sigma.powi(2) - (ratio * below.sigma).powi(2)).sqrt())
            }
            "euler" | "heun" | "restart" => {
                let gamma = (number("s_churn", 0.0) / count as f64).min(2.0_f64.sqrt() - 1.0);
                let hat = si * (1.0 + gamma);
                let y = y.draw((hat * hat - si * si).sqrt());
                let at = run.process.at_lambda(-hat.ln());
                let slope = |y: &Affine, sigma: f64, at: Level| {
                    y.plus(-1.0, &axis.x0(&y.times(at.alpha), at)).times(1.0 / sigma)
                };
                let first = slope(&y, hat, at);
                let ahead = y.plus(sj - hat, &first);
                let next = if part.name == "euler" {
                    ahead
                } else {
                    let second = slope(&ahead, sj, t);
                    y.plus(0.5 * (sj - hat), &first.plus(1.0, &second))
                };
                next.times(t.alpha)
            }
            other => panic!("no recursion is written for `{other}`"),
        };
    }
    x
}

/// An integral by Simpson's rule.
fn simpson(a: f64, b: f64, f: impl Fn(f64) -> f64) -> f64 {
    let n = 512;
    let h = (b - a) / f64::from(n);
    let inner: f64 = (1..n).map(|i| f(a + f64::from(i) * h) * f64::from(2 + 2 * (i % 2))).sum();
    (f(a) + inner + f(b)) * h / 3.0
}

/// Mean and covariance at the end of a run whose start has these, by sending unit vectors through
/// it: the start's axes first, then each draw's.
fn probed(
    part: &PartSpec,
    world: &Gaussian,
    process: &dyn Process,
    levels: &[Level],
) -> ([f64; 2], [[f64; 2]; 2]) {
    let steps = levels.len() - 1;
    // Up to two draws a step; those that are not asked for move nothing.
    let draws = 2 * steps;
    let rows = 3 + 2 * draws;
    let mut starts = vec![vec![0.0; 2]; rows];
    starts[1][0] = 1.0;
    starts[2][1] = 1.0;
    let like = state(&starts);
    let draw = |k: usize| {
        let mut unit = vec![vec![0.0; 2]; rows];
        unit[3 + 2 * k][0] = 1.0;
        unit[4 + 2 * k][1] = 1.0;
        state(&unit)
    };
    let tape: Vec<State> = (0..draws).map(draw).collect();
    let tape: Box<dyn Noise> = Box::new(Recorded::new(tape));
    let (end, _) = walk(world, process, levels, made(part), tape, like).unwrap();
    let end = end.to_rows();
    let column = |row: usize| [end[row][0] - end[0][0], end[row][1] - end[0][1]];
    let (mean0, cov0) = world.marginal(levels[0]);
    let (a, b) = (column(1), column(2));
    let mean = [0, 1].map(|i| end[0][i] + a[i] * mean0[0] + b[i] * mean0[1]);
    let map = [a, b];
    let cov = [0, 1].map(|i| {
        [0, 1].map(|j| {
            let mut sum = 0.0;
            for p in 0..2 {
                for q in 0..2 {
                    sum += map[p][i] * cov0[p][q] * map[q][j];
                }
            }
            (3..rows).map(column).fold(sum, |sum, c| sum + c[i] * c[j])
        })
    });
    (mean, cov)
}

/// The largest difference of two means and covariances.
fn off(a: &([f64; 2], [[f64; 2]; 2]), mean: &[f64], cov: &[Vec<f64>]) -> f64 {
    let mut worst = 0.0_f64;
    for i in 0..2 {
        worst = worst.max((a.0[i] - mean[i]).abs());
        for (a, b) in a.1[i].iter().zip(&cov[i]) {
            worst = worst.max((a - b).abs());
        }
    }
    worst
}

fn stochastic(name: &str, check: impl Fn(&PartSpec) -> Found) {
    over(name, |part| if made(part).claims().stochastic { check(part) } else { Ok(()) });
}

#[test]
fn mean_and_covariance_follow_the_samplers_own_recursion() {
    let (world, path) = (gaussian(), path());
    stochastic("recursion", |part| {
        for steps in [1, 2, 5, 23] {
            let levels = interior(&path, steps);
            let found = probed(part, &world, &path, &levels);
            let (basis, wide) = world.eigen();
            let run = Run { process: &path, levels: &levels };
            let (mut mean, mut cov) = (vec![0.0; 2], vec![vec![0.0; 2]; 2]);
            for (j, &w) in wide.iter().enumerate() {
                let m = (0..2).map(|i| basis[i][j] * world.mean()[i]).sum();
                let end = recursion(part, Axis { m, w }, &run);
                let (a, s) = (levels[0].alpha, levels[0].sigma);
                let (along, spread) = (end.mean(a * m), end.variance(a * a * w + s * s));
                for i in 0..2 {
                    mean[i] += basis[i][j] * along;
                    for k in 0..2 {
                        cov[i][k] += basis[i][j] * basis[k][j] * spread;
                    }
                }
            }
            let worst = off(&found, &mean, &cov);
            ensure(worst < 1e-10, || format!("{steps} steps: off by {worst:e}, {found:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn the_weak_error_falls_at_the_claimed_order() {
    let (world, path) = (gaussian(), path());
    let steps = [32, 64, 128, 256, 512];
    stochastic("weak order", |part| {
        let error = |n: &usize| {
            let levels = interior(&path, *n);
            let (mean, cov) = world.marginal(levels[*n]);
            off(&probed(part, &world, &path, &levels), &mean, &cov)
        };
        let errors: Vec<f64> = steps.iter().map(error).collect();
        let (claimed, measured) = (made(part).claims().order, order(&steps, &errors));
        println!("weak order of {part}: claimed {claimed}, measured {measured:.3}, {errors:?}");
        ensure((measured - f64::from(claimed)).abs() < 0.2, || {
            format!("claims order {claimed}, measured {measured:.3} from {errors:?}")
        })
    });
}

#[test]
fn one_path_leads_to_one_end_however_many_steps() {
    let (world, path) = (mixture(), path());
    let seeds = 0..64_u64;
    let mut rng = tweedie::random::Key::new(2, 9, 0).generator();
    let rows: Vec<Vec<f64>> = seeds.clone().map(|_| vec![rng.normal(), rng.normal()]).collect();
    // Root mean square of the difference of a run's end and that of one with twice the steps.
    let apart = |part: &PartSpec, steps: usize, rng: Rng| {
        let ends = [steps, 2 * steps].map(|n| {
            let noise = rng.of_seeds(seeds.clone(), DrawnAs::Full);
            let levels = interior(&path, n);
            let (end, _) = walk(&world, &path, &levels, made(part), noise, state(&rows)).unwrap();
            end.to_rows().concat()
        });
        let squares = ends[0].iter().zip(&ends[1]).map(|(a, b)| (a - b) * (a - b));
        (squares.sum::<f64>() / ends[0].len() as f64).sqrt()
    };
    for part in [
        "ddim:eta=1",
        "ddpm",
        "dpm-solver:order=3,solver=heun,stochastic=true,lower_order_final=false",
        "dpm2-ancestral",
        "dpmpp-2m-sde",
        "dpmpp-2s-ancestral",
        "dpmpp-sde",
        "er-sde",
        "euler-ancestral",
        "sa-solver:low=0,high=1",
    ] {
        let part: PartSpec = part.parse().unwrap();
        let [coarse, fine] = [20, 160].map(|n| apart(&part, n, Rng::Brownian));
        let independent = apart(&part, 160, Rng::Tweedie);
        println!("{part}: {coarse:.4}, {fine:.4} along a path, {independent:.4} without");
        assert!(fine < 0.4 * coarse && fine < 0.1 * independent, "{part}");
    }
}

/// How many samples the goodness of fit is judged by, and the distance that p = 0.001 stands for.
const SAMPLES: usize = 20_000;
const RADIUS: f64 = 1.9495;

#[test]
fn samples_follow_the_exact_marginal() {
    let path = path();
    // One axis, so that the whole distribution is one distribution function.
    let (m, w) = (0.7, 0.3);
    let world = Gaussian::new(vec![m], &[vec![w]]).unwrap();
    stochastic("goodness of fit", |part| {
        let mut steps = 16;
        let levels = loop {
            let levels = interior(&path, steps);
            let end = recursion(part, Axis { m, w }, &Run { process: &path, levels: &levels });
            let (a, s) = (levels[0].alpha, levels[0].sigma);
            let (mean, var) = (end.mean(a * m), end.variance(a * a * w + s * s));
            if bias((mean, var), exact(m, w, levels[steps]))
                < RADIUS / (SAMPLES as f64).sqrt() / 5.0
            {
                break levels;
            }
            ensure(steps < 1024, || format!("{steps} steps are still too biased"))?;
            steps *= 2;
        };
        let fit = samples(part, &world, &path, &levels, |x| {
            let (mean, var) = exact(m, w, levels[levels.len() - 1]);
            normal_cdf((x - mean) / var.sqrt())
        });
        println!("goodness of fit of {part}: {} steps, p = {:.4}", levels.len() - 1, fit.p);
        ensure(fit.p > 0.001, || format!("p = {:e} after {} steps", fit.p, levels.len() - 1))
    });
}

#[test]
fn samples_follow_a_marginal_with_modes() {
    let path = path();
    let part = |m: f64, w: f64| Gaussian::new(vec![m], &[vec![w]]).unwrap();
    let world = GaussianMixture::new(vec![(0.6, part(0.9, 0.1)), (0.4, part(-0.8, 0.2))]).unwrap();
    stochastic("goodness of fit", |part| {
        if !part.settings.is_empty() {
            return Ok(());
        }
        let levels = interior(&path, 400);
        let fit = samples(part, &world, &path, &levels, |x| {
            let at = levels[levels.len() - 1];
            let parts = world.components(None).unwrap();
            let one = |(share, g): &(f64, &Gaussian)| {
                let (mean, cov) = g.marginal(at);
                share * normal_cdf((x - mean[0]) / cov[0][0].sqrt())
            };
            parts.iter().map(one).sum()
        });
        println!("goodness of fit of {part} on modes: p = {:.4}", fit.p);
        ensure(fit.p > 0.001, || format!("p = {:e}", fit.p))
    });
}

/// Where a world can draw clean data.
trait Draws: tweedie::denoiser::Denoiser {
    fn draw(&self, rng: &mut tweedie::random::Generator) -> f64;
}

impl Draws for Gaussian {
    fn draw(&self, rng: &mut tweedie::random::Generator) -> f64 {
        self.sample(rng)[0]
    }
}

impl Draws for GaussianMixture {
    fn draw(&self, rng: &mut tweedie::random::Generator) -> f64 {
        self.sample(None, rng).unwrap()[0]
    }
}

/// Exact draws of the noisiest level sent through a run, against the exact end.
fn samples(
    part: &PartSpec,
    world: &impl Draws,
    process: &dyn Process,
    levels: &[Level],
    cdf: impl Fn(f64) -> f64,
) -> goodness::Fit {
    let mut rng = tweedie::random::Key::new(11, 3, 0).generator();
    let first = levels[0];
    let start = |_| vec![first.alpha * world.draw(&mut rng) + first.sigma * rng.normal()];
    let start = state(&(0..SAMPLES).map(start).collect::<Vec<_>>());
    let noise = Box::new(Seeded::new(77, SAMPLES));
    let (end, _) = walk(world, process, levels, made(part), noise, start).unwrap();
    goodness::kolmogorov_smirnov(&end.to_rows().concat(), cdf).unwrap()
}

fn exact(m: f64, w: f64, at: Level) -> (f64, f64) {
    (at.alpha * m, at.alpha * at.alpha * w + at.sigma * at.sigma)
}

/// The largest difference of the distribution functions of two Gaussians.
fn bias(a: (f64, f64), b: (f64, f64)) -> f64 {
    let cdf = |(mean, var): (f64, f64), x: f64| normal_cdf((x - mean) / var.sqrt());
    let at = |i: i32| b.0 + b.1.sqrt() * f64::from(i) * 0.005;
    (-1000..=1000).map(|i| (cdf(a, at(i)) - cdf(b, at(i))).abs()).fold(0.0, f64::max)
}
