//! Draws two pictures at once from one loaded model, with progress.

use tweedie::engine::{Cancel, Engine, Stage};
use tweedie::media::Format;
use tweedie::spec::Spec;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let name = std::env::args().nth(1).unwrap_or("builtin:fashion".into());
    let (engine, cancel) = (Engine::cpu(0)?, Cancel::new());
    let model = engine.open(&name)?;
    let draw = |prompt: &str, seed: u64| {
        let spec = Spec { prompt: prompt.into(), seed, steps: 4, ..model.spec() };
        let mut watch = cancel.with(|at: &Stage<'_>| {
            println!("seed {seed}: step {} of {}", at.progress.done, at.progress.count);
            std::ops::ControlFlow::Continue(())
        });
        let made = engine.generate(&model, &spec, &mut watch)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(made.encode(&model, 0, Format::Png)?)
    };
    let both = std::thread::scope(|scope| {
        [("bag", 1), ("coat", 2)].map(|(w, s)| scope.spawn(move || draw(w, s))).map(|t| t.join())
    });
    for (k, picture) in both.into_iter().enumerate() {
        std::fs::write(format!("draw-{k}.png"), picture.map_err(|_| "a thread panicked")??)?;
    }
    Ok(())
}
