//! The scripted offline model: no network, no intelligence, always the same answer to the same words.
//! It exists so that everything around a model can be tried without a key.

use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::message::{CallMetrics, Message, Role, ToolCall};
use daybook_domain::tool::ToolSpec;
use daybook_domain::usage::Usage;
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::port::{ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, ModelError, ModelInfo};
use crate::text::{bounded, fresh_call_id};

const ABOUT: &str = "I am Daybook's scripted demo model, not an AI: to talk to a real one, set OPENAI_API_KEY or name \
                     a model in daybook.yaml. ";
/// The most words `slow N` gives.
const MAX_SLOW_WORDS: usize = 10_000;
/// The longest part of a tool's result, or of the person's words, that is repeated, in bytes.
const MAX_ECHO_BYTES: usize = 2000;
const SLOW_WORD_DELAY: Duration = Duration::from_millis(250);

/// The scripted model. What it understands stands in its answer to `help`.
#[derive(Debug)]
pub struct DemoModel {
    info: ModelInfo,
    word_delay: Duration,
}

impl Default for DemoModel {
    fn default() -> Self {
        Self::new(Duration::from_millis(30))
    }
}

impl DemoModel {
    /// The model, waiting `word_delay` before each word.
    pub fn new(word_delay: Duration) -> Self {
        let info = ModelInfo {
            id: "demo".to_owned(),
            provider: "Daybook (scripted)".to_owned(),
            class: "DemoModel".to_owned(),
        };
        Self { info, word_delay }
    }
}

#[async_trait]
impl ChatModel for DemoModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError> {
        let plan = plan(&request);
        let delay = plan.word_delay.unwrap_or(self.word_delay);
        let mut pieces: Vec<ChatEvent> =
            plan.text.split_inclusive(' ').map(|word| ChatEvent::Text(word.to_owned())).collect();
        for (index, call) in plan.calls.iter().enumerate() {
            let (id, name, delta) = (call.id.clone(), call.name.clone(), call.arguments.clone());
            pieces.push(ChatEvent::ToolArguments { index, id, name, delta });
        }
        let usage = usage(&request, &plan);
        let (started, mut first) = (Instant::now(), None);
        let said = stream::iter(pieces).then(move |piece| async move {
            tokio::time::sleep(delay).await;
            (piece, started.elapsed().as_secs_f64())
        });
        let end = stream::once(async { (ChatEvent::Done(Box::default()), 0.0) });
        Ok(said
            .chain(end)
            .map(move |(piece, at)| {
                let ChatEvent::Done(_) = piece else {
                    first.get_or_insert(at);
                    return Ok(piece);
                };
                let duration = started.elapsed().as_secs_f64();
                Ok(ChatEvent::Done(Box::new(ChatResponse {
                    text: plan.text.clone(),
                    tool_calls: plan.calls.clone(),
                    finish_reason: if plan.calls.is_empty() { "stop" } else { "tool_calls" }.to_owned(),
                    metrics: CallMetrics { usage, time_to_first_token: first, duration },
                    ..ChatResponse::default()
                })))
            })
            .boxed())
    }
}

/// What to answer.
#[derive(Debug, Default)]
struct Plan {
    text: String,
    calls: Vec<ToolCall>,
    word_delay: Option<Duration>,
}

