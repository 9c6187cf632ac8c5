//! Two generations at once from one loaded model: its weights are in memory once.

#![allow(clippy::print_stdout, reason = "an example says what happens")]

use tweedie::engine::{Engine, Unwatching};
use tweedie::spec::Spec;

fn main() -> tweedie::Result<()> {
    let engine = Engine::cpu(1)?; // threads of each call
    let model = engine.open("builtin:fashion")?;
    let draw = |what: &str, seed| {
        let spec = Spec { prompt: what.into(), seed, steps: 6, ..model.spec() };
        engine.generate(&model, &spec, &mut Unwatching)
    };
    let (coat, boot) = std::thread::scope(|scope| {
        let coat = scope.spawn(|| draw("coat", 1));
        let boot = scope.spawn(|| draw("ankle boot", 2));
        (coat.join(), boot.join())
    });
    // Neither knows of the other: each is what it would be alone.
    for (together, alone) in [(coat, draw("coat", 1)?), (boot, draw("ankle boot", 2)?)] {
        let together = together.map_err(|_| tweedie::Error::Stopped)??;
        assert_eq!(together.images, alone.images);
    }
    println!("two at once, each as it is alone");
    Ok(())
}
