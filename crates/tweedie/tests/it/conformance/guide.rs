//! Every guide: its neutral weights, its closed form on an exact world, its evaluations.

use std::sync::Arc;

use tweedie::Error;
use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::guide::{self, Autoguidance, Guide, Guided, autoguidance};
use tweedie::level::{Level, Levels};
use tweedie::prediction::Prediction;
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::world::{apart, gaussian, mixture, state};

fn at() -> Level {
    Level::new(0.5, 0.8, 0.6)
}

fn points() -> State {
    state(&[vec![0.9, -1.4], vec![-0.2, 0.6], vec![1.7, 0.3]])
}

fn classes() -> Cond {
    Cond::of_class(vec![0, 1, 0])
}

fn make(text: &str) -> Box<dyn Guide> {
    text.parse::<PartSpec>().unwrap().make(guide::entries(), Seam::Guide).unwrap()
}

/// The guided estimate and how many evaluations a row it took.
fn guided(guide: &mut dyn Guide, cond: &Cond, at: &Levels) -> (State, usize) {
    let world = mixture();
    let mut pass = Pass::single(3, at.row(0));
    let x0 = guide.x0(&world, &points(), at, cond, &mut pass).unwrap();
    (x0, pass.cost.forward)
}

fn plain(cond: &Cond) -> State {
    let mut pass = Pass::single(3, at());
    mixture().x0(&points(), &Levels::One(at()), cond, &mut pass).unwrap()
}

#[test]
fn every_guide_can_be_made_or_says_what_it_needs() {
    for entry in guide::entries() {
        match PartSpec::named(entry.card.id).make(guide::entries(), Seam::Guide) {
            Ok(guide) => drop(guide.fork()),
            Err(Error::Unsupported { part, needs }) => {
                assert_eq!(part, entry.card.id);
                assert!(!needs.is_empty());
            }
            Err(other) => panic!("{}: {other}", entry.card.id),
        }
    }
}

#[test]
fn neutral_weights_are_one_branch() {
    let one = Levels::One(at());
    for (text, cond, rows) in [
        ("cfg:weight=1", classes(), 3),
        ("cfg:weight=0", Cond::default(), 3),
        ("cfg-rescale:weight=1", classes(), 3),
        ("apg:weight=1", classes(), 3),
        ("cfg-zero-star:weight=1,zero_steps=0", classes(), 3),
    ] {
        let (x0, spent) = guided(make(text).as_mut(), &classes(), &one);
        assert_eq!(x0.to_rows(), plain(&cond).to_rows(), "{text}");
        assert_eq!(spent, rows, "{text}");
    }
    let weak: Arc<dyn Denoiser> = Arc::new(gaussian());
    let settings = autoguidance::Settings { weight: 1.0 };
    let mut guide = Autoguidance::new(weak, settings).unwrap();
    assert_eq!(guided(&mut guide, &classes(), &one).0.to_rows(), plain(&classes()).to_rows());
}

#[test]
fn linear_guides_equal_the_closed_form() {
    let world = mixture();
    let weak = gaussian();
    let settings = autoguidance::Settings { weight: 2.5 };
    let mut auto = Autoguidance::new(Arc::new(weak.clone()), settings).unwrap();
    let (by_cfg, spent) = guided(make("cfg:weight=2.5").as_mut(), &classes(), &Levels::One(at()));
    assert_eq!(spent, 6);
    let (by_auto, spent) = guided(&mut auto, &classes(), &Levels::One(at()));
    assert_eq!(spent, 6);
    for (i, x) in points().to_rows().iter().enumerate() {
        let class = Some([0, 1, 0][i]);
        let c = world.posterior(x, at(), class).unwrap().0;
        let u = world.posterior(x, at(), None).unwrap().0;
        let w = weak.posterior(x, at()).0;
        for k in 0..2 {
            let wanted = u[k] + 2.5 * (c[k] - u[k]);
            assert!((by_cfg.to_rows()[i][k] - wanted).abs() < 1e-12);
            let wanted = w[k] + 2.5 * (c[k] - w[k]);
            assert!((by_auto.to_rows()[i][k] - wanted).abs() < 1e-12);
        }
    }
}

