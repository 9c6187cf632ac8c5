//! Parts of all seams together: every pair of parts that can stand in one run does, in some run that
//! is finite and that changes when a part is taken out; every pair that cannot is refused with a
//! reason, and the reasons stand in `docs/refusals.md` (`TWEEDIE_BLESS=1` writes it anew).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Denoiser};
use tweedie::guide::{Autoguidance, Clip, Guide, Interval, TStitch, autoguidance, t_stitch};
use tweedie::level::Levels;
use tweedie::noise::{Noise, Seeded};
use tweedie::prediction::Prediction;
use tweedie::reward::{Classified, Classifies, Likelihood, Linear, Reward};
use tweedie::run::{Parts, Run, Unwatched};
use tweedie::search::Ground;
use tweedie::spec::PartSpec;
use tweedie::state::State;
use tweedie::tap::{
    AttentionControl, Record, Recorder, Replace, SharedTap, attention_control, record, replace,
};
use tweedie::{Error, Result, grid, guide, process, sampler, search, tap};

use super::tiny::{Tiny, start};

const STEPS: usize = 6;
const BATCH: usize = 2;

/// The seams, in the order of a case.
const SEAMS: [&str; 7] = ["process", "grid", "prediction", "sampler", "guide", "tap", "search"];
/// How many seams a case has.
const COUNT: usize = SEAMS.len();

/// The parts of every seam, read from the catalogue.
pub(super) fn values() -> [Vec<&'static str>; COUNT] {
    fn ids<T: ?Sized>(entries: &'static [tweedie::catalog::Made<T>]) -> Vec<&'static str> {
        entries.iter().map(|e| e.card.id).collect()
    }
    let none = |ids: Vec<&'static str>| [vec!["none"], ids].concat();
    [
        ids(process::entries()),
        ids(grid::entries()),
        Prediction::ALL.iter().map(|p| p.name()).collect(),
        ids(sampler::entries()),
        none(ids(guide::entries())),
        none(ids(tap::entries())),
        none(ids(search::entries())),
    ]
}

/// An index a seam into [`values`].
type Case = [usize; COUNT];
/// Two seams with a value each.
type Pair = (usize, usize, usize, usize);

fn pairs_of(case: &Case) -> impl Iterator<Item = Pair> + '_ {
    (0..COUNT).flat_map(move |i| (i + 1..COUNT).map(move |j| (i, case[i], j, case[j])))
}

/// Cases that cover the pairs: each takes the first pair that is left and adds what covers most.
fn covering(sizes: [usize; COUNT], left: &BTreeSet<Pair>) -> Vec<Case> {
    let mut left = left.clone();
    let mut cases = Vec::new();
    while let Some(&(i, a, j, b)) = left.first() {
        let mut chosen: [Option<usize>; COUNT] = [None; COUNT];
        (chosen[i], chosen[j]) = (Some(a), Some(b));
        for seam in 0..COUNT {
            if chosen[seam].is_some() {
                continue;
            }
            let gain = |value: usize| {
                let new = |(other, v): (usize, &Option<usize>)| {
                    let Some(v) = *v else { return false };
                    let pair = if other < seam {
                        (other, v, seam, value)
                    } else {
                        (seam, value, other, v)
                    };
                    left.contains(&pair)
                };
                chosen.iter().enumerate().filter(|c| new((c.0, c.1))).count()
            };
            // The rotation spreads values that gain alike.
            let turn =
                |value: usize| (value + sizes[seam] - cases.len() % sizes[seam]) % sizes[seam];
            let best = (0..sizes[seam]).max_by_key(|&v| (gain(v), sizes[seam] - turn(v)));
            chosen[seam] = best;
        }
        let case = chosen.map(|v| v.unwrap_or(0));
        for pair in pairs_of(&case) {
            left.remove(&pair);
        }
        cases.push(case);
    }
    cases
}

