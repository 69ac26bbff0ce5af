//! `streamGenerateContent` as documented at <https://ai.google.dev/api/generate-content>; calls:
//! <https://ai.google.dev/gemini-api/docs/function-calling>; thoughts and their signatures:
//! <https://ai.google.dev/gemini-api/docs/thinking> and <https://ai.google.dev/gemini-api/docs/thought-signatures>;
//! files: <https://ai.google.dev/gemini-api/docs/file-input-methods>; structured output:
//! <https://ai.google.dev/gemini-api/docs/structured-output>; errors:
//! <https://ai.google.dev/gemini-api/docs/troubleshooting>.

use std::time::Duration;

use daybook_models::{
    Api, ChatEvent, ChatModel, Effort, ModelError, ModelOptions, ProviderModel, Reasoning, RetryPolicy, SetupError,
};
use serde_json::{Value, json};

use crate::every::Wire;
use crate::fake::{
    Act, EVENTS, Fake, KEY, after_tools, answered, answered_to, ask, failed, request, whole, with_addresses,
    with_media, with_schema,
};

pub const WIRE: Wire = Wire {
    api: Api::Gemini,
    kind: EVENTS,
    hello: || vec![part(json!({"text": "Hel"})), part(json!({"text": "lo"})), end("STOP")],
    half: || vec![part(json!({"text": "Hel"}))],
    error: |status, message| {
        let name = match status {
            401 => "UNAUTHENTICATED",
            429 => "RESOURCE_EXHAUSTED",
            _ => "UNAVAILABLE",
        };
        json!({"error": {"code": status, "message": message, "status": name}}).to_string()
    },
    midway: |message| (event(&json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}})), 503),
};

fn event(data: &Value) -> String {
    // As Google's servers write line ends.
    format!("data: {data}\r\n\r\n")
}

fn chunk(candidate: Value) -> String {
    let mut candidate = candidate;
    candidate["index"] = 0.into();
    event(&json!({"candidates": [candidate], "modelVersion": "fake-1", "responseId": "r1",
        "usageMetadata": {"promptTokenCount": 11, "totalTokenCount": 11}}))
}

fn parts(parts: Value) -> String {
    chunk(json!({"content": {"role": "model", "parts": parts}}))
}

fn part(part: Value) -> String {
    parts(json!([part]))
}

fn usage() -> Value {
    json!({"promptTokenCount": 11, "candidatesTokenCount": 4, "thoughtsTokenCount": 3, "totalTokenCount": 18,
        "cachedContentTokenCount": 5, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 11}]})
}

fn end(reason: &str) -> String {
    let candidate = json!({"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": reason, "index": 0});
    event(&json!({"candidates": [candidate], "modelVersion": "fake-1", "responseId": "r1", "usageMetadata": usage()}))
}

/// The scripted answers, by name: for the tests here and for Google's own client.
pub fn scenario(name: &str) -> Option<Act> {
    let call = |args: Value| json!({"functionCall": {"name": "weather", "args": args}});
    let parts = match name {
        "text" => (WIRE.hello)(),
        "tools" => vec![
            part(json!({"text": "Let me look."})),
            parts(json!([call(json!({"city": "Oslo", "days": 1.0})), call(json!({}))])),
            end("STOP"),
        ],
        "bad-arguments" => {
            let message = "Malformed function call: print(weather(city=Osl";
            vec![chunk(json!({"content": {}, "finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": message}))]
        }
        "thinking" => {
            let mut first = call(json!({"city": "Oslo"}));
            first["functionCall"]["id"] = "abc".into();
            first["thoughtSignature"] = "EjQKMgEMOdbH".into();
            vec![
                part(json!({"text": "Let me ", "thought": true})),
                part(json!({"text": "think.", "thought": true})),
                part(json!({"text": "So:"})),
                part(json!({"text": "", "thoughtSignature": "EjQKTEXT"})),
                parts(json!([first, call(json!({"city": "Bergen"}))])),
                end("STOP"),
            ]
        }
        "cached" => (WIRE.hello)(),
        "length" => vec![part(json!({"text": "Hel"})), end("MAX_TOKENS")],
        "refusal" => vec![part(json!({"text": "Hel"})), end("SAFETY")],
        "blocked" => vec![event(&json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "responseId": "r1",
            "usageMetadata": {"promptTokenCount": 11, "totalTokenCount": 11}}))],
        "json" => {
            vec![part(json!({"text": "{\"title\": \"Up\", "})), part(json!({"text": "\"cast\": []}"})), end("STOP")]
        }
        "midway" => [(WIRE.half)(), vec![(WIRE.midway)("overloaded").0]].concat(),
        "overloaded" => return Some(Act::refuses(503, (WIRE.error)(503, "Overloaded"), vec![])),
        _ => return None,
    };
    Some(Act::streams(EVENTS, parts))
}

fn act(name: &str) -> Act {
    scenario(name).unwrap()
}

const API: Api = Api::Gemini;

