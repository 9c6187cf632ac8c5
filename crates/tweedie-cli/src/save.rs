//! Pictures and latents as files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tweedie::engine::{Generated, Model, Noises};
use tweedie::hub::{Dtype, Output, write_safetensors};
use tweedie::media::{Format, Panel, Sheet, encode_png};
use tweedie::spec::Spec;

use crate::output;

/// Where pictures go.
pub(crate) struct Target {
    pub(crate) folder: PathBuf,
    file: Option<PathBuf>,
    format: Format,
    /// Whether the folder is new.
    new: bool,
}

impl Target {
    /// For `count` pictures at `out`, a file or a folder, in a format that its ending or `asked` says.
    pub(crate) fn new(out: &Path, asked: Option<Format>, count: usize) -> Result<Self> {
        let ending = out.extension().map(|e| e.to_string_lossy().into_owned());
        let by_name = ending.as_deref().and_then(Format::of_extension);
        let is_file = by_name.is_some();
        if let (Some(asked), Some(by_name)) = (asked, by_name)
            && asked != by_name
        {
            bail!("--out {}: its ending says {by_name}, --format says {asked}", out.display());
        }
        let format = asked.or(by_name).unwrap_or_default();
        if is_file && count > 1 {
            bail!("--out {}: one file for {count} pictures; give a folder", out.display());
        }
        let folder = if is_file { out.parent().unwrap_or(Path::new("")) } else { out }.to_owned();
        let new = !folder.as_os_str().is_empty() && !folder.exists();
        // Better to say now that nothing can be written than after the work.
        if !folder.as_os_str().is_empty() {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
        }
        let probe = folder.join(".tweedie-probe");
        output::write(&probe, b"")?;
        std::fs::remove_file(&probe).with_context(|| probe.display().to_string())?;
        Ok(Self { folder, file: is_file.then(|| out.to_owned()), format, new })
    }
}

impl Target {
    /// Takes an empty folder away that was made for nothing.
    pub(crate) fn take_back(&self) {
        if self.new {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// One file a picture, and a sheet of all where there are several.
pub(crate) fn save(
    target: &Target,
    spec: &Spec,
    model: &Model,
    made: &Generated,
) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let ending = target.format.extension();
    for k in 0..spec.count {
        let one = made.spec_of(k);
        let path = match &target.file {
            Some(file) => file.clone(),
            None => target.folder.join(format!("{}-{}.{ending}", plain(&one.model), one.seed)),
        };
        output::write(&path, &made.encode(model, k, target.format)?)?;
        files.push(path);
    }
    if spec.count > 1 {
        let columns = (spec.count as f64).sqrt().ceil() as usize;
        let panel = |k: usize| Panel {
            image: made.images.clone(),
            index: k,
            label: label(model, made, spec, k),
        };
        let panels: Vec<Panel> = (0..spec.count.min(256)).map(panel).collect();
        let zoom = (256 / made.images.width.max(1)).clamp(1, 4);
        let sheet =
            Sheet { title: spec.prompt.clone(), columns: columns.min(16), zoom, label_lines: 1 };
        let path = target.folder.join(format!("{}-{}-sheet.png", plain(&spec.model), spec.seed));
        output::write(&path, &encode_png(&sheet.draw(&panels)?, 0, &[])?)?;
        files.push(path);
    }
    Ok(files)
}

fn label(model: &Model, made: &Generated, spec: &Spec, k: usize) -> String {
    let class = made.classes.as_ref().zip(model.classes.as_ref());
    let name = class.and_then(|(c, known)| known.names.get(c[k] as usize).cloned());
    name.unwrap_or_else(|| format!("seed {}", spec.seed.wrapping_add(k as u64)))
}

/// A name as part of a file name.
fn plain(name: &str) -> String {
    let name = name.strip_prefix("builtin:").unwrap_or(name);
    name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

/// Latents as a safetensors file.
pub(crate) fn save_latents(path: &Path, latents: &Noises) -> Result<()> {
    let tensor = Output::f32("latents", &latents.shape, &latents.values, Dtype::F32);
    write_safetensors(path, &[tensor], &std::collections::BTreeMap::new())?;
    Ok(())
}
