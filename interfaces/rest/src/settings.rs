//! How the interface presents itself and what it takes in.

use chrono::{DateTime, Utc};

/// The origins browsers may call from unless configured otherwise: the AgentOS control plane and local development.
pub const DEFAULT_CORS_ORIGINS: &[&str] = &[
    "http://localhost:3000",
    "https://agno.com",
    "https://www.agno.com",
    "https://app.agno.com",
    "https://os.agno.com",
];

/// What a server tells about itself, and its limits.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's id, shown to clients.
    pub os_id: String,
    /// Its name for people.
    pub name: String,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The version of what it serves, in the operator's own counting.
    pub version: String,
    /// The name clients know its database by.
    pub db_id: String,
    /// Origins browsers may call from; `*` allows every one.
    pub cors_origins: Vec<String>,
    /// The most bytes of a request's body.
    pub max_body_bytes: usize,
    /// When the server started.
    pub started_at: DateTime<Utc>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            os_id: "daybook".to_owned(),
            name: "Daybook".to_owned(),
            description: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            db_id: "main-db".to_owned(),
            cors_origins: DEFAULT_CORS_ORIGINS.iter().map(|origin| (*origin).to_owned()).collect(),
            max_body_bytes: 100 << 20,
            started_at: Utc::now(),
        }
    }
}
