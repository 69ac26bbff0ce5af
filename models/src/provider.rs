//! The model behind a provider's protocol. Each protocol has code of its own for its requests and for the events of its
//! answers; the call itself, its timeouts and its errors are here, once for all.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt as _;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Answer, nothing};
use crate::frames::Frames;
use crate::http::{self, MAX_ANSWER_BYTES, MAX_ERROR_BYTES, content_type, read_up_to};
use crate::options::{Api, ModelOptions, SetupError, Timeouts, check_model};
use crate::port::{ChatModel, ChatRequest, ChatStream, ModelError, ModelInfo};
use crate::refusal::{clean, refusal};
use crate::retry::Retrying;
use crate::text::{MAX_EXCERPT_BYTES, bounded};
use crate::{anthropic, gemini, ollama, openai, responses};

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

    /// Whether some servers answer with one JSON object though a stream was asked for.
    fn may_be_whole(&self) -> bool {
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
    /// An error, as JSON in the provider's own shape.
    Error(String),
}

/// What an answer is when its connection ends without saying that it is whole.
#[derive(Debug, PartialEq)]
pub(crate) enum Ending {
    /// Whole all the same.
    Whole,
    /// Broken off.
    Broken,
    /// No answer of this protocol.
    Foreign,
}

/// Why an event could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// It is no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It makes the answer unusable.
    #[error(transparent)]
    Answer(#[from] ModelError),
}

/// Reads the events of one answer.
pub(crate) trait Reader: Send + Sync {
    /// Takes one event, as it came, into the answer.
    ///
    /// # Errors
    /// [`Unread`] when that cannot be.
    fn take(&mut self, frame: &str, answer: &mut Answer) -> Result<Heard, Unread>;

    /// Takes the `[DONE]` that ends chat completions. Some gateways end every stream with it.
    fn done(&mut self, _: &mut Answer) -> Heard {
        Heard::Nothing
    }

    /// Takes the end of the connection.
    fn closed(&mut self, _: &mut Answer) -> Ending {
        Ending::Broken
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
            Api::OpenAiChat => Arc::new(openai::Chat::new(model, options)?),
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
            link: Link::Waiting(Some(Box::new(call))),
            frames: if self.protocol.is_lines() { Frames::lines() } else { Frames::events() },
            may_be_whole: self.protocol.may_be_whole(),
            reader: self.protocol.reader(),
            answer: Answer::new(started),
            timeouts: self.timeouts,
            deadline: started + self.timeouts.first_token,
            api_key: self.api_key.clone(),
            read: 0,
            last: String::new(),
        };
        Ok(futures::stream::unfold(live, |mut live| async move { live.next().await.map(|piece| (piece, live)) })
            .boxed())
    }
}

/// The connection of one call.
enum Link {
    /// Not opened yet.
    Waiting(Option<Box<reqwest::RequestBuilder>>),
    /// The answer comes. Its head is forgotten: it would hold on to the buffer that it was read into.
    Open(reqwest::Body),
    /// Closed, because the answer is whole or failed.
    Closed,
}

/// One call and its answer. Dropping it closes the connection.
struct Live {
    link: Link,
    frames: Frames,
    may_be_whole: bool,
    reader: Box<dyn Reader>,
    answer: Answer,
    timeouts: Timeouts,
    /// When the next piece must be here.
    deadline: Instant,
    api_key: Option<SecretString>,
    read: usize,
    /// The last frame, for errors.
    last: String,
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
        if let Some(frame) = self.frames.next() {
            return self.take(frame);
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
        self.frames.push(chunk);
        Ok(())
    }

