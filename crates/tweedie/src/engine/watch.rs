//! Who looks on while pictures are made: progress, previews, and stopping from another thread.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::run::{Observer, Progress};

/// Watches the making of pictures.
///
/// A closure over [`Stage`] is one, [`Cancel`] is one, and [`Cancel::with`] joins the two.
pub trait Watch: Send {
    /// Told after every step of a batch: images finished before, images in this batch, images in
    /// all, and how far the batch is. `Break` ends everything.
    fn step(&mut self, at: &Stage<'_>) -> ControlFlow<()>;

    /// Asked before every evaluation of the network, and before every picture is encoded or
    /// decoded.
    fn evaluate(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// How far the making of pictures is.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// The first image of the batch.
    pub first: usize,
    /// Images in the batch.
    pub batch: usize,
    /// Images in all.
    pub count: usize,
    /// How far the batch is.
    pub progress: Progress<'a>,
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatching;

impl Watch for Unwatching {
    fn step(&mut self, _at: &Stage<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(&Stage<'_>) -> ControlFlow<()> + Send> Watch for F {
    fn step(&mut self, at: &Stage<'_>) -> ControlFlow<()> {
        self(at)
    }
}

/// A flag that ends a generation from any thread.
///
/// It is looked at before every evaluation of the network: after [`Cancel::cancel`] at most the
/// evaluation under way is finished, and the call returns [`crate::Error::Stopped`]. All clones are
/// one flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is down.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag for good.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is up.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// A watcher that this flag stops.
    pub fn with<W: Watch>(&self, watch: W) -> Cancellable<W> {
        Cancellable { cancel: self.clone(), watch }
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Watch for Cancel {
    fn step(&mut self, _at: &Stage<'_>) -> ControlFlow<()> {
        self.flow()
    }

    fn evaluate(&mut self) -> ControlFlow<()> {
        self.flow()
    }
}

/// A watcher that a [`Cancel`] stops.
#[derive(Clone, Debug)]
pub struct Cancellable<W> {
    cancel: Cancel,
    watch: W,
}

impl<W: Watch> Watch for Cancellable<W> {
    fn step(&mut self, at: &Stage<'_>) -> ControlFlow<()> {
        self.watch.step(at)?;
        self.cancel.flow()
    }

    fn evaluate(&mut self) -> ControlFlow<()> {
        self.cancel.flow()?;
        self.watch.evaluate()
    }
}

/// A [`Watch`] as the observer of the run of one batch.
pub(super) struct Forward<'a> {
    pub(super) watch: &'a mut dyn Watch,
    pub(super) first: usize,
    pub(super) batch: usize,
    pub(super) count: usize,
}

impl Observer for Forward<'_> {
    fn step(&mut self, progress: &Progress<'_>) -> ControlFlow<()> {
        let (first, batch, count) = (self.first, self.batch, self.count);
        self.watch.step(&Stage { first, batch, count, progress: *progress })
    }

    fn evaluate(&mut self) -> ControlFlow<()> {
        self.watch.evaluate()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::engine::{Engine, Generated, Model};
    use crate::error::Error;
    use crate::spec::Spec;

    fn shared<T: Send + Sync>() {}

    #[test]
    fn what_threads_share_can_be_shared() {
        shared::<Engine>();
        shared::<Model>();
        shared::<Cancel>();
        shared::<Spec>();
        shared::<Generated>();
    }

    /// Counts evaluations and cancels in the third.
    struct Third {
        cancel: Cancel,
        seen: Arc<AtomicUsize>,
    }

    impl Watch for Third {
        fn step(&mut self, _at: &Stage<'_>) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }

        fn evaluate(&mut self) -> ControlFlow<()> {
            if self.seen.fetch_add(1, Ordering::SeqCst) == 2 {
                // As another thread would, while the evaluation runs.
                self.cancel.cancel();
            }
            ControlFlow::Continue(())
        }
    }

    #[test]
    fn a_raised_flag_lets_no_further_evaluation_begin() {
        let engine = Engine::cpu(1).unwrap();
        let model = engine.open("builtin:fashion").unwrap();
        let heun = "heun".parse().unwrap();
        let spec = Spec { sampler: heun, classes: vec![1], steps: 20, ..model.spec() };
        let cancel = Cancel::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let mut watch = cancel.with(Third { cancel: cancel.clone(), seen: seen.clone() });
        let result = engine.generate(&model, &spec, &mut watch);
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
        // The third belongs to the second step of a method of two evaluations a step.
        assert_eq!(seen.load(Ordering::SeqCst), 3);
    }
}
