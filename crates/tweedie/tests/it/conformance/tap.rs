//! Every tap: idle it changes nothing, bit for bit; branches and requests never mix.

use tweedie::Error;
use tweedie::catalog::Seam;
use tweedie::denoiser::{Branch, Cond, Denoiser, Pass, Row};
use tweedie::guide::{Cfg, Guide};
use tweedie::level::{Level, Levels};
use tweedie::prediction::Prediction;
use tweedie::spec::PartSpec;
use tweedie::state::State;
use tweedie::tap::record::Settings;
use tweedie::tap::{self, Record, Recorder, Replace, SharedTap, Skip, replace, skip};

use super::tiny::{BLOCKS, Tiny, start};

fn level(step: usize) -> Level {
    Level::vp(0.9 - 0.2 * step as f64, -1.0 + step as f64)
}

fn rows(batch: usize, step: usize) -> Vec<Row> {
    let row = |request| Row { request, branch: Branch::Cond, step, steps: 3, level: level(step) };
    (0..batch as u64).map(row).collect()
}

/// One evaluation of the tiny network at a step, with guidance by two branches.
fn ask(taps: &[SharedTap], step: usize, sequential: bool, x: &State) -> tweedie::Result<State> {
    let net = Tiny::new(1, Prediction::V);
    let mut pass = Pass::new(rows(x.batch(), step), taps.to_vec());
    pass.sequential = sequential;
    let cond = Cond::of_class((0..x.batch() as i64).map(|i| i % 3).collect::<Vec<_>>());
    let at = Levels::One(level(step));
    Cfg { weight: 2.0 }.x0(&net, x, &at, &cond, &mut pass)
}

fn plain(step: usize) -> Vec<Vec<f64>> {
    ask(&[], step, false, &start(2)).unwrap().to_rows()
}

fn recorder(settings: Settings) -> (SharedTap, Record) {
    let record = Record::default();
    (SharedTap::new(Recorder::new(settings, &record)), record)
}

fn skipping(text: &str) -> SharedTap {
    let part: PartSpec = text.parse().unwrap();
    let settings: skip::Settings = part.settings(Seam::Tap).read().unwrap();
    SharedTap::new(Skip::new(settings))
}

#[test]
fn every_tap_can_be_made_or_says_what_it_needs() {
    for entry in tap::entries() {
        match PartSpec::named(entry.card.id).make(tap::entries(), Seam::Tap) {
            Ok(_) => {}
            Err(Error::Unsupported { part, .. }) => assert_eq!(part, entry.card.id),
            Err(other) => panic!("{}: {other}", entry.card.id),
        }
    }
}

#[test]
fn every_block_is_announced_once() {
    let (tap, record) = recorder(Settings::default());
    let x = start(2);
    let at = Levels::One(level(0));
    let mut pass = Pass::new(rows(2, 0), vec![tap]);
    Tiny::new(1, Prediction::V).x0(&x, &at, &Cond::default(), &mut pass).unwrap();
    let places = record.places();
    assert_eq!(places.len(), 2 * BLOCKS);
    assert!(places.iter().all(|p| p.visit == 0));
}

#[test]
fn recording_changes_nothing_and_its_record_replaces_bit_for_bit() {
    let (tap, record) = recorder(Settings::default());
    for step in 0..3 {
        assert_eq!(
            ask(std::slice::from_ref(&tap), step, false, &start(2)).unwrap().to_rows(),
            plain(step)
        );
    }
    assert_eq!(record.places().len(), 3 * BLOCKS * 2 * 2);
    for sequential in [false, true] {
        let back = SharedTap::new(Replace::new(replace::Settings::default(), &record));
        for step in 0..3 {
            let again = ask(std::slice::from_ref(&back), step, sequential, &start(2)).unwrap();
            assert_eq!(again.to_rows(), plain(step));
        }
    }
}

#[test]
fn a_replaced_site_carries_the_other_run() {
    let (tap, record) = recorder(Settings::default());
    let other = start(2) * 0.5;
    for step in 0..3 {
        ask(std::slice::from_ref(&tap), step, false, &other).unwrap();
    }
    // The last block decides the output alone, but for the conversion that sees the state.
    let last = replace::Settings { sites: vec!["blocks.2".into()], first: 1, last: Some(1) };
    let back = || SharedTap::new(Replace::new(last.clone(), &record));
    let x0 = |step| ask(&[back()], step, false, &start(2)).unwrap().to_rows();
    assert_eq!(x0(0), plain(0));
    assert_eq!(x0(2), plain(2));
    assert_ne!(x0(1), plain(1));
    let at = level(1);
    let there = ask(&[], 1, false, &other).unwrap() - other.clone() * at.alpha;
    let here = ask(&[back()], 1, false, &start(2)).unwrap() - start(2) * at.alpha;
    assert!(super::world::apart(&there, &here) < 1e-14);
    // One request may stand for all.
    let one = SharedTap::new(Replace::new(last.clone(), &record).from_request(0));
    let here = ask(&[one], 1, false, &start(2)).unwrap() - start(2) * at.alpha;
    let rows = here.to_rows();
    assert!(rows[0].iter().zip(&rows[1]).all(|(a, b)| (a - b).abs() < 1e-14));
}

