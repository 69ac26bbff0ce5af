//! The anchor for the whole path: poem parses the same POST and answers with a JSON of the same size, and that is all.

use std::collections::HashMap;

use clap::Args;
use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::web::{Data, Form, Json};
use poem::{EndpointExt as _, Route, handler, post};
use serde::Serialize;

use crate::error::Error;
use crate::serving;

/// The options of `daybook-bench echo`.
#[derive(Debug, Args)]
pub struct Options {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How long the answer is
    #[arg(long, default_value_t = 1500)]
    bytes: usize,
}

#[derive(Clone, Serialize)]
struct Answer {
    status: &'static str,
    content: String,
}

#[handler]
fn answer(Form(fields): Form<HashMap<String, String>>, answer: Data<&Answer>) -> poem::Result<Json<Answer>> {
    if fields.contains_key("message") {
        return Ok(Json(answer.clone()));
    }
    Err(poem::Error::from_status(poem::http::StatusCode::UNPROCESSABLE_ENTITY))
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), Error> {
    let listener = TcpListener::bind(("127.0.0.1", options.port));
    let acceptor = listener.into_acceptor().await.map_err(Error::io("listen"))?;
    let addresses = acceptor.local_addr();
    let Some(address) = addresses.first().and_then(|address| address.as_socket_addr()) else {
        return Err(Error::Missing("the echo server has no address".to_owned()));
    };
    serving::announce(*address)?;
    let app = Route::new().at("/agents/:id/runs", post(answer)).data(answer_of(options.bytes));
    tokio::select! {
        served = poem::Server::new_with_acceptor(acceptor).run(app) => served.map_err(Error::io("serve")),
        ended = serving::asked_to_end() => ended,
    }
}

/// An answer whose JSON has `bytes` bytes, or as few as possible.
fn answer_of(bytes: usize) -> Answer {
    const FRAME: usize = r#"{"status":"COMPLETED","content":""}"#.len();
    Answer { status: "COMPLETED", content: "x".repeat(bytes.saturating_sub(FRAME)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_size_that_was_asked_for() {
        for bytes in [35, 36, 1500] {
            assert_eq!(serde_json::to_string(&answer_of(bytes)).unwrap().len(), bytes);
        }
        assert_eq!(answer_of(1).content, "");
    }
}
