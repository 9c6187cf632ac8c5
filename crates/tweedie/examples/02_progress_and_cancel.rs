//! Follows a generation step by step, and ends it from another thread.

#![allow(clippy::print_stdout, reason = "an example says what happens")]

use std::ops::ControlFlow;
use std::sync::mpsc::channel;

use tweedie::Error;
use tweedie::engine::{Cancel, Engine, Stage};
use tweedie::spec::Spec;

fn main() -> tweedie::Result<()> {
    let engine = Engine::cpu(0)?;
    let model = engine.open("builtin:fashion")?;
    let spec = Spec { prompt: "sneaker".into(), steps: 500, ..model.spec() };

    let cancel = Cancel::new();
    let (told, steps) = channel();
    let mut watch = cancel.with(move |at: &Stage<'_>| {
        println!("step {} of {}", at.progress.done, at.progress.count);
        let _ = told.send(at.progress.done);
        ControlFlow::Continue(())
    });
    // Whoever holds the flag may stop the run: a button, a connection that closed.
    let button = std::thread::spawn(move || {
        let _ = steps.iter().find(|done| *done == 3);
        cancel.cancel();
    });
    let result = engine.generate(&model, &spec, &mut watch);
    let _ = button.join();
    assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
    println!("stopped long before step 500");
    Ok(())
}
