//! The Responses API as documented at <https://platform.openai.com/docs/api-reference/responses/create> and, for the
//! events, <https://platform.openai.com/docs/api-reference/responses-streaming>; encrypted thoughts:
//! <https://platform.openai.com/docs/guides/reasoning>; structured output:
//! <https://platform.openai.com/docs/guides/structured-outputs>; errors:
//! <https://platform.openai.com/docs/guides/error-codes>.

use daybook_models::{
    Api, ChatEvent, ChatModel, Effort, ModelError, ModelOptions, ProviderModel, Reasoning, SetupError,
};
use serde_json::{Value, json};

use crate::every::Wire;
use crate::fake::{
    Act, EVENTS, Fake, KEY, after_tools, answered, answered_to, ask, calls, failed, request, whole, with_addresses,
    with_media, with_schema,
};

pub const WIRE: Wire = Wire {
    api: Api::OpenAiResponses,
    kind: EVENTS,
    hello: || [begin(), said(0, &["Hel", "lo"]), end(&usage())].concat(),
    half: || [begin(), vec![message_added(0), text_delta(0, "Hel")]].concat(),
    error: |status, message| {
        let code = if status == 429 { "rate_limit_exceeded" } else { "server_error" };
        json!({"error": {"message": message, "type": code, "param": null, "code": code}}).to_string()
    },
    midway: |message| {
        let error = json!({"type": "error", "code": "server_error", "message": message, "param": null,
            "sequence_number": 9});
        (event(&error), 500)
    },
};

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn response(more: Value) -> Value {
    let mut response = json!({"id": "resp_1", "object": "response", "created_at": 1, "status": "in_progress",
        "error": null, "incomplete_details": null, "instructions": null, "model": "fake-1", "output": [],
        "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "metadata": {}, "usage": null});
    for (key, value) in more.as_object().unwrap() {
        response[key] = value.clone();
    }
    response
}

fn begin() -> Vec<String> {
    let told = |kind: &str, number: u64| {
        event(&json!({"type": kind, "sequence_number": number, "response": response(json!({}))}))
    };
    vec![told("response.created", 0), told("response.in_progress", 1)]
}

fn usage() -> Value {
    json!({"input_tokens": 11, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 18})
}

fn end(usage: &Value) -> Vec<String> {
    let whole = response(json!({"status": "completed", "usage": usage}));
    vec![event(&json!({"type": "response.completed", "sequence_number": 99, "response": whole}))]
}

fn incomplete(reason: &str) -> Vec<String> {
    let whole = response(json!({"status": "incomplete", "incomplete_details": {"reason": reason}, "usage": usage()}));
    vec![event(&json!({"type": "response.incomplete", "sequence_number": 99, "response": whole}))]
}

fn added(place: u64, item: Value) -> String {
    event(&json!({"type": "response.output_item.added", "sequence_number": 3, "output_index": place, "item": item}))
}

fn done(place: u64, item: Value) -> String {
    event(&json!({"type": "response.output_item.done", "sequence_number": 8, "output_index": place, "item": item}))
}

fn message_added(place: u64) -> String {
    let item = json!({"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []});
    added(place, item)
}

fn text_delta(place: u64, text: &str) -> String {
    event(&json!({"type": "response.output_text.delta", "sequence_number": 5, "item_id": "msg_1",
        "output_index": place, "content_index": 0, "delta": text, "logprobs": []}))
}

fn said(place: u64, pieces: &[&str]) -> Vec<String> {
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let told = |kind: &str, text: &str| {
        event(&json!({"type": kind, "sequence_number": 4, "item_id": "msg_1", "output_index": place,
            "content_index": 0, "part": part(text)}))
    };
    let whole = pieces.concat();
    let mut all = vec![message_added(place), told("response.content_part.added", "")];
    all.extend(pieces.iter().map(|piece| text_delta(place, piece)));
    all.push(event(&json!({"type": "response.output_text.done", "sequence_number": 6, "item_id": "msg_1",
        "output_index": place, "content_index": 0, "text": whole, "logprobs": []})));
    all.push(told("response.content_part.done", &whole));
    let item = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [part(&whole)]});
    all.push(done(place, item));
    all
}

fn call_item(id: &str, arguments: &str, status: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "weather",
        "arguments": arguments, "status": status})
}

fn call_delta(place: u64, id: &str, delta: &str) -> String {
    event(&json!({"type": "response.function_call_arguments.delta", "sequence_number": 5,
        "item_id": format!("fc_{id}"), "output_index": place, "delta": delta}))
}

