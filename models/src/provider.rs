//! The four protocols beside chat completions. Each has code of its own for its requests and for the events of its
//! answers; the call itself, its timeouts and its errors are here, once for all.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use rig_core::http_client::framing::{NdjsonFramer, SseFramer};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Answer, nothing};
use crate::http::{self, MAX_ANSWER_BYTES, MAX_ERROR_BYTES, content_type, read_up_to};
use crate::options::{Api, ModelOptions, SetupError, Timeouts, check_model};
use crate::port::{ChatModel, ChatRequest, ChatStream, ModelError, ModelInfo};
use crate::refusal::{clean, refusal};
use crate::retry::Retrying;
use crate::text::{MAX_EXCERPT_BYTES, bounded};
use crate::{anthropic, gemini, ollama, responses};

/// One protocol: how a request is written and who reads its answer.
pub(crate) trait Protocol: Send + Sync + fmt::Debug {
    /// What is appended to the base address.
    fn path(&self) -> String;

    /// Headers beside the content type, the key among them.
    fn headers(&self) -> HeaderMap;

    /// The body.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] when the protocol has no place for something in the request.
    fn body(&self, request: &ChatRequest) -> Result<Value, ModelError>;

    /// Who reads the answer.
    fn reader(&self) -> Box<dyn Reader>;

    /// Whether the answer comes as lines of JSON instead of server-sent events.
    fn is_lines(&self) -> bool {
        false
    }
}

/// What an event of an answer was.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// Nothing of the answer.
    Nothing,
    /// More of it, or a sign that more is being made.
    More,
    /// Its end.
    End,
    /// An error, in the provider's own shape.
    Error(Value),
}

/// Reads the events of one answer.
pub(crate) trait Reader: Send + Sync {
    /// Takes one event into the answer.
    ///
    /// # Errors
    /// When the event makes the answer unusable.
    fn take(&mut self, event: &Value, answer: &mut Answer) -> Result<Heard, ModelError>;

    /// Whether the answer is whole when the connection ends now.
    fn may_end(&self) -> bool {
        false
    }
}

/// A model at one of the providers. Does not retry: see [`ProviderModel::retrying`].
#[derive(Clone)]
pub struct ProviderModel {
    info: ModelInfo,
    url: String,
    client: reqwest::Client,
    protocol: Arc<dyn Protocol>,
    timeouts: Timeouts,
    api_key: Option<SecretString>,
}

impl fmt::Debug for ProviderModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderModel").field("info", &self.info).field("url", &self.url).finish_non_exhaustive()
    }
}

impl ProviderModel {
    /// The model `options` describe. Connects to nothing yet.
    ///
    /// # Errors
    /// [`SetupError`] when the address, model, key or an option cannot be right.
    pub fn new(options: &ModelOptions) -> Result<Self, SetupError> {
        let model = check_model(&options.model, &options.base_url)?;
        options.check_given()?;
        let protocol: Arc<dyn Protocol> = match options.api {
            Api::Anthropic => Arc::new(anthropic::Anthropic::new(model, options)?),
            Api::OpenAiResponses => Arc::new(responses::Responses::new(model, options)?),
            Api::Gemini => Arc::new(gemini::Gemini::new(model, options)?),
            Api::Ollama => Arc::new(ollama::Ollama::new(model, options)?),
        };
        let client = http::client(options.timeouts.connect)
            .map_err(|error| SetupError::Client { model: model.to_owned(), reason: error.to_string() })?;
        Ok(Self {
            info: ModelInfo {
                id: model.to_owned(),
                provider: options.api.provider_name().to_owned(),
                class: options.api.class().to_owned(),
            },
            url: format!("{}{}", options.base_url.trim_end_matches('/'), protocol.path()),
            client,
            protocol,
            timeouts: options.timeouts,
            api_key: options.api_key.clone(),
        })
    }

    /// The model `options` describe, tried again as `options.retry` says.
    ///
    /// # Errors
    /// As [`ProviderModel::new`].
    pub fn retrying(options: &ModelOptions) -> Result<Retrying<Self>, SetupError> {
        Ok(Retrying::new(Self::new(options)?, options.retry))
    }
}

