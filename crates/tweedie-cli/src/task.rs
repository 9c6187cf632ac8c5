//! Arguments of `tweedie generate` that start from a picture, and the pictures themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tweedie::data::Images;
use tweedie::engine::{Controlling, Engine, Inputs, open_control, read_picture};
use tweedie::hub::Folder;
use tweedie::spec::{Control, SourceFile, Spec, Task, Upscale};

/// How far back the second pass goes where nothing is said: enough to draw new detail, not to change
/// the picture.
const UPSCALE_STRENGTH: f64 = 0.4;

/// What a run starts from besides noise.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Starting from a picture")]
pub(crate) struct Args {
    /// The picture to start from (PNG, JPEG or WebP): image to image, with a mask inpainting, and
    /// the picture to edit for models that follow an instruction. The size is the picture's own,
    /// rounded down to what the model can have, or --size.
    #[arg(short, long, visible_alias = "init-img", value_name = "IMG")]
    init: Option<PathBuf>,
    /// What of it to repaint: white is repainted, black stays.
    #[arg(long, value_name = "IMG")]
    mask: Option<PathBuf>,
    /// The picture that the reward `measurement` measures.
    #[arg(long, value_name = "IMG")]
    measured: Option<PathBuf>,
    /// Put what the mask keeps back into the result pixel by pixel; softly where it is grey.
    #[arg(long)]
    keep: bool,
    /// Pixels to paint beyond its borders (outpainting).
    #[arg(long, value_delimiter = ',', value_name = "L,T,R,B")]
    extend: Vec<usize>,
    /// How far back towards noise the picture is brought, 0 to 1; that share of the steps is walked
    /// [default: 0.75, with a mask 1].
    #[arg(long)]
    strength: Option<f64>,
    /// How closely a model that edits by instruction keeps to the picture [default: 1.5].
    #[arg(long, visible_alias = "img-cfg-scale", value_name = "WEIGHT")]
    image_guidance: Option<f64>,
    /// A second pass at a size this many times larger (hires fix).
    #[arg(long, visible_alias = "hires-scale", value_name = "FACTOR")]
    upscale: Option<f64>,
    /// As --strength, for the second pass [default: 0.4].
    #[arg(long, visible_alias = "hires-denoising-strength", value_name = "STRENGTH")]
    upscale_strength: Option<f64>,
}

/// Control networks.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Control networks")]
pub(crate) struct Controls {
    /// The picture that a control network looks at: edges, a pose, a depth map, as the network was
    /// trained on. May be given several times, once for each network.
    #[arg(long, visible_alias = "control-image", value_name = "IMG")]
    control: Vec<PathBuf>,
    /// The control network: its folder. May be given several times.
    #[arg(long, visible_alias = "control-net", value_name = "DIR")]
    controlnet: Vec<String>,
    /// What the network's output is multiplied by, for each in turn [default: 1].
    #[arg(long, value_name = "WEIGHT")]
    control_strength: Vec<f64>,
}

impl Controls {
    /// Opens networks and pictures. With `from`, the record of that file says which: networks are
    /// given again and must have their hash, pictures are found as [`Args::read`] finds them.
    pub(crate) fn read(
        &self,
        engine: &Engine,
        spec: &mut Spec,
        from: Option<&Path>,
    ) -> Result<Vec<Controlling>> {
        let wanted = spec.task.controls.clone();
        let count = if from.is_some() { wanted.len() } else { self.control.len() };
        if self.controlnet.len() != count {
            bail!(
                "--controlnet: {} for {count} picture(s); each --control has one",
                self.controlnet.len()
            );
        }
        let mut made = Vec::with_capacity(count);
        for (i, name) in self.controlnet.iter().enumerate() {
            let folder = Folder::resolve(name)?;
            let model = Path::new(name).file_name().unwrap_or_default().to_string_lossy();
            let model = SourceFile { name: model.into_owned(), hash: folder.sha256()? };
            let given = self.control.get(i).map(PathBuf::as_path);
            let picture = match (wanted.get(i).filter(|_| from.is_some()), given, from) {
                (Some(wanted), given, Some(from)) => {
                    if wanted.model.hash != model.hash {
                        bail!("--controlnet {name}: not the network that was used");
                    }
                    found("control", given, &wanted.picture, from)?
                }
                (_, Some(path), _) => {
                    let (picture, images) = read_picture(path)?;
                    let strength = self.control_strength.get(i).copied().unwrap_or(1.0);
                    spec.task.controls.push(Control { picture, model, strength });
                    images
                }
                _ => bail!("--controlnet {name}: it needs a picture, --control IMG"),
            };
            let network = Arc::new(open_control(name, engine.device())?);
            made.push(Controlling { network, picture });
        }
        Ok(made)
    }
}

