//! What every network must keep, whatever its class: sites, rows, gradients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use burn::tensor::{Tensor, TensorData};
use tweedie::denoiser::{Cond, Network, Pass, Row, Times};
use tweedie::model::config::{DitConfig, PixArtConfig, UNet2DConditionConfig, UNet2DConfig};
use tweedie::model::{AutoencoderKl, ClipText, DiT, ModelConfig, UNet2D, UNet2DCondition, build};
use tweedie::random::Key;
use tweedie::state::State;
use tweedie::tap::{Feature, Features, SharedTap, Site, SiteKind, Tap, Verdict};
use tweedie::weight::{Parameters, Weight, draw};

use super::fixture::{Fixture, Recorder, rows};

const CASES: [&str; 12] = [
    "unet2d_plain",
    "unet2d_scale_shift_classes",
    "unet2d_ddpm",
    "unet2d_identity_no_attention",
    "unet2d_condition_plain",
    "unet2d_condition_odd_masked",
    "unet2d_condition_linear_deep",
    "unet2d_condition_text_time",
    "dit_plain",
    "dit_larger",
    "pixart_plain",
    "pixart_larger_masked",
];

/// A network and eight different rows for it.
struct Bench {
    network: Box<dyn Network>,
    x: State,
    times: Times,
    cond: Cond,
}

fn config(fixture: &Fixture) -> ModelConfig {
    match ModelConfig::of_class(fixture.class()).unwrap() {
        ModelConfig::UNet2D(_) => ModelConfig::UNet2D(fixture.config::<UNet2DConfig>()),
        ModelConfig::UNet2DCondition(_) => {
            ModelConfig::UNet2DCondition(Box::new(fixture.config::<UNet2DConditionConfig>()))
        }
        ModelConfig::DiT(_) => ModelConfig::DiT(fixture.config::<DitConfig>()),
        ModelConfig::PixArt(_) => ModelConfig::PixArt(fixture.config::<PixArtConfig>()),
    }
}

impl Bench {
    fn new(case: &str) -> Self {
        let fixture = Fixture::open(case);
        let network = fixture.load(build(&config(&fixture), &fixture.device).unwrap());
        let count = fixture.x().batch();
        let at: Vec<usize> = (0..8).map(|i| i % count).collect();
        let x = fixture.x().select(&at);
        let features = x.real_features();
        let factors: Vec<f32> = (0..8).map(|i| 1.0 - 0.07 * i as f32).collect();
        let factors = Tensor::<2>::from_data(TensorData::new(factors, [8, 1]), &fixture.device);
        let x = x.map(|x| x * factors.clone().expand([8, features]));
        let values = fixture.times().values;
        let values = at.iter().enumerate().map(|(i, &r)| values[r] + 11.0 * i as f64).collect();
        let times = Times { values, positions: 1 };
        Self { network, x, times, cond: fixture.cond().select(&at) }
    }

    fn run(&self, at: &[usize], pass: &mut Pass) -> State {
        let values = at.iter().map(|&r| self.times.values[r]).collect();
        let times = Times { values, positions: 1 };
        self.network.forward(&self.x.select(at), &times, &self.cond.select(at), pass).unwrap()
    }

    fn all(&self) -> Vec<Vec<f64>> {
        self.run(&[0, 1, 2, 3, 4, 5, 6, 7], &mut Pass::default()).to_rows()
    }
}

#[test]
fn sites_are_those_announced_in_order_and_once() {
    for case in CASES {
        let bench = Bench::new(case);
        let recorder = Recorder::shared(true);
        let mut pass = Pass::new(rows(2), vec![SharedTap::of(&recorder)]);
        let plain = bench.run(&[0, 1], &mut Pass::default());
        let tapped = bench.run(&[0, 1], &mut pass);
        assert_eq!(plain.to_rows(), tapped.to_rows(), "{case}: a tap that only listens");
        let recorder = recorder.lock().unwrap();
        assert_eq!(recorder.entered, bench.network.sites(), "{case}");
        check_sites(case, &recorder);
    }
}