#[async_trait]
impl ChatModel for ProviderModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError> {
        let started = Instant::now();
        let body = serde_json::to_vec(&self.protocol.body(&request)?)
            .map_err(|error| ModelError::Unsupported(format!("the request cannot be written as JSON: {error}")))?;
        let accept = if self.protocol.is_lines() { "application/x-ndjson" } else { "text/event-stream" };
        let call = self
            .client
            .post(&self.url)
            .headers(self.protocol.headers())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static(accept))
            .body(body);
        let live = Live {
            link: Link::Waiting(Some(call)),
            framer: if self.protocol.is_lines() {
                Framer::Lines(NdjsonFramer::new())
            } else {
                Framer::Events(SseFramer::new())
            },
            frames: VecDeque::new(),
            reader: self.protocol.reader(),
            answer: Answer::new(started),
            timeouts: self.timeouts,
            deadline: started + self.timeouts.first_token,
            api_key: self.api_key.clone(),
            read: 0,
            excerpt: String::new(),
        };
        Ok(futures::stream::unfold(live, |mut live| async move { live.next().await.map(|piece| (piece, live)) })
            .boxed())
    }
}

/// The connection of one call.
enum Link {
    /// Not opened yet.
    Waiting(Option<reqwest::RequestBuilder>),
    /// The answer comes.
    Open(reqwest::Response),
    /// Closed, because the answer is whole or failed.
    Closed,
}

enum Framer {
    Events(SseFramer),
    Lines(NdjsonFramer),
}

impl Framer {
    fn push(&mut self, bytes: &[u8], frames: &mut VecDeque<String>) {
        match self {
            Self::Events(framer) => frames.extend(framer.push(bytes).map(|event| event.data)),
            Self::Lines(framer) => {
                frames.extend(framer.push(bytes).map(|line| String::from_utf8_lossy(&line).into_owned()));
            }
        }
    }

    /// What the end of the body makes a frame.
    fn end(&mut self, frames: &mut VecDeque<String>) {
        match self {
            // An event without its blank line is not one.
            Self::Events(_) => {}
            Self::Lines(framer) => {
                frames.extend(framer.finish().map(|line| String::from_utf8_lossy(&line).into_owned()));
            }
        }
    }
}

/// One call and its answer. Dropping it closes the connection.
struct Live {
    link: Link,
    framer: Framer,
    frames: VecDeque<String>,
    reader: Box<dyn Reader>,
    answer: Answer,
    timeouts: Timeouts,
    /// When the next piece must be here.
    deadline: Instant,
    api_key: Option<SecretString>,
    read: usize,
    /// The beginning of the last frame.
    excerpt: String,
}

impl Live {
    /// The next event; none after the end or an error.
    async fn next(&mut self) -> Option<Result<crate::port::ChatEvent, ModelError>> {
        loop {
            if let Some(event) = self.answer.next() {
                return Some(Ok(event));
            }
            if matches!(self.link, Link::Closed) {
                return None;
            }
            if let Err(error) = self.step().await {
                self.link = Link::Closed;
                return Some(Err(error));
            }
        }
    }

    /// Takes the next frame, or reads more.
    async fn step(&mut self) -> Result<(), ModelError> {
        if let Some(frame) = self.frames.pop_front() {
            return self.take(&frame);
        }
        let chunk = match timeout_at(self.deadline, self.chunk()).await {
            Ok(chunk) => chunk?,
            Err(_) => return Err(self.too_slow()),
        };
        let Some(chunk) = chunk else { return self.end() };
        self.read = self.read.saturating_add(chunk.len());
        if self.read > MAX_ANSWER_BYTES {
            return Err(ModelError::Malformed(format!("it is longer than {MAX_ANSWER_BYTES} bytes")));
        }
        self.framer.push(&chunk, &mut self.frames);
        Ok(())
    }

