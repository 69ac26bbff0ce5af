//! `GET /ready`: whether a load balancer should send requests here.

use std::time::Duration;

use daybook_domain::LogId;
use daybook_engine::{Engine, SILENCE};
use daybook_store::Store;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use crate::docs::Tag;
use crate::guard::{Guard, Public};
use crate::state::{AppState, LOG};

/// The longest the answer waits for the database.
const PATIENCE: Duration = Duration::from_millis(500);

/// Seconds after which it is worth asking again.
const ASK_AGAIN: u32 = 1;

pub(super) struct Ready(pub AppState);

/// Whether this node takes requests now.
#[derive(Debug, Object)]
struct Readiness {
    /// Whether it does.
    ready: bool,
    /// Why not; empty when it does.
    reasons: Vec<String>,
}

#[derive(ApiResponse)]
enum ReadyResponse {
    /// Requests sent here are served.
    #[oai(status = 200)]
    Ready(Json<Readiness>),
    /// Requests are better sent to another node.
    #[oai(status = 503)]
    NotReady(
        Json<Readiness>,
        /// Seconds to wait.
        #[oai(header = "Retry-After")]
        u32,
    ),
}

#[OpenApi]
impl Ready {
    /// Whether the server can take requests now
    #[oai(path = "/ready", method = "get", tag = "Tag::Health", operation_id = "ready_check")]
    async fn ready(&self, _guard: Guard<Public>) -> ReadyResponse {
        let mut reasons = of_node(&self.0.engine);
        reasons.extend(of_database(&self.0.store, LOG).await);
        let ready = reasons.is_empty();
        let answer = Json(Readiness { ready, reasons });
        if ready { ReadyResponse::Ready(answer) } else { ReadyResponse::NotReady(answer, ASK_AGAIN) }
    }
}

fn of_node(engine: &Engine) -> Vec<String> {
    let mut reasons = Vec::new();
    if engine.is_stopping() {
        reasons.push("the node is stopping".to_owned());
    }
    let (held, most) = (engine.run_count(), engine.max_runs());
    if held >= most {
        reasons.push(format!("the node holds {held} runs, the most it takes (server.limits.max_runs)"));
    }
    let silent = engine.silent_for();
    if silent >= SILENCE {
        let seconds = silent.as_secs();
        reasons.push(format!("the node has sent no heartbeat for {seconds} s, so others take its runs over"));
    }
    reasons
}

async fn of_database(store: &Store, log: LogId) -> Option<String> {
    match tokio::time::timeout(PATIENCE, store.head(log)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => {
            tracing::debug!(%error, "not ready");
            Some("the database cannot be asked".to_owned())
        }
        Err(_) => Some("the database did not answer in time".to_owned()),
    }
}
