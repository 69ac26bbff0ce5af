//! `GET /health`: whether the server lives, and whether its views and all runs can go on.

use std::collections::BTreeSet;
use std::time::Duration;

use daybook_projections::ProjectionStatus;
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{Guard, Public};
use crate::state::AppState;
use crate::wire::iso_micros;

/// The longest the answer waits for the database.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Health(pub AppState);

/// Whether the server lives. It answers with 200 as long as it does.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct HealthResponse {
    /// `ok`, or `degraded` when a view or the database is in trouble, or there are runs that no server can go on with.
    status: String,
    /// When the server started, ISO 8601.
    instantiated_at: String,
    /// The views in trouble.
    projections: Option<Vec<ProjectionHealth>>,
    /// What is wrong with the database.
    database: Option<String>,
    /// The runs that no server can go on with.
    stranded: Option<Stranded>,
}

/// Runs under way that no server can go on with.
#[derive(Debug, Object)]
struct Stranded {
    /// How many there are, counted up to 1,000.
    runs: usize,
    /// What servers lack for them: agents and tools that were taken out of the definitions.
    lacking: BTreeSet<String>,
}

/// A view in trouble.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct ProjectionHealth {
    /// Its name.
    name: String,
    /// The position it reached.
    position: u64,
    /// The log's head.
    head: u64,
    /// Streams it could not go on with, and why.
    parked: Vec<Parked>,
    /// Why it stopped for good on this node.
    stopped: Option<String>,
    /// What it is trying to get over.
    trouble: Option<String>,
}

/// A stream that a view could not go on with.
#[derive(Debug, Object)]
struct Parked {
    /// The stream.
    stream: String,
    /// Why.
    error: String,
}

#[OpenApi]
impl Health {
    /// Whether the server lives
    #[oai(path = "/health", method = "get", tag = "Tag::Health", operation_id = "health_check")]
    async fn health(&self, _guard: Guard<Public>) -> Result<Json<HealthResponse>, ApiError> {
        let (projections, database) = self.views().await;
        let stranded = self.stranded();
        let well = projections.is_none() && database.is_none() && stranded.is_none();
        let status = if well { "ok" } else { "degraded" }.to_owned();
        let instantiated_at = iso_micros(self.0.settings.started_at);
        Ok(Json(HealthResponse { status, instantiated_at, projections, database, stranded }))
    }
}

impl Health {
    /// The runs that nobody can go on with, as this node last saw them.
    fn stranded(&self) -> Option<Stranded> {
        let stranded = self.0.engine.stranded();
        let runs = stranded.len();
        (runs > 0).then(|| Stranded { runs, lacking: stranded.into_values().collect() })
    }

    /// The views in trouble, and what is wrong with the database.
    async fn views(&self) -> (Option<Vec<ProjectionHealth>>, Option<String>) {
        let Some(runner) = &self.0.runner else { return (None, None) };
        match tokio::time::timeout(PATIENCE, runner.status()).await {
            Ok(Ok(all)) => {
                let troubled: Vec<_> = all.into_iter().filter(in_trouble).map(ProjectionHealth::from).collect();
                (Some(troubled).filter(|troubled| !troubled.is_empty()), None)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the views' health is unknown");
                (None, Some("the database cannot be asked".to_owned()))
            }
            Err(_) => (None, Some("the database did not answer in time".to_owned())),
        }
    }
}

fn in_trouble(status: &ProjectionStatus) -> bool {
    !status.parked.is_empty() || status.stopped.is_some() || status.trouble.is_some()
}

impl From<ProjectionStatus> for ProjectionHealth {
    fn from(status: ProjectionStatus) -> Self {
        let parked = status.parked.into_iter().map(|(stream, error)| Parked { stream: stream.to_string(), error });
        Self {
            name: status.name.to_owned(),
            position: status.position,
            head: status.head,
            parked: parked.collect(),
            stopped: status.stopped,
            trouble: status.trouble,
        }
    }
}
