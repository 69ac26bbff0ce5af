//! Going on from where a run ended: a new run that takes over what was said up to some message.

use daybook_domain::command::{ContinueFrom, ContinueRun, Envelope, StartRun};
use daybook_domain::message::{Message, Role};
use daybook_domain::run::{Forked, OnBusy, RunStatus};

use crate::engine::{Engine, Outcome};
use crate::error::ExecuteError;
use crate::settle::{Standing, refused};
use crate::start::start_run;

pub(crate) async fn fork_run(
    engine: &Engine,
    envelope: &Envelope,
    run: &Standing,
    command: ContinueRun,
) -> Result<Outcome, ExecuteError> {
    let refuse = |why: &str| Err(ExecuteError::CannotContinue(why.to_owned()));
    if run.state.is_flow() {
        return refuse(&format!("run is already {}", run.state.status.as_str().to_lowercase()));
    }
    if command.regenerate && command.from != ContinueFrom::End && command.from != ContinueFrom::LastUser {
        return refuse("`regenerate=True` derives the continuation boundary automatically.");
    }
    let replaces = command.regenerate && command.replace_original;
    if replaces && !matches!(run.state.status, RunStatus::Completed | RunStatus::Regenerated) {
        return refuse("only a run that ended well can be regenerated: fork it, or set replace_original=false");
    }
    // Callers count the messages as they see them: the system message and what earlier runs said come first.
    let summary = run.state.summary.map(|version| (&run.accepted.session_id, version));
    let history =
        engine.inner.history(envelope.log_id, summary, run.state.history.clone(), false).await.map_err(refused)?;
    let before =
        usize::from(run.config.agent().is_some_and(|agent| agent.system_prompt().is_some())) + history.messages.len();
    let kept = whole_turns(&run.state.messages, boundary(&run.state.messages, &command, before)?);
    let accepted = &run.accepted;
    let start = StartRun {
        component: command.component,
        run_id: None,
        session_id: Some(command.session_id),
        user_id: accepted.user_id.clone(),
        message: command.input.unwrap_or_default(),
        media: Vec::new(),
        mode: command.mode,
        on_busy: OnBusy::Enqueue,
        cancel_on_disconnect: false,
        session_state: None,
        dependencies: accepted.dependencies.get().cloned().flatten(),
        metadata: accepted.metadata.get().cloned().flatten(),
        output_schema: accepted.output_schema.get().cloned().flatten(),
        forked: Some(Forked {
            run_id: accepted.run_id.clone(),
            message_index: u32::try_from(kept + before).unwrap_or(u32::MAX),
            regenerated: command.regenerate,
        }),
        base: Some(run.state.messages[..kept].to_vec()),
        replaces,
    };
    start_run(engine, envelope, start).await
}

/// How many of the run's own messages are taken over; `before` others are shown before them.
fn boundary(messages: &[Message], command: &ContinueRun, before: usize) -> Result<usize, ExecuteError> {
    let refuse = |why: String| Err(ExecuteError::CannotContinue(why));
    if command.regenerate {
        // An answer that missed its shape, and what was said to that, are part of how the last one came about.
        let answer =
            |message: &&Message| message.repair || (message.role == Role::Assistant && message.tool_calls.is_empty());
        let kept = messages.len() - messages.iter().rev().take_while(answer).count();
        let nothing = "Cannot regenerate: run has no non-assistant messages to regenerate from.";
        return if kept == 0 { refuse(nothing.to_owned()) } else { Ok(kept) };
    }
    match command.from {
        ContinueFrom::End => Ok(messages.len()),
        ContinueFrom::LastUser => {
            match messages.iter().rposition(|message| message.role == Role::User && !message.repair) {
                Some(at) => Ok(at + 1),
                None => refuse("Cannot resolve `continue_from='last_user'`: run has no user messages.".to_owned()),
            }
        }
        ContinueFrom::Message(index) => {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let most = messages.len() + before;
            if index > most {
                return refuse(format!("continue_from must be between 0 and {most}"));
            }
            Ok(index.saturating_sub(before))
        }
    }
}

/// Cuts `count` messages down to where no tool call lacks its outcome: models refuse half a turn.
pub fn whole_turns(messages: &[Message], count: usize) -> usize {
    let mut kept = count.min(messages.len());
    while let Some(at) = messages[..kept].iter().rposition(|message| !message.tool_calls.is_empty()) {
        let answered = |id: &str| {
            messages[at..kept].iter().any(|message| message.answers.as_ref().is_some_and(|a| a.call_id == id))
        };
        if messages[at].tool_calls.iter().all(|call| answered(&call.id)) {
            break;
        }
        kept = at;
    }
    kept
}

#[cfg(test)]
mod tests {
    use daybook_domain::message::{Answered, ToolCall};
    use serde_json::Value;

    use super::*;

    fn message(role: Role, calls: &[&str], answers: Option<&str>) -> Message {
        let call = |id: &&str| ToolCall { id: (*id).into(), name: "t".into(), arguments: String::new() };
        let answered =
            |id: &str| Answered { call_id: id.into(), tool: "t".into(), arguments: Value::Null, failed: false };
        Message {
            id: String::new(),
            role,
            content: None,
            reasoning: None,
            tool_calls: calls.iter().map(call).collect(),
            answers: answers.map(answered),
            whole: None,
            repair: false,
            media: vec![],
            provider_data: None,
            replay: None,
            metrics: None,
            created_at: 0,
        }
    }

    #[test]
    fn half_a_turn_is_not_taken_over() {
        let messages = [
            message(Role::User, &[], None),
            message(Role::Assistant, &["a", "b"], None),
            message(Role::Tool, &[], Some("a")),
            message(Role::Tool, &[], Some("b")),
            message(Role::Assistant, &["c"], None),
        ];
        let kept: Vec<usize> = (0..=6).map(|count| whole_turns(&messages, count)).collect();
        assert_eq!(kept, [0, 1, 1, 1, 4, 4, 4]);
    }
}