    /// The next bytes; opens the connection first.
    async fn chunk(&mut self) -> Result<Option<Bytes>, ModelError> {
        if let Link::Waiting(call) = &mut self.link {
            let Some(call) = call.take() else { return Ok(None) };
            let response = call.send().await.map_err(|error| self.transport(&error))?;
            self.link = Link::Open(self.check(response).await?.into());
        }
        loop {
            let Link::Open(body) = &mut self.link else { return Ok(None) };
            let Some(frame) = body.frame().await else { return Ok(None) };
            // Trailers tell nothing that is read here.
            if let Ok(chunk) = frame.map_err(|error| self.transport(&error))?.into_data() {
                return Ok(Some(chunk));
            }
        }
    }

    /// The response, when it is the beginning of an answer.
    async fn check(&mut self, response: reqwest::Response) -> Result<reqwest::Response, ModelError> {
        let status = response.status();
        if !status.is_success() {
            let headers = response.headers().clone();
            // The status is worth telling even when the rest of the body never comes.
            let (body, _) = read_up_to(response, MAX_ERROR_BYTES).await;
            let body = String::from_utf8_lossy(&body);
            return Err(refusal(Some(status.as_u16()), Some(&headers), &body, self.api_key.as_ref()));
        }
        let kind = content_type(response.headers());
        let fits = match self.frames {
            Frames::Lines { .. } => kind.contains("json"),
            _ => kind.starts_with("text/event-stream"),
        };
        if kind.is_empty() || fits {
            return Ok(response);
        }
        if self.may_be_whole {
            self.frames = Frames::whole(kind);
            return Ok(response);
        }
        let (body, _) = read_up_to(response, MAX_ERROR_BYTES).await;
        let body = String::from_utf8_lossy(&body);
        if serde_json::from_str::<Value>(&body).is_ok_and(|body| body.get("error").is_some()) {
            return Err(refusal(None, None, &body, self.api_key.as_ref()));
        }
        Err(ModelError::Malformed(format!("expected a stream of events, got {kind}: {}", self.excerpt(&body))))
    }

    fn take(&mut self, frame: String) -> Result<(), ModelError> {
        if frame.trim().is_empty() {
            return Ok(());
        }
        self.last = frame;
        let heard = match self.last.trim() {
            "[DONE]" => self.reader.done(&mut self.answer),
            frame => match self.reader.take(frame, &mut self.answer) {
                Ok(heard) => heard,
                Err(Unread::Answer(error)) => return Err(error),
                Err(Unread::Json(error)) => return Err(self.no_json(&error)),
            },
        };
        match heard {
            Heard::Nothing => Ok(()),
            Heard::More => {
                if self.answer.has_begun() {
                    self.deadline = Instant::now() + self.timeouts.between_tokens;
                }
                Ok(())
            }
            Heard::End => self.finish(),
            Heard::Error(error) => Err(refusal(None, None, &error, self.api_key.as_ref())),
        }
    }

    /// The answer is whole.
    fn finish(&mut self) -> Result<(), ModelError> {
        self.link = Link::Closed;
        self.answer.end()
    }

    /// The body ended.
    fn end(&mut self) -> Result<(), ModelError> {
        if let Some(frame) = self.frames.end() {
            self.take(frame)?;
        }
        if matches!(self.link, Link::Closed) {
            return Ok(());
        }
        match self.reader.closed(&mut self.answer) {
            Ending::Whole => self.finish(),
            _ if self.last.is_empty() => Err(nothing()),
            Ending::Broken => {
                Err(ModelError::Truncated("the connection was closed before the answer was complete".to_owned()))
            }
            Ending::Foreign => {
                Err(ModelError::Malformed(format!("no part of an answer: {}", self.excerpt(&self.last))))
            }
        }
    }

    fn no_json(&self, error: &serde_json::Error) -> ModelError {
        let excerpt = self.excerpt(&self.last);
        ModelError::Malformed(match &self.frames {
            Frames::Whole { kind, .. } => format!("expected JSON or an event stream, got {kind}: {excerpt}"),
            _ => format!("{error}, in: {excerpt}"),
        })
    }

    /// The beginning of what nobody understood.
    fn excerpt(&self, text: &str) -> String {
        bounded(&self.clean(text), MAX_EXCERPT_BYTES)
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
