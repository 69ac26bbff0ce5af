//! What tools said at length: the whole goes to the blob store, and is read from there by `read_result`.

use std::sync::Arc;

use async_trait::async_trait;
use daybook_domain::ids::{LogId, SessionId};
use daybook_domain::long_result::{LONGEST, READ_RESULT, WholeResult, cut, shorten};
use daybook_domain::message::Message;
use daybook_tools::{ToolError, WholeResults};

use crate::commit::backoff;
use crate::drive::{Driver, Exit};
use crate::engine::Inner;

impl Driver {
    /// What is recorded of what a tool said, without its secrets, and where the whole is when that is too long. The model
    /// reads what is recorded, so the same request can be built again, whatever a note says one day.
    pub async fn recorded(&self, said: &str) -> Result<(String, Option<WholeResult>), Exit> {
        // Before it is cut: half a secret would not be known, nor a name in half an object.
        let mut clean = self.engine.redactor.json(said);
        if clean.len() <= LONGEST {
            return Ok((clean, None));
        }
        let lost = cut(&mut clean);
        let hash = self.put_blob(clean.as_bytes()).await?;
        let readable = self.component.config.tool(READ_RESULT).is_some();
        let (shown, whole) = shorten(&clean, hash, lost, readable);
        Ok((shown, Some(whole)))
    }

    /// Puts bytes into the session's blob store; waits while it does not answer, as the log is waited for.
    async fn put_blob(&self, bytes: &[u8]) -> Result<String, Exit> {
        let subject = self.live.subject();
        let mut backoff = backoff();
        loop {
            match self.engine.store.put_blob(self.live.log, &subject, bytes).await {
                Ok(hash) => return Ok(hash),
                Err(error) if error.is_temporary() => {
                    tracing::warn!(run = %self.meta.run_id, %error, "the blob store does not answer; the run waits");
                    if self.pause_for(backoff.next().unwrap_or_default()).await {
                        return Err(Exit::Moved);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The long results that the run's model has seen, for a tool that reads them.
    pub fn long_results(&self) -> Arc<dyn WholeResults> {
        let history = self.history.iter().flat_map(|history| &history.messages);
        Arc::new(Seen {
            engine: self.engine.clone(),
            log: self.live.log,
            session: self.live.hub.meta.session_id.clone(),
            results: self
                .state
                .messages
                .iter()
                .chain(history)
                .filter_map(|message: &Message| message.whole.clone())
                .collect(),
        })
    }
}

/// Results that a run's model has seen the beginning and end of.
struct Seen {
    engine: Arc<Inner>,
    log: LogId,
    session: SessionId,
    results: Vec<WholeResult>,
}

#[async_trait]
impl WholeResults for Seen {
    async fn whole(&self, id: &str) -> Result<Option<String>, ToolError> {
        let Some(known) = self.results.iter().find(|result| result.is_called(id)) else { return Ok(None) };
        self.engine.whole_result(self.log, &self.session, known).await.map_err(|error| {
            tracing::warn!(%error, "a long result was not read");
            ToolError::failed("the result cannot be read now; try again later")
        })
    }
}
