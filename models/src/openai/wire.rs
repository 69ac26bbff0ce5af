//! rig's chat-completions wire with Daybook's messages put into its request, and with an eye on every chunk for
//! what rig does not pass on while it streams: ids, the fingerprint and the finish reason as the provider wrote it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rig_core::completion::CompletionRequest;
use rig_core::error::{EncodeError, ProviderError};
use rig_core::operation::Completion;
use rig_core::providers::openai::wire::Chat;
use rig_core::wire::document::{Reassemble, Serves};
use rig_core::wire::{Body, Decoder, Descriptor, Encoded, Flow, Mode, Out, Wire, WireEvent, WireFrame};
use serde_json::{Map, Value, json};

use crate::text::{MAX_EXCERPT_BYTES, bounded};

/// The wire of one call.
#[derive(Clone)]
pub(super) struct DaybookChat {
    chat: Chat,
    messages: Arc<Value>,
    seen: Arc<Seen>,
}

impl DaybookChat {
    /// `chat` sending `messages`, noting in `seen` what its answer says.
    pub(super) fn new(chat: Chat, messages: Vec<Value>, seen: Arc<Seen>) -> Self {
        Self { chat, messages: Arc::new(Value::Array(messages)), seen }
    }
}

impl Wire for DaybookChat {
    type Op = Completion;
    type Payload = Encoded;
    type Frame = WireFrame;
    type Decoder<'id> = Watched<'id>;
    type Reassembler = NoDocument;

    fn describe(&self) -> Descriptor<'_> {
        self.chat.describe()
    }

    fn encode(&self, request: CompletionRequest, mode: Mode) -> Result<Encoded, EncodeError> {
        let mut encoded = self.chat.encode(request, mode)?;
        let Body::Bytes(bytes) = encoded.request.body() else {
            return Err(EncodeError::request("a chat request is JSON"));
        };
        let mut body: Map<String, Value> = serde_json::from_slice(bytes)?;
        body.insert("messages".to_owned(), Value::Null);
        let rest = serde_json::to_string(&body)?;
        let messages = serde_json::to_string(&*self.messages)?;
        // Spliced, not copied: histories are long and everything else is short.
        let whole = rest.replacen("\"messages\":null", &format!("\"messages\":{messages}"), 1);
        *encoded.request.body_mut() = Body::Bytes(whole.into_bytes());
        Ok(encoded)
    }

    fn decoder<'id>(&self) -> Self::Decoder<'id> {
        Watched { inner: self.chat.decoder(), seen: Arc::clone(&self.seen) }
    }
}

/// The log keeps the pieces, so nobody needs the document they would add up to.
#[derive(Default)]
pub(super) struct NoDocument;

impl Reassemble<WireFrame> for NoDocument {
    fn absorb(&mut self, _frame: &WireFrame) {}

    fn finish(self) -> Value {
        Value::Null
    }
}

impl Serves<Completion> for NoDocument {}

/// rig's decoder, and what it decodes; rig does not export their names.
type RigDecoder<'id> = <Chat as Wire>::Decoder<'id>;
type RigEvent<'id> = <RigDecoder<'id> as Decoder<'id, Completion>>::Event;

/// rig's decoder, watched.
pub(super) struct Watched<'id> {
    inner: RigDecoder<'id>,
    seen: Arc<Seen>,
}

impl<'id> Decoder<'id, Completion> for Watched<'id> {
    type Event = RigEvent<'id>;

    fn classify(&self, frame: WireFrame) -> WireEvent<Self::Event> {
        self.seen.frame(&frame.as_str());
        self.inner.classify(frame)
    }

    fn decode(&mut self, event: Self::Event, out: Out<'id, Completion>) -> Result<Flow, ProviderError> {
        let refusal = self.seen.noted().refusal.take();
        match refusal {
            Some(body) => Err(ProviderError::from_provider_body(body)),
            None => self.inner.decode(event, out),
        }
    }

    fn eof(&mut self, out: Out<'id, Completion>) -> Result<Flow, ProviderError> {
        self.inner.eof(out)
    }
}

/// What the chunks of one answer said so far.
#[derive(Default)]
pub(super) struct Seen(Mutex<Noted>);

/// The notes.
#[derive(Default)]
pub(super) struct Noted {
    /// The response's id and fingerprint, as far as given.
    pub(super) provider_data: Map<String, Value>,
    /// The finish reason in the provider's own word.
    pub(super) finish: Option<String>,
    /// The ids of the tool calls that have a name, in the order they got it.
    pub(super) named_calls: Vec<Option<String>>,
    /// Whether any frame was a chunk.
    pub(super) chunks: bool,
    /// Whether the stream said that it is over.
    pub(super) done: bool,
    /// The beginning of the last frame.
    pub(super) excerpt: String,
    /// An error beside a choice, not yet told.
    refusal: Option<String>,
    calls: Vec<SeenCall>,
}

struct SeenCall {
    index: Option<u64>,
    id: Option<String>,
    named: bool,
}

impl Seen {
    /// The notes so far.
    pub(super) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frame(&self, text: &str) {
        let mut noted = self.noted();
        noted.excerpt = bounded(text, MAX_EXCERPT_BYTES);
        if text == "[DONE]" {
            noted.done = true;
        } else if let Ok(chunk) = serde_json::from_str::<Value>(text)
            && chunk.get("choices").is_some()
        {
            noted.chunk(&chunk);
        }
    }
}

impl Noted {
    fn chunk(&mut self, chunk: &Value) {
        self.chunks = true;
        // Some gateways put the error beside a choice, which rig takes for an ordinary end.
        if chunk.get("error").and_then(Value::as_object).is_some_and(|error| !error.is_empty()) {
            self.refusal = Some(chunk.to_string());
        }
        for key in ["id", "system_fingerprint"] {
            if let Some(value) = chunk.get(key).and_then(Value::as_str).filter(|value| !value.is_empty())
                && self.provider_data.get(key).and_then(Value::as_str) != Some(value)
            {
                self.provider_data.insert(key.to_owned(), json!(value));
            }
        }
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).is_none_or(|index| index == 0);
        let Some(choice) = chunk.get("choices").and_then(Value::as_array).and_then(|all| all.iter().find(first)) else {
            return;
        };
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty()) {
            self.finish = Some(reason.to_owned());
        }
        let message = choice.get("delta").or_else(|| choice.get("message"));
        for call in
            message.and_then(|message| message.get("tool_calls")).and_then(Value::as_array).into_iter().flatten()
        {
            self.call(call);
        }
    }

    /// Notes a fragment of a tool call: it belongs to the call with its index and id, as rig sees it too.
    fn call(&mut self, fragment: &Value) {
        let index = fragment.get("index").and_then(Value::as_u64);
        let id = fragment.get("id").and_then(Value::as_str).filter(|id| !id.is_empty() && *id != "null");
        let name = fragment.pointer("/function/name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let known = self.calls.iter().rposition(|call| {
            let same_id = id.is_none() || call.id.is_none() || call.id.as_deref() == id;
            call.index == index && same_id
        });
        let at = match known {
            // Without index and id, a second name begins a second call.
            Some(at) if index.is_some() || id.is_some() || name.is_none() || !self.calls[at].named => at,
            _ => {
                self.calls.push(SeenCall { index, id: None, named: false });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at];
        if call.id.is_none() {
            call.id = id.map(str::to_owned);
        }
        if name.is_some() && !call.named {
            call.named = true;
            self.named_calls.push(call.id.clone());
        }
    }
}
