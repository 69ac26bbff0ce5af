//! `GET /{components}/{id}/runs/{run_id}/checkpoints` and `.../checkpoints/{message_index}`: from where a run can be gone
//! on. They are read from the run itself; nothing is kept beside it.

use std::collections::HashSet;

use daybook_engine::{RunDetail, whole_turns};
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::ToJSON;
use serde_json::{Value, json};

use crate::errors::{ApiError, At};
use crate::guard::Guard;
use crate::kind::{Kind, Of};
use crate::params::{self, Required};
use crate::wire::RunShape;

/// How much of a message is shown beside its checkpoint, in characters.
const PREVIEW: usize = 120;

pub(super) struct Checkpoints<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Checkpoints<K> {
    /// List from where a run can be gone on
    #[oai(path = "/:component_id/runs/:run_id/checkpoints", method = "get", operation_id = "list_checkpoints")]
    async fn list(
        &self,
        _guard: Guard<K::Read>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The run's session.
        session_id: Query<Required<String>>,
    ) -> Result<Json<Value>, ApiError> {
        let shown = Shown::read(&self.0, &component_id, &run_id, &session_id).await?;
        let entries: Vec<Value> = shown.boundaries().into_iter().map(|index| shown.entry(index)).collect();
        let (run, session) = (&shown.output["run_id"], &shown.output["session_id"]);
        Ok(Json(json!({"run_id": run, "session_id": session, "checkpoints": entries})))
    }

    /// Get a run as it was after some message
    #[oai(
        path = "/:component_id/runs/:run_id/checkpoints/:message_index",
        method = "get",
        operation_id = "get_checkpoint"
    )]
    async fn one(
        &self,
        _guard: Guard<K::Read>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// How many of its messages.
        message_index: Path<String>,
        /// The run's session.
        session_id: Query<Required<String>>,
    ) -> Result<Json<Value>, ApiError> {
        let index = params::int(At("path", "message_index"), &message_index)?;
        let shown = Shown::read(&self.0, &component_id, &run_id, &session_id).await?;
        let most = shown.messages.len();
        let index = usize::try_from(index).ok().filter(|index| *index <= most);
        let index = index.ok_or_else(|| ApiError::bad(format!("message_index must be between 0 and {most}")))?;
        Ok(Json(json!({"checkpoint": shown.checkpoint(index), "snapshot": shown.snapshot(index)})))
    }
}

/// A run as its messages are counted.
struct Shown {
    detail: RunDetail,
    output: Value,
    messages: Vec<Value>,
}

impl Shown {
    async fn read<K: Kind>(of: &Of<K>, id: &str, run: &str, session: &Required<String>) -> Result<Self, ApiError> {
        let detail = super::detail(of, of.run(id, run, session).await?).await?;
        let output = K::Output::of(&detail).to_json().unwrap_or_default();
        let messages = output["messages"].as_array().cloned().unwrap_or_default();
        Ok(Self { detail, output, messages })
    }

    /// Where an answer that was given anew took over, and the end.
    fn boundaries(&self) -> Vec<usize> {
        let regenerated = self.output["last_checkpoint_at_message_index"].as_u64();
        let regenerated = regenerated.and_then(|index| usize::try_from(index).ok());
        let end = (!self.messages.is_empty()).then_some(self.messages.len());
        let mut all: Vec<usize> = regenerated.into_iter().chain(end).collect();
        all.dedup();
        all
    }

    fn entry(&self, index: usize) -> Value {
        let mut entry = self.at(index, if index == self.messages.len() { "end" } else { "checkpoint" });
        entry["checkpoint_id"] = self.ordinal(index);
        entry
    }

    fn checkpoint(&self, index: usize) -> Value {
        let mut entry = self.at(index, "snapshot");
        entry["checkpoint_id"] = self.ordinal(index);
        entry
    }

    /// Its place among those that are listed.
    fn ordinal(&self, index: usize) -> Value {
        let place = self.boundaries().iter().position(|known| *known == index);
        place.map_or(Value::Null, |place| Value::from((place + 1).to_string()))
    }

    fn at(&self, index: usize, reason: &str) -> Value {
        let message = index.checked_sub(1).and_then(|at| self.messages.get(at));
        let member = |name: &str| message.and_then(|message| message.get(name)).cloned().unwrap_or_default();
        let preview = match member("content") {
            Value::String(text) => Value::from(preview(&text)),
            _ => Value::Null,
        };
        json!({
            "checkpoint_id": null,
            "run_id": self.output["run_id"],
            "session_id": self.output["session_id"],
            "message_index": index,
            "continue_from": index,
            "status": self.output["status"],
            "reason": reason,
            "created_at": self.output["created_at"],
            "message_id": member("id"),
            "message_role": member("role"),
            "message_preview": preview,
            "is_latest": index == self.messages.len(),
        })
    }

    /// The run with its first `index` messages, and the calls those are about.
    fn snapshot(&self, index: usize) -> Value {
        let own = &self.detail.state.messages;
        let before = self.messages.len().saturating_sub(own.len());
        let kept = if index > before { before + whole_turns(own, index - before) } else { index };
        let mut shown = self.output.clone();
        shown["messages"] = self.messages[..kept].to_vec().into();
        shown["last_checkpoint_at_message_index"] = kept.into();
        shown["events"] = json!([]);
        let calls = self.messages[..kept].iter().filter_map(|message| message["tool_calls"].as_array()).flatten();
        let asked: HashSet<&str> = calls.filter_map(|call| call["id"].as_str()).collect();
        let told = |call: &Value| call["tool_call_id"].as_str().is_some_and(|id| asked.contains(id));
        for (list, call) in [("tools", None), ("requirements", Some("tool_execution"))] {
            if let Some(items) = shown.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| told(call.map_or(item, |call| &item[call])));
            }
        }
        shown
    }
}

fn preview(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(PREVIEW).collect()
}
