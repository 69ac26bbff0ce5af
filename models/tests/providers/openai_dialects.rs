//! What servers that speak chat completions make of them.

use daybook_domain::usage::Usage;
use daybook_models::{ChatEvent, ChatResponse, ModelError};
use serde_json::{Value, json};

use crate::fake::{Act, calls, whole};
use crate::openai::{self, DONE, Fake, chunk, said, streams};

/// Events with these data.
fn events(data: &[Value]) -> Vec<String> {
    data.iter().map(|data| format!("data: {data}\n\n")).collect()
}

/// The answer that `parts` make.
async fn answer(parts: Vec<String>) -> ChatResponse {
    whole(Fake::new(vec![streams(parts)]).await.ask().await).1
}

/// The answer with these fragments of calls, each in a chunk of its own.
async fn answer_with(fragments: &[Value]) -> ChatResponse {
    let mut parts: Vec<String> = fragments.iter().map(|fragment| openai::calls(json!([fragment]))).collect();
    parts.extend([chunk(json!({}), Some("tool_calls")), DONE.into()]);
    answer(parts).await
}

/// How `body` with the media type `kind` fails.
async fn fails(kind: &'static str, body: &str) -> ModelError {
    let headers = vec![("content-type", kind)];
    let act = Act::Reply { status: 200, headers, body: body.to_owned() };
    Fake::new(vec![act]).await.fails().await.1
}

#[tokio::test]
async fn fields_of_the_wrong_kind_cost_no_answer() {
    let choice = json!({"index": null, "delta": {"role": 5, "content": "Hi", "tool_calls": null, "reasoning": [1],
        "refusal": {}}, "finish_reason": false, "logprobs": {"content": [{"token": "Hi"}]}});
    let strange = json!({"id": 7, "object": "chat.completion.chunk", "created": "now", "system_fingerprint": null,
        "choices": [choice], "usage": "none", "error": null});
    let twice = "data: {\"choices\": [{\"delta\": {\"content\": \"no\", \"content\": \" you\"}}]}\n\n".to_owned();
    let parts = [events(&[strange]), vec![twice, chunk(json!(null), Some("stop")), DONE.into()]];
    let response = answer(parts.concat()).await;
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("Hi you", "stop"));
    assert_eq!(response.metrics.usage, Usage::default());
}

#[tokio::test]
async fn what_is_no_part_of_an_answer_is_passed_over() {
    let beside = json!({"choices": [{"delta": {"content": "lo"}}], "error": {}});
    let data = [json!([]), json!(3), json!("ping"), json!({"greeting": "moin"}), json!({"object": "x"}), beside];
    let parts = [vec![said("Hel")], events(&data), vec![chunk(json!({}), Some("stop")), DONE.into()]];
    assert_eq!(answer(parts.concat()).await.text, "Hello");
    let foreign = Fake::new(vec![streams(events(&data[..5]))]).await.fails().await.1;
    assert_eq!(foreign, ModelError::Malformed("no part of an answer: {\"object\":\"x\"}".into()));
}

#[tokio::test]
async fn only_the_first_of_several_answers_is_read() {
    let choice =
        |index: u64, text: &str| json!({"index": index, "delta": {"content": text}, "finish_reason": "length"});
    let data = [json!({"choices": [choice(1, "no"), choice(0, "yes")]}), json!({"choices": [choice(2, "never")]})];
    let response = answer([events(&data), vec![DONE.into()]].concat()).await;
    assert_eq!((response.text.as_str(), response.finish_reason.as_str()), ("yes", "length"));
}