/// A case by name.
#[derive(Clone, Debug, PartialEq)]
struct Named([&'static str; COUNT]);

impl Named {
    fn new(case: &Case) -> Self {
        let values = values();
        Self(std::array::from_fn(|i| values[i][case[i]]))
    }

    fn with(&self, seam: usize, value: &'static str) -> Self {
        let mut next = self.clone();
        next.0[seam] = value;
        next
    }
}

pub(super) fn guides(name: &str, weak: &Arc<dyn Denoiser>) -> Result<Vec<Box<dyn Guide>>> {
    let made = |name: &str| PartSpec::named(name).make(guide::entries(), Seam::Guide);
    Ok(match name {
        "none" => Vec::new(),
        // Every level is inside, so that whether it changes something does not hang on the grid.
        "interval" => {
            let wide = Interval { low: 0.0, high: f64::MAX }.checked()?;
            vec![Box::new(wide) as Box<dyn Guide>, made("cfg")?]
        }
        "autoguidance" => {
            let settings = autoguidance::Settings::default();
            vec![Box::new(Autoguidance::new(weak.clone(), settings)?)]
        }
        "t-stitch" => {
            // The whole way, so that whether it changes something does not hang on the grid.
            let settings = t_stitch::Settings { share: 1.0 };
            vec![Box::new(TStitch::new(weak.clone(), settings)?)]
        }
        // The tiny network's estimates need not leave the range of pictures.
        "clip" => vec![Box::new(Clip { range: 0.3 }.checked()?)],
        // By default these name parts of a U-Net, or nothing.
        "pag" | "seg" | "skip-layers" => {
            let sites: &[&str] = if name == "skip-layers" { &["blocks.1"] } else { &[] };
            let part = PartSpec::named(name).with("sites", serde_json::json!(sites));
            vec![part.make(guide::entries(), Seam::Guide)?]
        }
        other => vec![made(other)?],
    })
}

/// The end of a run, and what its recorder saw.
fn end(case: &Named, taps: &[SharedTap], (seed, sign): (u64, f64)) -> Result<State> {
    let [path, grid, prediction, sampler, guide, _, search] = case.0;
    let process = PartSpec::named(path).make(process::entries(), Seam::Process)?;
    let levels =
        PartSpec::named(grid).make(grid::entries(), Seam::Grid)?.levels(process.as_ref(), STEPS)?;
    let prediction = Prediction::find(prediction)?;
    let model = Tiny::new(1, prediction).attending();
    let weak: Arc<dyn Denoiser> = Arc::new(Tiny::new(2, prediction).attending());
    let parts_of = |noise: Box<dyn Noise>, classes: Vec<i64>| -> Result<Parts<'_>> {
        let count = classes.len();
        Ok(Parts {
            model: &model,
            process: process.as_ref(),
            levels: levels.clone(),
            sampler: PartSpec::named(sampler).make(sampler::entries(), Seam::Sampler)?,
            guides: guides(guide, &weak)?,
            taps: taps.to_vec(),
            noise,
            cond: Cond { reward: Some(wanted(guide, sign)), ..Cond::of_class(classes) },
            requests: (0..count as u64).collect(),
        })
    };
    if search == "none" {
        let parts = parts_of(Box::new(Seeded::new(seed, BATCH)), vec![0, 2])?;
        return Run::from_prior(parts, &start(BATCH))?.finish(&mut Unwatched).map(|(x, _)| x);
    }
    let candidates = |rows: Range<usize>, _: Option<usize>| {
        let mut noise = Seeded::new(seed, 1);
        noise.select(&vec![0; rows.end]);
        noise.select(&rows.clone().collect::<Vec<_>>());
        parts_of(Box::new(noise), vec![0; rows.len()])
    };
    let reward: Arc<dyn Reward> = Arc::new(Linear::new(vec![sign]));
    let ground = Ground { parts: &candidates, like: start(1), reward, room: 3 };
    let mut search = PartSpec::named(search).make(search::entries(), Seam::Search)?;
    search.search(&ground, &mut Unwatched).map(|found| found.x)
}

/// A classifier of three classes with a few numbers, of states of any level or of clean ones.
#[derive(Debug)]
struct Tells(bool);

impl Classifies for Tells {
    fn logits(&self, x: &State, _at: &Levels) -> Result<Tensor<2>> {
        let flat = x.rows_tensor()?;
        let device = flat.device().without_autodiff();
        let told = TensorData::new((0..12).map(|i| f64::from(i).sin()).collect::<Vec<_>>(), [4, 3]);
        let told = Tensor::<2>::from_data(told, (&device, flat.dtype()));
        let told = if flat.is_autodiff() { told.autodiff() } else { told };
        let [rows, width] = flat.dims();
        let each = flat.reshape([rows, width, 1]) * told.reshape([1, 4, 3]);
        Ok(each.sum_dim(1).reshape([rows, 3]))
    }

    fn classes(&self) -> usize {
        3
    }

    fn reads_noise(&self) -> bool {
        self.0
    }
}

/// A classifier's likelihood where the guide asks for one, and of any length.
#[derive(Debug)]
struct Told(Arc<dyn Classifies>);

impl Reward for Told {
    fn score(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        Likelihood::new(self.0.clone(), vec![1; x.batch()])?.score(x, at)
    }

    fn reads_noise(&self) -> bool {
        self.0.reads_noise()
    }

    fn classified(&self, x: &State, at: &Levels) -> Result<Option<Classified>> {
        Likelihood::new(self.0.clone(), vec![1; x.batch()])?.classified(x, at)
    }

    fn select(&self, _rows: &[usize]) -> Arc<dyn Reward> {
        Arc::new(Self(self.0.clone()))
    }
}

/// What a guide follows.
fn wanted(guide: &str, sign: f64) -> Arc<dyn Reward> {
    match guide {
        "elucd" => Arc::new(Told(Arc::new(Tells(false)))),
        "minority-guidance" => Arc::new(Told(Arc::new(Tells(true)))),
        _ => Arc::new(Linear::new(vec![sign])),
    }
}

/// The run of a case with its tap, and how many places were recorded.
fn run(case: &Named) -> Result<(State, usize)> {
    run_for(case, 1.0)
}

/// The same where what is searched for has this sign.
fn run_for(case: &Named, sign: f64) -> Result<(State, usize)> {
    let record = Record::default();
    let recorder = || SharedTap::new(Recorder::new(record::Settings::default(), &record));
    let taps = match case.0[5] {
        "none" => Vec::new(),
        "attention-control" => {
            // Row 1 has the attention of row 0.
            let settings = attention_control::Settings { own: 1.0, ..Default::default() };
            let control = AttentionControl::new(settings, vec![(0, 1)], None, 0)?;
            vec![SharedTap::new(control)]
        }
        "record" => vec![recorder()],
        "replace" => {
            end(case, &[recorder()], (1000, sign))?;
            vec![SharedTap::new(Replace::new(replace::Settings::default(), &record))]
        }
        "skip" => {
            let made = PartSpec::named("skip").make(tap::entries(), Seam::Tap)?;
            vec![SharedTap::from(made)]
        }
        other => panic!("no way to make the tap `{other}` is written"),
    };
    let x = end(case, &taps, (5, sign))?;
    Ok((x, record.places().len()))
}

fn numbers(x: &State) -> Vec<f64> {
    x.to_rows().concat()
}

/// Whether two ends differ by more than rounding.
fn differ(a: &State, b: &State) -> bool {
    let pairs = numbers(a).into_iter().zip(numbers(b));
    pairs.into_iter().any(|(a, b)| (a - b).abs() > 1e-9 * (1.0 + a.abs()))
}

/// What is wrong with a case that ran.
fn wrong(case: &Named, x: &State, places: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if !numbers(x).iter().all(|v| v.is_finite()) {
        wrong.push(format!("{case:?} ends at {:?}", numbers(x)));
    }
    let mut off = |seam: usize, value: &'static str, wanted: bool| {
        if let Ok((without, _)) = run(&case.with(seam, value))
            && differ(x, &without) != wanted
        {
            let seen = if wanted { "nothing" } else { "something" };
            wrong.push(format!("{case:?} with {} {value} changes {seen}", SEAMS[seam]));
        }
    };
    // The estimates need not leave the range that is clipped, and thresholds begin at 1.
    let nothing_left = case.0[4] == "skip-layers" && case.0[5] == "skip";
    if !["none", "clip", "dynamic-threshold"].contains(&case.0[4]) && !nothing_left {
        // A run that is replaced throughout sees its guide through the record alone.
        off(4, "none", true);
    }
    match case.0[5] {
        "none" => {}
        "record" => off(5, "none", false),
        // The one row that is lent attention may end with every number clipped.
        "attention-control" if case.0[4] == "clip" => {}
        // A search walks candidates by names of its own, and rows that are not paired are left alone.
        "attention-control" if case.0[6] != "none" => {}
        // A run may end with every number at its threshold, whatever the network said.
        _ if case.0[4] == "dynamic-threshold" => {}
        _ => off(5, "none", true),
    }
    // Below its cutoff a time is not shifted, and a grid may have no other.
    if !["ddim", "euler", "ts-sampler"].contains(&case.0[3]) {
        off(3, "ddim", true);
    }
    if case.0[2] != "x0" {
        off(2, "x0", true);
    }
    // A search may find that the first candidate is best, but not for both signs. Where numbers end at
    // their bounds, candidates may be alike.
    if case.0[6] != "none" && !["clip", "dynamic-threshold"].contains(&case.0[4]) {
        match run_for(case, -1.0) {
            Ok((other, _)) if !differ(x, &other) => {
                wrong.push(format!("{case:?} finds the same whatever is wanted"));
            }
            _ => {}
        }
    }
    if case.0[5] == "record" && places == 0 {
        wrong.push(format!("{case:?} recorded nothing"));
    }
    wrong
}

