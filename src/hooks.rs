//! What a program does when its server starts and stops, and when something happens to an approval.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::Error;
use crate::handle::Handle;
use crate::notices::{ApprovalHook, ApprovalNotice};

type Start = Box<dyn FnOnce(Handle) -> BoxFuture<'static, Result<(), String>> + Send>;
type Stop = Box<dyn FnOnce(Handle) -> BoxFuture<'static, ()> + Send>;

/// The hooks of a server, in the order they were given.
#[derive(Default)]
pub(crate) struct Hooks {
    start: Vec<Start>,
    stop: Vec<Stop>,
    approval: Vec<ApprovalHook>,
}

impl Hooks {
    pub(crate) fn on_start<F, R, E>(&mut self, hook: F)
    where
        F: FnOnce(Handle) -> R + Send + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.start.push(Box::new(|handle| {
            let done = hook(handle);
            Box::pin(async move { done.await.map_err(|error| error.to_string()) })
        }));
    }

    pub(crate) fn on_stop<F, R>(&mut self, hook: F)
    where
        F: FnOnce(Handle) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.stop.push(Box::new(|handle| Box::pin(hook(handle))));
    }

    pub(crate) fn on_approval<F, R, E>(&mut self, hook: F)
    where
        F: Fn(Handle, ApprovalNotice) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.approval.push(Arc::new(move |handle, notice| {
            let done = hook(handle, notice);
            Box::pin(async move { done.await.map_err(|error| error.to_string()) })
        }));
    }

    /// Who is told what happens to approvals.
    pub(crate) fn approval(&mut self) -> Vec<ApprovalHook> {
        std::mem::take(&mut self.approval)
    }

    /// Runs what is to be done before anything is served.
    pub(crate) async fn start(&mut self, handle: &Handle) -> Result<(), Error> {
        for hook in self.start.drain(..) {
            hook(handle.clone()).await.map_err(Error::Hook)?;
        }
        Ok(())
    }

    /// Runs what is to be done before anything stops, within `limit` altogether; the latest first.
    pub(crate) async fn stop(&mut self, handle: &Handle, limit: Duration) {
        let hooks = std::mem::take(&mut self.stop);
        let all = async {
            for hook in hooks.into_iter().rev() {
                hook(handle.clone()).await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(?limit, "what was to be done at the stop took too long and was dropped");
        }
    }
}
