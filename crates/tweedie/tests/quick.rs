#[path = "it/scheduler_runs.rs"]
mod scheduler_runs;
