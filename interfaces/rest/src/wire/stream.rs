//! Watching a run by SSE: the run's frames, control frames for those who come back, and heartbeats.

use std::time::Duration;

use bytes::Bytes;
use daybook_domain::component::ComponentKind;
use daybook_domain::ids::RunId;
use daybook_domain::run::RunStatus;
use daybook_engine::{Frame, FrameBody, QueryError, Watch, WatchItem};
use futures::{Stream, StreamExt};
use poem::{Body, IntoResponse, Response};
use poem_openapi::payload::Payload;
use poem_openapi::registry::{MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at};

use super::events::{one_line, sse};
use super::run_event::RunEvent;
use super::spaced::spaced;
use crate::state::OnLeave;

/// How long a stream may be silent.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A stream as an answer.
pub(crate) struct Events(Body);

impl Payload for Events {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        let items = Some(Box::new(RunEvent::schema_ref()));
        MetaSchemaRef::Inline(Box::new(MetaSchema { items, ..MetaSchema::new_with_format("array", "event-stream") }))
    }

    fn register(registry: &mut Registry) {
        RunEvent::register(registry);
    }
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type("text/event-stream; charset=utf-8")
            .header("Cache-Control", "no-cache")
            .header("X-Accel-Buffering", "no")
            .body(self.0)
    }
}

impl Events {
    fn new(frames: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self(Body::from_bytes_stream(frames.map(Ok::<_, std::io::Error>)))
    }

    /// A run from its first frame. `queued` is whether it waits for its session.
    /// `last` gives what follows the last frame, if anything.
    pub fn of_run(
        watch: Watch,
        leave: Option<OnLeave>,
        only_content: bool,
        queued: bool,
        last: impl Future<Output = Option<Bytes>> + Send + 'static,
    ) -> Self {
        let root = watch.meta.run_id.clone();
        let frames = items(watch, leave).filter_map(move |item| {
            std::future::ready(match item {
                Ok(WatchItem::Frame(frame)) if only_content && !is_content(&frame, &root) => None,
                Ok(WatchItem::Frame(frame)) => Some(sse(&frame)),
                Ok(WatchItem::CaughtUp) => None,
                Err(error) => Some(broken(&error)),
            })
        });
        let head = futures::stream::iter(queued.then(heartbeat));
        let last = futures::stream::once(last).filter_map(std::future::ready);
        Self::new(head.chain(with_heartbeats(frames.chain(last), HEARTBEAT)))
    }

    /// A run after the frame a client saw last.
    pub fn resumed(watch: Watch, counts: Counts) -> Self {
        let (kind, run) = (watch.meta.component.kind, watch.meta.run_id.clone());
        let about = Control { kind, run, status: watch.status, counts };
        let head = futures::stream::iter(if watch.live { about.catch_up() } else { Some(about.replay()) });
        let frames = items(watch, None).map(move |item| match item {
            Ok(WatchItem::Frame(frame)) => sse(&frame),
            Ok(WatchItem::CaughtUp) => about.subscribed(),
            Err(error) => broken(&error),
        });
        Self::new(head.chain(with_heartbeats(frames, HEARTBEAT)))
    }

    /// A run that could not go on, told to who asked for a stream.
    pub fn failed(kind: ComponentKind, message: &str) -> Self {
        let name = match kind {
            ComponentKind::Agent => "RunError",
            ComponentKind::Team => "TeamRunError",
            ComponentKind::Workflow => "WorkflowError",
        };
        let (id, named) = (format!("{}_id", kind.as_str()), format!("{}_name", kind.as_str()));
        let at = chrono::Utc::now().timestamp();
        let error = json!({
            "created_at": at, "event": name, id: "", named: "", "nested_depth": 0, "content": message,
        });
        Self::new(futures::stream::iter([Bytes::from(format!("event: {name}\ndata: {error}\n\n"))]))
    }

    /// There is no such run, or not for this caller.
    pub fn unknown(run: &RunId) -> Self {
        let error = format!("Run {run} not found in buffer or database");
        Self::new(futures::stream::iter([control(&json!({"event": "error", "error": error}))]))
    }
}

/// Whether a client that wants only the answer wants this frame: pieces of it, and that there will be none. What members
/// say is their leader's business; what the steps of a workflow say is all that it says.
fn is_content(frame: &Frame, root: &RunId) -> bool {
    let step = frame.run.parent.as_ref().is_some_and(|parent| parent.step.is_some() && parent.run_id == *root);
    match &frame.body {
        FrameBody::Content { .. } => frame.run.run_id == *root || step,
        FrameBody::Error { .. } => frame.run.run_id == *root,
        // Its steps may be functions, which say nothing by pieces.
        FrameBody::Completed(_) => frame.run.run_id == *root && frame.run.component.kind == ComponentKind::Workflow,
        _ => false,
    }
}

/// What a watch gives, ending after an error. The client has left when this is dropped before its end.
pub(crate) fn items(watch: Watch, leave: Option<OnLeave>) -> impl Stream<Item = Result<WatchItem, QueryError>> + Send {
    futures::stream::unfold(Some((watch, leave)), |state| async move {
        let (mut watch, mut leave) = state?;
        let item = watch.next().await.transpose();
        if let Some(Ok(item)) = item {
            return Some((Ok(item), Some((watch, leave))));
        }
        leave.iter_mut().for_each(OnLeave::stay);
        item.map(|error| (error, None))
    })
}

