//! What stands beside a model: LoRAs and learned embeddings.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tweedie::engine::Model;
use tweedie::hub::{Embedding, Lora};
use tweedie::prompt::tags;
use tweedie::spec::Spec;

use crate::output;

/// The endings of the files that a name in a prompt stands for, best first.
const ENDINGS: [&str; 4] = ["safetensors", "pt", "bin", "ckpt"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A LoRA and how strongly it acts, 1 where nothing is said; may be given several times. A file
    /// (kohya's, diffusers' or PEFT's) or a folder as PEFT or diffusers write it.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    lora: Vec<String>,
    /// A folder of LoRAs, for `<lora:name:weight>` in the prompt.
    #[arg(long, value_name = "DIR", visible_alias = "lora-model-dir")]
    lora_dir: Option<PathBuf>,
    /// Use a LoRA even though it has modules that the model has not; those are left out.
    #[arg(long)]
    lora_partial: bool,
    /// A learned embedding (textual inversion), and what prompts call it, the file's name without
    /// its ending where nothing is said; or a folder of them, of which those are used that the
    /// prompts name. May be given several times.
    #[arg(long, value_name = "FILE[:NAME]|DIR", visible_alias = "embd-dir")]
    embedding: Vec<String>,
}

impl Args {
    /// The model with all that was asked for here, in the prompts or in a picture's record, and the
    /// spec that says so.
    pub(crate) fn put(&self, model: Model, spec: &mut Spec) -> Result<Model> {
        let mut loras: Vec<(Lora, f64)> = Vec::new();
        for text in &self.lora {
            let (file, weight) = split_weight(text)?;
            loras.push((open(file)?, weight));
        }
        for prompt in [&spec.prompt, &spec.negative] {
            for tag in tags(prompt)?.1 {
                let is_given = |(lora, _): &(Lora, f64)| lora.name() == tag.name;
                let recorded = spec.loras.iter().any(|l| l.name == tag.name);
                if loras.iter().any(is_given) || recorded {
                    continue;
                }
                loras.push((self.find(&tag.name)?, tag.weight));
            }
        }
        if !spec.loras.is_empty() {
            loras = self.recorded(loras, spec)?;
        }
        let embeddings = self.embeddings(spec)?;
        let weighed: Vec<(&Lora, f64)> =
            loras.iter().map(|(lora, weight)| (lora, *weight)).collect();
        let (model, applied) = model.with_loras(&weighed, self.lora_partial).map_err(|error| {
            let hint = if error.to_string().contains("none of the model") && !self.lora_partial {
                "; --lora-partial leaves them out"
            } else {
                ""
            };
            anyhow::anyhow!("{error}{hint}")
        })?;
        for one in &applied {
            output::warn(&one.to_string());
        }
        let model = model.with_embeddings(&embeddings)?;
        spec.loras.clone_from(&model.loras);
        Ok(model)
    }

    /// The LoRAs of a picture's record, in its order and at its weights, among those that are given
    /// here or lie in the folder.
    fn recorded(&self, mut given: Vec<(Lora, f64)>, spec: &Spec) -> Result<Vec<(Lora, f64)>> {
        let mut found = Vec::with_capacity(spec.loras.len());
        for wanted in &spec.loras {
            let at = given.iter().position(|(lora, _)| lora.hash() == wanted.hash);
            let lora = match at {
                Some(at) => given.swap_remove(at).0,
                None => {
                    let lora = self.find(&wanted.name).with_context(|| {
                        let name = &wanted.name;
                        format!("made with the LoRA `{name}`; say where it is with --lora FILE")
                    })?;
                    if lora.hash() != wanted.hash {
                        bail!(
                            "{}: not the LoRA that the picture was made with: its hash is {:.12}, the picture's {:.12}",
                            lora.file().display(),
                            lora.hash(),
                            wanted.hash
                        );
                    }
                    lora
                }
            };
            found.push((lora, wanted.weight));
        }
        if let Some((other, _)) = given.first() {
            bail!("{}: the picture was made without it", other.file().display());
        }
        Ok(found)
    }

    /// The LoRA of that name in the folder.
    fn find(&self, name: &str) -> Result<Lora> {
        let Some(folder) = &self.lora_dir else {
            bail!("`{name}`: no folder of LoRAs is given, wanted --lora-dir DIR");
        };
        let file = ENDINGS.iter().map(|end| folder.join(format!("{name}.{end}")));
        let folder_of_one = folder.join(name);
        match file.into_iter().find(|f| f.is_file()) {
            Some(file) => open(&file),
            None if folder_of_one.is_dir() => open(&folder_of_one),
            None => bail!("{}: no LoRA is called `{name}`", folder.display()),
        }
    }

    fn embeddings(&self, spec: &Spec) -> Result<Vec<Embedding>> {
        let mut all = Vec::new();
        for text in &self.embedding {
            if Path::new(text).is_dir() {
                for file in named_in(Path::new(text), spec)? {
                    all.push(Embedding::open(file, None)?);
                }
                continue;
            }
            let (file, name) = split_name(text);
            all.push(Embedding::open(file, name)?);
        }
        for wanted in &spec.embeddings {
            if !all.iter().any(|e| e.hash == wanted.hash && e.name() == wanted.name) {
                bail!(
                    "made with the embedding `{0}`; say where it is with --embedding FILE:{0}",
                    wanted.name
                );
            }
        }
        Ok(all)
    }
}

/// The files of a folder whose names stand in the prompts or in a picture's record, in order.
fn named_in(folder: &Path, spec: &Spec) -> Result<Vec<PathBuf>> {
    let prompts = [&spec.prompt, &spec.negative].map(|p| p.to_lowercase());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let Some(stem) = path.file_stem().and_then(|s| s.to_str()) else { continue };
        let is_named = prompts.iter().any(|p| p.contains(&stem.to_lowercase()))
            || spec.embeddings.iter().any(|e| e.name == stem);
        if ENDINGS.contains(&ending) && is_named {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn open(path: &Path) -> Result<Lora> {
    Ok(Lora::open(path)?)
}

/// `FILE` or `FILE:WEIGHT`; a file whose whole name is that comes first.
fn split_weight(text: &str) -> Result<(&Path, f64)> {
    if !Path::new(text).exists()
        && let Some((file, weight)) = text.rsplit_once(':')
    {
        return match weight.parse::<f64>() {
            Ok(weight) if weight.is_finite() => Ok((Path::new(file), weight)),
            _ if Path::new(file).exists() => {
                bail!("--lora {text}: wanted a number behind the colon, found `{weight}`")
            }
            _ => Ok((Path::new(text), 1.0)),
        };
    }
    Ok((Path::new(text), 1.0))
}

/// `FILE` or `FILE:NAME`; a file whose whole name is that comes first.
fn split_name(text: &str) -> (&Path, Option<&str>) {
    match text.rsplit_once(':') {
        Some((file, name)) if !Path::new(text).exists() && Path::new(file).exists() => {
            (Path::new(file), Some(name))
        }
        _ => (Path::new(text), None),
    }
}