/// Each site once, depths counted, attention with its map.
fn check_sites(case: &str, recorder: &Recorder) {
    let mut counts = BTreeMap::new();
    for site in &recorder.entered {
        let count: &mut usize = counts.entry(site.kind).or_default();
        assert_eq!(site.depth, *count, "{case}: {}", site.path);
        *count += 1;
        let outputs = &recorder.seen[site];
        assert_eq!(outputs.len(), 1, "{case}: {}", site.path);
        if matches!(site.kind, SiteKind::Attention | SiteKind::CrossAttention) {
            let map: Tensor<4> = outputs[0].get("map").unwrap().view().unwrap();
            let sums = map.sum_dim(3).into_data_as::<f32>();
            assert!(sums.iter::<f32>().all(|s| (s - 1.0).abs() < 1e-5), "{case}");
        }
    }
    assert!(counts[&SiteKind::Block] > 0, "{case}");
}

#[test]
fn a_row_alone_is_the_row_in_a_batch() {
    for case in CASES {
        let bench = Bench::new(case);
        let all = bench.all();
        for at in [vec![0], vec![7], vec![1, 4, 6]] {
            let part = bench.run(&at, &mut Pass::default()).to_rows();
            for (row, &i) in part.iter().zip(&at) {
                assert_eq!(row, &all[i], "{case}: row {i} of {at:?}");
            }
        }
    }
}

/// Keeps what came out of its site for each request, and later supplies it for every other one.
#[derive(Debug)]
struct Replay {
    site: Site,
    kept: BTreeMap<u64, Features>,
    supplies: bool,
    computed: usize,
}

impl Tap for Replay {
    fn wants(&self, site: &Site) -> bool {
        *site == self.site
    }

    fn decide(&mut self, _: &Site, rows: &[Row], _: &Features) -> tweedie::Result<Vec<Verdict>> {
        let verdict = |row: &Row| {
            let known = self.supplies && row.request.is_multiple_of(2);
            if known { Verdict::Supply } else { Verdict::Compute }
        };
        Ok(rows.iter().map(verdict).collect())
    }

    fn supply(&mut self, _: &Site, rows: &[Row], _: Features) -> tweedie::Result<Features> {
        let parts: Vec<&Feature> = rows
            .iter()
            .map(|row| self.kept[&row.request].get("hidden"))
            .collect::<tweedie::Result<_>>()?;
        let stacked = Tensor::cat(parts.iter().map(|p| p.rows()).collect(), 0);
        let mut shape = parts[0].shape().to_vec();
        shape[0] = rows.len();
        let mut output = Features::new();
        output.set("hidden", shaped(stacked, &shape));
        Ok(output)
    }

    fn after(&mut self, _: &Site, rows: &[Row], output: Features) -> tweedie::Result<Features> {
        self.computed += rows.len();
        for (i, row) in rows.iter().enumerate() {
            self.kept.insert(row.request, output.select(&[i]));
        }
        Ok(output)
    }
}

fn shaped(rows: Tensor<2>, shape: &[usize]) -> Feature {
    match *shape {
        [a, b, c] => Feature::new(rows.reshape([a, b, c])),
        [a, b, c, d] => Feature::new(rows.reshape([a, b, c, d])),
        _ => unreachable!("hidden states are of rank 3 or 4"),
    }
}

/// Leaving any site out for some rows and putting its own results in changes nothing, so that every
/// site carries all that the rows need.
#[test]
fn rows_may_be_left_out_anywhere() {
    for case in CASES {
        let bench = Bench::new(case);
        let at = [0, 1, 2, 3];
        let wanted = bench.run(&at, &mut Pass::default()).to_rows();
        for site in bench.network.sites() {
            let replay =
                Replay { site: site.clone(), kept: BTreeMap::new(), supplies: false, computed: 0 };
            let replay = Arc::new(Mutex::new(replay));
            let mut pass = Pass::new(rows(4), vec![SharedTap::of(&replay)]);
            bench.run(&at, &mut pass);
            replay.lock().unwrap().supplies = true;
            let found = bench.run(&at, &mut pass).to_rows();
            assert_eq!(found, wanted, "{case}: {site:?}");
            assert_eq!(replay.lock().unwrap().computed, 6, "{case}: {site:?}");
        }
    }
}

