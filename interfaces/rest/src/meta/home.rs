//! `GET /`: where to look next.

use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{Guard, Public};
use crate::state::AppState;

pub(super) struct Home(pub AppState);

/// Where to look next.
#[derive(Debug, Object)]
struct HomeResponse {
    /// The server's name.
    name: String,
    /// Whether it lives.
    health: String,
    /// What it is.
    info: String,
    /// How to use it.
    docs: String,
}

#[OpenApi]
impl Home {
    /// Where to look next
    #[oai(path = "/", method = "get", tag = "Tag::Core", operation_id = "get_home")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn home(&self, _guard: Guard<Public>) -> Result<Json<HomeResponse>, ApiError> {
        Ok(Json(HomeResponse {
            name: self.0.settings.name.clone(),
            health: "/health".to_owned(),
            info: "/info".to_owned(),
            docs: "/docs".to_owned(),
        }))
    }
}