impl Plan {
    fn say(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

fn plan(request: &ChatRequest) -> Plan {
    let last = request.messages.iter().rposition(|message| message.role == Role::User);
    let (words, after) = match last {
        Some(at) => (request.messages[at].content.as_deref().unwrap_or_default(), &request.messages[at + 1..]),
        None => ("", &request.messages[..]),
    };
    let results: Vec<&Message> = after.iter().filter(|message| message.role == Role::Tool).collect();
    if results.is_empty() {
        let calls = wanted_calls(words, &request.tools);
        if !calls.is_empty() {
            return Plan { calls, ..Plan::default() };
        }
    }
    let mut plan = if results.is_empty() { reply(words, &request.tools) } else { Plan::say(report(&results)) };
    let spoke = |message: &Message| {
        message.role == Role::Assistant && message.content.as_ref().is_some_and(|text| !text.is_empty())
    };
    if !request.messages.iter().any(spoke) {
        plan.text.insert_str(0, ABOUT);
    }
    plan
}

/// What the tools said.
fn report(results: &[&Message]) -> String {
    let line = |message: &&Message| {
        let tool = message.answers.as_ref().map_or("tool", |answers| answers.tool.as_str());
        let verb = if message.answers.as_ref().is_some_and(|answers| answers.failed) { "failed" } else { "answered" };
        format!("{tool} {verb}: {}", bounded(message.content.as_deref().unwrap_or_default(), MAX_ECHO_BYTES))
    };
    results.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn reply(words: &str, tools: &[ToolSpec]) -> Plan {
    let low = words.trim().to_lowercase();
    let mut plain = low.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let (first, second) = (plain.next().unwrap_or_default(), plain.next().unwrap_or_default());
    if first == "slow"
        && let Ok(count) = second.parse::<usize>()
    {
        let words = (1..=count.clamp(1, MAX_SLOW_WORDS)).map(|n| format!("word{n}")).collect::<Vec<_>>();
        return Plan { text: words.join(" "), word_delay: Some(SLOW_WORD_DELAY), ..Plan::default() };
    }
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let mine = if names.is_empty() { "I have no tools".to_owned() } else { format!("My tools: {}", names.join(", ")) };
    Plan::say(match first {
        "hi" | "hello" | "hey" | "moin" => {
            "Hello! What can I do for you? Say help to see what I understand.".to_owned()
        }
        "help" => format!(
            "I understand: hello; what time is it; calculate 2+3*4; call NAME {{\"argument\": \"value\"}}; slow 20. \
             Everything else I repeat. {mine}."
        ),
        "call" if !second.is_empty() => format!("I cannot call that tool here. {mine}."),
        "" => "You said nothing.".to_owned(),
        _ => format!("You said: {}", bounded(words, MAX_ECHO_BYTES)),
    })
}

/// The calls `words` ask for, of tools there are.
fn wanted_calls(words: &str, tools: &[ToolSpec]) -> Vec<ToolCall> {
    let low = words.to_lowercase();
    let make =
        |tool: &ToolSpec, arguments: String| ToolCall { id: fresh_call_id(), name: tool.name.clone(), arguments };
    let mut calls = Vec::new();
    let mut rest = words;
    while let Some((_, after)) = rest.split_once("call ") {
        let name_end = after.find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))).unwrap_or(after.len());
        rest = &after[name_end..];
        let Some(tool) = tools.iter().find(|tool| tool.name == after[..name_end]) else { continue };
        let mut given = serde_json::Deserializer::from_str(rest).into_iter::<Map<String, Value>>();
        match given.next() {
            Some(Ok(map)) => {
                let end = given.byte_offset();
                calls.push(make(tool, Value::Object(map).to_string()));
                rest = &rest[end..];
            }
            _ => calls.push(make(tool, Value::Object(made_up_arguments(tool)).to_string())),
        }
    }
    if !calls.is_empty() {
        return calls;
    }
    if let Some(at) = find_ignoring_case(words, "calculate ")
        && let Some(tool) = tools.iter().find(|tool| tool.name.contains("calculat"))
        && let Some(expression) = words.get(at + "calculate ".len()..)
    {
        let mut arguments = made_up_arguments(tool);
        let name = arguments.keys().next().cloned().unwrap_or_else(|| "expression".to_owned());
        arguments.insert(name, json!(expression.trim().trim_end_matches(['?', '.', '!'])));
        return vec![make(tool, Value::Object(arguments).to_string())];
    }
    if low.contains("what time")
        && let Some(tool) = tools.iter().find(|tool| tool.name.contains("time"))
    {
        return vec![make(tool, Value::Object(made_up_arguments(tool)).to_string())];
    }
    calls
}

/// Where `needle` (ASCII) begins in `words`, whatever the case of its letters.
fn find_ignoring_case(words: &str, needle: &str) -> Option<usize> {
    words.as_bytes().windows(needle.len()).position(|part| part.eq_ignore_ascii_case(needle.as_bytes()))
}

/// Something for each required argument.
fn made_up_arguments(tool: &ToolSpec) -> Map<String, Value> {
    let required = tool.parameters.get("required").and_then(Value::as_array);
    let names = required.into_iter().flatten().filter_map(Value::as_str);
    names
        .map(|name| {
            let schema = tool.parameters.get("properties").and_then(|all| all.get(name));
            let of = |key: &str| schema.and_then(|schema| schema.get(key));
            let first = of("enum").and_then(Value::as_array).and_then(|all| all.first()).or_else(|| of("default"));
            let value = first.cloned().unwrap_or_else(|| match of("type").and_then(Value::as_str) {
                Some("integer") => json!(1),
                Some("number") => json!(1.5),
                Some("boolean") => json!(true),
                Some("array") => json!([]),
                Some("object") => json!({}),
                _ => json!("demo"),
            });
            (name.to_owned(), value)
        })
        .collect()
}

/// As many tokens as a rule of thumb gives: one for four bytes.
fn usage(request: &ChatRequest, plan: &Plan) -> Usage {
    let tokens = |bytes: usize| u64::try_from(bytes.div_ceil(4)).unwrap_or(u64::MAX);
    let read = request.messages.iter().map(|message| message.content.as_deref().map_or(0, str::len)).sum();
    let written = plan.text.len() + plan.calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>();
    let (input_tokens, output_tokens) = (tokens(read), tokens(written));
    Usage { input_tokens, output_tokens, total_tokens: input_tokens.saturating_add(output_tokens), ..Usage::default() }
}

