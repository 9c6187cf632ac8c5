//! A network small enough to read, with the sites that real ones announce; and what awkward taps
//! ask of it: two requests with different caches in one call, a block of two streams, a span left
//! out, tokens left out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Tensor, TensorData};
use tweedie::Result;
use tweedie::denoiser::{Batched, Branch, Cond, Denoiser, Pass, Row, evaluate_branches};
use tweedie::level::Levels;
use tweedie::process::Process;
use tweedie::random::Key;
use tweedie::run::{Run, Unwatched};
use tweedie::state::State;
use tweedie::tap::{Features, SharedTap, Site, SiteKind, Tap, Verdict};

use super::world::{Cosine, Plain, distance, parts, state, uniform_lambda};

/// Two blocks over tokens of one channel each, with an attention and a second stream that the
/// condition feeds, inside a span.
#[derive(Debug)]
pub(crate) struct Tiny {
    weights: Vec<f64>,
}

const DEPTHS: usize = 2;

fn site(path: String, kind: SiteKind, depth: usize) -> Site {
    Site::new("tiny", path, kind, depth)
}

impl Tiny {
    pub(crate) fn new(seed: u64) -> Self {
        let mut generator = Key::new(seed, 0, 0).generator();
        Self { weights: (0..DEPTHS * 4).map(|_| 0.5 * generator.normal()).collect() }
    }

    pub(crate) fn sites() -> Vec<Site> {
        let mut sites = vec![site("span.0".into(), SiteKind::Span, 0)];
        for i in 0..DEPTHS {
            sites.push(site(format!("blocks.{i}"), SiteKind::Block, i));
            sites.push(site(format!("blocks.{i}.attn"), SiteKind::Attention, i));
        }
        sites
    }

    /// A block of two streams, as in MMDiT: tokens and the other stream attend to both.
    fn block(&self, i: usize, input: Features, pass: &mut Pass) -> Result<Features> {
        let w = &self.weights[4 * i..4 * i + 4];
        pass.at(&site(format!("blocks.{i}"), SiteKind::Block, i), input, |pass, mut f| {
            let x: Tensor<3> = f.take("hidden")?;
            let c: Tensor<3> = f.take("encoder")?;
            let time: Tensor<2> = f.take("time")?;
            let tokens = x.dims()[1];
            let both = Tensor::cat(vec![x.clone(), c.clone()], 1);
            let q: Tensor<4> = (both.clone() * w[0]).unsqueeze_dim(1);
            let k: Tensor<4> = (both.clone() * w[1]).unsqueeze_dim(1);
            let v: Tensor<4> = (both * w[2]).unsqueeze_dim(1);
            let qkv = Features::new().with("q", q).with("k", k).with("v", v);
            let at = site(format!("blocks.{i}.attn"), SiteKind::Attention, i);
            let out = pass.at(&at, qkv, |_, mut f| {
                let (q, k, v): (Tensor<4>, Tensor<4>, Tensor<4>) =
                    (f.take("q")?, f.take("k")?, f.take("v")?);
                let map = burn::tensor::activation::softmax(q.matmul(k.swap_dims(2, 3)), 3);
                Ok(Features::hidden(map.matmul(v)))
            })?;
            let mixed: Tensor<4> = out.get("hidden")?.view()?;
            let mixed: Tensor<3> = mixed.squeeze_dim(1);
            let total = mixed.dims()[1];
            let time: Tensor<3> = time.unsqueeze_dim(1);
            let x = x + mixed.clone().narrow(1, 0, tokens) + (time * w[3]).sin();
            let c = c + mixed.narrow(1, tokens, total - tokens);
            Ok(Features::hidden(x).with("encoder", c))
        })
    }
}

