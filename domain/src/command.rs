//! The one door in: what every interface builds and the engine executes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::approval::Verdict;
use crate::component::ComponentRef;
use crate::ids::{ApprovalId, LogId, RunId, SessionId, UserId};
use crate::media::Media;
use crate::message::Message;
use crate::output::OutputSchema;
use crate::run::{Answer, Forked, OnBusy, RunMode};
use crate::workflow::StepAnswer;

/// Who is calling, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The caller: `anonymous`, `user:alice`, `sa:deployer`, ...
    pub name: String,
    /// The user the caller is, or acts for; `None` for an anonymous caller.
    pub user: Option<UserId>,
}

impl Principal {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), user: None }
    }

    /// The server itself.
    pub fn system() -> Self {
        Self { name: "system".to_owned(), user: None }
    }
}

/// A command with everything the log records about where it came from.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The log it is for; from the principal only.
    pub log_id: LogId,
    /// Who asks.
    pub principal: Principal,
    /// The interface it came by: `rest`, `mcp`, `a2a`, `slack`, `embedded`.
    pub interface: &'static str,
    /// The caller's key: the same key and command give the same answer, once executed.
    pub idempotency_key: Option<String>,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
    /// The event or command that caused this one.
    pub causation_id: Option<String>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// What to do.
    pub command: Command,
}

impl Envelope {
    /// A command from `principal` by `interface`, without key, correlation or trace.
    pub fn new(principal: Principal, interface: &'static str, command: impl Into<Command>) -> Self {
        Self {
            log_id: LogId::DEFAULT,
            principal,
            interface,
            idempotency_key: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            command: command.into(),
        }
    }
}

/// What can be asked of the engine.
#[derive(Debug, Clone)]
pub enum Command {
    /// Run a component.
    StartRun(Box<StartRun>),
    /// Stop a run.
    CancelRun(CancelRun),
    /// Answer what a run asks, or go on from it.
    ContinueRun(Box<ContinueRun>),
    /// Decide about an approval.
    ResolveApproval(Box<ResolveApproval>),
    /// Hide an approval from lists.
    DeleteApproval(ApprovalId),
    /// Do what the clock demands of an approval: remind of it, or let it expire.
    WatchApproval(ApprovalId),
    /// Begin a session before anything runs in it.
    CreateSession(Box<CreateSession>),
    /// Copy a session, so that the copy can go another way.
    ForkSession(ForkSession),
    /// Summarise what was said early in a session.
    CompactSession(CompactSession),
}

impl From<StartRun> for Command {
    fn from(command: StartRun) -> Self {
        Self::StartRun(Box::new(command))
    }
}

impl From<ContinueRun> for Command {
    fn from(command: ContinueRun) -> Self {
        Self::ContinueRun(Box::new(command))
    }
}

impl From<ResolveApproval> for Command {
    fn from(command: ResolveApproval) -> Self {
        Self::ResolveApproval(Box::new(command))
    }
}

impl From<CreateSession> for Command {
    fn from(command: CreateSession) -> Self {
        Self::CreateSession(Box::new(command))
    }
}

impl From<ForkSession> for Command {
    fn from(command: ForkSession) -> Self {
        Self::ForkSession(command)
    }
}

impl From<CompactSession> for Command {
    fn from(command: CompactSession) -> Self {
        Self::CompactSession(command)
    }
}

impl From<CancelRun> for Command {
    fn from(command: CancelRun) -> Self {
        Self::CancelRun(command)
    }
}

