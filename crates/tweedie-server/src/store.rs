//! What is kept of jobs: an SQLite database, so that nothing that was accepted is lost.
//!
//! With a file it is in WAL mode and every acceptance and every end is written through to the disk
//! before it is told. Without one it is a temporary database that goes with the process.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::job::{Live, Made, Pictures, Request, State, now};
use crate::refusal::{Kind, Refusal};

type Result<T> = std::result::Result<T, Refusal>;

/// How often a job is begun before it stands as failed: one that ends the process every time must
/// not do so for ever.
const ATTEMPTS: i64 = 5;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    created REAL NOT NULL,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    init BLOB,
    mask BLOB,
    attempts INTEGER NOT NULL DEFAULT 0,
    started REAL,
    finished REAL,
    error TEXT,
    param TEXT,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS images (
    job TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
    k INTEGER NOT NULL,
    seed TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    info TEXT NOT NULL,
    png BLOB NOT NULL,
    PRIMARY KEY (job, k)
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs(state);
";

/// A job as it is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its name.
    pub id: String,
    /// When it was accepted.
    pub created: f64,
    /// What was asked.
    pub request: Request,
    /// Whether it came with a picture, and with a mask.
    pub given: [bool; 2],
    /// Where it stands, and what came out but for the pictures' own bytes.
    pub live: Live,
}

/// Jobs and results.
pub struct Store {
    base: Mutex<Connection>,
}

fn fault(error: rusqlite::Error) -> Refusal {
    Refusal::internal(format!("the database of jobs: {error}"))
}

