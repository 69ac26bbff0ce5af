//! The Messages API as documented at <https://platform.claude.com/docs/en/api/messages> and, for the events,
//! <https://platform.claude.com/docs/en/build-with-claude/streaming>; thinking and its signatures:
//! <https://platform.claude.com/docs/en/build-with-claude/thinking>; errors:
//! <https://platform.claude.com/docs/en/api/errors>; structured output:
//! <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>; caching:
//! <https://platform.claude.com/docs/en/build-with-claude/prompt-caching>.

use daybook_domain::message::Replay;
use daybook_models::{
    Api, CacheTime, ChatEvent, ChatModel, Effort, ModelError, ModelOptions, ProviderModel, Reasoning, SetupError,
};
use serde_json::{Value, json};

use crate::every::Wire;
use crate::fake::{
    Act, EVENTS, Fake, KEY, after_tools, answered, answered_to, ask, calls, failed, request, whole, with_addresses,
    with_media, with_schema,
};

pub const WIRE: Wire = Wire {
    api: Api::Anthropic,
    kind: EVENTS,
    hello: || [begin(), text(0, &["Hel", "lo"]), end("end_turn", 5)].concat(),
    half: || [begin(), vec![start(0, json!({"type": "text", "text": ""})), text_delta(0, "Hel")]].concat(),
    error: |status, message| {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            _ => "overloaded_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).to_string()
    },
    midway: |message| {
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": message}});
        (event(&error), 529)
    },
};

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn begin() -> Vec<String> {
    begin_with(json!({"input_tokens": 11, "output_tokens": 1}))
}

fn begin_with(usage: Value) -> Vec<String> {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "fake-1",
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    vec![event(&json!({"type": "message_start", "message": message})), event(&json!({"type": "ping"}))]
}

fn start(index: u64, block: Value) -> String {
    event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
}

fn delta(index: u64, delta: Value) -> String {
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn stop(index: u64) -> String {
    event(&json!({"type": "content_block_stop", "index": index}))
}

fn text_delta(index: u64, text: &str) -> String {
    delta(index, json!({"type": "text_delta", "text": text}))
}

fn text(index: u64, pieces: &[&str]) -> Vec<String> {
    let mut all = vec![start(index, json!({"type": "text", "text": ""}))];
    all.extend(pieces.iter().map(|piece| text_delta(index, piece)));
    all.push(stop(index));
    all
}

fn thinking(index: u64) -> Vec<String> {
    vec![
        start(index, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(index, json!({"type": "thinking_delta", "thinking": "Let me "})),
        delta(index, json!({"type": "thinking_delta", "thinking": "think."})),
        delta(index, json!({"type": "signature_delta", "signature": "EqQBCgIYAg=="})),
        stop(index),
    ]
}

fn call(index: u64, id: &str, pieces: &[&str]) -> Vec<String> {
    let mut all = vec![start(index, json!({"type": "tool_use", "id": id, "name": "weather", "input": {}}))];
    all.extend(pieces.iter().map(|piece| delta(index, json!({"type": "input_json_delta", "partial_json": piece}))));
    all.push(stop(index));
    all
}

fn end(reason: &str, tokens: u64) -> Vec<String> {
    end_with(json!({"stop_reason": reason, "stop_sequence": null}), json!({"output_tokens": tokens}))
}

fn end_with(delta: Value, usage: Value) -> Vec<String> {
    vec![
        event(&json!({"type": "message_delta", "delta": delta, "usage": usage})),
        event(&json!({"type": "message_stop"})),
    ]
}

/// The scripted answers, by name: for the tests here and for Anthropic's own client.
pub fn scenario(name: &str) -> Option<Act> {
    let parts = match name {
        "text" => (WIRE.hello)(),
        "tools" => [
            begin(),
            text(0, &["Let me look."]),
            call(1, "toolu_a", &["", "{\"ci", "ty\":  1.0", ", \"city\":\"Oslo\" }"]),
            call(2, "toolu_b", &[]),
            end("tool_use", 40),
        ]
        .concat(),
        "bad-arguments" => [begin(), call(0, "toolu_a", &["{\"city\": Osl"]), end("tool_use", 9)].concat(),
        "thinking" => [
            begin(),
            thinking(0),
            vec![start(1, json!({"type": "redacted_thinking", "data": "EmwKAhgB"})), stop(1)],
            text(2, &["So:"]),
            call(3, "toolu_a", &["{}"]),
            end_with(
                json!({"stop_reason": "tool_use", "stop_sequence": null}),
                json!({"output_tokens": 30, "output_tokens_details": {"thinking_tokens": 20}}),
            ),
        ]
        .concat(),
        "cached" => [
            begin_with(json!({"input_tokens": 10, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0},
                "output_tokens": 1})),
            text(0, &["Hello"]),
            end("end_turn", 5),
        ]
        .concat(),
        "length" => [begin(), text(0, &["Hel"]), end("max_tokens", 100)].concat(),
        "refusal" => [
            begin(),
            text(0, &["I can"]),
            end_with(
                json!({"stop_reason": "refusal", "stop_sequence": null,
                    "stop_details": {"type": "refusal", "category": "cyber", "explanation": "not that"}}),
                json!({"output_tokens": 3}),
            ),
        ]
        .concat(),
        "json" => [begin(), text(0, &["{\"title\": \"Up\", ", "\"cast\": []}"]), end("end_turn", 9)].concat(),
        "midway" => [(WIRE.half)(), vec![(WIRE.midway)("overloaded").0]].concat(),
        "overloaded" => {
            return Some(Act::refuses(529, (WIRE.error)(529, "Overloaded"), vec![("retry-after", "0")]));
        }
        _ => return None,
    };
    Some(Act::streams(EVENTS, parts))
}

fn act(name: &str) -> Act {
    scenario(name).unwrap()
}

#[tokio::test]
async fn a_text_comes_in_pieces_and_whole() {
    let fake = Fake::new(vec![act("text")]).await;
    let (events, response) = whole(ask(&fake.options(Api::Anthropic), request()).await);
    let about = json!({"id": "msg_1"});
    let pieces = ["Hel", "lo"].map(|piece| ChatEvent::Text(piece.into()));
    assert_eq!(events, [&[ChatEvent::ProviderData(about.clone())], &pieces[..]].concat());
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hello", "stop"));
    assert_eq!((response.provider_data, response.replay), (Some(about), None));
    let usage = response.metrics.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (11, 5, 16));
    assert!(response.metrics.time_to_first_token.unwrap() <= response.metrics.duration);
}