impl Denoiser for Tiny {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        pass.count_forward();
        let rows = x.rows_tensor()?;
        let [batch, width] = rows.dims();
        let column = |values: Vec<f64>| {
            let data = TensorData::new(values, [batch, 1]);
            Tensor::<2>::from_data(data, (&rows.device(), rows.dtype()))
        };
        let time = column((0..batch).map(|i| at.row(i).t).collect());
        let class = |i: usize| cond.class.as_ref().map_or(-1.0, |c| c[i] as f64);
        let encoder: Tensor<3> = column((0..batch).map(class).collect()).unsqueeze_dim(2);
        let hidden: Tensor<3> = rows.clone().unsqueeze_dim(2);
        let input = Features::hidden(hidden).with("encoder", encoder).with("time", time.clone());
        let span = site("span.0".into(), SiteKind::Span, 0);
        let out = pass.at(&span, input, |pass, mut f| {
            for i in 0..DEPTHS {
                let time: Tensor<2> = f.get("time")?.view()?;
                f = self.block(i, f, pass)?.with("time", time);
            }
            Ok(Features::hidden(f.take::<3>("hidden")?))
        })?;
        let hidden: Tensor<3> = out.get("hidden")?.view()?;
        Ok(State::new(hidden.reshape([batch, width])))
    }
}

/// Computes every `every`-th step and repeats what it kept between.
#[derive(Debug)]
pub(crate) struct Reuse {
    kind: SiteKind,
    every: BTreeMap<u64, usize>,
    kept: BTreeMap<(u64, Branch, Site), Features>,
    computed: usize,
}

impl Reuse {
    /// Each request has an interval of its own.
    fn new(kind: SiteKind, every: &[(u64, usize)]) -> Self {
        Self { kind, every: every.iter().copied().collect(), kept: BTreeMap::new(), computed: 0 }
    }
}

impl Tap for Reuse {
    fn wants(&self, site: &Site) -> bool {
        site.kind == self.kind
    }

    fn decide(&mut self, site: &Site, rows: &[Row], _input: &Features) -> Result<Vec<Verdict>> {
        let verdict = |row: &Row| {
            let every = self.every.get(&row.request).copied().unwrap_or(1);
            let known = self.kept.contains_key(&(row.request, row.branch, site.clone()));
            if known && !row.step.is_multiple_of(every) {
                Verdict::Supply
            } else {
                Verdict::Compute
            }
        };
        Ok(rows.iter().map(verdict).collect())
    }

    fn supply(&mut self, site: &Site, rows: &[Row], _input: Features) -> Result<Features> {
        let one = |row: &Row| self.kept[&(row.request, row.branch, site.clone())].clone();
        let mut parts = rows.iter().map(one);
        let mut all = parts.next().unwrap();
        for (i, part) in parts.enumerate() {
            let place: Vec<usize> = (0..=i).collect();
            all = Features::merge(&place, &all, &[i + 1], &part)?;
        }
        Ok(all)
    }

    fn after(&mut self, site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        self.computed += rows.len();
        for (i, row) in rows.iter().enumerate() {
            self.kept.insert((row.request, row.branch, site.clone()), output.select(&[i]));
        }
        Ok(output)
    }
}

fn row(request: u64, step: usize, t: f64) -> Row {
    Row { request, branch: Branch::Cond, step, steps: 4, level: Cosine.at(t) }
}

