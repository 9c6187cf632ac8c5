//! Jobs as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::job::{Job, Live};

/// How often a stream that has nothing to say shows that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

/// A stream of events.
pub(crate) type Stream = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Line>>>;

/// One event of a stream.
pub(crate) type Line = Result<Event, Infallible>;

/// An event with a name and data.
pub(crate) fn event(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(data)
}

/// Follows a job until it has ended: `tell` makes events of what it was and what it is. Whoever
/// reads slowly misses what was between, and never the end.
pub(crate) fn follow(
    job: Arc<Job>,
    mut tell: impl FnMut(Option<&Live>, &Live) -> Vec<Event> + Send + 'static,
) -> Stream {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut seen = job.live.subscribe();
        let mut before: Option<Live> = None;
        loop {
            let now = seen.borrow_and_update().clone();
            for event in tell(before.as_ref(), &now) {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            if now.state.is_final() || seen.changed().await.is_err() {
                return;
            }
            before = Some(now);
        }
    });
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(ALIVE))
}
