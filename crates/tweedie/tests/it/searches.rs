//! Searches and rewards through the engine, on a built-in model.

use tweedie::engine::{Engine, Inputs, Unwatching, check, generate};
use tweedie::spec::{Limits, Spec};

fn spec(search: Option<&str>, rewards: &[&str]) -> Spec {
    Spec {
        classes: vec![1, 7],
        sampler: "ddim:eta=1".parse().unwrap(),
        steps: 4,
        count: 2,
        guidance: Some(1.0),
        rewards: rewards.iter().map(|r| r.parse().unwrap()).collect(),
        search: search.map(|s| s.parse().unwrap()),
        ..Spec::default()
    }
}

#[test]
fn a_search_finds_better_pictures_at_the_cost_it_says() {
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open("builtin:fashion").unwrap();
    let run =
        |spec: &Spec| generate(&engine, &model, spec, &Inputs::default(), &mut Unwatching).unwrap();
    let bright = |images: &tweedie::data::Images, k: usize| {
        images.gather_f32(&[k]).unwrap().iter().map(|v| f64::from(*v)).sum::<f64>()
    };
    let plain = run(&spec(None, &[]));
    assert_eq!(plain.cost.forward, 2 * 4);
    for (search, walks) in [("noise-search:candidates=3", 3), ("fk-steering:particles=3", 3)] {
        let asked = spec(Some(search), &["linear"]);
        let found = run(&asked);
        assert_eq!(found.cost.forward, 2 * 4 * walks, "{search}");
        // The batch is no more than speed.
        let wide = run(&Spec { batch: 2, ..asked.clone() });
        assert_eq!(found.images.data, wide.images.data, "{search}");
        // A picture does not know of the others.
        let second = Spec { seed: 1, count: 1, classes: vec![7], ..asked };
        let size = found.images.data.len() / 2;
        assert_eq!(run(&second).images.data, found.images.data[size..], "{search}");
        if search.starts_with("noise") {
            for k in 0..2 {
                assert!(bright(&found.images, k) >= bright(&plain.images, k) - 1e-3);
            }
            assert_ne!(found.images.data, plain.images.data);
        }
    }
    // The only candidate is the picture without a search.
    let one = run(&spec(Some("noise-search:candidates=1"), &["linear"]));
    assert_eq!(one.images.data, plain.images.data);
}

#[test]
fn a_guide_follows_a_classifier() {
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open("builtin:fashion").unwrap();
    let plain = spec(None, &[]);
    for (guide, backward) in
        [("classifier-guidance", 8), ("elucd", 0), ("flowchef", 0), ("steered-diffusion", 8)]
    {
        let mut guided = spec(None, &["classifier:class=1"]);
        guided.guides = vec![guide.parse().unwrap()];
        let run = |spec: &Spec| {
            generate(&engine, &model, spec, &Inputs::default(), &mut Unwatching).unwrap()
        };
        let found = run(&guided);
        // Guides that look at the estimate alone ask the network for no gradient.
        assert_eq!((found.cost.forward, found.cost.backward), (8, backward), "{guide}");
        assert_ne!(found.images.data, run(&plain).images.data, "{guide}");
    }
}

#[test]
fn what_cannot_be_searched_or_followed_says_why() {
    let limits = Limits::default();
    let says = |spec: Spec| spec.validate(&limits).err().map_or(String::new(), |e| e.to_string());
    assert!(says(spec(Some("noise-search"), &[])).contains("a reward to choose by"));
    assert!(says(spec(Some("noise-serch"), &["linear"])).contains("noise-search"));
    let greedy = "noise-search:over=zero-order,candidates=60000,rounds=60000";
    assert!(says(spec(Some(greedy), &["linear"])).contains("walks a picture, at most"));
    assert!(says(spec(None, &["classifier:model=../secret"])).contains("is a path"));
    let engine = Engine::cpu(1).unwrap();
    let model = engine.open("builtin:fashion").unwrap();
    let fails = |spec: &Spec| {
        check(&model, spec).unwrap();
        let made = generate(&engine, &model, spec, &Inputs::default(), &mut Unwatching);
        made.unwrap_err().to_string()
    };
    let mut population = spec(Some("fk-steering"), &["linear"]);
    population.sampler = "ddim".parse().unwrap();
    assert!(fails(&population).contains("a sampler that draws noise"));
    assert!(fails(&spec(None, &["classifier:model=mine"])).contains("is not given"));
    assert!(fails(&spec(None, &["measurement"])).contains("a picture that is measured"));
    assert!(fails(&spec(None, &["reader"])).contains("a caption"));
    let mut unread = spec(None, &["linear"]);
    unread.guides = vec!["elucd".parse().unwrap()];
    assert!(fails(&unread).contains("classifier"));
    let mut alone = spec(None, &[]);
    alone.guides = vec!["flowchef".parse().unwrap()];
    assert!(fails(&alone).contains("a reward to follow"));
}