/// Run a component. Fields left out by the caller are filled by the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRun {
    /// What to run.
    pub component: ComponentRef,
    /// The run's id; a new UUID when absent.
    pub run_id: Option<RunId>,
    /// The conversation; a new one when absent.
    pub session_id: Option<SessionId>,
    /// Who the conversation belongs to.
    pub user_id: Option<UserId>,
    /// What is said.
    pub message: String,
    /// What comes with it.
    pub media: Vec<Media>,
    /// How the caller waits.
    pub mode: RunMode,
    /// What to do when the session is busy.
    pub on_busy: OnBusy,
    /// Whether the run is cancelled when the watching client goes away.
    pub cancel_on_disconnect: bool,
    /// Merged into the session's state before the run.
    pub session_state: Option<Map<String, Value>>,
    /// For the tools and instructions of this run only.
    pub dependencies: Option<Map<String, Value>>,
    /// Kept with the run.
    pub metadata: Option<Map<String, Value>>,
    /// The shape of the answer, where it shall be another than the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<OutputSchema>,
    /// The run it goes on from. Filled by the engine, see [`ContinueRun`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<Forked>,
    /// What was said in that run up to there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Vec<Message>>,
    /// Whether it takes that run's place in the conversation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

/// Answer what a paused run asks, or go on from where a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContinueRun {
    /// The component the caller named; another component's run is unknown to it.
    pub component: ComponentRef,
    /// The run.
    pub run_id: RunId,
    /// The session the caller named; a run of another session is unknown to it.
    pub session_id: SessionId,
    /// The answers, for a paused run.
    pub answers: Vec<Answer>,
    /// The answers to what is asked about the steps of a workflow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_answers: Vec<StepAnswer>,
    /// What is said, for a run that goes on from another.
    pub input: Option<String>,
    /// Up to where the other run's messages are taken over.
    pub from: ContinueFrom,
    /// Whether a new run goes on, though this one could.
    pub fork: bool,
    /// Whether the last answer is given anew.
    pub regenerate: bool,
    /// Whether the new answer takes the old one's place in the conversation.
    pub replace_original: bool,
    /// How the caller waits.
    pub mode: RunMode,
}

/// Up to where a run's messages are taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContinueFrom {
    /// All of them.
    #[default]
    End,
    /// Up to the last thing a person said, which is included.
    LastUser,
    /// So many, the system message included.
    Message(u32),
}

/// Decide about an approval.
#[derive(Debug, Clone)]
pub struct ResolveApproval {
    /// Which.
    pub approval_id: ApprovalId,
    /// What.
    pub verdict: Verdict,
    /// Who decides, in the caller's words; the caller's own name counts where it has one.
    pub resolved_by: Option<String>,
    /// Kept with the decision; the text `note` in it is told to the model when the call is rejected.
    pub data: Option<Map<String, Value>>,
}

/// Begin a session before anything runs in it. Fields left out by the caller are filled by the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateSession {
    /// The component it is a conversation with; with none in particular when absent.
    pub component: Option<ComponentRef>,
    /// Its id; a new UUID when absent.
    pub session_id: Option<SessionId>,
    /// Whom it belongs to; nobody in particular when absent.
    pub user_id: Option<UserId>,
    /// Its name for people; views show the first message of one without.
    pub name: Option<String>,
    /// Kept with it.
    pub metadata: Option<Map<String, Value>>,
    /// What its state begins with, before what the component sets.
    pub state: Map<String, Value>,
}

/// Copy a session with its ended runs.
#[derive(Debug, Clone)]
pub struct ForkSession {
    /// The component the caller named.
    pub component: ComponentRef,
    /// The session.
    pub session_id: SessionId,
    /// Who asks; another's session is unknown.
    pub user_id: Option<UserId>,
}

/// Summarise what was said early in a session, where its agent is configured to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompactSession {
    /// The component the caller named; its model writes the summary.
    pub component: ComponentRef,
    /// The session.
    pub session_id: SessionId,
    /// Who asks; another's session is unknown.
    pub user_id: Option<UserId>,
}

/// Stop a run.
#[derive(Debug, Clone, PartialEq)]
pub struct CancelRun {
    /// The component the caller named; another component's run is unknown to it.
    pub component: Option<ComponentRef>,
    /// The run.
    pub run_id: RunId,
    /// The session the caller named, if it did; a run of another session is unknown to it.
    pub session_id: Option<SessionId>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
}
