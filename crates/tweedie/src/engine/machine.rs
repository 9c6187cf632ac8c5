//! Where a run computes: a device and threads of its own.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::engine::cond::Texts;
use crate::engine::device;
use crate::engine::generate::{Generated, generate};
use crate::engine::inputs::Inputs;
use crate::engine::open::Model;
use crate::engine::watch::Watch;
use crate::error::{Error, Result};
use crate::hub::{Folder, Parts};
use crate::spec::Spec;

thread_local! {
    /// Whether this thread belongs to the pool of an engine.
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// A device and the threads that work for it.
///
/// Nothing in the library builds a global pool; everything that computes runs inside
/// [`Engine::install`], so that `--threads` means what it says. An engine may be shared: calls at
/// the same time get a pool of that many threads each, because within one pool one call would wait
/// on top of the other, and could not be stopped until that one ended.
#[derive(Debug)]
pub struct Engine {
    device: Device,
    threads: usize,
    /// Pools that nobody uses at the moment.
    idle: Mutex<Vec<ThreadPool>>,
    /// Where hashes of weights are kept.
    hashes: Option<PathBuf>,
}

impl Engine {
    /// The CPU with this many threads; 0 means as many as there are cores.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the threads cannot be started or are absurdly many.
    pub fn cpu(threads: usize) -> Result<Self> {
        Self::of(Device::flex(), threads)
    }

    /// A device by name: `cpu`, or `vulkan`, `cuda`, `metal`, `wgpu`, `rocm` where the library was
    /// built with the feature of that name, with the number of the device after a colon
    /// (`vulkan:1`). [`crate::engine::devices`] lists them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a device that was not built in, [`Error::Unknown`] for a name
    /// that is none, [`Error::Setting`] for a number that is none; as [`Engine::cpu`].
    pub fn on(device: &str, threads: usize) -> Result<Self> {
        Self::of(device::named(device)?, threads)
    }

    fn of(device: Device, threads: usize) -> Result<Self> {
        const MOST: usize = 1024;
        if threads > MOST {
            return Err(Error::setting(
                "threads",
                format!("{threads} where at most {MOST} make sense"),
            ));
        }
        // A set that this machine lacks, or that no machine has, would otherwise pass unnoticed.
        let kernels = tweedie_kernels::InstructionSet::current().name();
        if let Ok(asked) = std::env::var("TWEEDIE_INSTRUCTION_SET")
            && asked != kernels
        {
            let why = format!("`{asked}` is not on this machine (amx, avx512, avx2 or baseline)");
            return Err(Error::setting("TWEEDIE_INSTRUCTION_SET", why));
        }
        let first = pool(threads)?;
        let threads = first.current_num_threads();
        Ok(Self { device, threads, idle: Mutex::new(vec![first]), hashes: None })
    }

    /// The same, keeping the hashes of weights that it takes in `folder`, so that those of files that
    /// have not changed since are not taken again.
    #[must_use]
    pub fn keeping_hashes(self, folder: Option<PathBuf>) -> Self {
        Self { hashes: folder, ..self }
    }

    /// The device that models are opened on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How many threads a call has.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f` on the threads of this engine.
    pub fn install<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        if OURS.get() {
            // A call inside a call: it is on such threads already.
            return f();
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Where the system refuses further threads, the caller's own has to do.
        let Some(pool) = idle.or_else(|| pool(self.threads).ok()) else { return f() };
        let result = pool.install(f);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
        result
    }

    /// Opens a model: `builtin:NAME`, a folder in the layout of diffusers, a single file of weights,
    /// or `org/name` in the local Hugging Face cache. [`Parts`] takes components from elsewhere;
    /// [`Engine::open_folder`] opens what it finds.
    ///
    /// # Errors
    ///
    /// What is missing, of another shape or unknown, with the file and the key.
    pub fn open(&self, name: &str) -> Result<Model> {
        self.open_folder(Parts::new(name).open()?.folder)
    }

    /// Opens a model whose files are found already.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub fn open_folder(&self, folder: Folder) -> Result<Model> {
        self.install(|| Model::from_folder(folder, &self.device))
    }

    /// [`Model::hash`], on the threads of this engine. It is taken once and kept.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn hash<'m>(&self, model: &'m Model) -> Result<&'m str> {
        self.install(|| model.hash_in_pool(self.hashes.as_deref()))
    }

    /// Encodes the prompts of a spec; `None` for models that take none. With the result in
    /// [`crate::engine::Inputs::texts`] the text encoders can be released before the network runs, by
    /// [`Model::release_text`].
    ///
    /// # Errors
    ///
    /// What the prompts and the encoders say.
    pub fn encode(&self, model: &Model, spec: &Spec) -> Result<Option<Texts>> {
        self.install(|| Texts::encode(model, spec, &[]))
    }

    /// Makes the pictures that a spec asks for; see [`generate`], which also takes pictures and noise.
    ///
    /// # Errors
    ///
    /// As [`generate`].
    pub fn generate(&self, model: &Model, spec: &Spec, watch: &mut dyn Watch) -> Result<Generated> {
        generate(self, model, spec, &Inputs::default(), watch)
    }
}

pub(super) fn pool(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("tweedie-{i}"))
        .start_handler(|_| OURS.set(true))
        .build()
        .map_err(|e| Error::setting("threads", e.to_string()))
}
/// The instruction set that the kernels of this machine use. Pictures repeat bit for bit on the
/// same one.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        // Asked for by `TWEEDIE_INSTRUCTION_SET`; burn's own operations still use what is there.
        let kernels = tweedie_kernels::InstructionSet::current();
        if tweedie_kernels::InstructionSet::prefers_tiles() {
            return "x86-64 with large layers in amx";
        }
        if kernels != tweedie_kernels::InstructionSet::detect() {
            return match kernels.name() {
                "amx" => "x86-64 with kernels in amx",
                "avx2" => "x86-64 with kernels in avx2",
                _ => "x86-64 with portable kernels",
            };
        }
        if std::is_x86_feature_detected!("avx512f") {
            return "x86-64 avx512f";
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return "x86-64 avx2+fma";
        }
        "x86-64"
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn calls_at_the_same_time_do_not_wait_for_each_other() {
        let engine = Engine::cpu(1).unwrap();
        let ((to_a, at_a), (to_b, at_b)) = (channel::<()>(), channel::<()>());
        // Each call ends only after the other has begun: on one pool of one thread that is never.
        let meet = |say: Sender<()>, hear: Receiver<()>| {
            engine.install(move || {
                say.send(()).unwrap();
                hear.recv_timeout(Duration::from_secs(20)).unwrap();
                rayon::current_num_threads()
            })
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| meet(to_b, at_a));
            assert_eq!(meet(to_a, at_b), 1);
            assert_eq!(other.join().unwrap(), 1);
        });
        assert_eq!(engine.idle.lock().unwrap().len(), 2);
        assert_eq!(engine.install(|| engine.install(|| 7)), 7);
    }

    #[test]
    fn absurd_counts_of_threads_are_refused() {
        assert!(Engine::cpu(1 << 20).is_err());
        assert_eq!(Engine::cpu(3).unwrap().threads(), 3);
    }
}
