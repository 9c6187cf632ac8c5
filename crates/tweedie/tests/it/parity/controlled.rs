//! A U-Net under control networks.

use std::sync::Arc;

use burn::tensor::Tensor;
use tweedie::denoiser::{Branch, Cond, Network, Pass, Row, Times, field};
use tweedie::model::config::ControlNetConfig;
use tweedie::model::{Control, ControlNet, Controlled, UNet2DCondition};
use tweedie::state::State;
use tweedie::tap::SharedTap;
use tweedie::weight::{Numbers, Source, load};

use super::fixture::{Fixture, Recorder, rows};

/// The weights of one part of a fixture.
struct Part<'a>(&'a Fixture, &'static str);

impl Source for Part<'_> {
    fn names(&self) -> Vec<String> {
        let names = self.0.names();
        names.iter().filter_map(|n| n.strip_prefix(self.1)).map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Source::shape(self.0, &format!("{}{name}", self.1))
    }

    fn read(&self, name: &str) -> tweedie::Result<Numbers> {
        self.0.read(&format!("{}{name}", self.1))
    }
}

struct Bench {
    fixture: Fixture,
    unet: Arc<UNet2DCondition>,
    controls: Vec<Arc<ControlNet>>,
    cond: Cond,
}

impl Bench {
    fn new() -> Self {
        let fixture = Fixture::open("controlled_pair");
        let config = fixture.settings("unet");
        let mut unet = UNet2DCondition::new(config, &fixture.device).unwrap();
        load(&mut unet, &Part(&fixture, "unet.")).unwrap();
        let control = |name: &str, prefix: &'static str| {
            let config: ControlNetConfig = fixture.settings(name);
            let mut network = ControlNet::new(config, &fixture.device).unwrap();
            load(&mut network, &Part(&fixture, prefix)).unwrap();
            Arc::new(network)
        };
        let controls = vec![control("control_0", "control_0."), control("control_1", "control_1.")];
        let mut cond = Cond {
            context: Some(fixture.tensor("input.encoder_hidden_states")),
            ..Cond::default()
        };
        let mut put = |name: String, tensor: &str| {
            let image = State::new(fixture.tensor::<4>(tensor));
            cond.fields.insert(name.into(), image);
        };
        put(field::BESIDE.to_owned(), "input.beside");
        put(field::control(0), "input.picture_0");
        put(field::control(1), "input.picture_1");
        Self { unet: Arc::new(unet), controls, cond, fixture }
    }

    fn controlled(&self, scales: [f64; 2]) -> Vec<Control> {
        let pairs = self.controls.iter().zip(scales);
        pairs.map(|(n, scale)| Control { scale, ..Control::new(n.clone()) }).collect()
    }

    fn run(&self, controls: Vec<Control>, at: &[usize], pass: &mut Pass) -> Tensor<4> {
        let network = Controlled::new(self.unet.clone(), controls).unwrap();
        let x = State::new(self.fixture.tensor::<4>("input.sample")).select(at);
        let times: Vec<f32> = self
            .fixture
            .tensor::<1>("input.timestep")
            .into_data_as::<f32>()
            .iter::<f32>()
            .collect();
        let values = at.iter().map(|&r| f64::from(times[r])).collect();
        let times = Times { values, positions: 1 };
        network.forward(&x, &times, &self.cond.select(at), pass).unwrap().view().unwrap()
    }
}

fn numbers(x: Tensor<4>) -> Vec<f32> {
    x.into_data_as::<f32>().iter::<f32>().collect()
}

#[test]
fn two_control_networks_add_up_as_published() {
    let bench = Bench::new();
    let both = bench.run(bench.controlled([0.7, 1.3]), &[0, 1], &mut Pass::default());
    let error = bench.fixture.check("sample", &both);
    println!("controlled_pair: {error:.1e} of the largest output");
    let none = bench.run(Vec::new(), &[0, 1], &mut Pass::default());
    bench.fixture.check("plain", &none);
    // Nothing of them is nothing at all, and the order of the sum does not matter much.
    let zero = bench.run(bench.controlled([0.0, 0.0]), &[0, 1], &mut Pass::default());
    assert_eq!(numbers(zero), numbers(none));
}

