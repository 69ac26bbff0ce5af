//! Calling a model again when it failed before it said anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt;

use crate::port::{ChatEvent, ChatModel, ChatRequest, ChatStream, ModelError, ModelInfo};

/// How often to try again, and when. Waits double from `min_delay` to `max_delay`, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls after the first. 2.
    pub max_retries: u32,
    /// The first wait. 500 ms.
    pub min_delay: Duration,
    /// The longest wait; a provider that asks for a longer one is not called again. 30 s.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 2, min_delay: Duration::from_millis(500), max_delay: Duration::from_secs(30) }
    }
}

impl RetryPolicy {
    /// Never again.
    pub const NEVER: Self = Self { max_retries: 0, min_delay: Duration::ZERO, max_delay: Duration::ZERO };

    fn waits(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.min_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(usize::try_from(self.max_retries).unwrap_or(usize::MAX))
            .build()
    }
}

/// A model that is called again after errors that may pass, but never once a piece of an answer was passed on:
/// nobody is told the same words twice.
#[derive(Debug)]
pub struct Retrying<M> {
    model: Arc<M>,
    policy: RetryPolicy,
}

impl<M: ChatModel> Retrying<M> {
    /// `model`, called again as `policy` says.
    pub fn new(model: M, policy: RetryPolicy) -> Self {
        Self { model: Arc::new(model), policy }
    }
}

#[async_trait]
impl<M: ChatModel> ChatModel for Retrying<M> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError> {
        let attempts = Attempts {
            model: Arc::clone(&self.model),
            request,
            waits: self.policy.waits(),
            max_delay: self.policy.max_delay,
            current: None,
            spoke: false,
            over: false,
        };
        Ok(futures::stream::unfold(attempts, |mut all| async move { all.next().await.map(|piece| (piece, all)) })
            .boxed())
    }
}

struct Attempts<M> {
    model: Arc<M>,
    request: ChatRequest,
    waits: ExponentialBackoff,
    max_delay: Duration,
    current: Option<ChatStream>,
    /// Whether a piece was passed on.
    spoke: bool,
    over: bool,
}

impl<M: ChatModel> Attempts<M> {
    async fn next(&mut self) -> Option<Result<ChatEvent, ModelError>> {
        while !self.over {
            match self.piece().await {
                Some(Ok(event)) => {
                    self.spoke |= !matches!(event, ChatEvent::ProviderData(_));
                    return Some(Ok(event));
                }
                None => return None,
                Some(Err(error)) => {
                    // The connection goes before the wait, not after it.
                    self.current = None;
                    let Some(wait) = self.wait_after(&error) else {
                        self.over = true;
                        return Some(Err(error));
                    };
                    tracing::warn!(model = %self.model.info().id, %error, ?wait, "calling the model again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        None
    }

    async fn piece(&mut self) -> Option<Result<ChatEvent, ModelError>> {
        if self.current.is_none() {
            match self.model.stream(self.request.clone()).await {
                Ok(stream) => self.current = Some(stream),
                Err(error) => return Some(Err(error)),
            }
        }
        self.current.as_mut()?.next().await
    }

    /// How long to wait before the next call; none when there shall be none.
    fn wait_after(&mut self, error: &ModelError) -> Option<Duration> {
        if self.spoke || !error.is_retryable() {
            return None;
        }
        let wait = self.waits.next()?;
        match error {
            ModelError::Status { retry_after: Some(asked), .. } if *asked > self.max_delay => None,
            ModelError::Status { retry_after: Some(asked), .. } => Some(wait.max(*asked)),
            _ => Some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    type Script = Vec<Result<ChatEvent, ModelError>>;

    struct Scripted {
        info: ModelInfo,
        calls: Mutex<VecDeque<Result<Script, ModelError>>>,
    }

    #[async_trait]
    impl ChatModel for Scripted {
        fn info(&self) -> &ModelInfo {
            &self.info
        }

        async fn stream(&self, _: ChatRequest) -> Result<ChatStream, ModelError> {
            let script = self.calls.lock().unwrap().pop_front().expect("one call too many")?;
            Ok(futures::stream::iter(script).boxed())
        }
    }

    fn status(status: u16, retry_after: Option<u64>) -> ModelError {
        let retry_after = retry_after.map(Duration::from_secs);
        ModelError::Status { status, message: format!("answered {status}"), retry_after }
    }

    fn text(text: &str) -> Result<ChatEvent, ModelError> {
        Ok(ChatEvent::Text(text.into()))
    }

    fn done() -> Result<ChatEvent, ModelError> {
        Ok(ChatEvent::Done(Box::default()))
    }

    /// What came, how many calls were left, and how long it took.
    async fn run(calls: Vec<Result<Script, ModelError>>) -> (Script, usize, Duration) {
        let info = ModelInfo { id: "m".into(), provider: "p".into(), class: "c".into() };
        let model = Retrying::new(Scripted { info, calls: Mutex::new(calls.into()) }, RetryPolicy::default());
        let request = ChatRequest::default();
        let before = Instant::now();
        let came = model.stream(request).await.unwrap().collect().await;
        let left = model.model.calls.lock().unwrap().len();
        (came, left, before.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn errors_before_the_first_piece_are_tried_again() {
        let calls = vec![Err(status(503, None)), Ok(vec![Err(status(500, None))]), Ok(vec![text("hi"), done()])];
        let (came, left, took) = run(calls).await;
        assert_eq!((came, left), (vec![text("hi"), done()], 0));
        assert!(took >= Duration::from_millis(1500), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_told_when_all_fail() {
        let (came, ..) = run(vec![Err(status(500, None)), Err(status(502, None)), Err(status(503, None))]).await;
        assert_eq!(came, vec![Err(status(503, None))]);
    }

    #[tokio::test(start_paused = true)]
    async fn errors_that_stay_are_told_at_once() {
        for error in [status(400, None), ModelError::Malformed("x".into()), ModelError::Unsupported("x".into())] {
            let (came, left, took) = run(vec![Err(error.clone()), Ok(vec![done()])]).await;
            assert_eq!((came, left, took), (vec![Err(error)], 1, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_again_after_the_first_piece() {
        let cut = || Err(ModelError::Truncated("cut".into()));
        let (came, left, _) = run(vec![Ok(vec![text("he"), cut()]), Ok(vec![done()])]).await;
        assert_eq!((came, left), (vec![text("he"), cut()], 1));
        let about = || Ok(ChatEvent::ProviderData(serde_json::json!({"id": "r1"})));
        let (came, left, _) = run(vec![Ok(vec![about(), cut()]), Ok(vec![text("hi"), done()])]).await;
        assert_eq!((came, left), (vec![about(), text("hi"), done()], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_is_not_called_before_it_wants_to_be() {
        let (came, _, took) = run(vec![Err(status(429, Some(20))), Ok(vec![done()])]).await;
        assert_eq!(came, vec![done()]);
        assert!(took >= Duration::from_secs(20), "{took:?}");
        let (came, left, took) = run(vec![Err(status(429, Some(31))), Ok(vec![done()])]).await;
        assert_eq!((came, left, took), (vec![Err(status(429, Some(31)))], 1, Duration::ZERO));
    }
}