/// Why each kind of refusal is right; one that is not here is a bug.
const REASONS: &[(&str, &str)] = &[
    (
        "a process that is a table of training steps",
        "the grid counts in whole training steps, which a path in continuous time does not have",
    ),
    ("the straight path of `flow`", "the shift is a formula in the noise share of a straight path"),
    (
        "a noisiest level that holds some signal",
        "the grid is laid in sigma / alpha, which is infinite where the path begins without signal",
    ),
    (
        "signal: at alpha = 0 it does not determine the clean sample",
        "the output means the noise, and pure noise says nothing of the data",
    ),
    ("a condition", "guidance is the difference that a condition makes"),
    ("a guide inside it", "the interval limits another guide"),
    (
        "a sampler that goes on along it",
        "the guide tells the noise apart from the estimate, which steps of first order can follow",
    ),
    (
        "a network with such layers",
        "the guide weakens layers that it is given by name, and names differ between networks",
    ),
    ("the names of blocks", "which blocks are best left out hangs on the network"),
    (
        "with an evaluation of the whole state at its level",
        "densities are followed along steps that begin with the noises where the state is",
    ),
    ("a second model", "the guide asks another model too, which the run has to name"),
    (
        "a sampler that draws noise",
        "the population is copied on the way, and copies that draw nothing stay alike",
    ),
    (
        "depend on the state",
        "a tap puts other numbers in place of what the network computes, which leaves no gradient",
    ),
    ("a reward", "the part follows a reward, which the condition holds"),
    ("a record of another run", "a spec describes one run; the record is an argument"),
    (
        "a record of `",
        "steps that follow their own error differ from those of the run that was recorded",
    ),
    ("two walks side by side", "which rows are pairs, and of which words, is an argument"),
    (
        "a walk of its own: the source's walks beside",
        "the guide tells one noise apart for the whole state, and here two walks share it",
    ),
];