#[test]
fn a_composition_is_the_score_of_a_product() {
    // At clean data the score of the composition is that of p(x) prod (p(x | c) / p(x))^w, whose
    // gradient is a difference of logarithms of densities. With alpha = 1 and a small sigma,
    // score = (x0 - x) / sigma^2.
    let world = mixture();
    let at = Level::new(1e-3, 1.0, 2e-3);
    let compose = "compose:weight=1.5,classes=[1],weights=[-0.4]";
    let mut pass = Pass::single(3, at);
    let x = points();
    let cond = Cond::of_class(vec![0, 0, 0]);
    let x0 = make(compose).x0(&world, &x, &Levels::One(at), &cond, &mut pass).unwrap();
    for (i, x) in x.to_rows().iter().enumerate() {
        let log = |x: &[f64]| {
            let of = |class| world.log_density(x, at, class).unwrap();
            of(None) + 1.5 * (of(Some(0)) - of(None)) - 0.4 * (of(Some(1)) - of(None))
        };
        for k in 0..2 {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[k] += by;
                log(&x)
            };
            let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let found = (x0.to_rows()[i][k] - x[k]) / (at.sigma * at.sigma);
            assert!((found - wanted).abs() < 1e-5 * (1.0 + wanted.abs()), "{found} {wanted}");
        }
    }
}

#[test]
fn a_negative_condition_takes_the_place_of_none() {
    let negative = Cond { negative: Some(Box::new(Cond::of_class(vec![1, 0, 1]))), ..classes() };
    let (x0, _) = guided(make("cfg:weight=3").as_mut(), &negative, &Levels::One(at()));
    let (c, n) = (plain(&classes()), plain(&Cond::of_class(vec![1, 0, 1])));
    assert!(apart(&x0, &(n.clone() + (c - n) * 3.0)) < 1e-14);
}

#[test]
fn guidance_without_a_condition_is_refused() {
    for text in ["cfg", "cfg-rescale", "apg", "cfg-pp", "cfg-zero-star:zero_steps=0", "compose"] {
        let mut pass = Pass::single(3, at());
        let at = Levels::One(at());
        let x0 = make(text).x0(&mixture(), &points(), &at, &Cond::default(), &mut pass);
        let error = x0.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("condition"), "{error}");
    }
}

/// Guides that ask several branches of one network.
const TWO_BRANCHES: &[&str] = &[
    "cfg:weight=2.5",
    "cfg-rescale",
    "apg",
    "cfg-pp",
    "cfg-zero-star:zero_steps=0",
    "compose:classes=[1],weights=[-1.5]",
];

#[test]
fn stacked_branches_equal_separate_ones() {
    let world = mixture();
    for text in TWO_BRANCHES {
        let both = [false, true].map(|sequential| {
            let mut pass = Pass::single(3, at());
            pass.sequential = sequential;
            let at = Levels::rows([at(), Level::new(0.3, 0.9, 0.4), Level::new(1.0, 0.1, 0.99)]);
            make(text).x0(&world, &points(), &at, &classes(), &mut pass).unwrap().to_rows()
        });
        assert_eq!(both[0], both[1], "{text}");
    }
}

#[test]
fn a_row_does_not_know_its_batch() {
    let world = mixture();
    let levels = [at(), Level::new(0.3, 0.9, 0.4), Level::new(1.0, 0.1, 0.99)];
    for text in TWO_BRANCHES {
        let mut pass = Pass::single(3, at());
        let all = make(text)
            .x0(&world, &points(), &Levels::rows(levels), &classes(), &mut pass)
            .unwrap()
            .to_rows();
        for i in 0..3 {
            let (x, cond) = (points().select(&[i]), classes().select(&[i]));
            let at = Levels::One(levels[i]);
            let mut pass = Pass::single(1, levels[i]);
            let one = make(text).x0(&world, &x, &at, &cond, &mut pass).unwrap();
            assert_eq!(one.to_rows()[0], all[i], "{text}");
        }
    }
}