fn call_done(place: u64, id: &str, arguments: &str) -> Vec<String> {
    let whole = json!({"type": "response.function_call_arguments.done", "sequence_number": 7,
        "item_id": format!("fc_{id}"), "name": "weather", "output_index": place, "arguments": arguments});
    vec![event(&whole), done(place, call_item(id, arguments, "completed"))]
}

fn thought(place: u64) -> Vec<String> {
    let part = |kind: &str, at: u64| {
        event(&json!({"type": kind, "sequence_number": 4, "item_id": "rs_1", "output_index": place,
            "summary_index": at, "part": {"type": "summary_text", "text": ""}}))
    };
    let delta = |at: u64, text: &str| {
        event(&json!({"type": "response.reasoning_summary_text.delta", "sequence_number": 5, "item_id": "rs_1",
            "output_index": place, "summary_index": at, "delta": text}))
    };
    vec![
        added(place, json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAin"})),
        part("response.reasoning_summary_part.added", 0),
        delta(0, "Let me "),
        delta(0, "think."),
        part("response.reasoning_summary_part.added", 1),
        delta(1, "Done."),
        done(place, thought_item()),
    ]
}

fn thought_item() -> Value {
    let summary = |text: &str| json!({"type": "summary_text", "text": text});
    json!({"type": "reasoning", "id": "rs_1", "summary": [summary("Let me think."), summary("Done.")],
        "encrypted_content": "gAAAinish", "status": "completed"})
}

fn refused() -> Vec<String> {
    let delta = |text: &str| {
        event(&json!({"type": "response.refusal.delta", "sequence_number": 5, "item_id": "msg_1", "output_index": 0,
            "content_index": 0, "delta": text}))
    };
    let item = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
        "content": [{"type": "refusal", "refusal": "I can't do that."}]});
    vec![message_added(0), delta("I can't "), delta("do that."), done(0, item)]
}

/// The scripted answers, by name: for the tests here and for OpenAI's own client.
pub fn scenario(name: &str) -> Option<Act> {
    let parts = match name {
        "text" => (WIRE.hello)(),
        "tools" => [
            begin(),
            said(0, &["Let me look."]),
            vec![added(1, call_item("call_a", "", "in_progress")), call_delta(1, "call_a", "{\"ci")],
            vec![added(2, call_item("call_b", "", "in_progress")), call_delta(2, "call_b", "{}")],
            vec![call_delta(1, "call_a", "ty\":  1.0"), call_delta(1, "call_a", ", \"city\":\"Oslo\" }")],
            call_done(1, "call_a", "{\"city\":  1.0, \"city\":\"Oslo\" }"),
            call_done(2, "call_b", "{}"),
            end(&usage()),
        ]
        .concat(),
        "bad-arguments" => [
            begin(),
            vec![added(0, call_item("call_a", "", "in_progress")), call_delta(0, "call_a", "{\"city\": Osl")],
            call_done(0, "call_a", "{\"city\": Osl"),
            end(&usage()),
        ]
        .concat(),
        "thinking" => [
            begin(),
            thought(0),
            said(1, &["So:"]),
            vec![added(2, call_item("call_a", "", "in_progress")), call_delta(2, "call_a", "{}")],
            call_done(2, "call_a", "{}"),
            end(&usage()),
        ]
        .concat(),
        "cached" => (WIRE.hello)(),
        "length" => [begin(), vec![message_added(0), text_delta(0, "Hel")], incomplete("max_output_tokens")].concat(),
        "filter" => [begin(), vec![message_added(0), text_delta(0, "Hel")], incomplete("content_filter")].concat(),
        "refusal" => [begin(), refused(), end(&usage())].concat(),
        "json" => [begin(), said(0, &["{\"title\": \"Up\", ", "\"cast\": []}"]), end(&usage())].concat(),
        "midway" => [(WIRE.half)(), vec![(WIRE.midway)("overloaded").0]].concat(),
        "overloaded" => return Some(Act::refuses(503, (WIRE.error)(503, "Overloaded"), vec![("retry-after", "0")])),
        _ => return None,
    };
    Some(Act::streams(EVENTS, parts))
}

fn act(name: &str) -> Act {
    scenario(name).unwrap()
}

const API: Api = Api::OpenAiResponses;

#[tokio::test]
async fn a_text_comes_in_pieces_and_whole() {
    let fake = Fake::new(vec![act("text")]).await;
    let (events, response) = whole(ask(&fake.options(API), request()).await);
    let about = json!({"id": "resp_1"});
    let pieces = ["Hel", "lo"].map(|piece| ChatEvent::Text(piece.into()));
    assert_eq!(events, [&[ChatEvent::ProviderData(about.clone())], &pieces[..]].concat());
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hello", "stop"));
    assert_eq!((response.provider_data, response.replay), (Some(about), None));
}

