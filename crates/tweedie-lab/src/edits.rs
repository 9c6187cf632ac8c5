//! Measures a method of editing on the world of changes, kind by kind.

use std::time::Instant;

use anyhow::Result;
use tweedie::data::shapes::{Change, ChangeKind};
use tweedie::spec::PartSpec;

use crate::check::pie::{Bench, How, Outcome, psnr, right};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The method, `name:key=value`; `none` is the picture noised and denoised.
    method: String,
    /// Scenes of each kind of change.
    #[arg(long, default_value_t = 60)]
    scenes: usize,
    /// The seed of scenes and noises.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of the grid; the method's own where nothing is said.
    #[arg(long)]
    steps: Option<usize>,
    /// The share of the steps that is walked; the method's own where nothing is said.
    #[arg(long)]
    strength: Option<f64>,
    /// The guidance weight of the target's side; the model's own where nothing is said.
    #[arg(long)]
    guidance: Option<f64>,
    /// The guidance weight of the source's side; the method's own where nothing is said.
    #[arg(long)]
    source_guidance: Option<f64>,
    /// Only these kinds of change.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// A folder for pictures: source, exact target and edit of the first scenes side by side.
    #[arg(long)]
    pictures: Option<std::path::PathBuf>,
}

impl Args {
    fn how(&self) -> Result<How> {
        let method: PartSpec = self.method.parse()?;
        Ok(How {
            method: (method.name != "none").then_some(method),
            sampler: None,
            steps: self.steps,
            strength: self.strength,
            guidance: self.guidance,
            source_guidance: self.source_guidance,
        })
    }
}

pub(crate) fn run(args: &Args, say: &mut dyn FnMut(String)) -> Result<()> {
    let (bench, how) = (Bench::open()?, args.how()?);
    let chosen = |k: &ChangeKind| args.kinds.is_empty() || args.kinds.iter().any(|n| n == k.name());
    let kinds: Vec<ChangeKind> = ChangeKind::ALL.into_iter().filter(chosen).collect();
    if let Some(folder) = &args.pictures {
        return draw(&bench, &how, &kinds, args, folder);
    }
    let begun = Instant::now();
    let all = bench.outcomes(&how, &kinds, args.scenes, args.seed)?;
    say(format!("{:12} {:>7} {:>8}", args.method, "right", "dB"));
    for kind in &kinds {
        let of: Vec<Outcome> = all.iter().filter(|o| o.kind == *kind).cloned().collect();
        say(format!("{:12} {:6.1}% {:8.2}", kind.name(), 100.0 * right(&of), psnr(&of)));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let evaluations: usize = all.iter().map(|o| o.evaluations).sum();
    say(format!(
        "{:12} {:6.1}% {:8.2}   {} evaluations, {:.2} s each",
        "all",
        100.0 * right(&all),
        psnr(&all),
        evaluations / all.len().max(1),
        seconds / all.len().max(1) as f64
    ));
    Ok(())
}

/// Source, exact target and edit side by side, a row a scene.
fn draw(
    bench: &Bench,
    how: &How,
    kinds: &[ChangeKind],
    args: &Args,
    folder: &std::path::Path,
) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for kind in kinds {
        let mut rows = Vec::new();
        for index in 0..args.scenes as u64 {
            let change = Change::sample(args.seed, index, *kind);
            let (edit, _) = bench.edited(how, &change, args.seed ^ index)?;
            let three = [change.source.render(), change.target.render(), edit];
            let (side, pixels) = (three[0].width(), three[0].data().len());
            for y in 0..pixels / (3 * side) {
                let line = |p: &tweedie::data::shapes::Picture| {
                    p.data()[3 * side * y..3 * side * (y + 1)].to_vec()
                };
                rows.extend(three.iter().flat_map(line));
            }
        }
        let side = Change::sample(args.seed, 0, *kind).source.render().width();
        let height = rows.len() / (9 * side);
        let sheet = tweedie::data::shapes::Picture::from_rgb(3 * side, height, rows)?;
        let images =
            tweedie::data::Images::from_f32([1, 3, height, 3 * side], &sheet.to_f32_chw())?;
        let bytes = tweedie::media::encode_png(&images, 0, &[])?;
        std::fs::write(folder.join(format!("{}.png", kind.name())), bytes)?;
    }
    Ok(())
}