#[test]
fn rescaling_puts_the_spread_back() {
    let one = Levels::One(at());
    let (plain_cfg, _) = guided(make("cfg:weight=4").as_mut(), &classes(), &one);
    let (none, _) = guided(make("cfg-rescale:weight=4,phi=0").as_mut(), &classes(), &one);
    assert!(apart(&plain_cfg, &none) < 1e-13);
    for space in Prediction::ALL {
        let text = format!("cfg-rescale:weight=4,phi=1,space={}", space.name());
        let (full, _) = guided(make(&text).as_mut(), &classes(), &one);
        let spread = |x0: &State| {
            let rows = space.from_x0(x0, &points(), &one).unwrap().to_rows();
            rows.iter().map(|r| (r[0] - r[1]).abs() / 2.0).collect::<Vec<_>>()
        };
        for (a, b) in spread(&full).iter().zip(spread(&plain(&classes()))) {
            assert!((a - b).abs() < 1e-12, "{space:?}: {a} {b}");
        }
        let half = format!("cfg-rescale:weight=4,phi=0.5,space={}", space.name());
        let (half, _) = guided(make(&half).as_mut(), &classes(), &one);
        assert!(apart(&half, &((full + plain_cfg.clone()) * 0.5)) < 1e-12);
    }
}

#[test]
fn the_interval_guides_inside_and_steps_aside_outside() {
    let world = mixture();
    // sigma_edm: 0.75 inside, 0.05 and 9.9 outside; the bounds count as the paper says.
    let inside = at();
    let below = Level::new(0.1, 1.0, 0.05);
    let above = Level::new(1.0, 0.1, 0.99);
    let ask = |at: Levels| {
        let mut cfg = make("cfg:weight=3");
        let model = Guided::new(cfg.as_mut(), &world);
        let mut pass = Pass::single(3, at.row(0));
        let x0 = make("interval:low=0.3,high=2").x0(&model, &points(), &at, &classes(), &mut pass);
        (x0.unwrap(), pass.cost.forward)
    };
    let cfg = |at: Level| guided(make("cfg:weight=3").as_mut(), &classes(), &Levels::One(at)).0;
    let alone = |at: Level| guided(make("cfg:weight=1").as_mut(), &classes(), &Levels::One(at)).0;
    let (x0, spent) = ask(Levels::One(inside));
    assert_eq!((x0.to_rows(), spent), (cfg(inside).to_rows(), 6));
    for at in [below, above] {
        let (x0, spent) = ask(Levels::One(at));
        assert_eq!((x0.to_rows(), spent), (alone(at).to_rows(), 3));
    }
    let (mixed, spent) = ask(Levels::rows([below, inside, above]));
    assert_eq!(spent, 4);
    assert_eq!(mixed.to_rows()[0], alone(below).to_rows()[0]);
    assert_eq!(mixed.to_rows()[1], cfg(inside).to_rows()[1]);
    assert_eq!(mixed.to_rows()[2], alone(above).to_rows()[2]);
    let edge = |sigma: f64| ask(Levels::One(Level::new(0.5, 1.0, sigma))).1;
    assert_eq!([edge(0.3), edge(0.300_001), edge(2.0), edge(2.000_001)], [3, 6, 6, 3]);
    let mut pass = Pass::single(3, inside);
    let bare = make("interval").x0(&world, &points(), &Levels::One(inside), &classes(), &mut pass);
    assert!(matches!(bare, Err(Error::Unsupported { .. })));
}

#[test]
fn bad_settings_are_refused() {
    for text in [
        "cfg-rescale:phi=1.5",
        "cfg-rescale:phi=-0.1",
        "interval:low=3,high=2",
        "interval:low=-1",
        "cfg:weight=big",
        "apg:threshold=0",
        "compose:classes=[1],weights=[1,2]",
    ] {
        let part: PartSpec = text.parse().unwrap();
        let error = part.make(guide::entries(), Seam::Guide).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{text}: {error}");
    }
}
