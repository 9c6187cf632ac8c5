//! What is counted, for Prometheus.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::job::Live;
use crate::service::Service;

/// What is counted.
pub struct Metrics {
    registry: Registry,
    /// Jobs that were accepted.
    pub accepted: Counter,
    /// Jobs that found the queue full.
    pub refused: Counter,
    ended: Family<[(&'static str, &'static str); 1], Counter>,
    pictures: Counter,
    seconds: Histogram,
    waited: Histogram,
    waiting: Gauge,
    running: Gauge,
    models: Gauge,
    weights: Gauge,
    /// A moving mean of the seconds that a job took, as bits.
    mean: AtomicU64,
}

/// Upper ends of the bins of times, in seconds.
const BINS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tweedie");
        let accepted = Counter::default();
        registry.register("jobs_accepted", "Jobs that were accepted", accepted.clone());
        let refused = Counter::default();
        registry.register("jobs_refused", "Jobs that found the queue full", refused.clone());
        let ended = Family::<_, Counter>::default();
        registry.register("jobs_ended", "Jobs that ended, by how", ended.clone());
        let pictures = Counter::default();
        registry.register("pictures", "Pictures that were made", pictures.clone());
        let seconds = Histogram::new(BINS);
        registry.register("job_seconds", "Seconds that a job computed", seconds.clone());
        let waited = Histogram::new(BINS);
        registry.register("wait_seconds", "Seconds that a job waited", waited.clone());
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            waiting: gauge(&mut registry, "jobs_waiting", "Jobs that wait"),
            running: gauge(&mut registry, "jobs_running", "Jobs that are computed"),
            models: gauge(&mut registry, "models_open", "Models that are open"),
            weights: gauge(&mut registry, "models_bytes", "Bytes of the weights of open models"),
            registry,
            accepted,
            refused,
            ended,
            pictures,
            seconds,
            waited,
            mean: AtomicU64::new(1.0_f64.to_bits()),
        }
    }
}

impl Metrics {
    /// Seconds that a job took of late.
    pub fn seconds_a_job(&self) -> f64 {
        f64::from_bits(self.mean.load(Ordering::Relaxed))
    }

    pub(crate) fn ended(&self, live: &Live) {
        self.ended.get_or_create(&[("state", live.state.name())]).inc();
        self.pictures.inc_by(live.images.len() as u64);
        if let (Some(started), Some(finished)) = (live.started, live.finished) {
            let took = (finished - started).max(0.0);
            self.seconds.observe(took);
            let mean = 0.9 * self.seconds_a_job() + 0.1 * took;
            self.mean.store(mean.to_bits(), Ordering::Relaxed);
        }
    }

    pub(crate) fn began(&self, waited: f64) {
        self.waited.observe(waited.max(0.0));
    }

    /// The page that Prometheus reads.
    pub fn page(&self, service: &Service) -> String {
        self.waiting.set(service.waiting() as i64);
        self.running.set(service.running() as i64);
        let (bytes, models) = service.library.held();
        self.models.set(models as i64);
        self.weights.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut page, &self.registry);
        page
    }
}
