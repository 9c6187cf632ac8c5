//! The log of a run: one JSON object a line.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::hub::atomic;

/// One line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Steps taken.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The mean loss since the last line.
    pub loss: f64,
    /// The mean norm of the gradients before clipping since then.
    pub gradient: f64,
    /// The learning rate of the last step.
    pub lr: f64,
    /// Pictures a second since then.
    pub rate: f64,
    /// Seconds trained, over all parts of the run.
    pub seconds: f64,
    /// What the task measured, if it did: `psnr`, `accuracy` …
    pub measures: Vec<(String, f64)>,
}

impl Line {
    /// As a JSON object.
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("step".into(), self.step.into());
        for (key, value, digits) in [
            ("loss", self.loss, 6),
            ("grad_norm", self.gradient, 5),
            ("lr", self.lr, 9),
            ("images_per_second", self.rate, 2),
            ("seconds", self.seconds, 1),
        ] {
            map.insert(key.into(), rounded(value, digits));
        }
        for (key, value) in &self.measures {
            map.insert(key.clone(), rounded(*value, 5));
        }
        Value::Object(map)
    }
}

fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    ((value * scale).round() / scale).into()
}

/// A log file that is appended to.
#[derive(Clone, Debug)]
pub struct Log {
    file: PathBuf,
}

impl Log {
    /// A log that goes on after `step`: what an interrupted run wrote beyond its last checkpoint
    /// is dropped, and a line that it left unfinished too.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn resumed(file: &Path, step: u64) -> Result<Self> {
        let old = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(file)(e)),
        };
        let kept = |line: &&str| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value.and_then(|v| v.get("step")?.as_u64()).is_some_and(|s| s <= step)
        };
        let text: String = old.lines().filter(kept).map(|l| format!("{l}\n")).collect();
        atomic::write_file(file, |out| out.write_all(text.as_bytes()))?;
        Ok(Self { file: file.to_owned() })
    }

    /// A log that begins anew.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn fresh(file: &Path) -> Result<Self> {
        atomic::write_file(file, |_| Ok(()))?;
        Ok(Self { file: file.to_owned() })
    }

    /// Appends a line.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write(&self, line: &Line) -> Result<()> {
        let text = format!("{}\n", line.json());
        let open = OpenOptions::new().append(true).create(true).open(&self.file);
        open.and_then(|mut f| f.write_all(text.as_bytes())).map_err(Error::io(&self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> Line {
        Line {
            step,
            steps: 10,
            loss: 0.123_456_789,
            gradient: 1.0,
            lr: 1e-4,
            rate: 12.345,
            seconds: 3.0,
            measures: vec![("psnr".into(), 30.5)],
        }
    }

    #[test]
    fn a_resumed_log_has_no_step_twice_and_no_half_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log.jsonl");
        let log = Log::fresh(&file).unwrap();
        for step in [2, 4, 6] {
            log.write(&line(step)).unwrap();
        }
        let mut text = std::fs::read_to_string(&file).unwrap();
        text.push_str("{\"step\":8,\"lo");
        std::fs::write(&file, text).unwrap();
        Log::resumed(&file, 4).unwrap().write(&line(5)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let steps: Vec<u64> = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [2, 4, 5]);
        assert!(text.contains("\"loss\":0.123457") && text.contains("\"psnr\":30.5"), "{text}");
    }
}
