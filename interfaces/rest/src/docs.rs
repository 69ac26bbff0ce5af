//! The API's own description: `/openapi.json` and the bundled `/docs`, both made from the handlers.

use std::collections::HashMap;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::registry::{MetaApi, MetaPath, Registry};
use poem_openapi::{OpenApi, Tags};

/// The groups operations are shown in.
#[derive(Tags)]
pub(crate) enum Tag {
    /// The server itself.
    Core,
    /// Whether it lives.
    Health,
    /// Agents and their runs.
    Agents,
    /// Teams and their runs.
    Teams,
    /// Workflows and their runs.
    Workflows,
    /// Decisions that tool calls wait for.
    Approvals,
    /// Conversations.
    Sessions,
    /// The database.
    Database,
}

/// Handlers of several files as one API: operations on the same path are described together.
pub(crate) struct Merged<T>(pub T);

impl<T: OpenApi> OpenApi for Merged<T> {
    fn meta() -> Vec<MetaApi> {
        let mut paths: Vec<MetaPath> = Vec::new();
        for path in T::meta().into_iter().flat_map(|api| api.paths) {
            match paths.iter_mut().find(|known| known.path == path.path) {
                Some(known) => known.operations.extend(path.operations),
                None => paths.push(path),
            }
        }
        vec![MetaApi { paths }]
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, route_table: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        self.0.add_routes(route_table);
    }
}

#[cfg(test)]
mod tests {
    use poem_openapi::payload::PlainText;
    use poem_openapi::{OpenApi, OpenApiService};
    use serde_json::Value;

    use super::*;

    struct Read;
    struct Write;

    #[OpenApi]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    impl Read {
        #[oai(path = "/things", method = "get")]
        async fn read(&self) -> PlainText<String> {
            PlainText("read".to_owned())
        }
    }

    #[OpenApi]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    impl Write {
        #[oai(path = "/things", method = "post")]
        async fn write(&self) -> PlainText<String> {
            PlainText("written".to_owned())
        }
    }

    #[tokio::test]
    async fn operations_of_several_files_share_a_path() {
        let service = OpenApiService::new(Merged((Read, Write)), "t", "1");
        let document = service.spec();
        assert_eq!(document.matches("\"/things\"").count(), 1);
        let document: Value = serde_json::from_str(&document).unwrap();
        let operations = document["paths"]["/things"].as_object().unwrap();
        assert!(operations.contains_key("get") && operations.contains_key("post"));
        let client = poem::test::TestClient::new(service);
        client.get("/things").send().await.assert_text("read").await;
        client.post("/things").send().await.assert_text("written").await;
    }
}
