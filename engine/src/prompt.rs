//! What a model is given: built from the configuration and recorded messages alone, so that it can be built again.

use aws_lc_rs::digest::{SHA256, digest};
use daybook_domain::component::AgentConfig;
use daybook_domain::ids::RunId;
use daybook_domain::message::{Message, Role};
use daybook_domain::run::RunState;
use daybook_models::ChatRequest;
use serde::Serialize;

/// The request of a model call: system message, the earlier runs' messages, then this run's own.
/// Equal inputs give equal requests, byte for byte, which [`ModelCallRequested`] proves by hash.
///
/// [`ModelCallRequested`]: daybook_domain::run::ModelCallRequested
pub fn build_request(config: &AgentConfig, run: &RunId, history: &[Message], own: &[Message]) -> ChatRequest {
    let system = system_message(config, run, 0);
    let said = history.iter().chain(own).map(|message| Message {
        // What the provider told about an earlier answer is not part of the conversation.
        metrics: None,
        provider_data: None,
        ..message.clone()
    });
    ChatRequest {
        messages: system.into_iter().chain(said).collect(),
        tools: config.tools.clone(),
        temperature: config.temperature,
        max_tokens: config.max_tokens,
    }
}

/// The system message a run was given, if its agent has one.
pub fn system_message(config: &AgentConfig, run: &RunId, created_at: i64) -> Option<Message> {
    config.system_prompt().map(|prompt| Message {
        id: RunState::system_message_id(run),
        role: Role::System,
        content: Some(prompt),
        reasoning: None,
        tool_calls: Vec::new(),
        answers: None,
        media: Vec::new(),
        provider_data: None,
        metrics: None,
        created_at,
    })
}

/// SHA-256 of a value's JSON, hex. Our own types write their fields in declared order, so no sorting is needed.
///
/// # Errors
/// When serde_json cannot write the value.
pub fn json_hash(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(hex::encode(digest(&SHA256, &serde_json::to_vec(value)?)))
}
