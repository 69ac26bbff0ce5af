//! Ollama's chat as documented at <https://docs.ollama.com/api/chat>; streaming and errors in the stream:
//! <https://docs.ollama.com/capabilities/streaming> and <https://docs.ollama.com/api/errors>; calls:
//! <https://docs.ollama.com/capabilities/tool-calling>; thoughts: <https://docs.ollama.com/capabilities/thinking>;
//! structured output: <https://docs.ollama.com/capabilities/structured-outputs>; pictures:
//! <https://docs.ollama.com/capabilities/vision>.

use daybook_models::{
    Api, ChatEvent, ChatModel, Effort, ModelError, ModelOptions, ProviderModel, Reasoning, SetupError,
};
use serde_json::{Value, json};

use crate::every::Wire;
use crate::fake::{
    Act, Fake, KEY, after_tools, answered, answered_to, ask, calls, request, whole, with_addresses, with_media,
    with_schema,
};

const LINES: &str = "application/x-ndjson";

pub const WIRE: Wire = Wire {
    api: Api::Ollama,
    kind: LINES,
    hello: || vec![said("Hel"), said("lo"), end("stop")],
    half: || vec![said("Hel")],
    error: |_, message| json!({"error": message}).to_string(),
    midway: |message| (format!("{}\n", json!({"error": message})), 500),
};

fn line(message: Value) -> String {
    let line = json!({"model": "fake-1", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false});
    format!("{line}\n")
}

fn said(text: &str) -> String {
    line(json!({"role": "assistant", "content": text}))
}

fn thought(text: &str) -> String {
    line(json!({"role": "assistant", "content": "", "thinking": text}))
}

fn called(calls: Value) -> String {
    line(json!({"role": "assistant", "content": "", "tool_calls": calls}))
}

fn end(reason: &str) -> String {
    let line = json!({"model": "fake-1", "created_at": "2026-01-01T00:00:01Z", "done": true, "done_reason": reason,
        "message": {"role": "assistant", "content": ""}, "total_duration": 5, "load_duration": 1,
        "prompt_eval_count": 11, "prompt_eval_duration": 1, "eval_count": 7, "eval_duration": 3});
    format!("{line}\n")
}

/// The scripted answers, by name: for the tests here and for Ollama's own client.
pub fn scenario(name: &str) -> Option<Act> {
    let call = |id: Option<&str>, arguments: Value| {
        let mut call = json!({"function": {"index": 0, "name": "weather", "arguments": arguments}});
        if let Some(id) = id {
            call["id"] = id.into();
        }
        call
    };
    let parts = match name {
        "text" | "cached" => (WIRE.hello)(),
        "tools" => vec![
            said("Let me look."),
            called(json!([call(Some("call_a"), json!({"city": "Oslo", "days": 1.0}))])),
            called(json!([call(None, json!({}))])),
            end("stop"),
        ],
        "thinking" => {
            vec![thought("Let me "), thought("think."), called(json!([call(None, json!({}))])), end("stop")]
        }
        "length" => vec![said("Hel"), end("length")],
        "refusal" => vec![said("I can't do that."), end("stop")],
        "json" => vec![said("{\"title\": \"Up\", "), said("\"cast\": []}"), end("stop")],
        "midway" => [(WIRE.half)(), vec![(WIRE.midway)("overloaded").0]].concat(),
        "overloaded" => return Some(Act::refuses(503, (WIRE.error)(503, "server busy"), vec![])),
        _ => return None,
    };
    Some(Act::streams(LINES, parts))
}

fn act(name: &str) -> Act {
    scenario(name).unwrap()
}

const API: Api = Api::Ollama;

#[tokio::test]
async fn a_text_comes_in_pieces_and_whole() {
    let fake = Fake::new(vec![act("text")]).await;
    let (events, response) = whole(ask(&fake.options(API), request()).await);
    assert_eq!(events, ["Hel", "lo"].map(|piece| ChatEvent::Text(piece.into())));
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hello", "stop"));
    assert_eq!((response.provider_data, response.replay), (None, None));
    let usage = response.metrics.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (11, 7, 18));
}

#[tokio::test]
async fn a_last_line_needs_no_line_end() {
    let mut parts = (WIRE.hello)();
    let last = parts.pop().unwrap();
    parts.push(last.trim_end().to_owned());
    let (response, _) = answered(API, Act::streams(LINES, parts)).await;
    assert_eq!(response.text, "Hello");
}

#[tokio::test]
async fn the_request_is_as_documented() {
    let (_, call) = answered(API, act("text")).await;
    assert_eq!((call.path.as_str(), call.header("authorization")), ("/api/chat", Some(&*format!("Bearer {KEY}"))));
    let expected = json!({
        "model": "fake-1", "stream": true,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "The weather",
            "parameters": request().tools[0].parameters}}],
        "options": {"temperature": 0.5, "num_predict": 100},
    });
    assert_eq!(call.body, expected);
    let local = |options: &mut ModelOptions| {
        options.keep_alive = Some("-1".into());
        options.context_tokens = Some(32_768);
        options.max_tokens = Some(7);
    };
    let plain = daybook_models::ChatRequest { max_tokens: None, temperature: None, ..request() };
    let (_, call) = answered_to(API, act("text"), local, plain).await;
    assert_eq!(call.body["options"], json!({"num_predict": 7, "num_ctx": 32_768}));
    assert_eq!(call.body["keep_alive"], json!(-1));
    let (_, call) = answered_to(API, act("text"), |options| options.keep_alive = Some("5m".into()), request()).await;
    assert_eq!(call.body["keep_alive"], json!("5m"));
    let info = ProviderModel::new(&ModelOptions::new(API, "qwen3")).unwrap().info().clone();
    assert_eq!((info.provider.as_str(), info.class.as_str()), ("Ollama", "Ollama"));
}

