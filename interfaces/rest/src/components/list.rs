//! `GET /{components}`.

use poem_openapi::OpenApi;
use poem_openapi::payload::Json;

use super::Shows;
use crate::errors::ApiError;
use crate::guard::Guard;
use crate::kind::Of;

pub(super) struct List<K>(pub Of<K>);

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Shows> List<K> {
    /// List all
    #[oai(path = "/", method = "get", operation_id = "list_components")]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    async fn list(&self, _guard: Guard<K::Read>) -> Result<Json<Vec<K::Listed>>, ApiError> {
        let (registry, db_id) = (self.0.engine.registry(), &self.0.settings.db_id);
        Ok(Json(registry.listed(K::KIND).filter_map(|known| K::listed(known, &registry, db_id)).collect()))
    }
}
