//! What agents' and leaders' events say.

use daybook_domain::component::ComponentKind;
use daybook_domain::message::CallMetrics;
use daybook_domain::output::OutputSchema;
use daybook_engine::{FrameBody, RunEnd};
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

use super::super::tool::Told;
use super::super::{metrics, pause, run_shown, tool};
use super::{Event, maybe, tasks, workflow};

impl Event<'_> {
    pub(super) fn body<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        if self.run.component.kind == ComponentKind::Workflow {
            return workflow::body(map, self);
        }
        match self.body {
            FrameBody::RunStarted | FrameBody::ModelRequestStarted => self.model(map),
            FrameBody::Restarted { epoch } => map.serialize_entry("epoch", epoch),
            FrameBody::Content { text, reasoning, provider_data } => {
                let shaped = text.as_deref().and_then(|text| self.shaped(text));
                if let Some((_, object)) = &shaped {
                    map.serialize_entry("content", object)?;
                } else if text.is_some() || reasoning.is_none() {
                    map.serialize_entry("content", text.as_deref().unwrap_or_default())?;
                }
                if self.run.component.kind == ComponentKind::Agent {
                    map.serialize_entry("workflow_agent", &false)?;
                }
                map.serialize_entry("content_type", shaped.as_ref().map_or("str", |(name, _)| name))?;
                map.serialize_entry("reasoning_content", reasoning.as_deref().unwrap_or_default())?;
                maybe(map, "model_provider_data", provider_data.as_ref())
            }
            FrameBody::ModelRequestCompleted { metrics } => self.model_answered(map, metrics),
            FrameBody::ToolCallStarted { tool } => map.serialize_entry("tool", &tool::execution(tool, Told::InEvent)),
            FrameBody::ToolProgress { call_id, tool, text } => {
                map.serialize_entry("content", text)?;
                map.serialize_entry("tool_call_id", call_id)?;
                map.serialize_entry("tool_name", tool)
            }
            FrameBody::ToolCallCompleted { tool } => {
                map.serialize_entry("content", &tool::sentence(tool))?;
                map.serialize_entry("tool", &tool::execution(tool, Told::InEvent))
            }
            FrameBody::ToolCallError { tool, error } => {
                map.serialize_entry("error", error)?;
                map.serialize_entry("tool", &tool::execution(tool, Told::InEvent))
            }
            FrameBody::ContentCompleted | FrameBody::Continued => Ok(()),
            // These are of workflows.
            FrameBody::StepStarted { .. }
            | FrameBody::StepProgress { .. }
            | FrameBody::StepOutput { .. }
            | FrameBody::StepCompleted { .. }
            | FrameBody::StepError { .. }
            | FrameBody::StepPaused(_)
            | FrameBody::StepContinued { .. }
            | FrameBody::BlockStarted { .. }
            | FrameBody::IterationStarted { .. }
            | FrameBody::IterationCompleted { .. }
            | FrameBody::BlockCompleted { .. }
            | FrameBody::FlowPaused { .. } => Ok(()),
            FrameBody::Completed(_) => self.completed(map),
            FrameBody::Paused { requirements, members, tools, content } => {
                let words = || pause::words_in_event(self.run.component.kind, requirements, tools, members);
                let content = if content.is_empty() { words() } else { content.clone() };
                map.serialize_entry("content", &content)?;
                map.serialize_entry("tools", &tool::executions(tools, Told::InEvent))?;
                let asked = pause::in_event(&self.run.run_id, requirements, tools, members);
                map.serialize_entry("requirements", &asked)
            }
            FrameBody::Error { message, error_type } => {
                map.serialize_entry("content", message)?;
                map.serialize_entry("error_type", error_type)
            }
            FrameBody::Task { task, created } => tasks::one(map, task, *created),
            FrameBody::Tasks { tasks } => tasks::all(map, tasks),
            FrameBody::Cancelled { content, reason } => {
                map.serialize_entry("content", content)?;
                map.serialize_entry("reason", reason)
            }
        }
    }

    fn model<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("model", &self.run.model)?;
        map.serialize_entry("model_provider", &self.run.provider)
    }

    fn model_answered<M: SerializeMap>(&self, map: &mut M, metrics: &CallMetrics) -> Result<(), M::Error> {
        self.model(map)?;
        map.serialize_entry("input_tokens", &metrics.usage.input_tokens)?;
        map.serialize_entry("output_tokens", &metrics.usage.output_tokens)?;
        map.serialize_entry("total_tokens", &metrics.usage.total_tokens)?;
        maybe(map, "time_to_first_token", metrics.time_to_first_token)?;
        map.serialize_entry("reasoning_tokens", &metrics.usage.reasoning_tokens)?;
        map.serialize_entry("cache_read_tokens", &metrics.usage.cache_read_tokens)?;
        map.serialize_entry("cache_write_tokens", &metrics.usage.cache_write_tokens)
    }

    fn completed<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let FrameBody::Completed(end) = self.body else { return Ok(()) };
        match self.shaped(end.answer.as_deref().unwrap_or(&end.content)).filter(|_| !end.cancelled) {
            Some((name, object)) => {
                map.serialize_entry("content", &object)?;
                map.serialize_entry("content_type", name)?;
            }
            None => {
                map.serialize_entry("content", &end.content)?;
                map.serialize_entry("content_type", "str")?;
            }
        }
        maybe(map, "reasoning_content", end.reasoning.as_ref())?;
        maybe(map, "model_provider_data", end.provider_data.as_ref())?;
        maybe(map, "metadata", self.metadata(end))?;
        map.serialize_entry("session_state", &end.session_state)?;
        let (model, provider) = (&self.run.model, &self.run.provider);
        let cost = metrics::of_run(&end.usage, end.time_to_first_token, Some(end.duration), model, provider);
        map.serialize_entry("metrics", &cost)?;
        if end.children.is_empty() {
            return Ok(());
        }
        map.serialize_entry("member_responses", &end.children.iter().map(run_shown).collect::<Vec<_>>())
    }

    /// What the caller keeps with the run; of a step's run at least nothing.
    fn metadata(&self, end: &RunEnd) -> Option<Map<String, Value>> {
        let step = self.run.parent.as_ref().is_some_and(|parent| parent.step.is_some());
        end.metadata.clone().or(step.then(Map::new))
    }

    /// The object in `text`, and what its shape is called, where the run's answer must have one.
    fn shaped(&self, text: &str) -> Option<(&str, Value)> {
        Some((self.run.output.as_deref()?, OutputSchema::read(text)?))
    }
}