#[tokio::test]
async fn the_request_is_as_documented() {
    let (_, call) = answered(API, act("text")).await;
    assert_eq!((call.path.as_str(), call.header("authorization")), ("/responses", Some(&*format!("Bearer {KEY}"))));
    let expected = json!({
        "model": "fake-1", "stream": true, "store": false, "instructions": "Be brief.",
        "input": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "name": "weather", "description": "The weather",
            "parameters": request().tools[0].parameters, "strict": false}],
        "temperature": 0.5, "max_output_tokens": 100,
    });
    assert_eq!(call.body, expected);
    let keyed = |options: &mut ModelOptions| {
        options.prompt_cache_key = Some("team-red".into());
        options.max_tokens = Some(7);
    };
    let plain = daybook_models::ChatRequest { max_tokens: None, ..request() };
    let (_, call) = answered_to(API, act("text"), keyed, plain).await;
    assert_eq!((&call.body["prompt_cache_key"], &call.body["max_output_tokens"]), (&json!("team-red"), &json!(7)));
    let info = ProviderModel::new(&ModelOptions::new(API, "gpt-x")).unwrap().info().clone();
    assert_eq!((info.provider.as_str(), info.class.as_str()), ("OpenAI", "OpenAIResponses"));
}

#[tokio::test]
async fn parallel_tool_calls_keep_order_ids_and_bytes() {
    let (response, _) = answered(API, act("tools")).await;
    let arguments = "{\"city\":  1.0, \"city\":\"Oslo\" }";
    assert_eq!(calls(&response), [("call_a", "weather", arguments), ("call_b", "weather", "{}")]);
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Let me look.", "tool_calls"));
}

#[tokio::test]
async fn arguments_told_only_at_the_end_are_taken() {
    let parts = [begin(), vec![done(0, call_item("call_a", "{\"a\": 1}", "completed"))], end(&usage())].concat();
    let (response, _) = answered(API, Act::streams(EVENTS, parts)).await;
    assert_eq!(calls(&response), [("call_a", "weather", "{\"a\": 1}")]);
}

#[tokio::test]
async fn malformed_arguments_are_kept_as_they_came() {
    let (response, _) = answered(API, act("bad-arguments")).await;
    assert_eq!(response.tool_calls[0].arguments, "{\"city\": Osl");
    assert!(response.tool_calls[0].parsed().is_err());
}

#[tokio::test]
async fn calls_and_outcomes_go_back_as_items() {
    let mut request = after_tools(None);
    request.messages[4].media = with_media().messages[1].media[..1].to_vec();
    let (_, call) = answered_to(API, act("text"), |_| {}, request).await;
    let item = |id: &str, arguments: &str| json!({"type": "function_call", "call_id": id, "name": "weather", "arguments": arguments});
    let expected = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Let me look."},
        item("call_a", "{\"city\": \"Oslo\"}"),
        item("call_b", "{\"invalid_arguments\":\"{\\\"city\\\": Osl\"}"),
        {"type": "function_call_output", "call_id": "call_a", "output": "rain"},
        {"type": "function_call_output", "call_id": "call_b", "output": [
            {"type": "input_text", "text": "not JSON"},
            {"type": "input_image", "image_url": "data:image/jpeg;base64,QUJD", "detail": "auto"}]},
    ]);
    assert_eq!(call.body["input"], expected);
}

