//! A tiny network as Python wrote it: settings, weights, inputs and outputs in one file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor, TensorData};
use serde::de::DeserializeOwned;
use tweedie::denoiser::{Branch, Cond, Row, Times};
use tweedie::hub::{Dtype, TensorFile};
use tweedie::level::Level;
use tweedie::state::State;
use tweedie::tap::{Features, Site, Tap};
use tweedie::weight::{Half, Numbers, Parameters, Source, load};

/// The largest error that is let pass, in units of the largest output.
pub(crate) const TOLERANCE: f64 = 1e-5;

pub(crate) struct Fixture {
    file: TensorFile,
    pub(crate) case: String,
    pub(crate) device: Device,
}

impl Fixture {
    pub(crate) fn open(case: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity");
        let file = TensorFile::open(folder.join(format!("{case}.safetensors"))).unwrap();
        Self { file, case: case.to_owned(), device: Device::flex() }
    }

    pub(crate) fn config<C: DeserializeOwned>(&self) -> C {
        serde_json::from_str(&self.file.metadata()["config"]).unwrap()
    }

    /// The settings of one of several networks.
    pub(crate) fn settings<C: DeserializeOwned>(&self, part: &str) -> C {
        serde_json::from_str(&self.file.metadata()[part]).unwrap()
    }

    pub(crate) fn class(&self) -> &str {
        &self.file.metadata()["class"]
    }

    /// Loads the weights, strictly.
    pub(crate) fn load<N: Parameters>(&self, mut network: N) -> N {
        load(&mut network, self).unwrap();
        network
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.file.contains(name)
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.file.info(name).unwrap().shape
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let shape = self.shape(name);
        let data = TensorData::new(self.file.read_f32(name).unwrap(), shape);
        Tensor::from_data(data, &self.device)
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        self.file.read_i64(name).unwrap()
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        self.file.read_f32(name).unwrap().into_iter().map(f64::from).collect()
    }

    pub(crate) fn x(&self) -> State {
        State::new(self.tensor::<4>("input.x"))
    }

    pub(crate) fn times(&self) -> Times {
        Times { values: self.numbers("input.time"), positions: 1 }
    }

    /// The condition of all that went in.
    pub(crate) fn cond(&self) -> Cond {
        let mut cond = Cond::default();
        if self.has("input.class") {
            cond.class = Some(self.integers("input.class").into());
        }
        if self.has("input.context") {
            cond.context = Some(self.tensor("input.context"));
        }
        if self.has("input.mask") {
            cond.context_mask = Some(self.tensor("input.mask"));
        }
        if self.has("input.vector") {
            cond.vector = Some(self.tensor("input.vector"));
        }
        if self.has("input.guidance") {
            cond.guidance = Some(self.numbers("input.guidance").into());
        }
        if self.has("input.time_ids") {
            let ids = State::new(self.tensor::<2>("input.time_ids"));
            cond.fields.insert("time_ids".into(), ids);
        }
        cond
    }

    /// Checks shape and numbers against an output, and says how far they are off.
    pub(crate) fn check<const D: usize>(&self, name: &str, found: &Tensor<D>) -> f64 {
        let name = format!("output.{name}");
        assert_eq!(found.dims().to_vec(), self.shape(&name), "{}: {name}", self.case);
        let wanted = self.numbers(&name);
        let found: Vec<f64> = found.clone().into_data_as::<f64>().iter::<f64>().collect();
        let scale = wanted.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let error = wanted.iter().zip(&found).fold(0.0_f64, |m, (a, b)| m.max((a - b).abs()));
        let relative = error / scale;
        assert!(scale > 0.05, "{}: {name} is too quiet to tell: {scale}", self.case);
        assert!(relative <= TOLERANCE, "{}: {name} is off by {relative:e}", self.case);
        relative
    }

    /// The paths of the sites whose outputs the file holds.
    pub(crate) fn recorded(&self) -> Vec<String> {
        self.file.names().filter_map(|n| n.strip_prefix("output.at.")).map(str::to_owned).collect()
    }
}

impl Source for Fixture {
    fn names(&self) -> Vec<String> {
        self.file.names().filter_map(|n| n.strip_prefix("weight.")).map(str::to_owned).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.info(&format!("weight.{name}")).ok().map(|info| info.shape)
    }

    fn read(&self, name: &str) -> tweedie::Result<Numbers> {
        let name = format!("weight.{name}");
        assert_eq!(self.file.info(&name)?.dtype, Dtype::F16);
        let bytes = self.file.raw(&name)?;
        let bits = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        Ok(Numbers::Bits(bits, Half::F16))
    }
}

/// Keeps what comes out of every site, and how often.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) maps: bool,
    pub(crate) entered: Vec<Site>,
    pub(crate) seen: BTreeMap<Site, Vec<Features>>,
}

impl Recorder {
    pub(crate) fn shared(maps: bool) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { maps, ..Self::default() }))
    }
}

impl Tap for Recorder {
    fn wants(&self, _site: &Site) -> bool {
        true
    }

    fn needs_map(&self, _site: &Site) -> bool {
        self.maps
    }

    fn before(&mut self, site: &Site, _: &[Row], input: Features) -> tweedie::Result<Features> {
        self.entered.push(site.clone());
        Ok(input)
    }

    fn after(&mut self, site: &Site, _: &[Row], output: Features) -> tweedie::Result<Features> {
        self.seen.entry(site.clone()).or_default().push(output.clone());
        Ok(output)
    }
}

/// Rows of a pass that stand for nothing in particular.
pub(crate) fn rows(batch: usize) -> Vec<Row> {
    let level = Level::new(0.5, 0.8, 0.6);
    let row = |request| Row { request, branch: Branch::Cond, step: 0, steps: 1, level };
    (0..batch as u64).map(row).collect()
}