fn numbers(count: usize, stream: u64) -> Vec<f32> {
    let mut generator = Key::new(3, stream, 0).generator();
    (0..count).map(|_| (2.0 * generator.uniform() - 1.0) as f32).collect()
}

/// The gradient of the sum of the outputs, each times a fixed number, against central differences
/// along the gradient; every weight that matters has one.
fn gradient_holds<N: Parameters>(
    case: &str,
    network: &mut N,
    h: f32,
    mut outputs: impl FnMut(&N) -> Tensor<2>,
) {
    let loss = |y: Tensor<2>| {
        let dims = y.dims();
        let c = numbers(dims[0] * dims[1], 9);
        let c = Tensor::<2>::from_data(TensorData::new(c, dims), &y.device());
        (y * c).sum()
    };
    network.each_mut("", &mut |_, weight| weight.track());
    let grads = loss(outputs(network)).backward();
    let mut gradients: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    network.each("", &mut |path, weight| {
        if let Some(grad) = weight.value().grad(&grads) {
            gradients.insert(path.to_owned(), grad.into_data_as::<f32>().iter::<f32>().collect());
        }
    });
    network.each_mut("", &mut |_, weight| weight.untrack());
    let mut count = 0;
    network.each("", &mut |path, _| {
        count += 1;
        assert!(gradients.contains_key(path), "{case}: {path} has no gradient");
    });
    assert!(count > 10, "{case}");
    let norm = gradients.values().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    assert!(norm > 1e-2 && norm.is_finite(), "{case}: {norm}");
    let mut shifted = |network: &mut N, by: f32| {
        let change = |path: &str, weight: &mut Weight| {
            let step = gradients[path].iter().map(|g| by * g / norm as f32);
            let value = weight.to_vec().iter().zip(step).map(|(w, s)| w + s).collect();
            weight.set_vec(value).unwrap();
        };
        let mut change = change;
        network.each_mut("", &mut change);
        let dims = outputs(network).dims();
        let c = numbers(dims[0] * dims[1], 9);
        let y = outputs(network).into_data_as::<f32>();
        y.iter::<f32>().zip(&c).map(|(y, c)| f64::from(y) * f64::from(*c)).sum::<f64>()
    };
    let up = shifted(network, h);
    let down = shifted(network, -2.0 * h);
    let measured = (up - down) / (2.0 * f64::from(h));
    let off = (measured / norm - 1.0).abs();
    println!("{case}: the gradient is off by {off:.1e}");
    assert!(off < 1e-2, "{case}: gradient {norm}, measured {measured}");
}

#[test]
fn denoising_networks_are_differentiable() {
    for case in CASES {
        let mut bench = Bench::new(case);
        let (x, cond) = (bench.x.select(&[0, 1]), bench.cond.select(&[0, 1]));
        let times = Times { values: bench.times.values[..2].to_vec(), positions: 1 };
        gradient_holds(case, &mut bench.network, 2e-3, |network| {
            let y = network.forward(&x, &times, &cond, &mut Pass::default()).unwrap();
            y.rows_tensor().unwrap()
        });
    }
}

#[test]
fn a_gradient_reaches_the_input_through_frozen_weights() {
    for case in CASES {
        let bench = Bench::new(case);
        let x = bench.x.select(&[0]).view::<4>().unwrap().autodiff().require_grad();
        let times = Times { values: vec![bench.times.values[0]], positions: 1 };
        let state = State::new(x.clone());
        let cond = bench.cond.select(&[0]);
        let y = bench.network.forward(&state, &times, &cond, &mut Pass::default()).unwrap();
        let grads = y.rows_tensor().unwrap().square().sum().backward();
        let grad = x.grad(&grads).unwrap().abs().max().into_data_as::<f32>();
        assert!(grad.iter::<f32>().all(|g| g > 1e-3 && g.is_finite()), "{case}");
    }
}