#[tokio::test]
async fn encrypted_thoughts_are_asked_for_and_given_back_in_their_place() {
    let on = |options: &mut ModelOptions| {
        options.reasoning = Some(Reasoning { effort: Some(Effort::High), ..Reasoning::default() });
    };
    let (response, call) = answered_to(API, act("thinking"), on, request()).await;
    assert_eq!(call.body["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!(call.body["reasoning"], json!({"effort": "high", "summary": "auto"}));
    assert_eq!(response.reasoning.as_deref(), Some("Let me think.\n\nDone."));
    assert_eq!(response.metrics.usage.reasoning_tokens, 3);
    let next = after_tools(response.replay);
    let (_, call) = answered_to(API, act("text"), on, next.clone()).await;
    let input = call.body["input"].as_array().unwrap();
    let mut thought = thought_item();
    thought.as_object_mut().unwrap().shift_remove("status");
    assert_eq!(input[1], thought);
    assert_eq!((&input[2]["content"], &input[3]["call_id"]), (&json!("Let me look."), &json!("call_a")));
    let mut foreign = next;
    foreign.messages[2].replay.as_mut().unwrap().model = "other".into();
    let (_, call) = answered_to(API, act("text"), on, foreign).await;
    assert_eq!(call.body["input"][1]["role"], "assistant", "another model's thoughts are not this one's");
}

#[tokio::test]
async fn only_models_that_think_are_asked_for_thoughts() {
    for (model, asked) in [("gpt-5-mini", true), ("o4-mini", true), ("gpt-4.1", false), ("gpt-5-chat-latest", false)] {
        let (_, call) = answered_to(API, act("text"), |options| options.model = model.into(), request()).await;
        assert_eq!(call.body.get("include").is_some(), asked, "{model}");
        assert!(call.body.get("reasoning").is_none());
    }
    let quiet = |options: &mut ModelOptions| {
        options.reasoning = Some(Reasoning { show: Some(false), effort: Some(Effort::None), budget_tokens: None });
    };
    let (_, call) = answered_to(API, act("text"), quiet, request()).await;
    assert_eq!(call.body["reasoning"], json!({"effort": "none"}));
    let budget = Reasoning { budget_tokens: Some(2000), ..Reasoning::default() };
    let options = ModelOptions { reasoning: Some(budget), ..ModelOptions::new(API, "m") };
    assert!(matches!(ProviderModel::new(&options), Err(SetupError::Option { option: "reasoning", .. })));
}

#[tokio::test]
async fn tokens_are_counted_with_their_details() {
    let (response, _) = answered(API, act("cached")).await;
    let usage = response.metrics.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (11, 7, 18));
    assert_eq!((usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens), (4, 2, 3));
}

#[tokio::test]
async fn stops_are_told_in_one_language() {
    for (name, text, word) in
        [("length", "Hel", "length"), ("filter", "Hel", "content_filter"), ("refusal", "I can't do that.", "refusal")]
    {
        let (response, _) = answered(API, act(name)).await;
        assert_eq!((response.text.as_str(), response.finish_reason.as_str()), (text, word));
    }
    let fake = Fake::new(vec![Act::streams(EVENTS, [begin(), incomplete("content_filter")].concat())]).await;
    let (_, error) = failed(ask(&fake.options(API), request()).await);
    assert!(matches!(error, ModelError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn a_failed_response_is_an_error_with_its_status() {
    for (code, status, calls) in [("server_error", 500, 3), ("rate_limit_exceeded", 429, 3), ("invalid_prompt", 400, 1)]
    {
        let failure = response(json!({"status": "failed", "error": {"code": code, "message": "no"}}));
        let failure = event(&json!({"type": "response.failed", "sequence_number": 9, "response": failure}));
        let acts = (0..3).map(|_| Act::streams(EVENTS, [begin(), vec![failure.clone()]].concat())).collect();
        let fake = Fake::new(acts).await;
        let (_, error) = failed(ask(&fake.options(API), request()).await);
        let told = ModelError::Status { status, message: "no".into(), retry_after: None };
        assert_eq!((error, fake.calls()), (told, calls), "{code}");
    }
}

#[tokio::test]
async fn images_and_files_go_as_parts_or_are_named() {
    let (_, call) = answered_to(API, act("text"), |_| {}, with_media()).await;
    let expected = json!([
        {"type": "input_text", "text": "Hi"},
        {"type": "input_image", "image_url": "data:image/jpeg;base64,QUJD", "detail": "auto"},
        {"type": "input_text", "text": "[file c.csv]\na,b"},
        {"type": "input_file", "filename": "e.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        {"type": "input_text", "text": "[attached file f.wav (audio/wav), not readable by this model]"},
    ]);
    assert_eq!(call.body["input"][0]["content"], expected);
    let (_, call) = answered_to(API, act("text"), |_| {}, with_addresses()).await;
    let content = &call.body["input"][0]["content"];
    assert_eq!(content[1]["image_url"], "https://example.com/b.png?x=1");
    assert_eq!(content[2], json!({"type": "input_file", "file_url": "https://example.com/d.pdf"}));
}

#[tokio::test]
async fn an_answer_of_a_given_shape_is_asked_for_strictly_where_it_can_be() {
    let (response, call) = answered_to(API, act("json"), |_| {}, with_schema()).await;
    assert_eq!(response.text, "{\"title\": \"Up\", \"cast\": []}");
    let format = &call.body["text"]["format"];
    assert_eq!((&format["type"], &format["name"]), (&json!("json_schema"), &json!("Movie")));
    assert_eq!((&format["strict"], &format["schema"]["additionalProperties"]), (&json!(true), &json!(false)));
    let mut open = with_schema();
    open.output_schema.as_mut().unwrap().strict = false;
    let (_, call) = answered_to(API, act("json"), |_| {}, open).await;
    assert_eq!(call.body["text"]["format"]["strict"], json!(false));
}
