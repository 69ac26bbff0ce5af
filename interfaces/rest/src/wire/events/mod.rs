//! Frames as JSON and as SSE. Each frame is encoded once; its watchers share the bytes.

mod body;
mod names;
mod tasks;
mod workflow;

use bytes::Bytes;
use daybook_domain::component::ComponentKind;
use daybook_domain::run::Parent;
use daybook_engine::{Frame, FrameBody, RunMeta};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

pub(crate) use self::names::name;

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

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (run, kind) = (self.run, self.run.component.kind);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("created_at", &self.at)?;
        map.serialize_entry("event", name(kind, self.body))?;
        let (id, named) = match kind {
            ComponentKind::Agent => ("agent_id", "agent_name"),
            ComponentKind::Team => ("team_id", "team_name"),
            ComponentKind::Workflow => ("workflow_id", "workflow_name"),
        };
        map.serialize_entry(id, run.component.id.as_str())?;
        map.serialize_entry(named, &run.name)?;
        map.serialize_entry("run_id", run.run_id.as_str())?;
        maybe(&mut map, "parent_run_id", run.parent.as_ref().filter(|parent| !is_step(parent)).map(|it| &it.run_id))?;
        map.serialize_entry("session_id", run.session_id.as_str())?;
        if kind != ComponentKind::Workflow {
            self.step(&mut map)?;
        }
        let depth = run.parent.as_ref().filter(|_| kind == ComponentKind::Workflow).map_or(0, |parent| parent.depth);
        map.serialize_entry("nested_depth", &depth)?;
        self.body(&mut map)?;
        if let Some(index) = self.index {
            map.serialize_entry("event_index", &index)?;
        }
        map.end()
    }
}

/// Whether the run carries out a step itself: clients know the workflow's run by another member then.
fn is_step(parent: &Parent) -> bool {
    parent.step.as_ref().is_some_and(|step| step.workflow_run_id == parent.run_id)
}

impl Event<'_> {
    /// The step of a workflow that the run belongs to.
    fn step<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let Some(step) = self.run.parent.as_ref().and_then(|parent| parent.step.as_ref()) else { return Ok(()) };
        map.serialize_entry("workflow_id", step.workflow_id.as_str())?;
        map.serialize_entry("workflow_run_id", step.workflow_run_id.as_str())?;
        map.serialize_entry("step_id", &step.step_id)?;
        map.serialize_entry("step_name", &step.step_name)?;
        map.serialize_entry("step_index", &step.step_index)
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
        let (index, name, json) = (frame.index, name(frame.run.component.kind, &frame.body), one_line(json));
        Bytes::from(format!("id: {index}\nevent: {name}\ndata: {json}\n\n"))
    })
}

/// Escapes what JSON takes for letters and some clients for the end of a line.
pub(crate) fn one_line(json: String) -> String {
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
    use daybook_domain::message::CallMetrics;
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

    /// A team's run.
    pub(crate) fn team() -> RunMeta {
        let (run_id, component) =
            (RunId::parse("t1").unwrap(), ComponentRef::team(ComponentId::parse("my-team").unwrap()));
        RunMeta { run_id, component, name: "My Team".to_owned(), ..(*meta()).clone() }
    }

    /// The run of a member, or of what a step runs.
    fn child(step: Option<Value>) -> RunMeta {
        let parent = json!({"run_id": "t1", "root": "t1", "cause": "call_1", "depth": 1, "epoch": 1, "step": step});
        RunMeta { parent: Some(serde_json::from_value(parent).unwrap()), ..(*meta()).clone() }
    }

    fn shown(run: &RunMeta, body: FrameBody) -> Value {
        Event { index: None, at: 1, run, body: &body }.value()
    }

    #[test]
    fn a_teams_own_events_are_named_after_it_and_its_members_after_what_they_are() {
        let content = || FrameBody::Content { text: Some("Hi".to_owned()), reasoning: None, provider_data: None };
        let expected = json!({"created_at": 1, "event": "TeamRunContent", "team_id": "my-team", "team_name": "My Team",
            "run_id": "t1", "session_id": "s1", "nested_depth": 0, "content": "Hi", "content_type": "str",
            "reasoning_content": ""});
        assert_eq!(shown(&team(), content()), expected);
        let expected = json!({"created_at": 1, "event": "RunContent", "agent_id": "my-agent", "agent_name": "My Agent",
            "run_id": "r1", "parent_run_id": "t1", "session_id": "s1", "nested_depth": 0, "content": "Hi",
            "workflow_agent": false, "content_type": "str", "reasoning_content": ""});
        assert_eq!(shown(&child(None), content()), expected);
        assert_eq!(shown(&team(), FrameBody::ContentCompleted)["event"], "TeamRunContentCompleted");
    }

    #[test]
    fn the_events_of_a_step_say_which_step_it_is() {
        let step = |run: &str| json!({"workflow_id": "w", "workflow_run_id": run, "step_id": "i", "step_name": "n", "step_index": [2, 1]});
        let of_step = shown(&child(Some(step("t1"))), FrameBody::ContentCompleted);
        let expected = json!({"created_at": 1, "event": "RunContentCompleted", "agent_id": "my-agent",
            "agent_name": "My Agent", "run_id": "r1", "session_id": "s1", "workflow_id": "w", "workflow_run_id": "t1",
            "step_id": "i", "step_name": "n", "step_index": [2, 1], "nested_depth": 0});
        assert_eq!(of_step, expected);
        // A member of the team that carries the step out.
        let of_member = shown(&child(Some(step("w1"))), FrameBody::ContentCompleted);
        assert_eq!((&of_member["parent_run_id"], &of_member["workflow_run_id"]), (&json!("t1"), &json!("w1")));
    }

    #[test]
    fn what_members_did_is_at_the_end_of_their_teams_run() {
        let state = json!({"status": "COMPLETED", "accepted": {"run_id": "m1", "session_id": "s1",
            "component": {"kind": "agent", "id": "writer"}, "config_hash": "h", "mode": "plain", "admission": "active",
            "message": ["something"], "at_ms": 1}});
        let model = json!({"key": "m", "id": "fake-gpt", "provider": "OpenAI", "class": "OpenAIChat"});
        let config = json!({"id": "writer", "name": "Writer", "model": model});
        let end = json!({"t": "completed", "content": "Done", "usage": Usage::default(), "duration": 1.5,
            "children": [{"state": state, "config": config}]});
        let end = shown(&team(), serde_json::from_value(end).unwrap());
        let member = &end["member_responses"][0];
        assert_eq!((&member["run_id"], &member["agent_name"]), (&json!("m1"), &json!("Writer")));
        assert!(own(completed(Usage::default())).get("member_responses").is_none());
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
        assert_eq!(name(ComponentKind::Agent, &body), "CustomEvent");
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