#[test]
fn the_autoencoder_keeps_sites_rows_and_gradients() {
    let fixture = Fixture::open("autoencoder_kl_plain");
    let network = AutoencoderKl::new(fixture.config(), &fixture.device).unwrap();
    let mut network = fixture.load(network);
    let (x, z) = (fixture.tensor::<4>("input.x"), fixture.tensor::<4>("input.z"));
    let (encoder, decoder) = network.sites();
    let plain = [network.encode(&x).unwrap().0, network.decode(&z).unwrap()];
    for (sites, encodes) in [(encoder, true), (decoder, false)] {
        let recorder = Recorder::shared(true);
        let mut pass = Pass::new(rows(2), vec![SharedTap::of(&recorder)]);
        let (tapped, wanted) = if encodes {
            (network.encode_in(&x, &mut pass).unwrap().0, &plain[0])
        } else {
            (network.decode_in(&z, &mut pass).unwrap(), &plain[1])
        };
        assert_eq!(tapped.into_data_as::<f32>(), wanted.clone().into_data_as::<f32>());
        assert_eq!(recorder.lock().unwrap().entered, sites);
    }
    let alone = network.decode(&z.clone().narrow(0, 1, 1)).unwrap();
    let row = plain[1].clone().narrow(0, 1, 1);
    assert_eq!(alone.into_data_as::<f32>(), row.into_data_as::<f32>());
    gradient_holds("autoencoder", &mut network, 2e-3, |network| {
        let (mean, logvar) = network.encode(&x).unwrap();
        let image = network.decode(&mean).unwrap();
        let parts = [image.flatten::<2>(1, 3), logvar.flatten::<2>(1, 3)];
        Tensor::cat(parts.to_vec(), 1)
    });
    assert!(network.encode(&z).is_err());
    assert!(network.decode(&x).is_err());
}

#[test]
fn the_text_encoder_keeps_sites_rows_and_gradients() {
    let fixture = Fixture::open("clip_text_quick");
    let network = ClipText::new(fixture.config(), &fixture.device).unwrap();
    let mut network = fixture.load(network);
    let ids: Vec<Vec<i64>> =
        fixture.integers("input.ids").chunks(12).map(<[i64]>::to_vec).collect();
    let recorder = Recorder::shared(true);
    let mut pass = Pass::new(rows(3), vec![SharedTap::of(&recorder)]);
    let plain = network.encode(&ids, 0).unwrap().hidden;
    let tapped = network.encode_in(&ids, 0, &mut pass).unwrap().hidden;
    assert_eq!(tapped.into_data_as::<f32>(), plain.clone().into_data_as::<f32>());
    assert_eq!(recorder.lock().unwrap().entered, network.sites());
    check_sites("text encoder", &recorder.lock().unwrap());
    let alone = network.encode(&ids[1..2], 0).unwrap().hidden;
    assert_eq!(
        alone.into_data_as::<f32>(),
        plain.narrow(0, 1, 1).into_data_as::<f32>(),
        "a text alone is the text in a batch"
    );
    gradient_holds("text encoder", &mut network, 2e-3, |network| {
        let encoded = network.encode(&ids, 1).unwrap();
        Tensor::cat(vec![encoded.hidden.flatten::<2>(1, 2), encoded.pooled], 1)
    });
}

#[test]
fn fresh_networks_are_a_function_of_the_seed() {
    let fixture = Fixture::open("unet2d_plain");
    let fresh = |seed| {
        let mut network = UNet2D::new(fixture.config(), &fixture.device).unwrap();
        draw(&mut network, seed).unwrap();
        let mut all = Vec::new();
        network.each("", &mut |_, weight| all.extend(weight.to_vec()));
        let y = network
            .forward(&fixture.x(), &fixture.times(), &Cond::default(), &mut Pass::default())
            .unwrap();
        // The last layer starts at zero.
        assert!(y.to_rows().iter().flatten().all(|v| *v == 0.0));
        all
    };
    assert_eq!(fresh(1), fresh(1));
    assert_ne!(fresh(1), fresh(2));
}