    /// The next bytes; opens the connection first.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ModelError> {
        if let Link::Waiting(call) = &mut self.link {
            let Some(call) = call.take() else { return Ok(None) };
            let response = call.send().await.map_err(|error| self.transport(&error))?;
            self.link = Link::Open(self.check(response).await?);
        }
        let Link::Open(response) = &mut self.link else { return Ok(None) };
        let chunk = response.chunk().await;
        chunk.map_err(|error| self.transport(&error))
    }

    /// The response, when it is the beginning of an answer.
    async fn check(&self, response: reqwest::Response) -> Result<reqwest::Response, ModelError> {
        let status = response.status();
        if !status.is_success() {
            let headers = response.headers().clone();
            // The status is worth telling even when the rest of the body never comes.
            let (body, _) = read_up_to(response, MAX_ERROR_BYTES).await;
            let body = String::from_utf8_lossy(&body);
            return Err(refusal(Some(status.as_u16()), Some(&headers), &body, self.api_key.as_ref()));
        }
        let kind = content_type(response.headers());
        let fits = match self.framer {
            Framer::Events(_) => kind.starts_with("text/event-stream"),
            Framer::Lines(_) => kind.contains("json"),
        };
        if kind.is_empty() || fits {
            return Ok(response);
        }
        let (body, _) = read_up_to(response, MAX_ERROR_BYTES).await;
        let body = String::from_utf8_lossy(&body);
        if serde_json::from_str::<Value>(&body).is_ok_and(|body| body.get("error").is_some()) {
            return Err(refusal(None, None, &body, self.api_key.as_ref()));
        }
        let excerpt = bounded(&self.clean(&body), MAX_EXCERPT_BYTES);
        Err(ModelError::Malformed(format!("expected a stream of events, got {kind}: {excerpt}")))
    }

    fn take(&mut self, frame: &str) -> Result<(), ModelError> {
        // Some gateways end every stream as chat completions end.
        if frame.trim().is_empty() || frame == "[DONE]" {
            return Ok(());
        }
        self.excerpt = bounded(&self.clean(frame), MAX_EXCERPT_BYTES);
        let event: Value = serde_json::from_str(frame)
            .map_err(|error| ModelError::Malformed(format!("{error}, in: {}", self.excerpt)))?;
        match self.reader.take(&event, &mut self.answer)? {
            Heard::Nothing => {}
            Heard::More => {
                if self.answer.has_begun() {
                    self.deadline = Instant::now() + self.timeouts.between_tokens;
                }
            }
            Heard::End => self.finish()?,
            Heard::Error(error) => return Err(refusal(None, None, &error.to_string(), self.api_key.as_ref())),
        }
        Ok(())
    }

    /// The answer is whole.
    fn finish(&mut self) -> Result<(), ModelError> {
        self.link = Link::Closed;
        self.frames.clear();
        self.answer.end()
    }

    /// The body ended.
    fn end(&mut self) -> Result<(), ModelError> {
        self.framer.end(&mut self.frames);
        while let (Some(frame), false) = (self.frames.pop_front(), matches!(self.link, Link::Closed)) {
            self.take(&frame)?;
        }
        match self.link {
            Link::Closed => Ok(()),
            _ if self.reader.may_end() => self.finish(),
            _ if self.read == 0 => Err(nothing()),
            _ if self.excerpt.is_empty() => Err(ModelError::Malformed("there was no event in it".to_owned())),
            _ => Err(ModelError::Truncated("the connection was closed before the answer was complete".to_owned())),
        }
    }

    fn too_slow(&self) -> ModelError {
        ModelError::Timeout(match self.answer.has_begun() {
            false => format!("no answer within {:?}", self.timeouts.first_token),
            true => format!("nothing more for {:?}", self.timeouts.between_tokens),
        })
    }

    fn transport(&self, error: &reqwest::Error) -> ModelError {
        http::transport(error, |text| self.clean(text))
    }

    fn clean(&self, text: &str) -> String {
        clean(text, self.api_key.as_ref())
    }
}
