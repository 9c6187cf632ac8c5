//! What a server is told when it starts.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// What a server is told when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Models by name, as `tweedie generate --model` takes them; the first is the default one.
    pub models: Vec<String>,
    /// A folder with more of them: model folders and single files, and in `loras` and `embeddings`
    /// what prompts may name.
    pub folder: Option<PathBuf>,
    /// Where jobs and results are kept; without it they go with the process.
    pub state: Option<PathBuf>,
    /// The address to listen on; loopback.
    pub host: IpAddr,
    /// The port; 7860. 0 takes a free one.
    pub port: u16,
    /// Threads that compute; 0 is as many as there are cores.
    pub threads: usize,
    /// The key that every request must bring, where there is one.
    pub key: Option<String>,
    /// Names under which the server is reached, beside those of the loopback address.
    pub hosts: Vec<String>,
    /// Origins of pages that may use it from a browser, such as `https://example.org`.
    pub origins: Vec<String>,
    /// Jobs that are computed at the same time; 8.
    pub at_once: usize,
    /// Bytes that the weights of open models may take together; half of the machine's memory.
    pub memory: Option<u64>,
    /// How long running jobs are given when the server is told to stop; 30 seconds.
    pub grace: Duration,
    /// How long results are kept; 7 days.
    pub keep_for: Duration,
    /// Bytes of results that are kept; 2 GiB.
    pub keep_bytes: u64,
    /// What requests may ask for.
    pub limits: Limits,
}

/// What requests may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest side of a picture in pixels; 2,048.
    pub side: usize,
    /// The most steps; 1,000.
    pub steps: usize,
    /// The most pictures of a job; 64.
    pub count: usize,
    /// The most characters of a prompt; 10,000.
    pub prompt: usize,
    /// The most bytes of a request; 32 MiB.
    pub upload: usize,
    /// The most jobs that wait; 256.
    pub queue: usize,
    /// How long a job may compute; 30 minutes.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            side: 2048,
            steps: 1000,
            count: 64,
            prompt: 10_000,
            upload: 32 << 20,
            queue: 256,
            time: Duration::from_secs(30 * 60),
        }
    }
}

impl Limits {
    /// As the library's, for a model whose sizes are multiples of `multiple`.
    pub fn of_spec(&self, multiple: usize) -> tweedie::spec::Limits {
        tweedie::spec::Limits {
            steps: self.steps,
            count: self.count,
            batch: self.count,
            side: self.side,
            prompt: self.prompt,
            multiple_of: multiple,
            walks: self.count as f64,
            ..tweedie::spec::Limits::default()
        }
    }

    /// For pictures that come with a request.
    pub fn of_picture(&self) -> tweedie::data::picture::Limits {
        tweedie::data::picture::Limits {
            max_side: 2 * self.side as u32,
            max_decoded: 256 << 20,
            max_file: self.upload as u64,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            models: vec!["builtin:shapes".into(), "builtin:fashion".into()],
            folder: None,
            state: None,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 7860,
            threads: 0,
            key: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            at_once: 8,
            memory: None,
            grace: Duration::from_secs(30),
            keep_for: Duration::from_secs(7 * 24 * 3600),
            keep_bytes: 2 << 30,
            limits: Limits::default(),
        }
    }
}
