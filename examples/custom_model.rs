//! A model of your own: everything that answers a conversation with pieces of text can be one.
//! Try it: `cargo run --example custom_model`, then
//! `curl -N http://127.0.0.1:8000/agents/parrot/runs -F message='Nice weather today'`.

use std::sync::Arc;

use async_trait::async_trait;
use daybook::domain::message::Role;
use daybook::{
    AgentDefinition, Builder, ChatEvent, ChatModel, ChatRequest, ChatResponse, ChatStream, Daybook, ModelError,
    ModelInfo,
};
use futures::{StreamExt, stream};

/// Says again what it was told, one word at a time.
struct Parrot(ModelInfo);

impl Parrot {
    fn new() -> Self {
        let [id, provider, class] = ["parrot-1", "Mine", "Parrot"].map(str::to_owned);
        Self(ModelInfo { id, provider, class })
    }
}

#[async_trait]
impl ChatModel for Parrot {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    async fn stream(&self, request: ChatRequest) -> Result<ChatStream, ModelError> {
        let heard = request.messages.iter().rfind(|message| message.role == Role::User);
        let words = heard.and_then(|message| message.content.as_deref()).unwrap_or_default();
        if words.is_empty() {
            return Err(ModelError::Unsupported("a parrot needs words".to_owned()));
        }
        let text = format!("{words}! {words}!");
        let pieces: Vec<_> = text.split_inclusive(' ').map(|word| Ok(ChatEvent::Text(word.to_owned()))).collect();
        // The end comes last, with the whole answer: it is what the log keeps.
        let whole = ChatResponse { text, finish_reason: "stop".to_owned(), ..ChatResponse::default() };
        Ok(stream::iter(pieces).chain(stream::iter([Ok(ChatEvent::Done(Box::new(whole)))])).boxed())
    }
}

fn server() -> Builder {
    Daybook::builder().model("parrot", Arc::new(Parrot::new())).agent(AgentDefinition::new("parrot").model("parrot"))
}

#[tokio::main]
async fn main() -> Result<(), daybook::Error> {
    server().build().await?.serve().await
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use daybook::{FrameBody, RunError};

    use super::*;

    #[tokio::test]
    async fn a_parrot_answers_and_may_refuse() {
        // The user that PostgreSQL runs as must be able to enter it.
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let running = server().port(0).data_dir(dir.path().join("data")).build().await.unwrap().start();

        let mut pieces = Vec::new();
        let mut events = running.agent("parrot").stream("Hello you").await.unwrap();
        while let Some(frame) = events.next().await {
            if let FrameBody::Content { text: Some(text), .. } = &frame.unwrap().body {
                pieces.push(text.clone());
            }
        }
        assert_eq!(pieces.concat(), "Hello you! Hello you!");
        assert!(pieces.len() >= 4, "{pieces:?}");

        let refused = running.agent("parrot").run("").await.unwrap_err();
        assert!(matches!(&refused, RunError::Failed { message, .. } if message.contains("needs words")), "{refused}");
        running.shutdown().await.unwrap();
    }
}
