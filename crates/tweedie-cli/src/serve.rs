//! `tweedie serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tweedie_server::{Limits, Settings};

use crate::output;

/// Serve models to programs and to a browser.
///
/// At / is a page; beside it the interfaces of OpenAI (/v1) and A1111 (/sdapi/v1), so that their
/// clients work as they are, and our own (/api/v1, described by /api/v1/openapi.json). docs/serving.md
/// says how to run it as a service.
///
///     tweedie serve
///     tweedie serve --models ~/models --state /var/lib/tweedie --port 8080
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// A model, as `tweedie generate --model` takes it; may be given several times, the first is the
    /// default one. The built-in ones where neither this nor --models is given.
    #[arg(short, long, value_name = "NAME|DIR|FILE")]
    model: Vec<String>,
    /// A folder of models: model folders and single files; in `loras` and `embeddings` below it what
    /// prompts may name.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Keep jobs and results here, so that what was accepted outlives the process.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// The port; 0 takes a free one.
    #[arg(short, long, default_value_t = 7860)]
    port: u16,
    /// Threads that compute; as many as there are cores where nothing is said.
    #[arg(short, long, default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// A file whose first line is the key that every request must bring.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen beyond this machine without a key.
    #[arg(long)]
    no_key: bool,
    /// A further name that the server is reached by.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// A page's origin that may use the server from a browser, such as https://example.org.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Jobs that are computed at the same time.
    #[arg(long, default_value_t = 8, value_name = "N")]
    at_once: usize,
    /// Jobs that may wait.
    #[arg(long, default_value_t = 256, value_name = "N")]
    queue: usize,
    /// GiB that the weights of open models may take together; half of the machine's memory where
    /// nothing is said.
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
    /// The longest side of a picture in pixels.
    #[arg(long, default_value_t = 2048, value_name = "PIXELS")]
    max_side: usize,
    /// The most pictures of one job.
    #[arg(long, default_value_t = 64, value_name = "N")]
    max_count: usize,
    /// The most steps.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    max_steps: usize,
    /// The most MiB of a request.
    #[arg(long, default_value_t = 32, value_name = "MIB")]
    max_upload: usize,
    /// Minutes that a job may compute.
    #[arg(long, default_value_t = 30, value_name = "MINUTES")]
    max_time: u64,
    /// Days that results are kept.
    #[arg(long, default_value_t = 7.0, value_name = "DAYS")]
    keep_days: f64,
    /// GiB of results that are kept.
    #[arg(long, default_value_t = 2.0, value_name = "GIB")]
    keep_size: f64,
    /// Seconds that running jobs are given when the server is told to stop.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,
    /// Say where it listens as JSON.
    #[arg(long)]
    json: bool,
}

const GIB: f64 = (1_u64 << 30) as f64;

/// How often freed memory is given back: what a burst leaves does not stay, and steps that follow each other
/// find their pages again.
const TIDY: Duration = Duration::from_secs(1);

impl Args {
    fn settings(&self) -> Result<Settings> {
        let key = match &self.api_key_file {
            None => None,
            Some(file) => {
                let name = file.display().to_string();
                let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
                let key = text.lines().next().unwrap_or_default().trim().to_owned();
                if key.len() < 8 {
                    bail!("{name}: the first line is the key, of at least 8 characters");
                }
                Some(key)
            }
        };
        if !self.host.is_loopback() && key.is_none() && !self.no_key {
            bail!(
                "--host {}: anybody who reaches this machine could use it; give --api-key-file FILE, or --no-key",
                self.host
            );
        }
        let positive = |flag: &str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(value),
            false => Err(anyhow::anyhow!("{flag}: {value}, wanted a number of at least 0")),
        };
        let models = match (self.model.is_empty(), &self.models) {
            (true, None) => Settings::default().models,
            _ => self.model.clone(),
        };
        let memory = match self.memory {
            Some(gib) => Some((positive("--memory", gib)? * GIB) as u64),
            None => None,
        };
        Ok(Settings {
            models,
            folder: self.models.clone(),
            state: self.state.clone(),
            host: self.host,
            port: self.port,
            threads: self.threads,
            key,
            hosts: self.allow_host.clone(),
            origins: self.allow_origin.clone(),
            at_once: self.at_once.clamp(1, 256),
            memory,
            grace: Duration::from_secs(self.grace),
            keep_for: Duration::from_secs_f64(
                positive("--keep-days", self.keep_days)?.min(1e5) * 86_400.0,
            ),
            keep_bytes: (positive("--keep-size", self.keep_size)? * GIB) as u64,
            limits: Limits {
                side: self.max_side,
                steps: self.max_steps,
                count: self.max_count,
                upload: self.max_upload.saturating_mul(1 << 20),
                queue: self.queue,
                time: Duration::from_secs(self.max_time.saturating_mul(60)),
                ..Limits::default()
            },
        })
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let settings = args.settings()?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Requests are translated here; what computes has threads of its own.
        .worker_threads(2)
        .max_blocking_threads(32)
        .enable_all()
        .build()?;
    let kept = settings.state.is_some();
    let json = args.json;
    runtime.block_on(async move {
        let ready = move |at: std::net::SocketAddr| {
            if json {
                output::say(&json!({"address": at.to_string(), "port": at.port()}).to_string());
            } else {
                output::say(&format!("http://{at}/"));
                if !kept {
                    output::warn("jobs and results go with the process; --state DIR keeps them");
                }
            }
        };
        let tidy = tokio::spawn(return_memory());
        let result = tweedie_server::serve(settings, stopped(), ready).await;
        tidy.abort();
        result
    })?;
    Ok(())
}

/// Gives freed memory back now and then, for as long as it is polled.
async fn return_memory() {
    let mut pause = tokio::time::interval(TIDY);
    loop {
        pause.tick().await;
        let _ = tokio::task::spawn_blocking(tweedie::engine::return_freed_memory).await;
    }
}

/// Ready when the process is told to stop.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
