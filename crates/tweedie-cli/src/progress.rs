//! Progress of a run: a bar with the time left, previews, and Ctrl-C.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tweedie::data::Images;
use tweedie::engine::{Model, Stage, Watch, preview};
use tweedie::media::encode_png;

use crate::output;

/// A flag that Ctrl-C sets.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        // The second time, the user means it.
        if set.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        output::warn("stopping after this evaluation; press Ctrl-C again to quit at once");
    })?;
    Ok(flag)
}

/// A bar that says what is done and how long the rest takes; none where nobody looks.
pub(crate) fn bar(length: u64, unit: &str, quiet: bool) -> ProgressBar {
    if quiet || !output::watched() {
        return ProgressBar::hidden();
    }
    let style =
        format!("{{msg:14}} [{{bar:32}}] {{pos}}/{{len}} {unit}  {{elapsed}} (left {{eta}})");
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(&style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Watches a generation.
pub(crate) struct Watcher<'m> {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    preview: Option<(PathBuf, &'m Model)>,
}

impl<'m> Watcher<'m> {
    pub(crate) fn new(
        bar: ProgressBar,
        stop: Arc<AtomicBool>,
        preview: Option<(PathBuf, &'m Model)>,
    ) -> Self {
        Self { bar, stop, preview }
    }

    fn show(&mut self, stage: &Stage<'_>) -> Result<()> {
        let (Some((path, model)), Some(x0)) = (&self.preview, stage.progress.x0) else {
            return Ok(());
        };
        let images: Images = preview(model, x0)?;
        output::write(path, &encode_png(&images, 0, &[])?)
    }
}

impl Watch for Watcher<'_> {
    fn step(&mut self, stage: &Stage<'_>) -> ControlFlow<()> {
        let steps = stage.progress.count;
        self.bar.set_position((stage.first * steps + stage.batch * stage.progress.done) as u64);
        if let Err(error) = self.show(stage) {
            self.bar.println(format!("no preview: {error}"));
            self.preview = None;
        }
        ControlFlow::Continue(())
    }

    fn evaluate(&mut self) -> ControlFlow<()> {
        if self.stop.load(Ordering::SeqCst) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
