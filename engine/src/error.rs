//! Why commands and queries are refused, for the person who sent them.

use daybook_domain::approval::ApprovalError;
use daybook_domain::component::ComponentKind;
use daybook_domain::run::AnswerError;
use daybook_domain::session::SessionError;
use daybook_store::StoreError;

/// Why a command was not executed. Nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// No component of this kind and id on this server.
    #[error("{} not found", .0.title())]
    UnknownComponent(ComponentKind),
    /// The session refuses the run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The caller chose an id that a run has.
    #[error("A run with id {0:?} exists already: leave run_id out, or choose another")]
    RunExists(String),
    /// The idempotency key was used with another body.
    #[error("This Idempotency-Key was used for another request: use a new key, or send the same request")]
    KeyReused,
    /// The server has as many runs as it takes.
    #[error("The server is running {0} runs, as many as it takes: try again later")]
    TooManyRuns(usize),
    /// There is no such run, or not for this caller.
    #[error("No runs found for run ID {0}")]
    UnknownRun(String),
    /// Nothing that the run asks was answered.
    #[error("{0}")]
    Unanswered(String),
    /// An answer does not fit.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The run goes on already, from other answers.
    #[error("the run is not paused: it goes on from the answers it was given before")]
    GoesOn,
    /// It cannot be gone on from there.
    #[error("{0}")]
    CannotContinue(String),
    /// It cannot be gone on anywhere.
    #[error(
        "The run cannot go on, because no server that is up has all that it needs: what is lacking is {0}. Nothing was \
         recorded: put it back, and answer again"
    )]
    NobodyCan(String),
    /// The approval does not allow it.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// The session to copy is not there, or not for this caller.
    #[error("Session not found")]
    UnknownSession,
    /// The model was asked for a summary and gave none.
    #[error("The session was not compacted, because its model could not be asked for a summary: {fault}")]
    NoSummary {
        /// What went wrong, without secrets.
        fault: String,
        /// Whether it may go better a little later.
        may_pass: bool,
    },
    /// What the workflow is told does not have the shape it must have.
    #[error("the input of the workflow does not have the shape it must have: {0}")]
    Input(String),
    /// Others wrote to the same things again and again.
    #[error("Others are working on the same run: try again")]
    Contended,
    /// The server is stopping.
    #[error("The server is stopping: try again on another node or in a moment")]
    Stopping,
    /// The log did not answer or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value cannot be written as JSON.
    #[error("a value cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The log did not answer or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A configuration a run refers to is not in the log.
    #[error("configuration {0} is not in the log")]
    MissingConfig(String),
}
