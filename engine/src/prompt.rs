//! What a model is given: built from the configuration and recorded messages alone, so that it can be built again.

use aws_lc_rs::digest::{SHA256, digest};
use daybook_domain::component::{AgentConfig, ComponentConfig};
use daybook_domain::ids::RunId;
use daybook_domain::message::{Message, Role};
use daybook_domain::output::OutputSchema;
use daybook_domain::run::{RunAccepted, RunState};
use daybook_models::ChatRequest;
use serde::Serialize;

/// The request of a model call: system message, the earlier runs' messages, then this run's own.
/// Equal inputs give equal requests, byte for byte, which [`ModelCallRequested`] proves by hash.
///
/// [`ModelCallRequested`]: daybook_domain::run::ModelCallRequested
///
/// What a provider wants given back goes back within its run only: a later run sees another part of the history, and
/// providers that sign thoughts refuse those whose context has changed. If one of the run's answers may not be given
/// back because it held a secret, none is, for the same reason.
pub fn build_request(
    config: &AgentConfig,
    accepted: &RunAccepted,
    history: &[Message],
    own: &[Message],
) -> ChatRequest {
    let system = system_message(config, &accepted.run_id, 0);
    let asked = accepted.output_schema.get().and_then(Option::as_ref);
    let schema = asked.or(config.output_schema.as_ref());
    let whole = own.iter().all(|message| message.replay.as_ref().is_none_or(|replay| !replay.items.is_empty()));
    let bare = |message: &Message| Message {
        // What the provider told about an earlier answer, and what is kept beside it, is not part of the conversation.
        metrics: None,
        provider_data: None,
        replay: None,
        whole: None,
        repair: false,
        ..message.clone()
    };
    let said = history.iter().map(bare).chain(own.iter().map(|message| match &message.replay {
        Some(replay) if whole => Message { replay: Some(replay.clone()), ..bare(message) },
        _ => bare(message),
    }));
    ChatRequest {
        messages: system.into_iter().chain(said).collect(),
        tools: config.all_tools().cloned().collect(),
        temperature: config.temperature,
        max_tokens: config.max_tokens,
        output_schema: schema.cloned(),
    }
}

/// The shape a run's answer must have: its caller's, or else its agent's.
pub fn output_schema<'a>(config: &'a ComponentConfig, accepted: &'a RunAccepted) -> Option<&'a OutputSchema> {
    let own = || config.agent().and_then(|agent| agent.output_schema.as_ref());
    accepted.output_schema.get().and_then(Option::as_ref).or_else(own)
}

/// The system message a run was given, if its agent has one.
pub fn system_message(config: &AgentConfig, run: &RunId, created_at: i64) -> Option<Message> {
    let id = RunState::system_message_id(run);
    config.system_prompt().map(|prompt| Message::said(id, Role::System, Some(prompt), created_at))
}

/// SHA-256 of a value's JSON, hex. Our own types write their fields in declared order, so no sorting is needed.
///
/// # Errors
/// When serde_json cannot write the value.
pub fn json_hash(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(hex::encode(digest(&SHA256, &serde_json::to_vec(value)?)))
}
