//! What a run sees of its session's earlier runs. It is fixed by the run's first model call, which refers to it: the same
//! prompt can be built again later, whatever was summarised since.

use std::sync::Arc;

use daybook_domain::component::ComponentConfig;
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{LogId, RunId, SessionId, StreamId};
use daybook_domain::message::{Message, Role};
use daybook_domain::session::{SessionEvent, SessionState, newest_within};

use crate::engine::{Inner, fold_run};
use crate::error::QueryError;

/// Before a summary, where a model reads it.
const BEFORE_SUMMARY: &str = "[The earlier part of this conversation, summarised]\n";

/// What a run sees of earlier runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// The version of the session's event whose summary comes first.
    pub summary: Option<u64>,
    /// The runs whose messages follow, oldest first.
    pub runs: Vec<RunId>,
    /// The summary's message and theirs.
    pub messages: Vec<Message>,
}

impl History {
    /// As planning refers to it.
    pub fn as_seen(&self) -> Seen<'_> {
        Seen { summary: self.summary, runs: &self.runs, messages: &self.messages }
    }
}

/// A [`History`], borrowed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen<'a> {
    pub summary: Option<u64>,
    pub runs: &'a [RunId],
    pub messages: &'a [Message],
}

impl Inner {
    /// What a run sees that calls its model for the first time while its session stands so. `not` is a run whose messages
    /// it has anyway.
    pub async fn history_now(
        &self,
        log: LogId,
        session: &SessionState,
        config: &ComponentConfig,
        not: Option<&RunId>,
    ) -> Result<History, QueryError> {
        let Some(config) = config.agent() else { return Ok(History::default()) };
        let least = usize::try_from(config.history_runs).unwrap_or(usize::MAX);
        let newest = |runs: &mut Vec<RunId>, count: usize| drop(runs.drain(..runs.len().saturating_sub(count)));
        let others = |run: &&RunId| Some(*run) != not;
        let (Some(compaction), Some(id)) = (config.compaction, &session.session_id) else {
            let mut runs: Vec<RunId> = session.recent.iter().filter(others).cloned().collect();
            newest(&mut runs, least);
            return self.history(log, None, runs, false).await;
        };
        let mut runs: Vec<RunId> = session.unsummarised().filter(others).cloned().collect();
        let count = match compaction.after_tokens {
            Some(after) => newest_within(&self.sizes(log, &runs).await?, least, after.saturating_mul(2)),
            None => least,
        };
        newest(&mut runs, count);
        let summary = session.summarised.map(|summarised| (id, summarised.version));
        self.history(log, summary, runs, false).await
    }

    /// What a child run sees that calls its model for the first time: what was said in so many of the session's earlier
    /// runs.
    pub async fn history_of_others(
        &self,
        log: LogId,
        session: &SessionState,
        count: u32,
    ) -> Result<History, QueryError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let runs = session.recent.iter().skip(session.recent.len().saturating_sub(count)).cloned().collect();
        self.history(log, None, runs, true).await
    }

    /// What a run sees whose first model call referred to this. Runs of `others` are told without their tool calls, which
    /// its own model does not have.
    pub async fn history(
        &self,
        log: LogId,
        summary: Option<(&SessionId, u64)>,
        runs: Vec<RunId>,
        others: bool,
    ) -> Result<History, QueryError> {
        let mut messages = Vec::new();
        if let Some((session, version)) = summary {
            let summary = self.summary(log, session, version).await?;
            messages.extend(summary.map(|summary| told(session, version, &summary)));
        }
        for run in &runs {
            let said = self.messages_of(log, run).await?;
            messages.extend(said.iter().filter(|message| !others || is_words(message)).cloned());
        }
        Ok(History { summary: summary.map(|(_, version)| version), runs, messages })
    }

    /// What later runs see of an ended run: one stream read, unless they are remembered.
    pub async fn messages_of(&self, log: LogId, run: &RunId) -> Result<Arc<Vec<Message>>, QueryError> {
        let key = (self.store.erasures(), log, run.clone());
        if let Some(known) = self.ended.get(&key).await {
            return Ok(known);
        }
        let (state, _) = fold_run(&self.store, log, run).await?;
        let read = Arc::new(state.for_history());
        self.ended.insert(key, read.clone()).await;
        Ok(read)
    }

    /// The estimated tokens of each of these runs.
    pub async fn sizes(&self, log: LogId, runs: &[RunId]) -> Result<Vec<u64>, QueryError> {
        let mut sizes = Vec::with_capacity(runs.len());
        for run in runs {
            sizes.push(tokens(&self.messages_of(log, run).await?));
        }
        Ok(sizes)
    }

    /// The summary of this version, and when it was made; `None` when it was erased.
    pub async fn summary(
        &self,
        log: LogId,
        session: &SessionId,
        version: u64,
    ) -> Result<Option<Arc<Summary>>, QueryError> {
        let key = (self.store.erasures(), log, session.clone(), version);
        if let Some(known) = self.summaries.get(&key).await {
            return Ok(Some(known));
        }
        let recorded = self.store.read_event(log, &StreamId::session(session), version).await?;
        let Some(DomainEvent::Session(SessionEvent::Compacted(compacted))) = recorded.map(|recorded| recorded.event)
        else {
            return Ok(None);
        };
        let Some(text) = compacted.summary.into_inner() else { return Ok(None) };
        let read = Arc::new(Summary { text, at: compacted.at });
        self.summaries.insert(key, read.clone()).await;
        Ok(Some(read))
    }
}

/// Whether a message is what somebody said, and no more.
fn is_words(message: &Message) -> bool {
    matches!(message.role, Role::User | Role::Assistant) && message.tool_calls.is_empty()
}

/// A summary as this node remembers it.
#[derive(Debug)]
pub(crate) struct Summary {
    pub text: String,
    /// Unix seconds.
    pub at: i64,
}

/// The estimated tokens of messages.
pub(crate) fn tokens(messages: &[Message]) -> u64 {
    messages.iter().map(Message::estimated_tokens).fold(0, u64::saturating_add)
}

/// How a model is told a summary: as words of the person's side, since they come from the conversation and must not weigh
/// as much as the agent's instructions.
pub(crate) fn told(session: &SessionId, version: u64, summary: &Summary) -> Message {
    let words = format!("{BEFORE_SUMMARY}{}", summary.text);
    Message::said(SessionState::summary_id(session, version), Role::User, Some(words), summary.at)
}