#[test]
fn visits_of_one_step_are_told_apart() {
    let (tap, record) = recorder(Settings::default());
    let (a, b) = (start(2), start(2) * 0.3);
    let first = ask(std::slice::from_ref(&tap), 0, false, &a).unwrap();
    let second = ask(&[tap], 0, false, &b).unwrap();
    let back = SharedTap::new(Replace::new(replace::Settings::default(), &record));
    let again = ask(std::slice::from_ref(&back), 0, true, &a).unwrap();
    assert_eq!(again.to_rows(), first.to_rows());
    assert_eq!(ask(&[back], 0, true, &b).unwrap().to_rows(), second.to_rows());
}

#[test]
fn what_was_not_recorded_is_an_error() {
    let (tap, record) =
        recorder(Settings { sites: vec!["blocks.0".into()], ..Settings::default() });
    ask(&[tap], 0, false, &start(2)).unwrap();
    let back = SharedTap::new(Replace::new(replace::Settings::default(), &record));
    let error = ask(&[back], 0, false, &start(2)).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("blocks.1"), "{error}");
}

#[test]
fn branches_do_not_leak() {
    let (tap, record) = recorder(Settings::default());
    ask(&[tap], 0, false, &start(2)).unwrap();
    let of = |branch| {
        let all = record.places();
        let place = all.iter().find(|p| p.branch == branch && &*p.path == "blocks.0").unwrap();
        record.get(place).unwrap().get("hidden").unwrap().rows().into_data().try_to_vec::<f64>()
    };
    assert_ne!(of(Branch::Cond).unwrap(), of(Branch::Uncond).unwrap());
}

#[test]
fn a_skipped_block_passes_its_hidden_state_on() {
    for (text, acts) in [
        ("skip:sites=[blocks.9]", [false; 3]),
        ("skip:sites=[blocks]", [true; 3]),
        ("skip:sites=[block]", [false; 3]),
        ("skip:sites=[blocks.1],first=1", [false, true, true]),
        ("skip:sites=[blocks.1],last=1", [true, true, false]),
        ("skip:kind=attention", [false; 3]),
    ] {
        let tap = skipping(text);
        // Twice: the first time the block is computed to see that it keeps its shape.
        for _ in 0..2 {
            for (step, acts) in acts.into_iter().enumerate() {
                let x0 = ask(std::slice::from_ref(&tap), step, false, &start(2)).unwrap().to_rows();
                assert_eq!(x0 != plain(step), acts, "{text} at step {step}");
            }
        }
    }
    let (tap, record) = recorder(Settings::default());
    // The recorder inside the skip sees a block only when it is computed: the first time.
    let taps = [skipping("skip:sites=[blocks.1]"), tap];
    let first = ask(&taps, 0, false, &start(2)).unwrap();
    let seen = record.places().len();
    let second = ask(&taps, 0, false, &start(2)).unwrap();
    assert_eq!(first.to_rows(), second.to_rows());
    assert_eq!(record.places().len() - seen, 2 * 2 * (BLOCKS - 1));
}

#[test]
fn requests_at_different_steps_share_a_call() {
    let net = Tiny::new(1, Prediction::V);
    let x = start(2);
    let at = Levels::rows([level(0), level(2)]);
    let mixed = vec![rows(2, 0)[0], rows(2, 2)[1]];
    let alone = |tap: SharedTap, i: usize| {
        let mut pass = Pass::new(vec![mixed[i]], vec![tap]);
        let (x, at) = (x.select(&[i]), at.select(&[i]));
        net.x0(&x, &at, &Cond::default(), &mut pass).unwrap().to_rows().remove(0)
    };
    let text = "skip:sites=[blocks.1],first=1";
    let tap = skipping(text);
    for _ in 0..2 {
        let mut pass = Pass::new(mixed.clone(), vec![tap.clone()]);
        let both = net.x0(&x, &at, &Cond::default(), &mut pass).unwrap().to_rows();
        assert_eq!(both[0], alone(skipping(text), 0));
        assert_eq!(both[1], alone(skipping(text), 1));
    }
    let (tap, record) = recorder(Settings::default());
    let mut pass = Pass::new(mixed.clone(), vec![tap]);
    let both = net.x0(&x, &at, &Cond::default(), &mut pass).unwrap().to_rows();
    for (i, both) in both.iter().enumerate() {
        let back = SharedTap::new(Replace::new(replace::Settings::default(), &record));
        assert_eq!(alone(back, i), *both);
    }
}