#[test]
fn f64_states_come_back_as_f64() {
    let bench = Bench::new("unet2d_plain");
    let wide = State::from_f64(
        bench.x.select(&[0]).to_rows().concat(),
        bench.x.select(&[0]).shape(),
        &bench.x.device(),
    )
    .unwrap();
    let times = Times { values: vec![bench.times.values[0]], positions: 1 };
    let cond = Cond::default();
    let y = bench.network.forward(&wide, &times, &cond, &mut Pass::default()).unwrap();
    assert_eq!(y.dtype(), wide.dtype());
    assert_eq!(y.to_rows(), bench.run(&[0], &mut Pass::default()).to_rows());
}

#[test]
fn what_does_not_fit_is_named() {
    let fixture = Fixture::open("unet2d_condition_plain");
    let mut network = UNet2DCondition::new(fixture.config(), &fixture.device).unwrap();
    let (x, times, cond) = (fixture.x(), fixture.times(), fixture.cond());
    let says = |network: &dyn Network, x: &State, times: &Times, cond: &Cond| {
        let result = network.forward(x, times, cond, &mut Pass::default());
        result.unwrap_err().to_string()
    };
    let no_context = says(&network, &x, &times, &Cond::default());
    assert!(no_context.contains("context"), "{no_context}");
    let flat = State::new(Tensor::<2>::zeros([3, 4], &fixture.device));
    assert!(says(&network, &flat, &times, &cond).contains("rank"));
    let rgb = State::new(Tensor::<4>::zeros([3, 3, 8, 8], &fixture.device));
    assert!(says(&network, &rgb, &times, &cond).contains("image"));
    let two = Times { values: vec![1.0; 2], positions: 1 };
    assert!(says(&network, &x, &two, &cond).contains("times"));
    let spread = Times { values: vec![1.0; 6], positions: 2 };
    assert!(says(&network, &x, &spread, &cond).contains("level a row"));
    let mut narrow = cond.clone();
    narrow.context = Some(Tensor::zeros([3, 5, 11], &fixture.device));
    assert!(says(&network, &x, &times, &narrow).contains("context"));
    let mut config = network.config().clone();
    config.dropout = 0.1;
    network = UNet2DCondition::new(config, &fixture.device).unwrap();
    network.each_mut("", &mut |_, weight| weight.track());
    assert!(says(&network, &x, &times, &cond).contains("`dropout`"));

    let fixture = Fixture::open("unet2d_ddpm");
    let network = UNet2D::new(fixture.config(), &fixture.device).unwrap();
    let tiny = State::new(Tensor::<4>::zeros([2, 3, 3, 3], &fixture.device));
    assert!(says(&network, &tiny, &fixture.times(), &fixture.cond()).contains("3 by 3"));
    assert!(says(&network, &fixture.x(), &fixture.times(), &Cond::default()).contains("class"));

    let fixture = Fixture::open("dit_plain");
    let network = DiT::new(fixture.config(), &fixture.device).unwrap();
    let times = fixture.times();
    let odd = State::new(Tensor::<4>::zeros([3, 4, 7, 8], &fixture.device));
    assert!(says(&network, &odd, &times, &fixture.cond()).contains("patches"));
    let beyond = Cond::of_class([0, 6, 1]);
    assert!(says(&network, &fixture.x(), &times, &beyond).contains("`class`"));
    let classes = Cond::of_class([5, 5, 5]);
    let none = network.forward(&fixture.x(), &times, &Cond::default(), &mut Pass::default());
    let last = network.forward(&fixture.x(), &times, &classes, &mut Pass::default());
    assert_eq!(none.unwrap().to_rows(), last.unwrap().to_rows());
    assert!(ModelConfig::of_class("UNet2D").unwrap_err().to_string().contains("UNet2DModel"));
}
