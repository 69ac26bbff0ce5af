//! Identifiers. Those that callers may choose are checked once, here, so that no other room must.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest identifier a caller may choose, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("an id may have at most {MAX_ID_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// The text holds a control character, which no id needs and no log line survives.
    #[error("an id must not contain control characters")]
    Control,
}

/// Names a log. It is the first column of every key and comes from the principal only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub i64);

impl LogId {
    /// The one log of a server without tenants.
    pub const DEFAULT: LogId = LogId(1);
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and takes it as an id.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, longer than [`MAX_ID_BYTES`] or holds control characters.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                match text.len() {
                    0 => Err(IdError::Empty),
                    n if n > MAX_ID_BYTES => Err(IdError::TooLong(n)),
                    _ if text.chars().any(char::is_control) => Err(IdError::Control),
                    _ => Ok(Self(text)),
                }
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id.to_string())
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// Names a run.
    RunId
);
text_id!(
    /// Names a session, the conversation that runs belong to.
    SessionId
);
text_id!(
    /// Names the user a run or session belongs to.
    UserId
);
text_id!(
    /// Names an agent, team or workflow.
    ComponentId
);
text_id!(
    /// Names an approval.
    ApprovalId
);

/// Names a stream of the log: the aggregate's kind and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(String);

impl StreamId {
    /// The stream of a run.
    pub fn run(id: &RunId) -> Self {
        Self(format!("run:{id}"))
    }

    /// The stream of a session.
    pub fn session(id: &SessionId) -> Self {
        Self(format!("session:{id}"))
    }

    /// The stream that records one component configuration, named by its hash.
    pub fn config(hash: &str) -> Self {
        Self(format!("config:{hash}"))
    }

    /// The stream of an approval.
    pub fn approval(id: &ApprovalId) -> Self {
        Self(format!("approval:{id}"))
    }

    /// A stream name read back from the log.
    pub fn from_log(name: String) -> Self {
        Self(name)
    }

    /// The name as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The run this is the stream of, if it is one.
    pub fn as_run(&self) -> Option<RunId> {
        self.0.strip_prefix("run:").and_then(|id| RunId::parse(id).ok())
    }

    /// The approval this is the stream of, if it is one.
    pub fn as_approval(&self) -> Option<ApprovalId> {
        self.0.strip_prefix("approval:").and_then(|id| ApprovalId::parse(id).ok())
    }

    /// The session this is the stream of, if it is one.
    pub fn as_session(&self) -> Option<SessionId> {
        self.0.strip_prefix("session:").and_then(|id| SessionId::parse(id).ok())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
