//! Where a run computes: a device and a pool of threads of its own.

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// A device and the threads that work for it.
///
/// Nothing in the library builds a global pool; everything that computes runs inside
/// [`Engine::install`], so that `--threads` means what it says.
#[derive(Debug)]
pub struct Engine {
    device: Device,
    pool: ThreadPool,
}

impl Engine {
    /// The CPU with this many threads; 0 means as many as there are cores.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the threads cannot be started or are absurdly many.
    pub fn cpu(threads: usize) -> Result<Self> {
        const MOST: usize = 1024;
        if threads > MOST {
            return Err(Error::setting(
                "threads",
                format!("{threads} where at most {MOST} make sense"),
            ));
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("tweedie-{i}"))
            .build()
            .map_err(|e| Error::setting("threads", e.to_string()))?;
        Ok(Self { device: Device::flex(), pool })
    }

    /// The device that models are opened on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `f` in the pool.
    pub fn install<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.pool.install(f)
    }
}

/// The instruction set that the kernels of this machine use. Pictures repeat bit for bit on the
/// same one.
pub fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
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
