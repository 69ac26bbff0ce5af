//! `GET /{components}/{id}`.

use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;

use super::Shows;
use crate::errors::ApiError;
use crate::guard::Guard;
use crate::kind::{Of, not_found};
use crate::params::{Raw, int_between};

pub(super) struct Get<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Shows> Get<K> {
    /// Get one
    #[oai(path = "/:component_id", method = "get", operation_id = "get_component")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn get(
        &self,
        _guard: Guard<K::Read>,
        /// The component.
        component_id: Path<String>,
        /// Its version. Components of this server have one only, which is given.
        version: Query<Option<Raw<i64>>>,
    ) -> Result<Json<K::One>, ApiError> {
        int_between(&version, "version", i64::MIN, i64::MAX)?;
        let component = self.0.component(K::KIND, &component_id)?;
        let shown = K::one(&component, &self.0.engine.registry(), &self.0.settings.db_id);
        shown.map(Json).ok_or_else(not_found::<K>)
    }
}