#[tokio::test]
async fn words_and_thoughts_have_many_names() {
    let parts = json!([{"type": "thinking", "thinking": [{"type": "text", "text": "d"}]},
        {"type": "thinking", "thinking": "e"}, {"type": "text", "text": "D"}, {"text": "E"},
        {"type": "refusal", "refusal": "F"}, {"type": "image_url", "image_url": {"url": "x"}}, 5]);
    let deltas = [
        json!({"reasoning": "a", "reasoning_content": ""}),
        json!({"reasoning_content": "b", "reasoning": "b"}),
        json!({"reasoning_text": "c", "content": "A"}),
        json!({"content": null, "refusal": "B"}),
        json!({"content": "", "audio": {"transcript": "C"}}),
        json!({"content": parts}),
        json!({"content": {"type": "text", "text": "G"}}),
    ];
    let mut told: Vec<String> = deltas.into_iter().map(|delta| chunk(delta, None)).collect();
    told.push(DONE.into());
    let response = answer(told).await;
    assert_eq!((response.text.as_str(), response.reasoning.as_deref()), ("ABCDEFG", Some("abcde")));
}

#[tokio::test]
async fn fragments_find_their_call() {
    let named = |name: &str, arguments: &str| json!({"name": name, "arguments": arguments});
    let more = |arguments: &str| json!({"arguments": arguments});
    // By its id alone.
    let response = answer_with(&[
        json!({"id": "a", "function": named("one", "{\"x\":")}),
        json!({"id": "b", "function": named("two", "")}),
        json!({"id": "a", "function": more("1}")}),
        json!({"id": "b", "function": more("{}")}),
    ])
    .await;
    assert_eq!(calls(&response), [("a", "one", "{\"x\":1}"), ("b", "two", "{}")]);
    // By nothing: one after the other.
    let response = answer_with(&[
        json!({"function": named("one", "")}),
        json!({"function": more("{\"x\":")}),
        json!({"function": more("1}")}),
        json!({"function": named("two", "")}),
        json!({"function": named("three", "{}")}),
    ])
    .await;
    let told: Vec<_> = calls(&response).into_iter().map(|(_, name, arguments)| (name, arguments)).collect();
    assert_eq!(told, [("one", "{\"x\":1}"), ("two", "{}"), ("three", "{}")]);
    // All with one number, but with ids of their own.
    let response = answer_with(&[
        json!({"index": 0, "id": "a", "function": named("one", "{}")}),
        json!({"index": 0, "id": "b", "function": named("two", "{\"y\":")}),
        json!({"index": 0, "id": "b", "function": more("2}")}),
    ])
    .await;
    assert_eq!(calls(&response), [("a", "one", "{}"), ("b", "two", "{\"y\":2}")]);
    // With a new id in each fragment.
    let response = answer_with(&[
        json!({"index": 0, "id": "a", "function": named("one", "")}),
        json!({"index": 0, "id": "b", "function": more("{\"x\":")}),
        json!({"index": 0, "id": "c", "function": more("1}")}),
    ])
    .await;
    assert_eq!(calls(&response), [("a", "one", "{\"x\":1}")]);
}

#[tokio::test]
async fn calls_are_told_once_they_have_a_name_and_arguments() {
    let response = answer_with(&[
        json!({"index": 0, "id": 5, "function": {"arguments": "{\"x\":"}}),
        json!({"index": 0, "function": {"name": "one", "arguments": "1}"}}),
        json!({"index": 1, "id": "b", "function": {"name": "two", "arguments": "null"}}),
        json!({"index": 1, "function": {"arguments": "{\"y\":2}"}}),
        json!({"index": 2, "id": "c", "function": {"name": "three", "arguments": "null"}}),
        json!({"index": 3, "id": "d", "function": {"name": "four", "arguments": {"z": 3.0}}}),
        json!({"index": 4, "id": "e", "function": {"arguments": "{}"}}),
        json!({"index": 5, "id": "f", "type": "custom", "custom": {"name": "five", "input": "x"}}),
        json!({"index": 6, "id": "g", "type": "", "function": {"name": "six"}}),
    ])
    .await;
    let told = [
        ("5", "one", "{\"x\":1}"),
        ("b", "two", "{\"y\":2}"),
        ("c", "three", "{}"),
        ("d", "four", "{\"z\":3.0}"),
        ("g", "six", "{}"),
    ];
    assert_eq!(calls(&response), told);
    let unnamed = json!([{"index": 0, "id": "a", "function": {"arguments": "{}"}}]);
    let parts = vec![openai::calls(unnamed), chunk(json!({}), Some("tool_calls")), DONE.into()];
    let error = Fake::new(vec![streams(parts)]).await.fails().await.1;
    assert_eq!(error, ModelError::Malformed("the model asked for a tool without naming it".into()));
}

