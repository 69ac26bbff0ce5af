//! What a server that speaks chat completions is sent.

use daybook_domain::message::Role;
use daybook_models::{ChatModel, ChatRequest, Effort, ModelOptions, ProviderModel, Reasoning};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::fake::{after_tools, message, request, whole, with_media, with_schema};
use crate::openai::{self, Fake};

/// What the server is sent for `request` with options changed by `change`.
async fn sent(change: impl FnOnce(&mut ModelOptions), request: ChatRequest) -> Value {
    let fake = Fake::new(vec![openai::hello()]).await;
    let mut options = fake.options();
    change(&mut options);
    whole(ProviderModel::new(&options).unwrap().stream(request).await.unwrap().collect().await);
    fake.0.take_call().body
}

#[tokio::test]
async fn an_answer_of_a_given_shape_is_asked_for_strictly_where_it_can_be() {
    let body = sent(|_| {}, with_schema()).await;
    let format = &body["response_format"];
    assert_eq!((&format["type"], &format["json_schema"]["name"]), (&json!("json_schema"), &json!("Movie")));
    assert_eq!(format["json_schema"]["strict"], json!(true));
    assert_eq!(format["json_schema"]["schema"]["additionalProperties"], json!(false));
    let mut open = with_schema();
    open.output_schema.as_mut().unwrap().schema.shift_remove("required");
    let body = sent(|_| {}, open).await;
    assert_eq!(body["response_format"]["json_schema"]["strict"], json!(false), "not every property is required");
    assert!(body.get("reasoning_effort").is_none() && body.get("prompt_cache_key").is_none());
}

#[tokio::test]
async fn options_reach_the_request() {
    let change = |options: &mut ModelOptions| {
        options.reasoning = Some(Reasoning { effort: Some(Effort::Low), ..Reasoning::default() });
        options.prompt_cache_key = Some("team-red".into());
        options.max_tokens = Some(77);
    };
    let body = sent(change, ChatRequest { max_tokens: None, ..request() }).await;
    assert_eq!((&body["reasoning_effort"], &body["prompt_cache_key"]), (&json!("low"), &json!("team-red")));
    assert_eq!(body["max_tokens"], 77);
    assert_eq!(sent(change, request()).await["max_tokens"], 100, "what the request says counts");
}

#[tokio::test]
async fn the_body_is_what_was_asked_and_no_more() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}});
    let tools = json!([{"type": "function", "function": {"name": "weather", "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    let body = json!({
        "model": "fake-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [
                call("call_a", "{\"city\": \"Oslo\"}"), call("call_b", r#"{"invalid_arguments":"{\"city\": Osl"}"#)]},
            {"role": "tool", "tool_call_id": "call_a", "content": "rain"},
            {"role": "tool", "tool_call_id": "call_b", "content": "not JSON"},
        ],
        "tools": tools,
        "temperature": 0.5,
        "max_tokens": 100,
        "stream_options": {"include_usage": true},
        "stream": true,
    });
    assert_eq!(sent(|_| {}, after_tools(None)).await, body);
    let plain = ChatRequest { messages: vec![message(Role::User, "Hi")], ..ChatRequest::default() };
    let body = json!({"model": "fake-1", "messages": [{"role": "user", "content": "Hi"}],
        "stream_options": {"include_usage": true}, "stream": true});
    assert_eq!(sent(|_| {}, plain).await, body);
    let content = sent(|_| {}, with_media()).await["messages"][1]["content"].take();
    let kinds: Vec<&str> = content.as_array().unwrap().iter().map(|part| part["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "image_url", "text", "file", "input_audio"]);
}

#[tokio::test]
async fn models_that_think_are_told_their_limit_in_their_own_word() {
    let cases = [
        ("gpt-5", true),
        ("gpt-5-mini-2025-08-07", true),
        ("gpt-5.1-codex", true),
        ("gpt-6-sol", true),
        ("o1", true),
        ("o4-mini", true),
        ("gpt-daybreak-red-latest", true),
        ("gpt-4.1", false),
        ("gpt-4o", false),
        ("gpt-5.3-chat-latest", false),
        ("gpt-50", false),
        ("openai/gpt-5", false),
        ("omni", false),
        ("o", false),
        ("llama-5", false),
    ];
    for (model, thinks) in cases {
        let body = sent(|options| options.model = model.to_owned(), request()).await;
        let words = ["max_tokens", "max_completion_tokens"];
        let told = words.map(|word| body.get(word).and_then(Value::as_u64));
        assert_eq!(told, if thinks { [None, Some(100)] } else { [Some(100), None] }, "{model}");
    }
}