#[test]
fn two_requests_with_different_caches_in_one_call() {
    let net = Tiny::new(1);
    let inputs = [vec![1.0, 2.0, 3.0], vec![-1.0, 0.5, 0.25]];
    let class = [0, 2];
    for kind in [SiteKind::Block, SiteKind::Attention, SiteKind::Span] {
        // Request 7 caches every second step, request 9 every third; they are at different steps.
        let every = [(7, 2), (9, 3)];
        let shared = SharedTap::new(Reuse::new(kind, &every));
        let alone =
            [SharedTap::new(Reuse::new(kind, &every)), SharedTap::new(Reuse::new(kind, &every))];
        let mut skipped = 0;
        for call in 0..4 {
            let rows =
                [row(7, call, 0.9 - 0.2 * call as f64), row(9, call + 3, 0.8 - 0.1 * call as f64)];
            let drift = 0.3 * call as f64;
            let x: Vec<Vec<f64>> =
                inputs.iter().map(|r| r.iter().map(|v| v + drift).collect()).collect();
            let at = Levels::rows(vec![rows[0].level, rows[1].level]);
            let mut pass = Pass::new(rows.to_vec(), vec![shared.clone()]);
            let cond = Cond::of_class(class.to_vec());
            let both = net.x0(&state(&x), &at, &cond, &mut pass).unwrap().to_rows();
            for i in 0..2 {
                let mut pass = Pass::new(vec![rows[i]], vec![alone[i].clone()]);
                let at = Levels::One(rows[i].level);
                let one =
                    net.x0(&state(&x[i..=i]), &at, &Cond::of_class(vec![class[i]]), &mut pass);
                assert_eq!(both[i], one.unwrap().to_rows()[0], "{kind:?} call {call} row {i}");
                let mut plain = Pass::new(vec![rows[i]], Vec::new());
                let at = Levels::One(rows[i].level);
                let plain =
                    net.x0(&state(&x[i..=i]), &at, &Cond::of_class(vec![class[i]]), &mut plain);
                skipped += usize::from(both[i] != plain.unwrap().to_rows()[0]);
            }
        }
        assert!(skipped >= 3, "{kind:?}: the caches did something ({skipped})");
    }
}

#[test]
fn branches_stacked_equal_branches_in_turn() {
    let net = Tiny::new(2);
    let x = state(&[vec![1.0, 2.0, 3.0], vec![-1.0, 0.5, 0.25]]);
    let at = Levels::rows(vec![Cosine.at(0.3), Cosine.at(0.6)]);
    let (a, b) = (Cond::of_class(vec![0, 1]), Cond::of_class(vec![3, 3]));
    let ask = |sequential: bool, taps: Vec<SharedTap>| {
        let rows = vec![row(7, 1, 0.3), row(9, 1, 0.6)];
        let mut pass = Pass::new(rows, taps);
        pass.sequential = sequential;
        let branches = [(Branch::Uncond, &b), (Branch::Cond, &a)];
        let both = evaluate_branches(&net, &x, &at, &branches, &mut pass).unwrap();
        assert_eq!((pass.cost.forward, pass.rows.len()), (4, 2));
        both.iter().map(State::to_rows).collect::<Vec<_>>()
    };
    assert_eq!(ask(false, Vec::new()), ask(true, Vec::new()));
    // A cache keeps the branches apart either way.
    let cache = || vec![SharedTap::new(Reuse::new(SiteKind::Block, &[(7, 1), (9, 1)]))];
    assert_eq!(ask(false, cache()), ask(true, cache()));
}

/// Notes the sites that come by.
#[derive(Debug, Default)]
struct Notes(Vec<Site>);

impl Tap for Notes {
    fn wants(&self, _site: &Site) -> bool {
        true
    }

    fn before(&mut self, site: &Site, _rows: &[Row], input: Features) -> Result<Features> {
        self.0.push(site.clone());
        Ok(input)
    }
}

#[test]
fn every_site_is_announced_once_and_a_span_can_be_left_out() {
    let net = Tiny::new(2);
    let x = state(&[vec![1.0, 2.0, 3.0]]);
    let at = Levels::One(Cosine.at(0.3));
    let notes = std::sync::Arc::new(std::sync::Mutex::new(Notes::default()));
    let cond = Cond::of_class(vec![1]);
    let ask = |taps: Vec<SharedTap>, step: usize| {
        let mut pass = Pass::new(vec![row(7, step, 0.3)], taps);
        net.x0(&x, &at, &cond, &mut pass).unwrap().to_rows()
    };
    let plain = ask(Vec::new(), 0);
    assert_eq!(ask(vec![SharedTap::of(&notes)], 0), plain, "listening changes nothing");
    assert_eq!(notes.lock().unwrap().0, Tiny::sites());
    // With the span kept, nothing inside it is announced any more.
    let cache = SharedTap::new(Reuse::new(SiteKind::Span, &[(7, 2)]));
    ask(vec![cache.clone()], 0);
    notes.lock().unwrap().0.clear();
    ask(vec![cache, SharedTap::of(&notes)], 1);
    assert!(notes.lock().unwrap().0.is_empty());
}

