use super::*;

fn check(change: impl FnOnce(&mut Spec)) -> Result<()> {
    let mut spec = Spec { model: "builtin:shapes".into(), ..Spec::default() };
    change(&mut spec);
    spec.validate(&Limits { multiple_of: 8, ..Limits::default() })
}

#[test]
fn the_default_is_valid_and_survives_json() {
    check(|_| {}).unwrap();
    let spec = Spec {
        model: "builtin:shapes".into(),
        prompt: "a \"red\" circle\nleft of a square — ü".into(),
        classes: vec![1, 2],
        sampler: "ddim:eta=0.5".parse().unwrap(),
        grid: Some("karras:rho=5".parse().unwrap()),
        prediction: Some(Prediction::V),
        guidance: Some(3.5),
        guides: vec!["interval:low=0.3,high=2.0".parse().unwrap()],
        seed: u64::MAX,
        noise: Some(SourceFile { name: "n.safetensors".into(), hash: "ab".repeat(32) }),
        ..Spec::default()
    };
    let text = spec.to_json().unwrap();
    assert_eq!(Spec::from_json(&text, &Limits::default()).unwrap(), spec);
    assert!(!text.contains('\n'));
}

#[test]
fn every_limit_names_its_key() {
    type Change = fn(&mut Spec);
    let cases: [(&str, Change); 18] = [
        ("`steps`: 0", |s| s.steps = 0),
        ("`steps`: 10001", |s| s.steps = 10_001),
        ("`count`: 0", |s| s.count = 0),
        ("`count`: 4097", |s| s.count = 4097),
        ("`batch`: 0", |s| s.batch = 0),
        ("`width`: 0", |s| s.width = Some(0)),
        ("`width`: 65", |s| s.width = Some(65)),
        ("`height`: 1000000", |s| s.height = Some(1_000_000)),
        ("`guidance`: NaN", |s| s.guidance = Some(f64::NAN)),
        ("`guidance`: inf", |s| s.guidance = Some(f64::INFINITY)),
        ("`prompt`", |s| s.prompt = "x".repeat(70_000)),
        ("`guides`: 17", |s| s.guides = vec!["cfg".into(); 17]),
        ("`model`: `../x` is a path", |s| s.model = "../x".into()),
        ("`model_hash`: `x`", |s| s.model_hash = Some("x".into())),
        ("no sampler is called `dmpp-2m`; did you mean", |s| s.sampler = "dmpp-2m".into()),
        ("no setting of sampler ddim is called `etta`; did you mean `eta`?", |s| {
            s.sampler = PartSpec::named("ddim").with("etta", 1);
        }),
        ("sampler ddim:eta", |s| s.sampler = PartSpec::named("ddim").with("eta", "much")),
        ("no grid is called", |s| s.grid = Some("nothing".into())),
    ];
    for (wanted, change) in cases {
        let message = check(change).unwrap_err().to_string();
        assert!(message.contains(wanted), "wanted {wanted}, found {message}");
    }
}

#[test]
fn unknown_keys_are_errors() {
    let error = Spec::from_json(r#"{"stepz": 3}"#, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("stepz"), "{error}");
    assert!(Spec::from_json("[]", &Limits::default()).is_err());
    assert!(Spec::from_json(r#"{"steps": -1}"#, &Limits::default()).is_err());
}

#[test]
fn the_guidance_weight_finds_its_guide() {
    let parts = |guides: &[&str], guidance| {
        let guides = guides.iter().map(|g| g.parse().unwrap()).collect();
        let spec = Spec { guidance, guides, ..Spec::default() };
        spec.guide_parts().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(parts(&[], None), "");
    assert_eq!(parts(&[], Some(1.0)), "");
    assert_eq!(parts(&[], Some(3.0)), "cfg:weight=3.0");
    assert_eq!(parts(&["interval"], Some(3.0)), "interval cfg:weight=3.0");
    assert_eq!(parts(&["interval", "cfg-rescale"], Some(3.0)), "interval cfg-rescale:weight=3.0");
    assert_eq!(parts(&["cfg:weight=2"], Some(3.0)), "cfg:weight=2");
}

#[test]
fn the_hash_is_of_the_pictures() {
    let spec = Spec { model: "m".into(), ..Spec::default() };
    let same = [
        Spec { batch: 8, ..spec.clone() },
        Spec { version: "9".into(), ..spec.clone() },
        Spec { instruction_set: "avx2".into(), ..spec.clone() },
    ];
    let hash = spec.hash().unwrap();
    assert_eq!(hash.len(), 64);
    for other in same {
        assert_eq!(other.hash().unwrap(), hash);
    }
    let other = [
        Spec { seed: 1, ..spec.clone() },
        Spec { prompt: "x".into(), ..spec.clone() },
        Spec { sampler: "ddim".into(), ..spec.clone() },
        Spec { guidance: Some(2.0), ..spec.clone() },
    ];
    for other in other {
        assert_ne!(other.hash().unwrap(), hash);
    }
    let order =
        |text: &str| Spec { sampler: text.parse().unwrap(), ..spec.clone() }.hash().unwrap();
    assert_eq!(order("heun:s_churn=1,s_noise=2"), order("heun:s_noise=2,s_churn=1"));
}
