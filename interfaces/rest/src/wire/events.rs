//! Frames as JSON and as SSE. Each frame is encoded once; its watchers share the bytes.

use bytes::Bytes;
use daybook_domain::message::CallMetrics;
use daybook_domain::output::OutputSchema;
use daybook_engine::{Frame, FrameBody, RunMeta};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::tool::Told;
use super::{metrics, tool};

/// A frame, to be written as a JSON object.
pub(crate) struct Event<'a> {
    /// Its place in the run, where known.
    pub index: Option<u64>,
    /// Unix seconds.
    pub at: i64,
    /// The run.
    pub run: &'a RunMeta,
    /// What it says.
    pub body: &'a FrameBody,
}

impl<'a> From<&'a Frame> for Event<'a> {
    fn from(frame: &'a Frame) -> Self {
        Self { index: Some(frame.index), at: frame.at, run: &frame.run, body: &frame.body }
    }
}

/// The event's name.
pub(crate) fn name(body: &FrameBody) -> &'static str {
    match body {
        FrameBody::RunStarted => "RunStarted",
        FrameBody::Restarted { .. } => "RunRestarted",
        FrameBody::ModelRequestStarted => "ModelRequestStarted",
        FrameBody::Content { .. } => "RunContent",
        FrameBody::ModelRequestCompleted { .. } => "ModelRequestCompleted",
        FrameBody::ToolCallStarted { .. } => "ToolCallStarted",
        FrameBody::ToolProgress { .. } => "CustomEvent",
        FrameBody::ToolCallCompleted { .. } => "ToolCallCompleted",
        FrameBody::ToolCallError { .. } => "ToolCallError",
        FrameBody::ContentCompleted => "RunContentCompleted",
        FrameBody::Completed(_) => "RunCompleted",
        FrameBody::Paused { .. } => "RunPaused",
        FrameBody::Continued => "RunContinued",
        FrameBody::Error { .. } => "RunError",
        FrameBody::Cancelled { .. } => "RunCancelled",
        FrameBody::Task { created: true, .. } => "TeamTaskCreated",
        FrameBody::Task { .. } => "TeamTaskUpdated",
        FrameBody::Tasks { .. } => "TeamTaskStateUpdated",
    }
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("created_at", &self.at)?;
        map.serialize_entry("event", name(self.body))?;
        map.serialize_entry("agent_id", self.run.component.id.as_str())?;
        map.serialize_entry("agent_name", &self.run.name)?;
        map.serialize_entry("run_id", self.run.run_id.as_str())?;
        map.serialize_entry("session_id", self.run.session_id.as_str())?;
        map.serialize_entry("nested_depth", &0)?;
        self.body(&mut map)?;
        if let Some(index) = self.index {
            map.serialize_entry("event_index", &index)?;
        }
        map.end()
    }
}

