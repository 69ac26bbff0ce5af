//! The conversation with a program, message by message. `rmcp` brings a transport like it; this one bounds what a server
//! can do: lines that are too long or no answers end their call at once, a server that does not read is left, what it
//! writes on standard error is logged, and its whole process group ends.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::child::{Pipes, Program};
use super::lines::{Line, Lines};
use super::wire;

/// How long a server may leave a message unread.
const READS_WITHIN: Duration = Duration::from_secs(10);

/// How long the output of a program that ended or takes nothing is still read: a process it left may hold the pipe open.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Why a conversation ended, told to those who still wait for an answer.
#[derive(Clone, Default)]
pub(super) struct Ending {
    /// Fires when it ended.
    pub(super) over: CancellationToken,
    why: Arc<Mutex<Option<String>>>,
}

impl Ending {
    /// Ends it; the first reason stands.
    pub(super) fn end(&self, why: impl Into<String>) {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.into());
        self.over.cancel();
    }

    /// Why it ended.
    pub(super) fn why(&self) -> String {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        why.unwrap_or_else(|| "the connection to the server ended".to_owned())
    }
}

/// The conversation.
pub(super) struct Stdio {
    program: Program,
    lines: Lines<ChildStdout>,
    input: Arc<tokio::sync::Mutex<Option<ChildStdin>>>,
    ending: Ending,
    /// Fires when nothing can be written any more.
    unwritable: CancellationToken,
    /// Until when the output is still read, of a program that ended or takes nothing more.
    until: Option<Instant>,
}

impl Stdio {
    pub(super) fn new(program: Program, pipes: Pipes, ending: Ending) -> Self {
        let input = Arc::new(tokio::sync::Mutex::new(Some(pipes.input)));
        let lines = Lines::new(pipes.output, wire::MAX_MESSAGE);
        Self { program, lines, input, ending, unwritable: CancellationToken::new(), until: None }
    }

    async fn over(&mut self) {
        if !self.ending.over.is_cancelled() {
            let why = self.program.obituary().await;
            self.ending.end(why);
        }
    }
}

/// What happened first.
enum Next {
    Line(io::Result<Line>),
    Ended,
    Over,
}

impl Transport<RoleClient> for Stdio {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let (input, ending, unwritable) = (Arc::clone(&self.input), self.ending.clone(), self.unwritable.clone());
        async move {
            let mut line = serde_json::to_vec(&item)?;
            line.push(b'\n');
            let mut pipe = input.lock().await;
            // Of a pipe that is closed already, and of one that breaks now, `receive` tells more: how the program ended.
            let Some(open) = pipe.as_mut() else { return Ok(()) };
            match timeout(READS_WITHIN, open.write_all(&line)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => unwritable.cancel(),
                Err(_) => ending.end("the server does not read its input"),
            }
            // What was written of the message makes the rest unreadable.
            *pipe = None;
            Ok(())
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        loop {
            let afterwards = self.until.unwrap_or_else(Instant::now);
            let next = tokio::select! {
                biased;
                () = self.ending.over.cancelled() => Next::Over,
                line = self.lines.next() => Next::Line(line),
                () = self.program.ended(), if self.until.is_none() => Next::Ended,
                () = self.unwritable.cancelled(), if self.until.is_none() => Next::Ended,
                () = tokio::time::sleep_until(afterwards), if self.until.is_some() => Next::Over,
            };
            let message = match next {
                Next::Line(Ok(Line::Whole(line))) => wire::message(&line),
                Next::Line(Ok(Line::TooLong { start, end })) => {
                    let message = wire::too_long(&start, &end);
                    if message.is_none() {
                        self.ending.end("the server wrote a line that is too long");
                    }
                    message
                }
                Next::Ended => {
                    self.until = Some(Instant::now() + AFTERWARDS);
                    None
                }
                Next::Line(Ok(Line::End) | Err(_)) | Next::Over => {
                    self.over().await;
                    return None;
                }
            };
            if message.is_some() {
                return message;
            }
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.ending.end("the connection to the server was closed");
        // A message that is stuck holds the pipe; the signals end its server, and that the message.
        if let Ok(mut pipe) = timeout(Duration::from_millis(100), self.input.lock()).await {
            pipe.take();
        }
        self.program.end().await;
        Ok(())
    }
}