/// Leaves out every token but the first few, and puts the others back as they went in.
#[derive(Debug)]
struct Fewer {
    keep: usize,
    put_back: Option<Tensor<3>>,
}

impl Tap for Fewer {
    fn wants(&self, site: &Site) -> bool {
        site.kind == SiteKind::Block
    }

    fn before(&mut self, _site: &Site, _rows: &[Row], mut input: Features) -> Result<Features> {
        let hidden: Tensor<3> = input.take("hidden")?;
        let rest = hidden.dims()[1] - self.keep;
        self.put_back = Some(hidden.clone().narrow(1, self.keep, rest));
        Ok(input.with("hidden", hidden.narrow(1, 0, self.keep)))
    }

    fn after(&mut self, _site: &Site, _rows: &[Row], mut output: Features) -> Result<Features> {
        let hidden: Tensor<3> = output.take("hidden")?;
        let rest = self.put_back.take().unwrap();
        Ok(output.with("hidden", Tensor::cat(vec![hidden, rest], 1)))
    }
}

#[test]
fn a_tap_leaves_tokens_out_of_a_two_stream_block() {
    let net = Tiny::new(2);
    let x = state(&[vec![1.0, 2.0, 3.0]]);
    let at = Levels::One(Cosine.at(0.3));
    let ask = |taps: Vec<SharedTap>| {
        let mut pass = Pass::new(vec![row(7, 0, 0.3)], taps);
        net.x0(&x, &at, &Cond::of_class(vec![1]), &mut pass).unwrap().to_rows()
    };
    let plain = ask(Vec::new());
    let few = ask(vec![SharedTap::new(Fewer { keep: 2, put_back: None })]);
    assert_eq!(few[0][2], 3.0, "a token left out of every block comes out as it went in");
    assert!(distance(&few, &plain) > 1e-3);
}

#[test]
fn a_network_works_on_the_autodiff_side() {
    let net = Tiny::new(2);
    let x = state(&[vec![1.0, 2.0, 3.0]]);
    let level = Cosine.at(0.3);
    let mut pass = Pass::single(1, level);
    let objective = |x0: &State| Ok(x0.rows_tensor()?.powi_scalar(2).sum_dim(1));
    // The constants of the call stand on the plain side; burn lifts what meets a tracked tensor.
    let lifted = state(&[vec![1.0, 2.0, 3.0]]);
    let at = Levels::One(level);
    let (_, grad) =
        tweedie::derivative::gradient(&net, &x, &at, &Cond::default(), &mut pass, objective)
            .unwrap();
    let value = |x: &State| {
        let mut pass = Pass::single(1, level);
        let x0 = net.x0(x, &at, &Cond::default(), &mut pass).unwrap();
        x0.square_norms()[0]
    };
    for i in 0..3 {
        let mut ahead = lifted.to_rows();
        let mut behind = ahead.clone();
        ahead[0][i] += 1e-5;
        behind[0][i] -= 1e-5;
        let slope = (value(&state(&ahead)) - value(&state(&behind))) / 2e-5;
        assert!((grad.to_rows()[0][i] - slope).abs() < 1e-6 * slope.abs().max(1.0));
    }
}

