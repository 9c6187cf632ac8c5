//! The service behind every interface: takes jobs, keeps them, hands them to those that compute.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tweedie::data::Images;
use tweedie::data::picture::{self, Target};
use tweedie::engine::{Engine, Needs, check, source};
use tweedie::spec::{PartSpec, SourceFile, Spec, resolve_grid, resolve_sampler};
use uuid::Uuid;

use crate::http::a1111::options::Options;
use crate::job::{Job, Live, Pictures, Request, State, View, now};
use crate::library::Library;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::refusal::{Kind, Refusal};
use crate::runner;
use crate::settings::Settings;
use crate::store::Store;

type Result<T> = std::result::Result<T, Refusal>;

/// Between two looks at what is kept too long.
const TIDY: Duration = Duration::from_secs(60);

/// The service.
pub struct Service {
    /// What it was told when it started.
    pub settings: Settings,
    /// The threads that compute.
    pub engine: Arc<Engine>,
    /// Its models.
    pub library: Library,
    /// What it counts.
    pub metrics: Metrics,
    pub(crate) queue: Queue<String>,
    pub(crate) store: Store,
    /// Jobs that wait or run, by name.
    jobs: Mutex<HashMap<String, Arc<Job>>>,
    options: Mutex<Options>,
    running: AtomicUsize,
    stopping: AtomicBool,
    runners: Mutex<Vec<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Opens the store, takes up what was accepted before, and starts to compute.
    ///
    /// # Errors
    ///
    /// What the settings, the models and the store say.
    pub fn start(settings: Settings) -> Result<Arc<Self>> {
        let engine = Engine::cpu(settings.threads)?;
        let hashes = tweedie::data::root::cache_folder().map(|folder| folder.join("hashes"));
        let engine = Arc::new(engine.keeping_hashes(hashes));
        let folder = settings.folder.as_deref();
        let library = Library::new(engine.clone(), &settings.models, folder, settings.memory)?;
        let store = Store::open(settings.state.as_deref())?;
        let service = Arc::new(Self {
            queue: Queue::new(settings.limits.queue),
            metrics: Metrics::default(),
            jobs: Mutex::default(),
            options: Mutex::default(),
            running: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            runners: Mutex::default(),
            engine,
            library,
            store,
            settings,
        });
        let left = service.store.unfinished()?;
        if !left.is_empty() {
            tracing::info!("taking up {} jobs that were accepted before", left.len());
        }
        for (kept, pictures) in left {
            let client = kept.request.client.clone();
            let job = Arc::new(Job::new(kept.id.clone(), kept.created, kept.request, pictures));
            lock(&service.jobs).insert(kept.id.clone(), job);
            let _ = service.queue.push_again(&client, kept.id);
        }
        let at_once = service.settings.at_once.max(1);
        let start = |i: usize, name: &str, work: fn(&Service)| {
            let shared = service.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{i}"))
                .spawn(move || work(&shared))
                .map_err(|e| Refusal::internal(format!("a thread: {e}")))
        };
        let mut runners = Vec::with_capacity(at_once + 1);
        for i in 0..at_once {
            runners.push(start(i, "job", runner::work)?);
        }
        runners.push(start(0, "tidy", Self::tidy)?);
        *lock(&service.runners) = runners;
        Ok(service)
    }

    /// Accepts a job: checks everything that can be checked, keeps it, and lines it up.
    ///
    /// # Errors
    ///
    /// 400 with the field; 404 for a model; 429 where the queue is full; 503 where the server stops.
    pub fn submit(&self, mut request: Request, mut pictures: Pictures) -> Result<Arc<Job>> {
        if self.is_stopping() {
            return Err(Refusal::new(Kind::Stopping, "the server is stopping"));
        }
        // First, so that a full server spends nothing on what it cannot take.
        if self.queue.len() >= self.settings.limits.queue {
            return Err(self.full());
        }
        self.complete(&mut request.spec, &mut pictures)?;
        let (id, client) = (Uuid::now_v7().to_string(), request.client.clone());
        let job = Arc::new(Job::new(id.clone(), now(), request, pictures));
        self.store.accept(&id, job.created, &job.request, &job.pictures)?;
        lock(&self.jobs).insert(id.clone(), job.clone());
        if self.queue.push(&client, id.clone()).is_err() {
            // Somebody was faster.
            lock(&self.jobs).remove(&id);
            let refusal = self.full();
            let live = Live { state: State::Failed, finished: Some(now()), ..Live::default() };
            self.store.ended(&id, &Live { error: Some(refusal.clone()), ..live })?;
            self.store.delete(&id)?;
            return Err(refusal);
        }
        self.metrics.accepted.inc();
        Ok(job)
    }