#[test]
fn rows_are_controlled_one_by_one() {
    let bench = Bench::new();
    let both = numbers(bench.run(bench.controlled([0.7, 1.3]), &[0, 1], &mut Pass::default()));
    for row in 0..2 {
        let alone = numbers(bench.run(bench.controlled([0.7, 1.3]), &[row], &mut Pass::default()));
        let len = alone.len();
        assert_eq!(alone, both[row * len..(row + 1) * len], "row {row}");
    }
    // A tap that only listens sees every site of the U-Net once, and changes nothing.
    let recorder = Recorder::shared(false);
    let mut pass = Pass::new(rows(2), vec![SharedTap::of(&recorder)]);
    let heard = bench.run(bench.controlled([0.7, 1.3]), &[0, 1], &mut pass);
    assert_eq!(numbers(heard), both);
    assert_eq!(recorder.lock().unwrap().entered, bench.unet.sites());
    assert!(pass.taps().len() == 1, "the lent tap went back");
}

#[test]
fn a_control_network_announces_its_own_sites() {
    let bench = Bench::new();
    let network = &bench.controls[0];
    let x = State::new(bench.fixture.tensor::<4>("input.sample"));
    let times = Times { values: vec![7.0; 2], positions: 1 };
    let picture = bench.fixture.tensor::<4>("input.picture_0");
    let mut cond = bench.cond.clone();
    cond.fields.remove(field::BESIDE);
    let recorder = Recorder::shared(true);
    let mut pass = Pass::new(rows(2), vec![SharedTap::of(&recorder)]);
    let tapped = network.forward(&x, &times, &cond, &picture, &mut pass).unwrap();
    let plain = network.forward(&x, &times, &cond, &picture, &mut Pass::default()).unwrap();
    assert_eq!(numbers(tapped.mid), numbers(plain.mid));
    let recorder = recorder.lock().unwrap();
    assert_eq!(recorder.entered, network.sites());
    assert!(recorder.entered.iter().all(|site| &*site.network == "controlnet"));
}

#[test]
fn control_acts_in_its_part_of_the_run() {
    let bench = Bench::new();
    let run = |control: Control, change: &dyn Fn(&mut Row)| {
        let mut rows = rows(2);
        for row in &mut rows {
            row.steps = 10;
            change(row);
        }
        numbers(bench.run(vec![control], &[0, 1], &mut Pass::new(rows, Vec::new())))
    };
    let plain = numbers(bench.run(Vec::new(), &[0, 1], &mut Pass::default()));
    let own = || Control::new(bench.controls[0].clone());
    let half = || Control { during: [0.2, 0.5], ..own() };
    for (step, acts) in [(0, false), (1, false), (2, true), (4, true), (5, false), (9, false)] {
        let found = run(half(), &|row| row.step = step);
        assert_eq!(found != plain, acts, "step {step}");
    }
    let guess = || Control { guess: true, ..own() };
    assert_eq!(run(guess(), &|row| row.branch = Branch::Uncond), plain);
    let full = run(own(), &|_| {});
    let faded = run(guess(), &|_| {});
    assert!(faded != full && faded != plain);
}

#[test]
fn what_does_not_fit_under_control_is_named() {
    let mut bench = Bench::new();
    let error = |bench: &Bench| {
        let network = Controlled::new(bench.unet.clone(), bench.controlled([1.0, 1.0])).unwrap();
        let x = State::new(bench.fixture.tensor::<4>("input.sample"));
        let times = Times { values: vec![1.0; 2], positions: 1 };
        network.forward(&x, &times, &bench.cond, &mut Pass::default()).unwrap_err().to_string()
    };
    bench.cond.fields.insert(
        field::CONTROL.into(),
        State::new(Tensor::<4>::zeros([2, 3, 28, 36], &bench.fixture.device)),
    );
    let size = error(&bench);
    assert!(
        size.contains("picture for the control network: wanted shape [2, 3, 28, 40]"),
        "{size}"
    );
    bench.cond.fields.remove(field::CONTROL);
    assert!(error(&bench).contains("field `control`"));
    let fixture = Fixture::open("unet2d_condition_linear_deep");
    let other = UNet2DCondition::new(fixture.config(), &fixture.device).unwrap();
    let refused = Controlled::new(Arc::new(other), bench.controlled([1.0, 1.0]));
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("skip connections"), "{refused}");
}