impl Event<'_> {
    fn body<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
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
                map.serialize_entry("workflow_agent", &false)?;
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
            FrameBody::Completed(_) => self.completed(map),
            FrameBody::Paused { requirements, tools, content, .. } => {
                let words =
                    if content.is_empty() { tool::paused_words(requirements, requirements.iter()) } else { content };
                map.serialize_entry("content", words)?;
                map.serialize_entry("tools", &tool::executions(tools, Told::InEvent))?;
                let asked = tool::requirements(&self.run.run_id, requirements, tools, Told::InEvent);
                map.serialize_entry("requirements", &asked)
            }
            FrameBody::Error { message, error_type } => {
                map.serialize_entry("content", message)?;
                map.serialize_entry("error_type", error_type)
            }
            FrameBody::Task { task, .. } => map.serialize_entry("task_id", &task.id),
            FrameBody::Tasks { .. } => Ok(()),
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
        maybe(map, "metadata", end.metadata.as_ref())?;
        map.serialize_entry("session_state", &end.session_state)?;
        let (model, provider) = (&self.run.model, &self.run.provider);
        let cost = metrics::of_run(&end.usage, end.time_to_first_token, Some(end.duration), model, provider);
        map.serialize_entry("metrics", &cost)
    }

    /// The object in `text`, and what its shape is called, where the run's answer must have one.
    fn shaped(&self, text: &str) -> Option<(&str, Value)> {
        Some((self.run.output.as_deref()?, OutputSchema::read(text)?))
    }

    /// The event as a value.
    pub fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn maybe<M: SerializeMap, T: Serialize>(map: &mut M, name: &'static str, value: Option<T>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

/// The frame as SSE: `id`, `event` and one line of `data`.
pub(crate) fn sse(frame: &Frame) -> Bytes {
    frame.sse(|frame| {
        let json = serde_json::to_string(&Event::from(frame)).unwrap_or_default();
        let (index, name, json) = (frame.index, name(&frame.body), one_line(json));
        Bytes::from(format!("id: {index}\nevent: {name}\ndata: {json}\n\n"))
    })
}

/// Escapes what JSON takes for letters and some clients for the end of a line.
fn one_line(json: String) -> String {
    const BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];
    if !json.contains(BREAKS) {
        return json;
    }
    json.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use daybook_domain::component::ComponentRef;
    use daybook_domain::ids::{ComponentId, RunId, SessionId};
    use daybook_domain::run::ToolOutcome;
    use daybook_domain::usage::Usage;
    use serde_json::json;

    use super::super::tool::tests::record;
    use super::*;

    /// The run that events are of.
    pub(crate) fn meta() -> Arc<RunMeta> {
        Arc::new(RunMeta {
            run_id: RunId::parse("r1").unwrap(),
            session_id: SessionId::parse("s1").unwrap(),
            user_id: None,
            component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
            name: "My Agent".to_owned(),
            model: "fake-gpt".to_owned(),
            provider: "OpenAI".to_owned(),
            output: None,
            parent: None,
        })
    }

    fn frame(index: u64, body: FrameBody) -> Frame {
        Frame::new(index, 1_795_442_230, meta(), body)
    }

    fn text(body: FrameBody) -> String {
        String::from_utf8(sse(&frame(3, body)).to_vec()).unwrap()
    }

    /// The members after the common ones, without the index.
    fn own(body: FrameBody) -> Value {
        let mut value = Event::from(&frame(3, body)).value();
        let map = value.as_object_mut().unwrap();
        for common in
            ["created_at", "event", "agent_id", "agent_name", "run_id", "session_id", "nested_depth", "event_index"]
        {
            assert!(map.shift_remove(common).is_some(), "{common}");
        }
        value
    }

    fn piece(text: &str) -> FrameBody {
        FrameBody::Content { text: Some(text.to_owned()), reasoning: None, provider_data: Some(json!({"id": "c"})) }
    }

    #[test]
    fn a_frame_is_byte_for_byte_as_recorded() {
        let expected = "id: 3\nevent: RunContent\ndata: {\"created_at\":1795442230,\"event\":\"RunContent\",\
            \"agent_id\":\"my-agent\",\"agent_name\":\"My Agent\",\"run_id\":\"r1\",\"session_id\":\"s1\",\
            \"nested_depth\":0,\"content\":\" tok1\",\"workflow_agent\":false,\"content_type\":\"str\",\
            \"reasoning_content\":\"\",\"model_provider_data\":{\"id\":\"c\"},\"event_index\":3}\n\n";
        assert_eq!(text(piece(" tok1")), expected);
    }

    #[test]
    fn a_frame_is_one_line_whatever_was_said() {
        let said = text(piece("a\nb\rc\u{85}d\u{2028}e\u{2029}f\u{0}"));
        assert_eq!(said.trim_end().lines().count(), 3);
        assert!(!said.contains(['\u{85}', '\u{2028}', '\u{2029}', '\r', '\u{0}']));
        let json: Value = serde_json::from_str(said.lines().nth(2).unwrap().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(json["content"], "a\nb\rc\u{85}d\u{2028}e\u{2029}f\u{0}");
    }

    #[test]
    fn reasoning_has_no_content_and_a_first_piece_an_empty_one() {
        let thought = FrameBody::Content { text: None, reasoning: Some("hm ".to_owned()), provider_data: None };
        let expected = json!({"workflow_agent": false, "content_type": "str", "reasoning_content": "hm "});
        assert_eq!(own(thought), expected);
        let first = FrameBody::Content { text: None, reasoning: None, provider_data: None };
        assert_eq!(own(first)["content"], "");
    }

    #[test]
    fn a_failing_tool_is_told_twice() {
        let tool = Box::new(record(Some(ToolOutcome::Failed("broken: x".to_owned()))));
        let completed = own(FrameBody::ToolCallCompleted { tool: tool.clone() });
        assert_eq!(completed["content"], "get_weather(city=Paris) completed in 0.0175s. ");
        assert_eq!(completed["tool"]["tool_call_error"], true);
        let error = own(FrameBody::ToolCallError { tool, error: "broken: x".to_owned() });
        assert_eq!((&error["error"], &error["tool"]["result"]), (&json!("broken: x"), &json!("broken: x")));
    }

    #[test]
    fn how_far_a_tool_is_is_a_custom_event() {
        let body = FrameBody::ToolProgress {
            call_id: "call_1".to_owned(),
            tool: "import".to_owned(),
            text: "3 of 7".to_owned(),
        };
        assert_eq!(name(&body), "CustomEvent");
        assert_eq!(own(body), json!({"content": "3 of 7", "tool_call_id": "call_1", "tool_name": "import"}));
    }

    /// The last frame of a run, from what the frames' table would hold.
    fn completed(usage: Usage) -> FrameBody {
        let end = json!({"t": "completed", "content": "tok0", "provider_data": {"id": "c"}, "usage": usage,
            "time_to_first_token": 0.5, "duration": 1.5});
        serde_json::from_value(end).unwrap()
    }

    #[test]
    fn the_last_frame_tells_all() {
        let usage = Usage { input_tokens: 6, output_tokens: 4, total_tokens: 10, ..Usage::default() };
        let tokens = json!({"input_tokens": 6, "output_tokens": 4, "total_tokens": 10,
            "id": "fake-gpt", "provider": "OpenAI Chat"});
        let expected = json!({"content": "tok0", "content_type": "str", "model_provider_data": {"id": "c"},
            "session_state": {}, "metrics": {"input_tokens": 6, "output_tokens": 4, "total_tokens": 10,
            "time_to_first_token": 0.5, "duration": 1.5, "details": {"model": [tokens]}}});
        assert_eq!(own(completed(usage)), expected);
        let metrics = own(completed(Usage::default()))["metrics"].clone();
        // As recorded of a model that was cut off before it told its tokens.
        let details = json!({"model": [{"id": "fake-gpt", "provider": "OpenAI Chat"}]});
        assert_eq!(metrics, json!({"time_to_first_token": 0.5, "duration": 1.5, "details": details}));
    }

    #[test]
    fn an_answer_of_a_given_shape_is_an_object() {
        let run = Arc::new(RunMeta { output: Some("Movie".to_owned()), ..(*meta()).clone() });
        let shown = |body: FrameBody| Event { index: None, at: 1, run: &run, body: &body }.value();
        let piece =
            |text: &str| shown(FrameBody::Content { text: Some(text.into()), reasoning: None, provider_data: None });
        let object = piece("{\"title\": \"Up\"}");
        assert_eq!((&object["content"], &object["content_type"]), (&json!({"title": "Up"}), &json!("Movie")));
        let words = piece("I will look.");
        assert_eq!((&words["content"], &words["content_type"]), (&json!("I will look."), &json!("str")));
        let end = json!({"t": "completed", "content": "I will look.{\"title\": \"Up\"}", "answer": "{\"title\": \"Up\"}",
            "usage": Usage::default(), "duration": 1.5});
        let end = shown(serde_json::from_value(end).unwrap());
        assert_eq!((&end["content"], &end["content_type"]), (&json!({"title": "Up"}), &json!("Movie")));
    }

    #[test]
    fn a_model_call_tells_its_tokens_with_zeros() {
        let metrics = CallMetrics { usage: Usage::default(), time_to_first_token: None, duration: 1.0 };
        let expected = json!({"model": "fake-gpt", "model_provider": "OpenAI", "input_tokens": 0, "output_tokens": 0,
            "total_tokens": 0, "reasoning_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0});
        assert_eq!(own(FrameBody::ModelRequestCompleted { metrics }), expected);
    }
}
