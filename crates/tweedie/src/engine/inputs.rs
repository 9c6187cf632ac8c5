//! What goes into a generation beside its spec: pictures and noise, which a spec only names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use sha2::{Digest, Sha256};

use crate::data::Images;
use crate::data::picture::{self, Target};
use crate::engine::cond::Texts;
use crate::error::{Error, Result};
use crate::model::ControlNet;
use crate::reward::Classifies;
use crate::spec::{SourceFile, Spec};
use crate::state::State;

/// Initial noise from elsewhere: `[count, channels, height, width]` standard normal numbers.
#[derive(Clone, Debug, Default)]
pub struct Noises {
    /// Its shape.
    pub shape: [usize; 4],
    /// The numbers, row-major.
    pub values: Vec<f32>,
}

impl Noises {
    /// The rows `first..last`; the shape has been checked.
    pub(super) fn rows(&self, first: usize, last: usize, device: &Device) -> State {
        let [_, channels, height, width] = self.shape;
        let size = channels * height * width;
        let part = self.values[first * size..last * size].to_vec();
        let data = TensorData::new(part, [last - first, channels, height, width]);
        State::new(Tensor::<4>::from_data(data, device))
    }
}

/// A control network and the picture that it looks at.
#[derive(Clone)]
pub struct Controlling {
    /// The network; [`crate::engine::open_control`] opens one.
    pub network: Arc<ControlNet>,
    /// The picture, a set of one.
    pub picture: Images,
}

/// What goes into a generation beside its spec; each entry is there where the spec names it.
#[derive(Clone, Default)]
pub struct Inputs {
    /// Initial noise, in place of the seed's.
    pub noise: Option<Noises>,
    /// The picture to start from, a set of one.
    pub init: Option<Images>,
    /// What of it to repaint: white.
    pub mask: Option<Images>,
    /// The picture that a reward measures.
    pub measured: Option<Images>,
    /// Classifiers by the names that rewards call them; built-in ones need not be given.
    pub classifiers: BTreeMap<String, Arc<dyn Classifies>>,
    /// The prompts as [`crate::engine::Engine::encode`] encoded them, for callers that release the
    /// text encoders before the network runs; where there are none, they are encoded in the run.
    pub texts: Option<Texts>,
    /// Control networks, in the order of the spec.
    pub controls: Vec<Controlling>,
}

impl Inputs {
    /// That nothing is missing that a spec names, and nothing is there that it does not.
    pub(super) fn check(&self, spec: &Spec) -> Result<()> {
        let pairs = [
            ("noise", spec.noise.as_ref(), self.noise.is_some()),
            ("init", spec.task.init.as_ref(), self.init.is_some()),
            ("mask", spec.task.mask.as_ref(), self.mask.is_some()),
            ("measured", spec.task.measured.as_ref(), self.measured.is_some()),
        ];
        for (key, named, given) in pairs {
            match (named, given) {
                (Some(file), false) => {
                    let why = format!("`{}` was used and is not given", file.name);
                    return Err(Error::setting(key, why));
                }
                (None, true) if key != "noise" => {
                    return Err(Error::setting(key, "it is given and the spec does not name it"));
                }
                _ => {}
            }
        }
        if self.controls.len() == spec.task.controls.len() {
            return Ok(());
        }
        let (found, wanted) = (self.controls.len(), spec.task.controls.len());
        Err(Error::setting("control", format!("{found} pictures for {wanted} control networks")))
    }
}

/// Reads a PNG, JPEG or WebP picture in colour, with its name and hash for the spec.
///
/// # Errors
///
/// As [`picture::read`].
pub fn read_picture(file: &Path) -> Result<(SourceFile, Images)> {
    let images = picture::read(file, &Target::default(), &picture::Limits::default())?;
    let bytes = std::fs::read(file).map_err(Error::io(file))?;
    Ok((source(file, &bytes), images))
}

/// The name, without folders, and the hash of a file.
pub fn source(file: &Path, bytes: &[u8]) -> SourceFile {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    SourceFile { name, hash: Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect() }
}
