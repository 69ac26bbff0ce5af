//! REST and SSE: protocol in, commands and queries out, and nothing else.
//! One file per resource and verb group, for all kinds of components alike where they do not differ; `wire/` holds the shapes clients see, `contract/` says what they are.

mod activity;
mod app;
mod approvals;
mod components;
mod compress;
mod connection;
mod cors;
mod databases;
mod docs;
mod errors;
mod forms;
mod guard;
mod kind;
mod limits;
mod meta;
mod multipart;
mod own;
mod params;
mod reads;
mod request_id;
mod runs;
mod serve;
mod sessions;
mod settings;
mod state;
mod strict_json;
mod wire;
mod ws;

pub use app::{app, problem};
pub use errors::{refused, unanswered};
pub use guard::Caller;
pub use own::{Routes, RoutesError};
pub use poem::EndpointExt;
pub use poem::endpoint::BoxEndpoint;
pub use poem_openapi::OpenApi;
pub use serve::serve;
pub use settings::{DEFAULT_CORS_ORIGINS, Settings};
pub use state::AppState;