#[tokio::test]
async fn tokens_are_counted_wherever_they_are_told() {
    let usage = |input, output, total, cached| Usage {
        input_tokens: input,
        output_tokens: output,
        total_tokens: total,
        cache_read_tokens: cached,
        ..Usage::default()
    };
    let cases = [
        (json!({"prompt_tokens": 3, "completion_tokens": 2, "prompt_cache_hit_tokens": 1}), usage(3, 2, 5, 1)),
        (json!({"prompt_tokens": 3, "completion_tokens": 2, "num_cached_tokens": 2}), usage(3, 2, 5, 2)),
        (json!({"prompt_tokens": 3, "total_tokens": 9, "completion_tokens": null}), usage(3, 6, 9, 0)),
        (
            json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9,
                "prompt_tokens_details": {"audio_tokens": 4}}),
            usage(7, 2, 9, 0),
        ),
        (json!({"prompt_tokens": "3", "completion_tokens": -2, "total_tokens": 1.5}), usage(0, 0, 0, 0)),
    ];
    for (told, counted) in cases {
        let beside = json!({"choices": [{"delta": {}, "usage": told}]});
        let last = json!({"choices": [], "usage": told});
        for place in [beside, last] {
            let parts = [vec![said("Hi"), chunk(json!({}), Some("stop"))], events(&[place]), vec![DONE.into()]];
            assert_eq!(answer(parts.concat()).await.metrics.usage, counted, "{told}");
        }
    }
}

#[tokio::test]
async fn a_reason_or_a_last_word_ends_an_answer() {
    let reason = || chunk(json!({}), Some("stop"));
    for end in
        [vec![reason()], vec![DONE.into()], vec![reason(), openai::usage()], vec![reason(), "data:  [DONE]\n\n".into()]]
    {
        assert_eq!(answer([vec![said("Hello")], end].concat()).await.text, "Hello");
    }
    let filtered = vec![chunk(json!({}), Some("content_filter")), DONE.into()];
    let error = Fake::new(vec![streams(filtered)]).await.fails().await.1;
    assert!(matches!(error, ModelError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn answers_that_are_not_streamed_may_be_errors_too() {
    let pretty =
        "{\n\n  \"choices\": [\n    {\"message\": {\"content\": \"Hello\"}, \"finish_reason\": \"stop\"}\n  ]\n}\n";
    let headers = vec![("content-type", "application/json; charset=utf-8")];
    let fake = Fake::new(vec![Act::Reply { status: 200, headers, body: pretty.into() }]).await;
    let (events, response) = whole(fake.ask().await);
    assert_eq!((events, response.text.as_str()), (vec![ChatEvent::Text("Hello".into())], "Hello"));
    let told = ModelError::Status { status: 429, message: "slow down".into(), retry_after: None };
    let error = "{\"error\": {\"message\": \"slow down\", \"code\": \"rate_limit_exceeded\"}}";
    let fake = Fake::new((0..3).map(|_| Act::refuses(200, error.into(), vec![])).collect()).await;
    assert_eq!(fake.fails().await.1, told);
    let empty = "{\"object\": \"chat.completion\", \"choices\": []}";
    assert_eq!(fails("application/json", empty).await, ModelError::Malformed("there is no message in it".into()));
    let page = ModelError::Malformed("expected JSON or an event stream, got text/html: <p>hi</p>".into());
    assert_eq!(fails("text/html", "<p>hi</p>").await, page);
}