impl Store {
    /// In a folder, which is made; without one, for as long as the process lives.
    ///
    /// # Errors
    ///
    /// What the system says, with the file.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        let base = match folder {
            // The empty name is a temporary database on the disk.
            None => Connection::open("").map_err(fault)?,
            Some(folder) => {
                let file = folder.join("jobs.sqlite");
                let said = |e: &dyn std::fmt::Display| {
                    Refusal::internal(format!("{}: {e}", file.display()))
                };
                std::fs::create_dir_all(folder).map_err(|e| said(&e))?;
                let base = Connection::open(&file).map_err(|e| said(&e))?;
                base.pragma_update(None, "journal_mode", "wal").map_err(|e| said(&e))?;
                base.pragma_update(None, "synchronous", "full").map_err(|e| said(&e))?;
                base
            }
        };
        base.pragma_update(None, "foreign_keys", true).map_err(fault)?;
        // In KiB where it is negative.
        base.pragma_update(None, "cache_size", -4096).map_err(fault)?;
        base.execute_batch(TABLES).map_err(fault)?;
        Ok(Self { base: Mutex::new(base) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a job that is accepted.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn accept(&self, id: &str, created: f64, asked: &Request, with: &Pictures) -> Result<()> {
        let request = serde_json::to_string(asked).map_err(Refusal::internal)?;
        let bytes = request.len()
            + with.init.as_ref().map_or(0, |b| b.len())
            + with.mask.as_ref().map_or(0, |b| b.len());
        self.lock()
            .execute(
                "INSERT INTO jobs (id, created, state, request, init, mask, bytes)
                 VALUES (?1, ?2, 'queued', ?3, ?4, ?5, ?6)",
                params![id, created, request, with.init.as_deref(), with.mask.as_deref(), bytes],
            )
            .map_err(fault)?;
        Ok(())
    }

    /// Notes that a job begins to compute.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn begun(&self, id: &str, at: f64) -> Result<()> {
        self.lock()
            .execute(
                "UPDATE jobs SET state = 'running', started = ?2, attempts = attempts + 1
                 WHERE id = ?1",
                params![id, at],
            )
            .map_err(fault)?;
        Ok(())
    }

    /// Puts a job back to those that wait, as if it had never begun.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn parked(&self, id: &str) -> Result<()> {
        self.lock()
            .execute(
                "UPDATE jobs SET state = 'queued', attempts = max(attempts - 1, 0) WHERE id = ?1",
                params![id],
            )
            .map_err(fault)?;
        Ok(())
    }

    /// Keeps how a job ended, all at once.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn ended(&self, id: &str, live: &Live) -> Result<()> {
        let mut base = self.lock();
        let all = base.transaction().map_err(fault)?;
        let mut bytes = 0;
        for (k, image) in live.images.iter().enumerate() {
            all.execute(
                "INSERT OR REPLACE INTO images (job, k, seed, width, height, info, png)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    id,
                    k,
                    image.seed.to_string(),
                    image.width,
                    image.height,
                    image.info,
                    &image.png[..]
                ],
            )
            .map_err(fault)?;
            bytes += image.png.len() + image.info.len();
        }
        let (error, param) = match &live.error {
            Some(refusal) => (Some(&refusal.message), refusal.param.as_ref()),
            None => (None, None),
        };
        all.execute(
            "UPDATE jobs SET state = ?2, finished = ?3, error = ?4, param = ?5, bytes = bytes + ?6
             WHERE id = ?1",
            params![id, live.state.name(), live.finished, error, param, bytes],
        )
        .map_err(fault)?;
        all.commit().map_err(fault)
    }

    /// The jobs that were accepted and have not ended, oldest first. Those that were begun too often
    /// are ended as failed, with the reason.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn unfinished(&self) -> Result<Vec<(Kept, Pictures)>> {
        let base = self.lock();
        let why = format!("the server ended {ATTEMPTS} times while it was computed");
        base.execute(
            "UPDATE jobs SET state = 'failed', finished = ?1, error = ?2
             WHERE state = 'running' AND attempts >= ?3",
            params![now(), why, ATTEMPTS],
        )
        .map_err(fault)?;
        base.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'", [])
            .map_err(fault)?;
        let mut found = base
            .prepare("SELECT *, init, mask FROM jobs WHERE state = 'queued' ORDER BY created, id")
            .map_err(fault)?;
        let rows = found.query_map([], |row| {
            let bytes = |name: &str| -> rusqlite::Result<Option<Arc<[u8]>>> {
                Ok(row.get::<_, Option<Vec<u8>>>(name)?.map(Arc::from))
            };
            Ok((kept(row)?, Pictures { init: bytes("init")?, mask: bytes("mask")? }))
        });
        rows.map_err(fault)?.collect::<rusqlite::Result<_>>().map_err(fault)
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// 404; what the database says.
    pub fn find(&self, id: &str) -> Result<Kept> {
        let base = self.lock();
        let one = base
            .query_row("SELECT * FROM jobs WHERE id = ?1", [id], kept)
            .optional()
            .map_err(fault)?;
        let mut one = one.ok_or_else(|| unknown(id))?;
        one.live.images = images(&base, id).map_err(fault)?;
        Ok(one)
    }

    /// Jobs, newest first; those that were accepted before `before`, where that is given.
    ///
    /// # Errors
    ///
    /// 404 for a job `before` that is not kept; what the database says.
    pub fn list(&self, limit: usize, before: Option<&str>) -> Result<Vec<Kept>> {
        let base = self.lock();
        let at: f64 = match before {
            None => f64::MAX,
            Some(id) => base
                .query_row("SELECT created FROM jobs WHERE id = ?1", [id], |row| row.get(0))
                .optional()
                .map_err(fault)?
                .ok_or_else(|| unknown(id))?,
        };
        let mut found = base
            .prepare(
                "SELECT * FROM jobs WHERE (created, id) < (?1, ?2)
                 ORDER BY created DESC, id DESC LIMIT ?3",
            )
            .map_err(fault)?;
        let rows = found.query_map(params![at, before.unwrap_or("~"), limit], kept);
        let mut list: Vec<Kept> =
            rows.map_err(fault)?.collect::<rusqlite::Result<_>>().map_err(fault)?;
        for one in &mut list {
            one.live.images = images(&base, &one.id).map_err(fault)?;
        }
        Ok(list)
    }

    /// The PNG of a picture.
    ///
    /// # Errors
    ///
    /// 404; what the database says.
    pub fn image(&self, id: &str, k: usize) -> Result<Vec<u8>> {
        self.lock()
            .query_row("SELECT png FROM images WHERE job = ?1 AND k = ?2", params![id, k], |row| {
                row.get(0)
            })
            .optional()
            .map_err(fault)?
            .ok_or_else(|| Refusal::new(Kind::NotFound, format!("job {id} has no picture {k}")))
    }

    /// The picture that a job came with: what it starts from, or its mask.
    ///
    /// # Errors
    ///
    /// 404; what the database says.
    pub fn given(&self, id: &str, mask: bool) -> Result<Vec<u8>> {
        let column = if mask { "mask" } else { "init" };
        let found: Option<Option<Vec<u8>>> = self
            .lock()
            .query_row(&format!("SELECT {column} FROM jobs WHERE id = ?1"), [id], |row| row.get(0))
            .optional()
            .map_err(fault)?;
        let none = || Refusal::new(Kind::NotFound, format!("job {id} came without {column}"));
        found.flatten().ok_or_else(none)
    }

    /// Forgets a job that has ended; whether there was one.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn delete(&self, id: &str) -> Result<bool> {
        let gone = self
            .lock()
            .execute("DELETE FROM jobs WHERE id = ?1 AND state NOT IN ('queued', 'running')", [id]);
        Ok(gone.map_err(fault)? > 0)
    }

    /// Forgets results that ended before a time, and the oldest beyond so many bytes.
    ///
    /// # Errors
    ///
    /// What the database says.
    pub fn forget(&self, before: f64, most_bytes: u64) -> Result<usize> {
        let base = self.lock();
        let ended = "state NOT IN ('queued', 'running')";
        let mut gone = base
            .execute(&format!("DELETE FROM jobs WHERE {ended} AND finished < ?1"), [before])
            .map_err(fault)?;
        // Each row's bytes together with all that ended after it.
        gone += base
            .execute(
                &format!(
                    "DELETE FROM jobs WHERE id IN (SELECT id FROM (
                         SELECT id, sum(bytes) OVER (ORDER BY finished DESC, id DESC) AS kept
                         FROM jobs WHERE {ended}) WHERE kept > ?1)"
                ),
                [i64::try_from(most_bytes).unwrap_or(i64::MAX)],
            )
            .map_err(fault)?;
        Ok(gone)
    }

    /// Whether the database can be written.
    ///
    /// # Errors
    ///
    /// What it says.
    pub fn check(&self) -> Result<()> {
        self.lock().execute("DELETE FROM jobs WHERE 0", []).map(|_| ()).map_err(fault)
    }
}