#[test]
fn runs_share_calls_and_do_not_know() {
    let net = Tiny::new(4);
    let inputs = [vec![1.0, 2.0, 3.0], vec![-1.0, 0.5, 0.25], vec![0.3, 0.2, -0.8]];
    // Different counts of steps, noise and caches; the third ends first.
    let steps = [7, 5, 3];
    let walk = |i: usize, model: &dyn Denoiser| {
        let levels = uniform_lambda(&Cosine, 0.9, 0.1, steps[i]);
        let sampler = Plain { eta: 0.3 * i as f64 };
        let mut parts = parts(model, &Cosine, levels, sampler, 1);
        parts.noise = Box::new(tweedie::noise::Seeded::new(i as u64, 1));
        parts.requests = vec![i as u64];
        parts.cond = Cond::of_class(vec![i as i64]);
        let every = [(0, 2), (1, 1), (2, 3)];
        parts.taps = vec![SharedTap::new(Reuse::new(SiteKind::Block, &every[i..=i]))];
        let run = Run::new(parts, state(&inputs[i..=i])).unwrap();
        let (x, cost) = run.finish(&mut Unwatched).unwrap();
        (x.to_rows(), cost)
    };
    let alone: Vec<_> = (0..3).map(|i| walk(i, &net)).collect();
    let calls = Counted { net: &net, calls: AtomicUsize::new(0) };
    let table = Batched::new(&calls);
    let seats: Vec<_> = (0..3).map(|_| table.seat()).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .enumerate()
            .map(|(i, seat)| scope.spawn(move || walk(i, &seat)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    drop(table);
    assert_eq!(calls.calls.into_inner(), 7, "as many calls as the longest run has steps");
}

/// Runs of different kinds come and go as they like; a call has room for two of their states.
#[test]
fn runs_come_and_go_and_calls_stay_small() {
    let net = Tiny::new(4);
    let walk = |i: usize, model: &dyn Denoiser| {
        let levels = uniform_lambda(&Cosine, 0.9, 0.1, 3 + i);
        let mut parts = parts(model, &Cosine, levels, Plain { eta: 0.2 }, 1);
        parts.noise = Box::new(tweedie::noise::Seeded::new(i as u64, 1));
        parts.requests = vec![i as u64];
        // Every other run brings no class, so that it cannot share a call with the others.
        if i.is_multiple_of(2) {
            parts.cond = Cond::of_class(vec![i as i64 % 3]);
        }
        let start = [0.3 * i as f64, 1.0, -0.5];
        let (x, cost) =
            Run::new(parts, state(&[start.to_vec()])).unwrap().finish(&mut Unwatched).unwrap();
        (x.to_rows(), cost)
    };
    let alone: Vec<_> = (0..6).map(|i| walk(i, &net)).collect();
    let table = Batched::with_room(Counted { net: &net, calls: AtomicUsize::new(0) }, 6);
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|i| {
                let table = &table;
                scope.spawn(move || {
                    std::thread::sleep(std::time::Duration::from_millis(2 * i as u64));
                    walk(i, &table.seat())
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    let rows: usize = (0..6).map(|i| 3 + i).sum();
    let [calls, answered] = table.calls();
    assert_eq!(answered, rows as u64);
    assert!(calls >= rows as u64 / 2 && calls <= answered, "{calls} calls of {answered} rows");
    assert_eq!(table.model().calls.load(Ordering::Relaxed) as u64, calls);
}

/// What goes wrong in one run's call is that run's alone.
#[test]
fn a_call_that_fails_or_panics_leaves_nobody_waiting() {
    struct Fragile<'a>(&'a Tiny);

    impl Denoiser for Fragile<'_> {
        fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
            for row in &pass.rows {
                assert!(row.request != 1, "the second run's call panics");
                if row.request == 2 {
                    return Err(tweedie::Error::setting("x", "the third run's call fails"));
                }
            }
            self.0.x0(x, at, cond, pass)
        }
    }

    let net = Tiny::new(4);
    let table = Batched::new(Fragile(&net));
    let seats: Vec<_> = (0..4).map(|_| table.seat()).collect();
    let ended: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = seats
            .into_iter()
            .enumerate()
            .map(|(i, seat)| {
                scope.spawn(move || {
                    let levels = uniform_lambda(&Cosine, 0.9, 0.1, 3);
                    let mut parts = parts(&seat, &Cosine, levels, Plain { eta: 0.0 }, 1);
                    parts.requests = vec![i as u64];
                    parts.cond = Cond::of_class(vec![0]);
                    let run = Run::new(parts, state(&[vec![1.0, 2.0, 3.0]])).unwrap();
                    run.finish(&mut Unwatched).is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(ended, [true, false, false, true]);
}

struct Counted<'a> {
    net: &'a Tiny,
    calls: AtomicUsize,
}

impl Denoiser for Counted<'_> {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.net.x0(x, at, cond, pass)
    }
}