pub(super) fn reason(error: &Error) -> Option<&'static str> {
    let Error::Unsupported { needs, .. } = error else { return None };
    REASONS.iter().find(|(what, _)| needs.contains(what)).map(|(_, why)| *why)
}

#[test]
fn parts_combine_pair_by_pair() {
    let values = values();
    let sizes = std::array::from_fn(|i| values[i].len());
    let all: BTreeSet<Pair> = (0..COUNT)
        .flat_map(|i| (i + 1..COUNT).map(move |j| (i, j)))
        .flat_map(|(i, j)| {
            (0..sizes[i]).flat_map(move |a| (0..sizes[j]).map(move |b| (i, a, j, b)))
        })
        .collect();
    let (mut left, mut findings) = (all.clone(), Vec::new());
    let mut refusals: BTreeMap<String, (String, &'static str)> = BTreeMap::new();
    let (mut ran, mut refused) = (0, 0);
    let mut attempt = |case: &Case, left: &mut BTreeSet<Pair>| {
        let named = Named::new(case);
        match run(&named) {
            Ok((x, places)) => {
                findings.extend(wrong(&named, &x, places));
                ran += 1;
                for pair in pairs_of(case) {
                    left.remove(&pair);
                }
            }
            Err(error) => {
                refused += 1;
                match reason(&error) {
                    Some(why) => {
                        let [process, grid, prediction, ..] = named.0;
                        let message = error.to_string();
                        let of_sampler = ["noise of another estimate", "whole state at its level"];
                        let who = if message.contains("a sampler that draws noise") {
                            format!("sampler `{}` with search `{}`", named.0[3], named.0[6])
                        } else if of_sampler.iter().any(|m| message.contains(m)) {
                            format!("sampler `{}` with guide `{}`", named.0[3], named.0[4])
                        } else if message.contains("grid") {
                            format!("process `{process}` with grid `{grid}`")
                        } else {
                            format!(
                                "process `{process}` with grid `{grid}` and prediction \
                                 `{prediction}`"
                            )
                        };
                        refusals.insert(who, (message, why));
                    }
                    None => findings.push(format!("{named:?} fails without a reason: {error}")),
                }
            }
        }
    };
    for case in covering(sizes, &all) {
        attempt(&case, &mut left);
    }
    // A refusal hides the other pairs of its case: each of them gets partners that refuse nothing.
    let at = |seam: usize, name: &str| values[seam].iter().position(|v| *v == name).unwrap();
    let easy = [
        ("vp-table", "trailing"),
        ("flow", "shifted"),
        ("vp-linear", "linspace"),
        ("edm", "karras"),
        ("vp-table", "karras"),
        ("zero-terminal-snr", "leading"),
    ];
    for pair in left.clone() {
        for (process, grid) in easy {
            if !left.contains(&pair) {
                break;
            }
            let mut case = [
                at(0, process),
                at(1, grid),
                at(2, "v"),
                at(3, "ddim"),
                at(4, "none"),
                at(5, "none"),
                at(6, "none"),
            ];
            // A population needs a sampler that draws.
            if pair.2 == 6 && pair.0 != 3 {
                case[3] = at(3, "ddpm");
            }
            (case[pair.0], case[pair.2]) = (pair.1, pair.3);
            attempt(&case, &mut left);
        }
    }
    println!(
        "{} pairs in {ran} runs and {refused} refusals, {} pairs never",
        all.len(),
        left.len()
    );
    for (i, a, j, b) in &left {
        // A path and a grid may exclude each other, and a path that begins without signal, or the
        // grid of such a path, excludes the predictions that mean the noise.
        let blind = *j == 2 && ["eps", "score"].contains(&values[2][*b]);
        // A guide may ask more of a sampler than it can; the page lists which. A population wants one that
        // draws, with which such a guide does not work.
        if ![(0, 1), (3, 4), (3, 6), (4, 6)].contains(&(*i, *j)) && !blind {
            findings.push(format!(
                "{} `{}` never runs with {} `{}`",
                SEAMS[*i], values[*i][*a], SEAMS[*j], values[*j][*b]
            ));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    let never = |first: usize, second: usize| -> Never {
        let pairs = left.iter().filter(|(i, _, j, _)| (*i, *j) == (first, second));
        pairs.map(|(_, a, _, b)| (values[first][*a], values[second][*b])).collect()
    };
    hold_page(&page(&never(0, 1), [&never(3, 4), &never(3, 6)]));
}

/// Pairs of two seams that never run.
type Never = BTreeSet<(&'static str, &'static str)>;

/// The page of refusals, from asking: paths with grids, predictions at the start of each, samplers
/// with guides, guides without what they need, parts without their arguments.
fn page(never: &Never, [guided, searched]: [&Never; 2]) -> String {
    let values = values();
    let mut text = String::from(
        "# Refusals\n\nWhat does not go together, and why. Everything else does: every pair of \
         parts that is not on this page\nruns together in a test, ends finite, and changes the \
         result when a part is taken out.\n\nThis page is generated from the errors themselves: \
         `TWEEDIE_BLESS=1 cargo test --release -p tweedie pairwise` writes it anew.\nA refusal \
         without a reason fails that test.\n",
    );
    let mut section = |title: &str, head: &str, rows: BTreeMap<String, (String, &str)>| {
        let _ = write!(text, "\n## {title}\n\n| {head} | says | because |\n| --- | --- | --- |\n");
        for (who, (says, why)) in rows {
            let _ = writeln!(text, "| {who} | {says} | {why} |");
        }
    };
    let ask = |case: Named| run(&case).err();
    let base = Named(["vp-table", "trailing", "v", "ddim", "none", "none", "none"]);
    let mut rows = BTreeMap::new();
    for (process, grid) in never {
        let error = ask(base.with(0, process).with(1, grid)).expect("never runs");
        let why = reason(&error).expect("a reason is given above");
        rows.insert(format!("`{grid}` on `{process}`"), (error.to_string(), why));
    }
    let grids = rows.len();
    section("Grids on processes", "grid", rows);
    let mut rows = BTreeMap::new();
    for process in &values[0] {
        for prediction in &values[2] {
            // The first grid that begins at the path's noisiest level.
            let grids = ["trailing", "linspace", "shifted"];
            let served = grids.iter().find(|g| !never.contains(&(*process, **g)));
            let Some(grid) = served else { continue };
            let case = base.with(0, process).with(1, grid).with(2, prediction);
            if let Some(error) = ask(case) {
                let why = reason(&error).unwrap_or_else(|| panic!("no reason for: {error}"));
                let who = format!("`{prediction}` from the noisiest level of `{process}`");
                rows.insert(who, (error.to_string(), why));
            }
        }
    }
    section("Predictions at pure noise", "prediction", rows);
    for (seam, never, title, head) in [
        (4, guided, "Guides on samplers", "guide"),
        (6, searched, "Searches on samplers", "search"),
    ] {
        let mut refused: BTreeMap<(&str, String), (Vec<String>, &'static str)> = BTreeMap::new();
        for (sampler, part) in never {
            let error = ask(base.with(3, sampler).with(seam, part)).expect("never runs");
            let why = reason(&error).unwrap_or_else(|| panic!("no reason for: {error}"));
            let row = refused.entry((*part, error.to_string())).or_insert((Vec::new(), why));
            row.0.push(format!("`{sampler}`"));
        }
        let row =
            |((part, says), (samplers, why)): ((&str, String), (Vec<String>, &'static str))| {
                (format!("`{part}` on {}", samplers.join(", ")), (says, why))
            };
        section(title, head, refused.into_iter().map(row).collect());
    }
    let mut rows = BTreeMap::new();
    for name in guide::entries().iter().map(|e| e.card.id) {
        let mut cases = vec![(format!("`{name}` from a spec alone"), None)];
        if let Ok(made) = PartSpec::named(name).make(guide::entries(), Seam::Guide) {
            cases = vec![(format!("`{name}` alone, without a condition"), Some(made))];
        }
        for (who, made) in cases {
            let error = match made {
                None => PartSpec::named(name).make(guide::entries(), Seam::Guide).err(),
                Some(mut made) => {
                    let level = tweedie::level::Level::vp(0.5, 0.0);
                    let mut pass = tweedie::denoiser::Pass::single(BATCH, level);
                    let (model, cond) = (Tiny::new(1, Prediction::V), Cond::default());
                    made.x0(&model, &start(BATCH), &level.into(), &cond, &mut pass).err()
                }
            };
            if let Some(error) = error {
                let why = reason(&error).unwrap_or_else(|| panic!("no reason for: {error}"));
                rows.insert(who, (error.to_string(), why));
            }
        }
    }
    for name in tap::entries().iter().map(|e| e.card.id) {
        if let Err(error) = PartSpec::named(name).make(tap::entries(), Seam::Tap) {
            let why = reason(&error).unwrap_or_else(|| panic!("no reason for: {error}"));
            rows.insert(format!("`{name}` from a spec alone"), (error.to_string(), why));
        }
    }
    section("Parts that need more than a name", "part", rows);
    assert!(grids > 0);
    text
}

fn hold_page(page: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/refusals.md");
    if std::env::var_os("TWEEDIE_BLESS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stands == page, "docs/refusals.md is not what is generated; TWEEDIE_BLESS=1 writes it");
}