fn unknown(id: &str) -> Refusal {
    let shown: String = id.chars().take(64).collect();
    Refusal::new(Kind::NotFound, format!("no job is called `{shown}`"))
}

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let text: String = row.get("request")?;
    let broken = |e: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(e))
    };
    let request: Request = serde_json::from_str(&text).map_err(broken)?;
    let name: String = row.get("state")?;
    let state = State::ALL.into_iter().find(|s| s.name() == name).unwrap_or(State::Failed);
    let error: Option<String> = row.get("error")?;
    let param: Option<String> = row.get("param")?;
    let error = error.map(|message| Refusal { kind: Kind::Invalid, message, param });
    let (steps, count) = (request.spec.steps, request.spec.count);
    let progress = crate::job::Progress { count, steps, ..Default::default() };
    let live = Live {
        state,
        started: row.get("started")?,
        finished: row.get("finished")?,
        error,
        progress,
        ..Live::default()
    };
    let there = |column: &str| -> rusqlite::Result<bool> {
        Ok(!matches!(row.get_ref(column)?, rusqlite::types::ValueRef::Null))
    };
    Ok(Kept {
        id: row.get("id")?,
        created: row.get("created")?,
        given: [there("init")?, there("mask")?],
        request,
        live,
    })
}

/// What is known of a job's pictures, without their bytes.
fn images(base: &Connection, id: &str) -> rusqlite::Result<Vec<Made>> {
    let mut found = base
        .prepare_cached("SELECT seed, width, height, info FROM images WHERE job = ?1 ORDER BY k")?;
    let rows = found.query_map([id], |row| {
        let seed: String = row.get(0)?;
        Ok(Made {
            seed: seed.parse().unwrap_or_default(),
            width: row.get(1)?,
            height: row.get(2)?,
            info: row.get(3)?,
            png: Arc::from([]),
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(seed: u64) -> Made {
        Made { seed, width: 8, height: 4, info: "a".into(), png: Arc::from([seed as u8; 10]) }
    }

    fn done(images: Vec<Made>, at: f64) -> Live {
        Live { state: State::Done, finished: Some(at), images, ..Live::default() }
    }

    #[test]
    fn what_was_accepted_is_there_after_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut asked = Request { client: "a".into(), ..Request::default() };
        asked.spec.seed = u64::MAX;
        let with = Pictures { init: Some(Arc::from([1, 2, 3])), mask: None };
        {
            let store = Store::open(Some(dir.path())).unwrap();
            for (i, id) in ["one", "two", "three", "four"].iter().enumerate() {
                store.accept(id, i as f64, &asked, &with).unwrap();
            }
            store.begun("one", 5.0).unwrap();
            store.ended("one", &done(vec![made(7), made(u64::MAX)], 6.0)).unwrap();
            store.begun("two", 5.0).unwrap();
            for _ in 0..ATTEMPTS {
                store.begun("three", 5.0).unwrap();
            }
        }
        let store = Store::open(Some(dir.path())).unwrap();
        let left = store.unfinished().unwrap();
        let names: Vec<&str> = left.iter().map(|(k, _)| k.id.as_str()).collect();
        assert_eq!(
            names,
            ["two", "four"],
            "one that ended the process too often is not begun again"
        );
        assert_eq!((&left[0].0.request, &left[0].1), (&asked, &with));
        let failed = store.find("three").unwrap().live;
        assert!(failed.state == State::Failed && failed.error.unwrap().message.contains("5 times"));
        let one = store.find("one").unwrap();
        assert_eq!((one.live.state, one.given), (State::Done, [true, false]));
        let seeds: Vec<u64> = one.live.images.iter().map(|i| i.seed).collect();
        assert_eq!(seeds, [7, u64::MAX]);
        assert_eq!(store.image("one", 0).unwrap(), [7; 10]);
        assert_eq!(store.image("one", 2).unwrap_err().status(), 404);
        assert_eq!(store.given("one", false).unwrap(), [1, 2, 3]);
        assert_eq!(store.given("one", true).unwrap_err().status(), 404);
        assert_eq!(store.find("'; DROP TABLE jobs").unwrap_err().status(), 404);
        // A job that was parked may be begun as often as before.
        store.begun("two", 7.0).unwrap();
        store.parked("two").unwrap();
        assert_eq!(store.unfinished().unwrap().len(), 2);
    }

    #[test]
    fn lists_go_back_in_time_and_old_results_are_forgotten() {
        let store = Store::open(None).unwrap();
        for i in 0..6 {
            let id = format!("job-{i}");
            store.accept(&id, f64::from(i), &Request::default(), &Pictures::default()).unwrap();
            if i < 5 {
                store.ended(&id, &done(vec![made(1)], 100.0 + f64::from(i))).unwrap();
            }
        }
        let names = |list: Vec<Kept>| list.into_iter().map(|k| k.id).collect::<Vec<_>>();
        assert_eq!(names(store.list(2, None).unwrap()), ["job-5", "job-4"]);
        assert_eq!(names(store.list(9, Some("job-2")).unwrap()), ["job-1", "job-0"]);
        assert!(store.list(9, Some("none")).is_err());
        assert!(!store.delete("job-5").unwrap(), "it still waits");
        assert!(store.delete("job-4").unwrap() && !store.delete("job-4").unwrap());
        assert!(store.image("job-4", 0).is_err());
        assert_eq!(store.forget(101.0, u64::MAX).unwrap(), 1);
        let each = serde_json::to_string(&Request::default()).unwrap().len() as u64 + 11;
        assert_eq!(store.forget(0.0, 2 * each).unwrap(), 1);
        assert_eq!(names(store.list(9, None).unwrap()), ["job-5", "job-3", "job-2"]);
        assert_eq!(store.forget(0.0, 0).unwrap(), 2, "what waits stays");
        store.check().unwrap();
    }
}