/// A comment whenever nothing else was sent for a while.
fn with_heartbeats(frames: impl Stream<Item = Bytes> + Send, every: Duration) -> impl Stream<Item = Bytes> + Send {
    let beats = interval_at(Instant::now() + every, every);
    tokio_stream::StreamExt::timeout_repeating(frames, beats).map(|frame| frame.unwrap_or_else(|_| heartbeat()))
}

fn heartbeat() -> Bytes {
    Bytes::from_static(b": heartbeat\n\n")
}

/// How many frames a returning client has missed, how many there are, and the one it saw last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Frames after the last one seen.
    pub missed: u64,
    /// All frames.
    pub total: u64,
    /// The index of the last one seen.
    pub after: Option<u64>,
}

/// The whole run, as clients find it after the events of a workflow that paused. It has no index: it is no event.
pub(crate) fn whole_run(output: &Value) -> Bytes {
    Bytes::from(format!("event: WorkflowRunOutput\ndata: {}\n\n", one_line(output.to_string())))
}

/// What a returning client is told about what follows.
struct Control {
    kind: ComponentKind,
    run: RunId,
    status: RunStatus,
    counts: Counts,
}

impl Control {
    /// Missed frames follow, then live ones.
    fn catch_up(&self) -> Option<Bytes> {
        let Counts { missed, total, .. } = self.counts;
        let frame = json!({
            "event": "catch_up",
            "run_id": self.run,
            "status": self.status.as_str().to_ascii_lowercase(),
            "missed_events": missed,
            "current_event_count": total,
            "message": format!("Catching up on {missed} missed events."),
        });
        (missed > 0).then(|| control(&frame))
    }

    /// Live frames follow.
    fn subscribed(&self) -> Bytes {
        control(&json!({
            "event": "subscribed",
            "run_id": self.run,
            "status": self.status.as_str().to_ascii_lowercase(),
            "current_event_count": self.counts.total,
            "message": format!("Subscribed to {} run. Receiving live events.", self.kind.as_str()),
        }))
    }

    /// The frames of a run that is over follow.
    fn replay(&self) -> Bytes {
        let (status, Counts { missed, total, after }) = (self.status.as_str(), self.counts);
        let mut frame = json!({"event": "replay", "run_id": self.run, "status": status, "total_events": missed});
        let message = if total == 0 {
            let why = "a run submitted without streaming keeps only its final output";
            format!("Run {status} with no stored events: {why}.")
        } else {
            frame["total_buffered"] = total.into();
            frame["last_event_index_requested"] = after.map_or(Value::from(-1), Value::from);
            format!("Run {status}. Replaying {missed} missed events (of {total} total).")
        };
        frame["message"] = message.into();
        control(&frame)
    }
}

/// The stream cannot go on; the client may come back with the last index it saw.
fn broken(error: &QueryError) -> Bytes {
    tracing::error!(%error, "a stream broke off");
    let message = "The stream broke off: resume the run after the last event you have seen";
    control(&json!({"event": "error", "error": message}))
}

/// A frame about the stream, not about the run: it has no index.
fn control(frame: &Value) -> Bytes {
    let name = frame["event"].as_str().unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {}\n\n", spaced(frame)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(status: RunStatus, missed: u64, total: u64, after: Option<u64>) -> Control {
        let (kind, run) = (ComponentKind::Agent, RunId::parse("r").unwrap());
        Control { kind, run, status, counts: Counts { missed, total, after } }
    }

    fn text(frame: Bytes) -> String {
        String::from_utf8(frame.to_vec()).unwrap()
    }

    #[test]
    fn control_frames_are_as_recorded() {
        let replay = "event: replay\ndata: {\"event\": \"replay\", \"run_id\": \"r\", \"status\": \"COMPLETED\", \
            \"total_events\": 6, \"total_buffered\": 10, \"last_event_index_requested\": 3, \
            \"message\": \"Run COMPLETED. Replaying 6 missed events (of 10 total).\"}\n\n";
        assert_eq!(text(about(RunStatus::Completed, 6, 10, Some(3)).replay()), replay);
        let all = text(about(RunStatus::Completed, 10, 10, None).replay());
        assert!(all.contains("\"last_event_index_requested\": -1"));
        let catch_up = "event: catch_up\ndata: {\"event\": \"catch_up\", \"run_id\": \"r\", \"status\": \"running\", \
            \"missed_events\": 3, \"current_event_count\": 8, \"message\": \"Catching up on 3 missed events.\"}\n\n";
        assert_eq!(text(about(RunStatus::Running, 3, 8, Some(4)).catch_up().unwrap()), catch_up);
        assert_eq!(about(RunStatus::Running, 0, 8, Some(7)).catch_up(), None);
    }

    #[test]
    fn a_run_nobody_streamed_has_a_lone_replay() {
        let lone = text(about(RunStatus::Completed, 0, 0, None).replay());
        assert!(lone.contains("\"total_events\": 0"));
        assert!(lone.contains("Run COMPLETED with no stored events: a run submitted without streaming keeps only"));
        assert!(!lone.contains("total_buffered"));
    }

    #[tokio::test]
    async fn a_silent_stream_beats() {
        let mut stream = std::pin::pin!(with_heartbeats(futures::stream::pending(), Duration::from_millis(1)));
        assert_eq!(stream.next().await.unwrap(), heartbeat());
        assert_eq!(stream.next().await.unwrap(), heartbeat());
    }

    #[tokio::test]
    async fn an_unknown_run_is_told_in_the_stream() {
        let body = Events::unknown(&RunId::parse("nope").unwrap()).0.into_string().await.unwrap();
        let json = "{\"event\": \"error\", \"error\": \"Run nope not found in buffer or database\"}";
        assert_eq!(body, format!("event: error\ndata: {json}\n\n"));
    }
}