#[tokio::test]
async fn a_text_comes_in_pieces_and_whole() {
    let fake = Fake::new(vec![act("text")]).await;
    let (events, response) = whole(ask(&fake.options(API), request()).await);
    let about = json!({"id": "r1"});
    let pieces = ["Hel", "lo"].map(|piece| ChatEvent::Text(piece.into()));
    assert_eq!(events, [&[ChatEvent::ProviderData(about.clone())], &pieces[..]].concat());
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hello", "stop"));
    assert_eq!((response.provider_data, response.replay), (Some(about), None));
}

#[tokio::test]
async fn the_request_is_as_documented() {
    let (_, call) = answered(API, act("text")).await;
    assert_eq!(call.path, "/models/fake-1:streamGenerateContent?alt=sse");
    assert_eq!(call.header("x-goog-api-key"), Some(KEY));
    let declaration = json!({"name": "weather", "description": "The weather",
        "parametersJsonSchema": request().tools[0].parameters});
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "tools": [{"functionDeclarations": [declaration]}],
        "generationConfig": {"temperature": 0.5, "maxOutputTokens": 100},
    });
    assert_eq!(call.body, expected);
    let named = |options: &mut ModelOptions| options.model = "models/gemini-x".into();
    let (_, call) = answered_to(API, act("text"), named, request()).await;
    assert_eq!(call.path, "/models/gemini-x:streamGenerateContent?alt=sse");
    let strange = ModelOptions::new(API, "../x?y");
    assert!(matches!(ProviderModel::new(&strange), Err(SetupError::Option { option: "id", .. })));
    let info = ProviderModel::new(&ModelOptions::new(API, "gemini-x")).unwrap().info().clone();
    assert_eq!((info.provider.as_str(), info.class.as_str()), ("Google", "Gemini"));
}

#[tokio::test]
async fn parallel_tool_calls_keep_their_order_and_get_ids() {
    let (response, _) = answered(API, act("tools")).await;
    let got: Vec<_> = response.tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
    assert_eq!(got, [("weather", "{\"city\":\"Oslo\",\"days\":1.0}"), ("weather", "{}")]);
    let ids: Vec<_> = response.tool_calls.iter().map(|call| call.id.as_str()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("call_")), "{ids:?}");
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Let me look.", "tool_calls"));
    // Nothing of it must be given back: neither ids nor signatures came.
    assert_eq!(response.replay, None);
}

#[tokio::test]
async fn a_call_the_provider_could_not_read_is_an_error_with_its_words() {
    let fake = Fake::new(vec![act("bad-arguments")]).await;
    let (_, error) = failed(ask(&fake.options(API), request()).await);
    assert!(matches!(&error, ModelError::Malformed(why) if why.contains("weather(city=Osl")), "{error:?}");
    let args = json!([{"functionCall": {"name": "weather", "args": "{\"city\": Osl"}}]);
    let (response, _) = answered(API, Act::streams(EVENTS, vec![parts(args), end("STOP")])).await;
    assert!(response.tool_calls[0].parsed().is_err(), "kept as it came");
}

#[tokio::test]
async fn calls_and_outcomes_go_back_as_parts() {
    let mut request = after_tools(None);
    request.messages[3].media = with_media().messages[1].media[..1].to_vec();
    let (_, call) = answered_to(API, act("text"), |_| {}, request).await;
    let of = |args: Value| json!({"functionCall": {"name": "weather", "args": args}});
    let asked = json!([{"text": "Let me look."}, of(json!({"city": "Oslo"})),
        of(json!({"invalid_arguments": "{\"city\": Osl"}))]);
    assert_eq!(call.body["contents"][1], json!({"role": "model", "parts": asked}));
    let outcome = |response: Value| json!({"functionResponse": {"name": "weather", "response": response}});
    let outcomes = json!([outcome(json!({"output": "rain"})), outcome(json!({"error": "not JSON"})),
        {"text": "[returned by the tool weather]"}, {"inlineData": {"mimeType": "image/jpeg", "data": "QUJD"}}]);
    assert_eq!(call.body["contents"][2], json!({"role": "user", "parts": outcomes}));
}

#[tokio::test]
async fn signatures_are_given_back_with_the_parts_they_came_with() {
    let on = |options: &mut ModelOptions| {
        options.reasoning = Some(Reasoning { effort: Some(Effort::Low), ..Reasoning::default() });
    };
    let (response, call) = answered_to(API, act("thinking"), on, request()).await;
    let thinking = json!({"thinkingLevel": "low", "includeThoughts": true});
    assert_eq!(call.body["generationConfig"]["thinkingConfig"], thinking);
    assert_eq!(response.reasoning.as_deref(), Some("Let me think."));
    assert_eq!((response.text.as_str(), response.metrics.usage.reasoning_tokens), ("So:", 3));
    let mut next = after_tools(response.replay);
    for (call, outcome) in [(0, 3), (1, 4)] {
        let id = response.tool_calls[call].id.clone();
        next.messages[2].tool_calls[call].id.clone_from(&id);
        next.messages[outcome].answers.as_mut().unwrap().call_id = id;
    }
    let (_, call) = answered_to(API, act("text"), on, next.clone()).await;
    let parts = call.body["contents"][1]["parts"].as_array().unwrap();
    assert_eq!(parts[1], json!({"text": "", "thoughtSignature": "EjQKTEXT"}));
    assert_eq!(
        (&parts[2]["functionCall"]["id"], &parts[2]["thoughtSignature"]),
        (&json!("abc"), &json!("EjQKMgEMOdbH"))
    );
    assert!(parts[3].get("thoughtSignature").is_none() && parts[3]["functionCall"].get("id").is_none());
    let outcomes = &call.body["contents"][2]["parts"];
    assert_eq!(outcomes[0]["functionResponse"]["id"], "abc");
    assert!(outcomes[1]["functionResponse"].get("id").is_none());
    next.messages[2].replay.as_mut().unwrap().model = "other".into();
    let (_, call) = answered_to(API, act("text"), on, next).await;
    assert!(!call.body.to_string().contains("EjQK"), "another model's signatures are not this one's");
}