#[tokio::test]
async fn the_request_is_as_documented() {
    let (_, call) = answered(Api::Anthropic, act("text")).await;
    assert_eq!(call.path, "/v1/messages");
    assert_eq!((call.header("x-api-key"), call.header("anthropic-version")), (Some(KEY), Some("2023-06-01")));
    let expected = json!({
        "model": "fake-1", "max_tokens": 100, "stream": true, "system": "Be brief.", "temperature": 0.5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "tools": [{"name": "weather", "description": "The weather", "input_schema": request().tools[0].parameters}],
    });
    assert_eq!(call.body, expected);
    let plain = daybook_models::ChatRequest { max_tokens: None, ..request() };
    let (_, call) = answered_to(Api::Anthropic, act("text"), |_| {}, plain.clone()).await;
    assert_eq!(call.body["max_tokens"], 8192);
    let (_, call) = answered_to(Api::Anthropic, act("text"), |options| options.max_tokens = Some(7), plain).await;
    assert_eq!(call.body["max_tokens"], 7);
    let info = ProviderModel::new(&ModelOptions::new(Api::Anthropic, "claude-x")).unwrap().info().clone();
    assert_eq!((info.id.as_str(), info.provider.as_str(), info.class.as_str()), ("claude-x", "Anthropic", "Claude"));
}

#[tokio::test]
async fn parallel_tool_calls_keep_order_ids_and_bytes() {
    let (response, _) = answered(Api::Anthropic, act("tools")).await;
    let arguments = "{\"city\":  1.0, \"city\":\"Oslo\" }";
    assert_eq!(calls(&response), [("toolu_a", "weather", arguments), ("toolu_b", "weather", "{}")]);
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Let me look.", "tool_calls"));
}

#[tokio::test]
async fn malformed_arguments_are_kept_as_they_came() {
    let (response, _) = answered(Api::Anthropic, act("bad-arguments")).await;
    assert_eq!(response.tool_calls[0].arguments, "{\"city\": Osl");
    assert!(response.tool_calls[0].parsed().is_err());
}

