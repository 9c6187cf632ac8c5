//! Opens a model and draws with it. In place of `builtin:fashion` stands any model folder.

use tweedie::engine::{Engine, Unwatching};
use tweedie::media::Format;
use tweedie::spec::Spec;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::cpu(0)?;
    let model = engine.open("builtin:fashion")?;
    let spec = Spec { prompt: "bag".into(), steps: 8, ..model.spec() };
    let made = engine.generate(&model, &spec, &mut Unwatching)?;
    std::fs::write("bag.png", made.encode(&model, 0, Format::Png)?)?;
    Ok(())
}