#[tokio::test]
async fn thinking_is_asked_for_as_configured() {
    let cases = [
        (Reasoning { effort: Some(Effort::None), ..Reasoning::default() }, json!({"thinkingBudget": 0})),
        (Reasoning { budget_tokens: Some(512), show: Some(false), effort: None }, json!({"thinkingBudget": 512})),
        (Reasoning::default(), json!({"includeThoughts": true})),
    ];
    for (reasoning, expected) in cases {
        let set = |options: &mut ModelOptions| options.reasoning = Some(reasoning);
        let (_, call) = answered_to(API, act("text"), set, request()).await;
        assert_eq!(call.body["generationConfig"]["thinkingConfig"], expected);
    }
    let both = Reasoning { effort: Some(Effort::Low), budget_tokens: Some(512), show: None };
    for wrong in [both, Reasoning { effort: Some(Effort::Max), ..Reasoning::default() }] {
        let options = ModelOptions { reasoning: Some(wrong), ..ModelOptions::new(API, "m") };
        assert!(matches!(ProviderModel::new(&options), Err(SetupError::Option { option: "reasoning", .. })));
    }
}

#[tokio::test]
async fn tokens_are_counted_with_thoughts_among_what_was_written() {
    let (response, _) = answered(API, act("cached")).await;
    let usage = response.metrics.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (11, 7, 18));
    assert_eq!((usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens), (5, 0, 3));
}

#[tokio::test]
async fn stops_are_told_in_one_language() {
    for (name, word) in [("length", "length"), ("refusal", "content_filter")] {
        let (response, _) = answered(API, act(name)).await;
        assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hel", word));
    }
    for (refusal, why) in
        [(act("blocked"), "PROHIBITED_CONTENT"), (Act::streams(EVENTS, vec![end("SAFETY")]), "SAFETY")]
    {
        let fake = Fake::new(vec![refusal]).await;
        let (_, error) = failed(ask(&fake.options(API), request()).await);
        assert_eq!((error, fake.calls()), (ModelError::Refused(why.into()), 1));
    }
}

#[tokio::test]
async fn a_wait_asked_for_in_the_body_is_waited() {
    let info = json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13s"});
    let body = json!({"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [info]}});
    let fake = Fake::new(vec![Act::refuses(429, body.to_string(), vec![])]).await;
    let options = ModelOptions { retry: RetryPolicy::NEVER, ..fake.options(API) };
    let (_, error) = failed(ask(&options, request()).await);
    let retry_after = Some(Duration::from_secs(13));
    assert_eq!(error, ModelError::Status { status: 429, message: "quota".into(), retry_after });
}

#[tokio::test]
async fn images_and_files_go_as_parts() {
    let (_, call) = answered_to(API, act("text"), |_| {}, with_media()).await;
    let inline = |mime: &str, data: &str| json!({"inlineData": {"mimeType": mime, "data": data}});
    let expected = json!([inline("image/jpeg", "QUJD"), {"text": "[file c.csv]\na,b"},
        inline("application/pdf", "JVBERg=="), inline("audio/wav", "UklGRg=="), {"text": "Hi"}]);
    assert_eq!(call.body["contents"][0]["parts"], expected);
    let (_, call) = answered_to(API, act("text"), |_| {}, with_addresses()).await;
    let parts = &call.body["contents"][0]["parts"];
    let file = |mime: &str, path: &str| json!({"fileData": {"mimeType": mime, "fileUri": format!("https://example.com/{path}")}});
    assert_eq!((&parts[0], &parts[1]), (&file("image/png", "b.png?x=1"), &file("application/pdf", "d.pdf")));
}

#[tokio::test]
async fn an_answer_of_a_given_shape_is_asked_for() {
    let (response, call) = answered_to(API, act("json"), |_| {}, with_schema()).await;
    assert_eq!(response.text, "{\"title\": \"Up\", \"cast\": []}");
    let config = &call.body["generationConfig"];
    assert_eq!(config["responseMimeType"], "application/json");
    assert_eq!(config["responseJsonSchema"], Value::Object(crate::fake::schema()));
}