#[tokio::test]
async fn outcomes_go_back_in_one_turn_in_their_calls_order() {
    let mut request = after_tools(None);
    request.messages.swap(3, 4);
    let (_, call) = answered_to(Api::Anthropic, act("text"), |_| {}, request).await;
    let messages = call.body["messages"].as_array().unwrap();
    let use_of = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "weather", "input": input});
    assert_eq!(
        messages[1],
        json!({"role": "assistant", "content": [
            {"type": "text", "text": "Let me look."},
            use_of("call_a", json!({"city": "Oslo"})),
            use_of("call_b", json!({"invalid_arguments": "{\"city\": Osl"})),
        ]})
    );
    let result = |id: &str, text: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": text}]});
    let mut bad = result("call_b", "not JSON");
    bad["is_error"] = true.into();
    assert_eq!(messages[2], json!({"role": "user", "content": [result("call_a", "rain"), bad]}));
    assert_eq!(messages.len(), 3);
}

#[tokio::test]
async fn a_call_whose_run_was_stopped_has_an_outcome_all_the_same() {
    let mut request = after_tools(None);
    request.messages.truncate(4);
    request.messages.push(crate::fake::message(daybook_domain::message::Role::User, "And now?"));
    let (_, call) = answered_to(Api::Anthropic, act("text"), |_| {}, request).await;
    let content = call.body["messages"][2]["content"].as_array().unwrap();
    let kinds: Vec<_> = content.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tool_result", "tool_result", "text"]);
    assert_eq!((&content[1]["tool_use_id"], &content[1]["is_error"]), (&json!("call_b"), &json!(true)));
}

#[tokio::test]
async fn thoughts_are_told_and_given_back_as_they_were() {
    let on = |options: &mut ModelOptions| {
        options.reasoning = Some(Reasoning { effort: Some(Effort::High), ..Reasoning::default() });
    };
    let (response, call) = answered_to(Api::Anthropic, act("thinking"), on, request()).await;
    assert_eq!(call.body["thinking"], json!({"type": "adaptive", "display": "summarized"}));
    assert_eq!(call.body["output_config"], json!({"effort": "high"}));
    assert_eq!(response.reasoning.as_deref(), Some("Let me think."));
    assert_eq!((response.metrics.usage.output_tokens, response.metrics.usage.reasoning_tokens), (30, 20));
    let replay = response.replay.unwrap();
    let mut next = after_tools(Some(replay.clone()));
    next.messages[2].tool_calls[0].id = "toolu_a".into();
    next.messages[3].answers.as_mut().unwrap().call_id = "toolu_a".into();
    let (_, call) = answered_to(Api::Anthropic, act("text"), on, next.clone()).await;
    let content = call.body["messages"][1]["content"].as_array().unwrap();
    let thought = json!({"type": "thinking", "thinking": "Let me think.", "signature": "EqQBCgIYAg=="});
    assert_eq!(content[..2], [thought, json!({"type": "redacted_thinking", "data": "EmwKAhgB"})]);
    let rest: Vec<_> = content[2..].iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(rest, ["text", "tool_use", "tool_use"]);
    // Another model's thoughts are not this one's.
    for foreign in [
        Replay { model: "other".into(), ..replay.clone() },
        Replay { protocol: "gemini".into(), ..replay.clone() },
        Replay { items: vec![], ..replay },
    ] {
        next.messages[2].replay = Some(foreign);
        let (_, call) = answered_to(Api::Anthropic, act("text"), on, next.clone()).await;
        assert_eq!(call.body["messages"][1]["content"][0]["type"], "text");
    }
}

#[tokio::test]
async fn thinking_is_asked_for_as_configured() {
    let sent = |reasoning: Reasoning| async move {
        let (_, call) = answered_to(
            Api::Anthropic,
            act("text"),
            |options| options.reasoning = Some(reasoning),
            daybook_models::ChatRequest { max_tokens: Some(4000), ..request() },
        )
        .await;
        (call.body["thinking"].clone(), call.body["output_config"].clone())
    };
    let budget = Reasoning { budget_tokens: Some(2000), show: Some(false), effort: None };
    let enabled = json!({"type": "enabled", "budget_tokens": 2000, "display": "omitted"});
    assert_eq!(sent(budget).await, (enabled, Value::Null));
    let off = Reasoning { effort: Some(Effort::None), ..Reasoning::default() };
    assert_eq!(sent(off).await, (json!({"type": "disabled"}), Value::Null));
    let plain = sent(Reasoning::default()).await;
    assert_eq!(plain, (json!({"type": "adaptive", "display": "summarized"}), Value::Null));
}