#[tokio::test]
async fn parallel_tool_calls_keep_their_order_and_get_ids() {
    let (response, _) = answered(API, act("tools")).await;
    assert_eq!(calls(&response)[0], ("call_a", "weather", "{\"city\":\"Oslo\",\"days\":1.0}"));
    let second = &response.tool_calls[1];
    assert!(second.id.starts_with("call_") && second.id != "call_a" && second.arguments == "{}", "{second:?}");
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Let me look.", "tool_calls"));
}

#[tokio::test]
async fn malformed_arguments_are_kept_as_they_came() {
    let bad = called(json!([{"function": {"name": "weather", "arguments": "{\"city\": Osl"}}]));
    let (response, _) = answered(API, Act::streams(LINES, vec![bad, end("stop")])).await;
    assert_eq!(response.tool_calls[0].arguments, "{\"city\": Osl");
    assert!(response.tool_calls[0].parsed().is_err());
}

#[tokio::test]
async fn calls_thoughts_and_outcomes_go_back_as_messages() {
    let (_, call) = answered_to(API, act("text"), |_| {}, after_tools(None)).await;
    let of = |id: &str, arguments: Value| json!({"id": id, "function": {"name": "weather", "arguments": arguments}});
    let outcome =
        |id: &str, text: &str| json!({"role": "tool", "content": text, "tool_name": "weather", "tool_call_id": id});
    let expected = json!([
        {"role": "assistant", "content": "Let me look.", "thinking": "Hm.", "tool_calls": [
            of("call_a", json!({"city": "Oslo"})), of("call_b", json!({"invalid_arguments": "{\"city\": Osl"}))]},
        outcome("call_a", "rain"),
        outcome("call_b", "not JSON"),
    ]);
    assert_eq!(call.body["messages"].as_array().unwrap()[2..], *expected.as_array().unwrap());
}

#[tokio::test]
async fn thinking_is_asked_for_as_configured_and_told() {
    let cases = [(None, json!(true)), (Some(Effort::None), json!(false)), (Some(Effort::High), json!("high"))];
    for (effort, think) in cases {
        let set = |options: &mut ModelOptions| options.reasoning = Some(Reasoning { effort, ..Reasoning::default() });
        let (response, call) = answered_to(API, act("thinking"), set, request()).await;
        assert_eq!(call.body["think"], think);
        assert_eq!(response.reasoning.as_deref(), Some("Let me think."));
    }
    for wrong in [
        Reasoning { budget_tokens: Some(2000), ..Reasoning::default() },
        Reasoning { show: Some(false), ..Reasoning::default() },
        Reasoning { effort: Some(Effort::XHigh), ..Reasoning::default() },
    ] {
        let options = ModelOptions { reasoning: Some(wrong), ..ModelOptions::new(API, "m") };
        assert!(matches!(ProviderModel::new(&options), Err(SetupError::Option { option: "reasoning", .. })));
    }
}

#[tokio::test]
async fn stops_are_told_in_one_language() {
    let (response, _) = answered(API, act("length")).await;
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hel", "length"));
    // The protocol has no word for a refusal: it is an answer like any other.
    let (response, _) = answered(API, act("refusal")).await;
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("I can't do that.", "stop"));
}

#[tokio::test]
async fn pictures_go_as_bytes_and_documents_as_words() {
    let (_, call) = answered_to(API, act("text"), |_| {}, with_media()).await;
    let words = "Hi\n\n[file c.csv]\na,b\n\n[attached file e.pdf (application/pdf), not readable by this model]\n\n\
                 [attached file f.wav (audio/wav), not readable by this model]";
    assert_eq!(call.body["messages"][1], json!({"role": "user", "content": words, "images": ["QUJD"]}));
}

#[tokio::test]
async fn a_picture_by_its_address_is_refused() {
    let fake = Fake::new(vec![]).await;
    let model = ProviderModel::new(&fake.options(API)).unwrap();
    let Err(error) = model.stream(with_addresses()).await else { panic!("accepted") };
    assert!(matches!(&error, ModelError::Unsupported(why) if why.contains("send the picture itself")), "{error}");
    assert_eq!(fake.calls(), 0);
}

#[tokio::test]
async fn an_answer_of_a_given_shape_is_asked_for() {
    let (response, call) = answered_to(API, act("json"), |_| {}, with_schema()).await;
    assert_eq!(response.text, "{\"title\": \"Up\", \"cast\": []}");
    assert_eq!(call.body["format"], Value::Object(crate::fake::schema()));
}