#[cfg(test)]
mod tests {
    use daybook_domain::message::Answered;
    use daybook_domain::tool::Effect;

    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message {
            id: "m".into(),
            role,
            content: Some(content.into()),
            reasoning: None,
            tool_calls: vec![],
            answers: None,
            whole: None,
            repair: false,
            media: vec![],
            provider_data: None,
            replay: None,
            metrics: None,
            created_at: 0,
        }
    }

    fn tool(name: &str, parameters: Value) -> ToolSpec {
        ToolSpec::new(name, "", parameters).effect(Effect::Pure)
    }

    fn tools() -> Vec<ToolSpec> {
        let text = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
        vec![tool("current_time", json!({"type": "object"})), tool("calculator", text("expression"))]
    }

    async fn answer(messages: Vec<Message>, tools: Vec<ToolSpec>) -> (Vec<ChatEvent>, ChatResponse) {
        let request = ChatRequest { messages, tools, ..ChatRequest::default() };
        let stream = DemoModel::default().stream(request).await.unwrap();
        let mut events: Vec<ChatEvent> = stream.map(Result::unwrap).collect().await;
        let Some(ChatEvent::Done(whole)) = events.pop() else { panic!("no end") };
        (events, *whole)
    }

    async fn asked(words: &str) -> ChatResponse {
        answer(vec![message(Role::User, words)], tools()).await.1
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_once_that_it_is_scripted_and_streams_words() {
        let hello = message(Role::User, "Hello there");
        let (events, whole) = answer(vec![hello.clone()], vec![]).await;
        assert!(whole.text.contains("scripted") && whole.text.contains("daybook.yaml"), "{}", whole.text);
        assert!(whole.text.contains("Hello!"));
        let streamed: String = events
            .iter()
            .map(|event| match event {
                ChatEvent::Text(text) => text.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(streamed, whole.text);
        assert!(events.len() > 10);
        assert_eq!(whole.finish_reason, "stop");
        assert!(whole.metrics.usage.output_tokens > 0);
        assert!(whole.metrics.time_to_first_token.unwrap() <= whole.metrics.duration);
        let again = vec![hello.clone(), message(Role::Assistant, &whole.text), hello];
        assert!(!answer(again, vec![]).await.1.text.contains("scripted"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_calls_tools_that_exist() {
        let calls = |whole: ChatResponse| -> Vec<(String, String)> {
            assert_eq!(whole.finish_reason, "tool_calls");
            whole.tool_calls.into_iter().map(|call| (call.name, call.arguments)).collect()
        };
        let one = |name: &str, arguments: &str| vec![(name.to_owned(), arguments.to_owned())];
        assert_eq!(calls(asked("What time is it?").await), one("current_time", "{}"));
        assert_eq!(calls(asked("Calculate 2+3*4.").await), one("calculator", r#"{"expression":"2+3*4"}"#));
        assert_eq!(calls(asked("please call calculator").await), one("calculator", r#"{"expression":"demo"}"#));
        let both = asked(r#"call calculator {"expression": "{1}"} and call current_time"#).await;
        assert_ne!(both.tool_calls[0].id, both.tool_calls[1].id);
        let expected = [one("calculator", r#"{"expression":"{1}"}"#), one("current_time", "{}")].concat();
        assert_eq!(calls(both), expected);
        let none = asked("call nothing_there").await;
        assert!(none.tool_calls.is_empty() && none.text.contains("current_time, calculator"), "{}", none.text);
    }

    #[tokio::test(start_paused = true)]
    async fn it_reports_what_tools_answered() {
        let mut result = message(Role::Tool, "14");
        result.answers =
            Some(Answered { call_id: "c".into(), tool: "calculator".into(), arguments: json!({}), failed: false });
        let mut call = message(Role::Assistant, "");
        call.content = None;
        let (_, whole) = answer(vec![message(Role::User, "calculate 2+3*4"), call, result], tools()).await;
        assert!(whole.text.ends_with("calculator answered: 14"), "{}", whole.text);
        assert!(whole.tool_calls.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_slow_when_asked() {
        let before = Instant::now();
        let (events, _) = answer(vec![message(Role::Assistant, "x"), message(Role::User, "slow 20")], vec![]).await;
        assert_eq!(events.len(), 20);
        assert_eq!(before.elapsed(), SLOW_WORD_DELAY * 20);
    }

    #[tokio::test(start_paused = true)]
    async fn it_repeats_what_it_does_not_understand() {
        assert!(asked("Ünïcode İs fine calculate").await.text.ends_with("You said: Ünïcode İs fine calculate"));
        assert!(asked("").await.text.ends_with("You said nothing."));
    }
}
