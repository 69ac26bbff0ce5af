//! What servers are asked for, and what a good answer to it is.

use clap::ValueEnum;
use serde::Deserialize;
use tokio::time::Instant;

use crate::http::Failed;
use crate::sse::Reader;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A run of an agent.
    Run,
    /// A run of a team.
    Team,
    /// A run of a workflow.
    Workflow,
    /// An answer of the model itself.
    Model,
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Where it is asked for.
    pub fn path(self, id: &str) -> String {
        match self {
            Self::Run => format!("/agents/{id}/runs"),
            Self::Team => format!("/teams/{id}/runs"),
            Self::Workflow => format!("/workflows/{id}/runs"),
            Self::Model => "/v1/chat/completions".to_owned(),
        }
    }

    /// Whether an event of a stream holds text, of whatever run in it.
    fn is_text(self, event: &str, data: &str) -> bool {
        match self {
            Self::Run | Self::Workflow => event == "RunContent",
            Self::Team => event == "RunContent" || event == "TeamRunContent",
            Self::Model => has_text(data),
        }
    }

    /// Whether an event of a stream says that all went well.
    fn is_end(self, event: &str, data: &str) -> bool {
        match self {
            Self::Run => event == "RunCompleted",
            Self::Team => event == "TeamRunCompleted",
            Self::Workflow => event == "WorkflowCompleted",
            Self::Model => data == "[DONE]",
        }
    }
}

/// When a stream first showed something, and when its first text.
#[derive(Debug, Clone, Copy)]
pub struct Firsts<T> {
    /// Its first event, whatever it is.
    pub frame: T,
    /// Its first text.
    pub token: T,
}

/// What an answer said.
pub struct Answered {
    /// When the stream showed something, where it is one.
    pub firsts: Option<Firsts<Instant>>,
    /// The size of its body.
    pub bytes: usize,
}

/// A whole answer must say that all went well.
pub fn check_whole(kind: Kind, body: &[u8]) -> Result<(), Failed> {
    #[derive(Deserialize)]
    struct Run<'a> {
        status: &'a str,
    }
    #[derive(Deserialize)]
    struct Model<'a> {
        object: &'a str,
    }
    let good = match kind {
        Kind::Run | Kind::Team | Kind::Workflow => {
            serde_json::from_slice::<Run<'_>>(body).is_ok_and(|run| run.status == "COMPLETED")
        }
        Kind::Model => serde_json::from_slice::<Model<'_>>(body).is_ok_and(|model| model.object == "chat.completion"),
    };
    if good { Ok(()) } else { Err(Failed::Answer(format!("not a completed answer: {}", beginning(body)))) }
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned()
}

/// Watches a stream for its first token and its good end.
pub struct Seen {
    kind: Kind,
    reader: Reader,
    first_frame: Option<Instant>,
    first_token: Option<Instant>,
    ended_well: bool,
    bytes: usize,
}

impl Seen {
    /// Of a stream that has not begun.
    pub fn new(kind: Kind) -> Self {
        Self { kind, reader: Reader::default(), first_frame: None, first_token: None, ended_well: false, bytes: 0 }
    }

    /// Takes what came.
    pub fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len();
        let Self { kind, reader, first_frame, first_token, ended_well, .. } = self;
        reader.push(chunk, |event, data| {
            first_frame.get_or_insert_with(Instant::now);
            if kind.is_text(event, data) {
                first_token.get_or_insert_with(Instant::now);
            }
            *ended_well |= kind.is_end(event, data);
        });
    }

    /// Whether a token has come.
    pub fn has_token(&self) -> bool {
        self.first_token.is_some()
    }

    /// What was seen, once nothing more comes.
    pub fn end(self) -> Result<Answered, Failed> {
        let (Some(frame), Some(token)) = (self.first_frame, self.first_token) else {
            return Err(Failed::Answer("a stream without a token".to_owned()));
        };
        if !self.ended_well {
            return Err(Failed::Answer("a stream that did not complete".to_owned()));
        }
        Ok(Answered { firsts: Some(Firsts { frame, token }), bytes: self.bytes })
    }
}

/// Whether a chunk of a chat completion holds text.
fn has_text(data: &str) -> bool {
    data.split_once("\"content\":\"").is_some_and(|(_, text)| !text.starts_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_completed_answers_count() {
        assert!(check_whole(Kind::Run, br#"{"run_id":"r","status":"COMPLETED"}"#).is_ok());
        let failed = check_whole(Kind::Run, br#"{"status":"ERROR"}"#).unwrap_err().to_string();
        assert!(failed.contains("ERROR"), "{failed}");
        assert!(check_whole(Kind::Run, b"<html>").is_err());
        for kind in [Kind::Team, Kind::Workflow] {
            assert!(check_whole(kind, br#"{"status":"COMPLETED"}"#).is_ok());
            assert!(check_whole(kind, br#"{"status":"PAUSED"}"#).is_err());
        }
        assert!(check_whole(Kind::Model, br#"{"object":"chat.completion"}"#).is_ok());
    }

    #[test]
    fn a_stream_counts_with_a_token_and_its_end() {
        let seen = |kind, text: &str| {
            let mut seen = Seen::new(kind);
            seen.take(text.as_bytes());
            seen.end().map(|answered| answered.bytes)
        };
        let whole = "event: RunStarted\ndata: {}\n\nevent: RunContent\ndata: {}\n\nevent: RunCompleted\ndata: {}\n\n";
        assert_eq!(seen(Kind::Run, whole).unwrap(), whole.len());
        assert!(seen(Kind::Run, &whole.replace("RunCompleted", "RunError")).is_err());
        assert!(seen(Kind::Run, &whole.replace("RunContent", "RunReasoning")).is_err());
        let team = "event: TeamRunStarted\n\nevent: RunContent\n\nevent: RunCompleted\n\n";
        assert!(seen(Kind::Team, team).is_err(), "a member's end is not its team's");
        assert!(seen(Kind::Team, &format!("{team}event: TeamRunCompleted\n\n")).is_ok());
        assert!(seen(Kind::Workflow, &format!("{team}event: WorkflowCompleted\n\n")).is_ok());
        let model = "data: {\"delta\":{\"content\":\"\"}}\n\ndata: {\"delta\":{\"content\":\"a\"}}\n\ndata: [DONE]\n\n";
        assert!(seen(Kind::Model, model).is_ok());
        assert!(seen(Kind::Model, &model.replace(":\"a\"", ":\"\"")).is_err(), "no text is no token");
        assert!(seen(Kind::Model, &model.replace("[DONE]", "{}")).is_err());
    }
}