impl Args {
    /// Whether a picture was asked to start from.
    pub(crate) fn is_given(&self) -> bool {
        self.init.is_some()
    }

    /// Reads the pictures. With `from`, the record of that file names them: each is taken from its
    /// argument, or from a file of its name beside that file or here, and must have its hash.
    pub(crate) fn read(&self, spec: &mut Spec, from: Option<&Path>) -> Result<Inputs> {
        match from {
            Some(from) => self.repeated(spec, from),
            None => self.asked(spec),
        }
    }

    fn asked(&self, spec: &mut Spec) -> Result<Inputs> {
        let extend = match self.extend.as_slice() {
            [] => None,
            &[left, top, right, bottom] => Some([left, top, right, bottom]),
            other => bail!("--extend takes four numbers, L,T,R,B; found {}", other.len()),
        };
        if self.upscale_strength.is_some() && self.upscale.is_none() {
            bail!("--upscale-strength needs --upscale");
        }
        let strength = self.upscale_strength.unwrap_or(UPSCALE_STRENGTH);
        spec.task = Task {
            extend,
            keep: self.keep,
            strength: self.strength,
            image_guidance: self.image_guidance,
            upscale: self.upscale.map(|factor| Upscale { factor, strength }),
            ..Task::default()
        };
        let mut inputs = Inputs::default();
        for (path, file, images) in [
            (&self.init, &mut spec.task.init, &mut inputs.init),
            (&self.mask, &mut spec.task.mask, &mut inputs.mask),
            (&self.measured, &mut spec.task.measured, &mut inputs.measured),
        ] {
            if let Some(path) = path {
                let (source, picture) = read_picture(path)?;
                (*file, *images) = (Some(source), Some(picture));
            }
        }
        Ok(inputs)
    }

    fn repeated(&self, spec: &Spec, from: &Path) -> Result<Inputs> {
        let find = |flag: &str, given: &Option<PathBuf>, wanted: &Option<SourceFile>| match wanted {
            None => Ok(None),
            Some(wanted) => found(flag, given.as_deref(), wanted, from).map(Some),
        };
        Ok(Inputs {
            init: find("init", &self.init, &spec.task.init)?,
            mask: find("mask", &self.mask, &spec.task.mask)?,
            measured: find("measured", &self.measured, &spec.task.measured)?,
            ..Inputs::default()
        })
    }
}

/// The picture of that name and hash.
fn found(flag: &str, given: Option<&Path>, wanted: &SourceFile, from: &Path) -> Result<Images> {
    let beside = from.parent().unwrap_or(Path::new("")).join(&wanted.name);
    let here = PathBuf::from(&wanted.name);
    let places: Vec<&Path> = match given {
        Some(path) => vec![path],
        None => vec![&beside, &here],
    };
    for place in &places {
        if given.is_none() && !place.is_file() {
            continue;
        }
        let (source, images) =
            read_picture(place).with_context(|| format!("--{flag} {}", place.display()))?;
        if source.hash == wanted.hash {
            return Ok(images);
        }
        if given.is_some() {
            bail!("--{flag} {}: not the picture that was used", place.display());
        }
    }
    bail!(
        "the picture was made from `{}` (SHA-256 {:.12}): say where it is with --{flag} FILE",
        wanted.name,
        wanted.hash
    )
}
