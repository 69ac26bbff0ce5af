//! Messages of a conversation.

use daybook_domain::component::{AgentConfig, ComponentConfig};
use daybook_domain::media::MediaKind;
use daybook_domain::message::{Message, Role, ToolCall};
use daybook_domain::run::RunState;
use serde_json::{Value, json};

use super::members::Members;
use super::tool::whole_result;
use super::{media, metrics};

/// A message; `from_history` is whether an earlier run said it.
pub(crate) fn message(message: &Message, from_history: bool) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let members = Members::default()
        .with("id", message.id.as_str())
        .maybe("content", message.content.as_deref())
        .maybe("reasoning_content", message.reasoning.as_deref())
        .with("from_history", from_history)
        .with("stop_after_tool_call", false)
        .with("role", role)
        .list("tool_calls", message.tool_calls.iter().map(call).collect())
        .list("images", media::of_kind(&message.media, MediaKind::Image))
        .list("audio", media::of_kind(&message.media, MediaKind::Audio))
        .list("videos", media::of_kind(&message.media, MediaKind::Video))
        .list("files", media::of_kind(&message.media, MediaKind::File))
        .maybe("provider_data", message.provider_data.clone())
        .maybe("metrics", message.metrics.as_ref().map(metrics::of_call));
    let members = members
        .maybe("whole_result", message.whole.as_ref().map(whole_result))
        // A client that shows what people said leaves it out.
        .maybe("repair", message.repair.then_some(true));
    let members = match &message.answers {
        None => members,
        Some(answered) => members
            .with("tool_call_id", answered.call_id.as_str())
            .with("tool_name", answered.tool.as_str())
            .maybe("tool_args", Some(answered.arguments.clone()).filter(|arguments| !arguments.is_null()))
            .with("tool_call_error", answered.failed),
    };
    members.with("created_at", message.created_at).done()
}

fn call(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

/// The messages of a run: the system message, what earlier runs said, its own, and what it was saying when it was
/// cut off.
pub(crate) fn of_run(state: &RunState, config: &ComponentConfig, history: &[Message]) -> Vec<Value> {
    let Some(accepted) = &state.accepted else { return Vec::new() };
    let bare = |id: String, role: Role, content: String, created_at: i64| Message {
        id,
        role,
        content: Some(content),
        reasoning: None,
        tool_calls: Vec::new(),
        answers: None,
        whole: None,
        repair: false,
        media: Vec::new(),
        provider_data: None,
        replay: None,
        metrics: None,
        created_at,
    };
    let system = config
        .agent()
        .and_then(AgentConfig::system_prompt)
        .map(|text| bare(RunState::system_message_id(&accepted.run_id), Role::System, text, accepted.at_ms / 1000));
    let partial = state.partial.clone().filter(|text| !text.is_empty()).map(|text| {
        let id = RunState::message_id(&accepted.run_id, state.messages.len());
        bare(id, Role::Assistant, text, state.updated_ms / 1000)
    });
    let own = state.messages.iter().chain(&partial).map(|own| message(own, false));
    let earlier = history.iter().map(|earlier| message(earlier, true));
    system.iter().map(|system| message(system, false)).chain(earlier).chain(own).collect()
}
