//! The port: what the engine gives a tool and what it gets back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use daybook_domain::ids::{RunId, SessionId, UserId};
use daybook_domain::media::Media;
use daybook_domain::session::StatePatch;
use daybook_domain::tool::ToolSpec;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

/// Why a tool call failed; the model reads the message and may try otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The arguments do not fit the tool.
    #[error("{0}")]
    Arguments(String),
    /// The tool ran and failed.
    #[error("{0}")]
    Failed(String),
}

impl ToolError {
    /// A failure with this message.
    pub fn failed(message: impl std::fmt::Display) -> Self {
        Self::Failed(message.to_string())
    }
}

/// What a tool gives: words for the model, and media that come with them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    /// What the model reads.
    pub text: String,
    /// Pictures, sound, videos and files. They are kept with the run, shown to clients, and given to models that take
    /// them.
    pub media: Vec<Media>,
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        Self { text, media: Vec::new() }
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// What a call knows about the run it belongs to, and what it may change.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The run.
    pub run_id: RunId,
    /// Its session.
    pub session_id: SessionId,
    /// Whom it is for.
    pub user_id: Option<UserId>,
    /// The call's id.
    pub call_id: String,
    /// The same for every attempt of this call: give it to services that know such keys.
    pub idempotency_key: String,
    /// What the caller gave for the tools of this run.
    pub dependencies: Arc<Map<String, Value>>,
    /// Fires when the run is being cancelled; the call's future is dropped soon after.
    pub cancelled: CancellationToken,
    state: Arc<Mutex<(Map<String, Value>, StatePatch)>>,
    progress: Option<Progress>,
    results: Option<Results>,
}

/// Reads results that were too long for the model: of the run that a call belongs to, and of the runs its model sees.
#[async_trait]
pub trait WholeResults: Send + Sync {
    /// All that is kept of the result of this id; `None` when there is none, or it was erased.
    ///
    /// # Errors
    /// [`ToolError::Failed`] when it cannot be read now.
    async fn whole(&self, id: &str) -> Result<Option<String>, ToolError>;
}

#[derive(Clone)]
struct Results(Arc<dyn WholeResults>);

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Results")
    }
}

/// Where a call tells how far it is.
#[derive(Clone)]
struct Progress(Arc<dyn Fn(String) + Send + Sync>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

impl ToolContext {
    /// A context over the session's state as the run knows it.
    pub fn new(
        run_id: RunId,
        session_id: SessionId,
        user_id: Option<UserId>,
        call_id: String,
        idempotency_key: String,
        state: Map<String, Value>,
    ) -> Self {
        Self {
            run_id,
            session_id,
            user_id,
            call_id,
            idempotency_key,
            dependencies: Arc::default(),
            cancelled: CancellationToken::new(),
            state: Arc::new(Mutex::new((state, StatePatch::default()))),
            progress: None,
            results: None,
        }
    }

    /// The same, with progress told to `show`.
    #[must_use]
    pub fn with_progress(self, show: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self { progress: Some(Progress(Arc::new(show))), ..self }
    }

    /// The same, with long results read from `results`.
    #[must_use]
    pub fn with_results(self, results: Arc<dyn WholeResults>) -> Self {
        Self { results: Some(Results(results)), ..self }
    }

    /// All that is kept of a result that was too long for the model, by the id in the note that stands in it; `None` when
    /// neither this run nor an earlier one that its model sees has such a result, or it was erased.
    ///
    /// # Errors
    /// [`ToolError::Failed`] when it cannot be read now.
    pub async fn whole_result(&self, id: &str) -> Result<Option<String>, ToolError> {
        match &self.results {
            Some(Results(results)) => results.whole(id).await,
            None => Ok(None),
        }
    }

    /// Tells those who watch the run how far the call is. It is shown and forgotten: neither the model nor the log
    /// learns of it, a watcher may miss it, and of a text only the first 4,096 characters are shown.
    pub fn progress(&self, text: impl Into<String>) {
        if let Some(Progress(show)) = &self.progress {
            show(text.into());
        }
    }

    /// A session-state value, with this call's own changes.
    pub fn state(&self, key: &str) -> Option<Value> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.get(key).cloned()
    }

    /// Sets a session-state key. Recorded with the call's outcome, so it happens exactly if the call succeeds.
    pub fn set_state(&self, key: impl Into<String>, value: Value) {
        let key = key.into();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.unset.retain(|other| *other != key);
        state.1.set.insert(key.clone(), value.clone());
        state.0.insert(key, value);
    }

    /// Removes a session-state key, likewise.
    pub fn remove_state(&self, key: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.remove(key);
        state.1.set.remove(key);
        if !state.1.unset.iter().any(|other| other == key) {
            state.1.unset.push(key.to_owned());
        }
    }

    /// What this call changed so far.
    pub fn patch(&self) -> StatePatch {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// Something a model may call.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// What the model and the log know of it.
    fn spec(&self) -> &ToolSpec;

    /// Whether what its spec asks of a person stands, and its effect with it, whatever a [`ToolRule`](crate::ToolRule)
    /// says. For tools that can do anything; a tool that stands in front of another gives the other's answer.
    fn must_ask(&self) -> bool {
        false
    }

    /// Whether it could be called with these arguments, which fit its schema. Asked before the call, and before a person
    /// is asked about it, so it is quick, changes nothing, and does not wait. The call itself relies on nothing of it.
    ///
    /// # Errors
    /// [`ToolError::Arguments`], whose message the model reads instead of a result.
    fn check(&self, _arguments: &Map<String, Value>) -> Result<(), ToolError> {
        Ok(())
    }

    /// Calls it. Dropping the future stops it where it can be stopped.
    ///
    /// # Errors
    /// [`ToolError`], whose message the model reads.
    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError>;
}

/// Tools by name.
pub type ToolSet = BTreeMap<String, Arc<dyn Tool>>;
