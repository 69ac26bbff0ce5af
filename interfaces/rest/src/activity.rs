//! What goes on on each open connection: what closes idle ones, bounds their number, and lets an answer reach a client.
//! Connections and requests meet by the two addresses they share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use poem::{Addr, Body, Endpoint, IntoResponse, Middleware, Request, Response, Result};
use tokio::time::Instant;

/// The two ends of a connection, ours first.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// What goes on on one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    requests: AtomicUsize,
    /// When the last request ended, in milliseconds after `opened`.
    last_end: AtomicU64,
    /// Bodies that somebody waits for.
    awaited: AtomicUsize,
    broken: AtomicBool,
    unread: AtomicBool,
}

/// Stands for a request under way, or for a wait for its body.
pub(crate) struct Under {
    activity: Arc<Activity>,
    counts: fn(&Activity) -> &AtomicUsize,
}

impl Drop for Under {
    fn drop(&mut self) {
        let millis = self.activity.opened.elapsed().as_millis();
        self.activity.last_end.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Release);
        (self.counts)(&self.activity).fetch_sub(1, Ordering::AcqRel);
    }
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            requests: AtomicUsize::new(0),
            last_end: AtomicU64::new(0),
            awaited: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        }
    }

    /// Since when there has been no request; `None` while there is one.
    pub fn idle_since(&self) -> Option<Instant> {
        let idle = self.requests.load(Ordering::Acquire) == 0;
        idle.then(|| self.opened + Duration::from_millis(self.last_end.load(Ordering::Acquire)))
    }

    /// A request is under way until the value is dropped.
    pub fn request(self: &Arc<Self>) -> Under {
        self.count(|activity| &activity.requests)
    }

    /// Somebody waits for a request's body until the value is dropped.
    pub fn body(self: &Arc<Self>) -> Under {
        self.count(|activity| &activity.awaited)
    }

    fn count(self: &Arc<Self>, counts: fn(&Activity) -> &AtomicUsize) -> Under {
        counts(self).fetch_add(1, Ordering::AcqRel);
        Under { activity: Arc::clone(self), counts }
    }

    /// A body ended too early, so a client that sends no more may still be told.
    pub fn broke(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Whether a client that sends no more may still hear an answer.
    pub fn may_listen(&self) -> bool {
        self.broken.load(Ordering::Acquire) || self.awaited.load(Ordering::Acquire) > 0
    }

    /// A body was answered before it was read.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }

    /// Whether the client may still be sending what nobody reads.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }
}

/// The open connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    open: Arc<Mutex<HashMap<Ends, Arc<Activity>>>>,
    most: usize,
}

impl Connections {
    /// At most `most` at a time.
    pub fn new(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// Enters a connection until the value is dropped; `None` when there are too many.
    pub fn enter(&self, ends: Ends) -> Option<Entered> {
        let mut open = self.open();
        if open.len() >= self.most {
            return None;
        }
        let activity = Arc::new(Activity::new());
        open.insert(ends, Arc::clone(&activity));
        Some(Entered { connections: self.clone(), ends, activity })
    }

    fn find(&self, request: &Request) -> Option<Arc<Activity>> {
        let (Addr::SocketAddr(ours), Addr::SocketAddr(theirs)) = (&request.local_addr().0, &request.remote_addr().0)
        else {
            return None;
        };
        self.open().get(&(*ours, *theirs)).cloned()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Ends, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among the open ones.
pub(crate) struct Entered {
    connections: Connections,
    ends: Ends,
    /// What goes on on it.
    pub activity: Arc<Activity>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connections.open().remove(&self.ends);
    }
}

/// Counts a request as under way until its answer was sent or dropped, and hands the [`Activity`] on as data.
impl<E: Endpoint> Middleware<E> for Connections {
    type Output = Counted<E>;

    fn transform(&self, inner: E) -> Self::Output {
        Counted { inner, connections: self.clone() }
    }
}

/// The endpoint of [`Connections`].
pub(crate) struct Counted<E> {
    inner: E,
    connections: Connections,
}

impl<E: Endpoint> Endpoint for Counted<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let Some(activity) = self.connections.find(&request) else {
            return Ok(self.inner.call(request).await?.into_response());
        };
        let under = activity.request();
        request.set_data(activity);
        let result = self.inner.call(request).await;
        let (parts, body) = result.map_or_else(poem::Error::into_response, IntoResponse::into_response).into_parts();
        // Mapping errors keeps the body's length, which a stream made of it would lose.
        let body: BoxBody<Bytes, std::io::Error> = BoxBody::from(body);
        let counted = body.map_err(move |error| {
            let _until_dropped = &under;
            error
        });
        Ok(Response::from_parts(parts, Body::from(counted.boxed())))
    }
}