    fn full(&self) -> Refusal {
        self.metrics.refused.inc();
        let waiting = self.queue.len();
        // About how long until there is room: what one job took of late, for each that runs.
        let seconds = self.metrics.seconds_a_job() / self.settings.at_once.max(1) as f64;
        let after = seconds.ceil().clamp(1.0, 600.0) as u64;
        let why = format!("the queue is full ({waiting} jobs wait); try again in {after} s");
        Refusal::new(Kind::Busy(after), why)
    }

    /// Puts in what only the server knows, and checks the whole.
    fn complete(&self, spec: &mut Spec, pictures: &mut Pictures) -> Result<()> {
        spec.model = self.library.name(&spec.model)?.to_owned();
        let limits = &self.settings.limits;
        for (key, text) in [("prompt", &spec.prompt), ("negative", &spec.negative)] {
            let length = text.chars().count();
            if length > limits.prompt {
                let why = format!("{key}: {length} characters, at most {}", limits.prompt);
                return Err(Refusal::field(key, why));
            }
        }
        if spec.noise.is_some() || !spec.task.controls.is_empty() {
            let why = "files of noise and control networks cannot be named in a request";
            return Err(Refusal::field("spec", why));
        }
        for (key, picture, file) in [
            ("init", &pictures.init, &mut spec.task.init),
            ("mask", &pictures.mask, &mut spec.task.mask),
        ] {
            *file = match picture {
                Some(bytes) => Some(self.received(key, bytes)?),
                None => None,
            };
        }
        // Cheap limits first; then those that the model knows.
        spec.batch = 1;
        spec.validate(&limits.of_spec(1))?;
        let facts = self.library.facts(&spec.model)?;
        spec.validate(&limits.of_spec(facts.multiple))?;
        if let Some(odd) = spec.embeddings.iter().find(|e| !facts.spec.embeddings.contains(e)) {
            let why = format!("embeddings: `{}` is not among those of this model here", odd.name);
            return Err(Refusal::field("embeddings", why));
        }
        if spec.dtype.is_some() {
            let why = "dtype: the server holds weights as their files do";
            return Err(Refusal::field("dtype", why));
        }
        let opened = self.library.open(&spec.model)?;
        check(&opened.model, spec)?;
        self.library.adapted(&opened, spec)?;
        // The weights are there already; what this size takes beside them may be too much.
        let needs = Needs { weights: 0, text: 0, ..Needs::of(opened.model.folder(), spec)? };
        spec.batch = needs.batch(spec.memory).min(spec.count).max(1);
        needs.check(spec.batch)?;
        Ok(())
    }

    /// That a picture can be read, and its name and hash.
    fn received(&self, key: &str, bytes: &[u8]) -> Result<SourceFile> {
        self.decoded(key, bytes)?;
        Ok(source(format!("{key}.png").as_ref(), bytes))
    }

    /// A picture that came with a request.
    pub(crate) fn decoded(&self, key: &str, bytes: &[u8]) -> Result<Images> {
        let limits = self.settings.limits.of_picture();
        picture::from_bytes(key.as_ref(), bytes, &Target::default(), &limits).map_err(|e| {
            let message = e.to_string().replace('\n', " ");
            Refusal::field(key, message)
        })
    }

