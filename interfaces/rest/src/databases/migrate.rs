//! `POST /databases/{db_id}/migrate` and `POST /databases/all/migrate`.

use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

use crate::docs::Tag;
use crate::errors::ApiError;
use crate::guard::{ConfigWrite, Guard};
use crate::params::{Raw, text};
use crate::state::AppState;

pub(super) struct Migrate(pub AppState);

/// What was done.
#[derive(Debug, Object)]
struct Done {
    /// For people.
    message: String,
}

#[OpenApi]
impl Migrate {
    /// Bring all databases to a version
    #[oai(
        path = "/databases/all/migrate",
        method = "post",
        tag = "Tag::Database",
        operation_id = "migrate_all_databases"
    )]
    async fn all(
        &self,
        _guard: Guard<ConfigWrite>,
        /// The version; the latest when absent.
        target_version: Query<Option<Raw<String>>>,
    ) -> Result<Json<Done>, ApiError> {
        let to = self.migrate(text(&target_version)).await?;
        Ok(Json(Done { message: format!("All databases migrated successfully to {to}") }))
    }

    /// Bring a database to a version
    #[oai(
        path = "/databases/:db_id/migrate",
        method = "post",
        tag = "Tag::Database",
        operation_id = "migrate_database"
    )]
    async fn one(
        &self,
        _guard: Guard<ConfigWrite>,
        /// The database.
        db_id: Path<String>,
        /// The version; the latest when absent.
        target_version: Query<Option<Raw<String>>>,
    ) -> Result<Json<Done>, ApiError> {
        self.0.check_database(Some(&db_id), None)?;
        let to = self.migrate(text(&target_version)).await?;
        Ok(Json(Done { message: format!("Database migrated successfully to {to}") }))
    }
}

impl Migrate {
    /// Migrates and says where to.
    async fn migrate(&self, target: Option<&str>) -> Result<String, ApiError> {
        self.0.store.migrate(target).await?;
        Ok(target.map_or_else(|| "latest version".to_owned(), |version| format!("version {version}")))
    }
}