#[tokio::test]
async fn thinking_that_cannot_be_is_refused() {
    let setup = |reasoning: Reasoning, max_tokens: Option<u64>| {
        let options = ModelOptions { reasoning: Some(reasoning), max_tokens, ..ModelOptions::new(Api::Anthropic, "m") };
        matches!(ProviderModel::new(&options), Err(SetupError::Option { option: "reasoning", .. }))
    };
    let budget = |tokens: u64| Reasoning { budget_tokens: Some(tokens), ..Reasoning::default() };
    assert!(setup(budget(1000), None) && setup(budget(8192), None) && !setup(budget(8192), Some(9000)));
    assert!(setup(Reasoning { effort: Some(Effort::Minimal), ..Reasoning::default() }, None));
    let options = ModelOptions { reasoning: Some(budget(2000)), ..ModelOptions::new(Api::Anthropic, "m") };
    let Err(error) = ProviderModel::new(&options).unwrap().stream(request()).await else { panic!("accepted") };
    assert!(matches!(&error, ModelError::Unsupported(why) if why.contains("2000")), "{error}");
}

#[tokio::test]
async fn a_cache_is_asked_for_and_its_tokens_are_input() {
    let hour = |options: &mut ModelOptions| options.prompt_cache = Some(CacheTime::OneHour);
    let (response, call) = answered_to(Api::Anthropic, act("cached"), hour, request()).await;
    assert_eq!(call.body["cache_control"], json!({"type": "ephemeral", "ttl": "1h"}));
    let usage = response.metrics.usage;
    assert_eq!((usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens), (240, 200, 30));
    assert_eq!((usage.output_tokens, usage.total_tokens), (5, 245));
}

#[tokio::test]
async fn stops_are_told_in_one_language() {
    let (response, _) = answered(Api::Anthropic, act("length")).await;
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hel", "length"));
    let (response, _) = answered(Api::Anthropic, act("refusal")).await;
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("I can", "refusal"));
    let details = json!({"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "not that"}});
    let silent = [begin(), end_with(details, json!({"output_tokens": 0}))].concat();
    let fake = Fake::new(vec![Act::streams(EVENTS, silent)]).await;
    let (_, error) = failed(ask(&fake.options(Api::Anthropic), request()).await);
    assert_eq!((error, fake.calls()), (ModelError::Refused("not that".into()), 1));
}

#[tokio::test]
async fn images_and_files_go_as_blocks_or_are_named() {
    let (_, call) = answered_to(Api::Anthropic, act("text"), |_| {}, with_media()).await;
    let source = |kind: &str, mime: &str, data: &str| json!({"type": kind, "media_type": mime, "data": data});
    let expected = json!([
        {"type": "image", "source": source("base64", "image/jpeg", "QUJD")},
        {"type": "document", "source": source("text", "text/plain", "a,b"), "title": "c.csv"},
        {"type": "document", "source": source("base64", "application/pdf", "JVBERg=="), "title": "e.pdf"},
        {"type": "text", "text": "[attached file f.wav (audio/wav), not readable by this model]"},
        {"type": "text", "text": "Hi"},
    ]);
    assert_eq!(call.body["messages"][0]["content"], expected);
    let (_, call) = answered_to(Api::Anthropic, act("text"), |_| {}, with_addresses()).await;
    let content = &call.body["messages"][0]["content"];
    let address = |path: &str| json!({"type": "url", "url": format!("https://example.com/{path}")});
    assert_eq!(content[0], json!({"type": "image", "source": address("b.png?x=1")}));
    assert_eq!(content[1], json!({"type": "document", "source": address("d.pdf")}));
}

#[tokio::test]
async fn what_tools_return_besides_text_is_in_their_outcomes() {
    let mut request = after_tools(None);
    request.messages[3].media = with_media().messages[1].media[..1].to_vec();
    let (_, call) = answered_to(Api::Anthropic, act("text"), |_| {}, request).await;
    let content = &call.body["messages"][2]["content"][0]["content"];
    assert_eq!((&content[0]["text"], &content[1]["type"]), (&json!("rain"), &json!("image")));
}

#[tokio::test]
async fn an_answer_of_a_given_shape_is_asked_for_with_closed_objects() {
    let (response, call) = answered_to(Api::Anthropic, act("json"), |_| {}, with_schema()).await;
    assert_eq!(response.text, "{\"title\": \"Up\", \"cast\": []}");
    let format = &call.body["output_config"]["format"];
    assert_eq!((&format["type"], &format["schema"]["title"]), (&json!("json_schema"), &json!("Movie")));
    assert_eq!(format["schema"]["additionalProperties"], json!(false));
    assert_eq!(format["schema"]["properties"]["cast"]["items"]["additionalProperties"], json!(false));
}