    /// A job that waits or runs.
    pub fn live(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.jobs).get(id).cloned()
    }

    /// Every job that waits or runs, oldest first.
    pub fn all_live(&self) -> Vec<Arc<Job>> {
        let mut all: Vec<Arc<Job>> = lock(&self.jobs).values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// A job as clients see it.
    ///
    /// # Errors
    ///
    /// 404; what the store says.
    pub fn view(&self, id: &str) -> Result<View> {
        if let Some(job) = self.live(id) {
            return Ok(self.view_of(&job));
        }
        let kept = self.store.find(id)?;
        Ok(View::new(&kept.id, kept.created, &kept.request, kept.given, &kept.live))
    }

    /// A job as clients see it.
    pub fn view_of(&self, job: &Job) -> View {
        let given = [job.pictures.init.is_some(), job.pictures.mask.is_some()];
        let mut view = View::new(&job.id, job.created, &job.request, given, &job.now());
        view.position = self.queue.position(&job.request.client, &job.id);
        view
    }

    /// Jobs as clients see them, newest first.
    ///
    /// # Errors
    ///
    /// 404 for `before`; what the store says.
    pub fn list(&self, limit: usize, before: Option<&str>) -> Result<Vec<View>> {
        let kept = self.store.list(limit, before)?;
        let of = |kept: crate::store::Kept| match self.live(&kept.id) {
            Some(job) => self.view_of(&job),
            None => View::new(&kept.id, kept.created, &kept.request, kept.given, &kept.live),
        };
        Ok(kept.into_iter().map(of).collect())
    }

    /// Ends a job; one that has ended stays as it is.
    ///
    /// # Errors
    ///
    /// 404; what the store says.
    pub fn cancel(&self, id: &str) -> Result<View> {
        let Some(job) = self.live(id) else { return self.view(id) };
        job.cancel.cancel();
        if self.queue.remove(&job.request.client, &job.id) {
            self.end(&job, |live| live.state = State::Cancelled);
        }
        Ok(self.view_of(&job))
    }

    /// Forgets a job; one that still runs is cancelled first.
    ///
    /// # Errors
    ///
    /// 404; what the store says.
    pub async fn delete(&self, id: &str) -> Result<()> {
        if let Some(job) = self.live(id) {
            self.cancel(id)?;
            job.ended().await;
        }
        match self.store.delete(id)? {
            true => Ok(()),
            false => self.store.find(id).map(|_| ()),
        }
    }

    pub(crate) fn begin(&self, job: &Job) {
        self.running.fetch_add(1, Ordering::SeqCst);
        let at = now();
        if let Err(refusal) = self.store.begun(&job.id, at) {
            tracing::error!("{refusal}");
        }
        job.live.send_modify(|live| {
            live.state = State::Running;
            live.started = Some(at);
        });
    }

    pub(crate) fn left(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Ends a job as `change` says: first in the store, then for those who watch.
    pub(crate) fn end(&self, job: &Job, change: impl FnOnce(&mut Live)) {
        let mut live = job.now();
        live.preview = None;
        live.finished = Some(now());
        change(&mut live);
        if let Err(refusal) = self.store.ended(&job.id, &live) {
            tracing::error!("{refusal}");
            live.state = State::Failed;
            live.images.clear();
            live.error = Some(refusal);
        }
        self.metrics.ended(&live);
        // Whoever hears of the end and asks again is answered from the store.
        lock(&self.jobs).remove(&job.id);
        job.live.send_replace(live);
    }

    /// Puts a running job back to those that wait, for the next start.
    pub(crate) fn park(&self, job: &Job) {
        if let Err(refusal) = self.store.parked(&job.id) {
            tracing::error!("{refusal}");
        }
    }

    /// What requests of A1111's interface take where they say nothing.
    pub fn options(&self) -> Options {
        lock(&self.options).clone()
    }

    /// Changes that.
    pub fn set_options(&self, options: Options) {
        *lock(&self.options) = options;
    }

    /// Whether the server is told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Jobs that run.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Takes no more jobs, gives the running ones their time, and ends. What waits, and what does
    /// not finish in time, is taken up at the next start where there is a state, and else fails.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.queue.close();
        let end = tokio::time::Instant::now() + self.settings.grace;
        while self.running() > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for job in self.all_live() {
            job.cancel.cancel();
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        while self.running() > 0 && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let why = "the server was stopped";
        for job in self.all_live() {
            job.live.send_modify(|live| {
                live.state = State::Failed;
                live.error = Some(Refusal::new(Kind::Stopping, why));
            });
        }
    }

    fn tidy(&self) {
        let pause = Duration::from_millis(200);
        let mut since = TIDY;
        while !self.is_stopping() {
            if since >= TIDY {
                since = Duration::ZERO;
                let before = now() - self.settings.keep_for.as_secs_f64();
                match self.store.forget(before, self.settings.keep_bytes) {
                    Ok(0) => {}
                    Ok(gone) => tracing::info!("forgot {gone} old jobs"),
                    Err(refusal) => tracing::error!("{refusal}"),
                }
            }
            std::thread::sleep(pause);
            since += pause;
        }
    }
}

/// The spec of a request that says only some of it: what is not said is the model's own.
///
/// `sampler` and `grid` are names of any program.
///
/// # Errors
///
/// An unknown name, with the nearest.
pub fn named(spec: &mut Spec, own: &Spec, sampler: Option<&str>, grid: Option<&str>) -> Result<()> {
    let part = |key: &str, text: &str| -> Result<PartSpec> {
        text.parse().map_err(|e: tweedie::Error| Refusal::field(key, e.to_string()))
    };
    let grid = grid.filter(|g| !g.is_empty()).map(|g| part("grid", g)).transpose()?;
    spec.grid = grid.map(|g| resolve_grid(&g)).transpose()?;
    match sampler.filter(|s| !s.is_empty()) {
        Some(name) => {
            let (sampler, implied) = resolve_sampler(&part("sampler", name)?)?;
            spec.sampler = sampler;
            spec.grid = spec.grid.take().or(implied);
        }
        None => spec.sampler = own.sampler.clone(),
    }
    Ok(())
}
