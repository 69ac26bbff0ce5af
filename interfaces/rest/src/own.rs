//! Routes of the program that embeds Daybook: behind the same guard, limits and errors, and in the same document.

use std::collections::HashMap;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Route};
use poem_openapi::registry::{MetaApi, Registry};
use poem_openapi::{OpenApi, OpenApiService};
use serde_json::{Map, Value};

use crate::docs::Merged;
use crate::guard::{Caller, OwnRoutes, Scope};

/// Endpoints by path and method.
pub(crate) type Table = HashMap<String, HashMap<Method, BoxEndpoint<'static>>>;

/// The routes of an API, to be served beside Daybook's own.
pub struct Routes {
    document: Value,
    table: Table,
}

impl Routes {
    /// Routes that only callers with a right to be here may use. Handlers learn who calls from a [`Caller`] argument.
    pub fn new<T: OpenApi + 'static>(api: T) -> Self {
        let Self { document, table } = Self::public(api);
        let guard = |methods: HashMap<Method, BoxEndpoint<'static>>| {
            methods.into_iter().map(|(method, endpoint)| (method, Guarded(endpoint).boxed())).collect()
        };
        Self { document, table: table.into_iter().map(|(path, methods)| (path, guard(methods))).collect() }
    }

    /// Routes that anybody may use: they see to it themselves, for example by the signature of a webhook.
    pub fn public<T: OpenApi + 'static>(api: T) -> Self {
        let described = OpenApiService::new(Merged(Described(std::marker::PhantomData::<T>)), "", "");
        let document = serde_json::from_str(&described.spec()).unwrap_or_default();
        let mut table = Table::new();
        api.add_routes(&mut table);
        Self { document, table }
    }
}

/// Why routes cannot be served beside Daybook's.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// Two handlers for the same requests.
    #[error("{method} {path} is there already: give the route another path")]
    Taken {
        /// The method.
        method: String,
        /// The path, as it is documented.
        path: String,
    },
    /// Two different shapes of one name.
    #[error("there are two different schemas named {0:?}: rename the type with #[oai(rename = \"...\")]")]
    Schema(String),
    /// Two operations of one id.
    #[error("the operation id {0:?} is there already: choose another")]
    Operation(String),
    /// A path the router does not take.
    #[error("the path {path:?} cannot be served ({fault}): choose another")]
    Path {
        /// The path.
        path: String,
        /// What the router said.
        fault: String,
    },
}

/// Runs the guard, and tells the handler who calls.
struct Guarded(BoxEndpoint<'static>);

impl Endpoint for Guarded {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let caller = Caller::admit(&request, OwnRoutes::NAME)?;
        request.extensions_mut().insert(caller);
        self.0.call(request).await.map(IntoResponse::into_response)
    }
}

/// An API's description without its handlers.
struct Described<T>(std::marker::PhantomData<T>);

impl<T: OpenApi> OpenApi for Described<T> {
    fn meta() -> Vec<MetaApi> {
        T::meta()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn add_routes(self, _: &mut Table) {}
}

/// Handlers without their description.
pub(crate) struct Handlers(pub Table);

impl OpenApi for Handlers {
    fn meta() -> Vec<MetaApi> {
        Vec::new()
    }

    fn register(_: &mut Registry) {}

    fn add_routes(self, table: &mut Table) {
        table.extend(self.0);
    }
}

/// All handlers, and the document that describes them, once they are known to fit together.
pub(crate) struct Whole {
    pub table: Table,
    pub document: Value,
}

impl Whole {
    /// Daybook's own.
    pub fn new(table: Table, document: &str) -> Self {
        Self { table, document: serde_json::from_str(document).unwrap_or_default() }
    }

    /// Adds others.
    ///
    /// # Errors
    /// [`RoutesError`] says what is in the way.
    pub fn add(&mut self, routes: Routes) -> Result<(), RoutesError> {
        for (path, item) in entries(&routes.document, "/paths") {
            for (method, operation) in item.as_object().into_iter().flatten() {
                self.describe(path, method, operation)?;
            }
        }
        for (name, schema) in entries(&routes.document, "/components/schemas") {
            self.schema(name, schema)?;
        }
        let tags = routes.document["tags"].as_array().cloned().unwrap_or_default();
        if let Some(known) = self.document["tags"].as_array_mut() {
            known.extend(tags.into_iter().filter(|tag| !known.contains(tag)).collect::<Vec<_>>());
        }
        for (path, methods) in routes.table {
            let known = self.table.entry(path.clone()).or_default();
            // One that is not documented is found here.
            if let Some(method) = methods.keys().find(|method| known.contains_key(*method)) {
                return Err(RoutesError::Taken { method: method.to_string(), path });
            }
            known.extend(methods);
        }
        routable(&self.table)
    }

    fn describe(&mut self, path: &str, method: &str, operation: &Value) -> Result<(), RoutesError> {
        if let Some(id) = operation["operationId"].as_str()
            && entries(&self.document, "/paths").any(|(_, item)| holds_operation(item, id))
        {
            return Err(RoutesError::Operation(id.to_owned()));
        }
        let item = &mut self.document["paths"][path];
        if item.is_null() {
            *item = Value::Object(Map::new());
        }
        if !item[method].is_null() {
            return Err(RoutesError::Taken { method: method.to_uppercase(), path: path.to_owned() });
        }
        item[method] = operation.clone();
        Ok(())
    }

    fn schema(&mut self, name: &str, schema: &Value) -> Result<(), RoutesError> {
        let known = &mut self.document["components"]["schemas"][name];
        if known.is_null() {
            *known = schema.clone();
        }
        if *known == *schema { Ok(()) } else { Err(RoutesError::Schema(name.to_owned())) }
    }
}

fn entries<'a>(document: &'a Value, at: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    document.pointer(at).and_then(Value::as_object).into_iter().flatten()
}

fn holds_operation(item: &Value, id: &str) -> bool {
    item.as_object().is_some_and(|item| item.values().any(|operation| operation["operationId"] == id))
}

/// The router panics on paths it cannot tell apart, so it is asked first.
fn routable(table: &Table) -> Result<(), RoutesError> {
    let mut paths: Vec<&String> = table.keys().collect();
    paths.sort();
    let none = || poem::endpoint::make_sync(|_| ());
    paths.into_iter().try_fold(Route::new(), |route, path| {
        let added = route.try_at(path, none());
        added.map_err(|fault| RoutesError::Path { path: path.clone(), fault: fault.to_string() })
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use poem_openapi::Object;
    use poem_openapi::payload::{Json, PlainText};

    use super::*;

    struct Greeter;

    #[derive(Object)]
    struct Greeting {
        said: String,
    }

    #[OpenApi]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    impl Greeter {
        #[oai(path = "/hello", method = "get")]
        async fn hello(&self, caller: Caller) -> Json<Greeting> {
            Json(Greeting { said: format!("hello {}", caller.principal().name) })
        }
    }

    struct Taker;

    #[OpenApi]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    impl Taker {
        #[oai(path = "/hello", method = "get")]
        async fn hello(&self) -> PlainText<&'static str> {
            PlainText("mine")
        }
    }

    struct Similar;

    #[OpenApi]
    #[expect(clippy::unused_async, reason = "handlers are async")]
    impl Similar {
        #[oai(path = "/hello", method = "post", operation_id = "greet")]
        async fn hello(&self) -> PlainText<&'static str> {
            PlainText("posted")
        }
    }

    fn whole() -> Whole {
        Whole::new(Table::new(), &OpenApiService::new((), "t", "1").spec())
    }

    #[tokio::test]
    async fn routes_are_served_and_described_together() {
        let mut whole = whole();
        whole.add(Routes::new(Greeter)).unwrap();
        whole.add(Routes::public(Similar)).unwrap();
        let item = &whole.document["paths"]["/hello"];
        assert!(item["get"].is_object() && item["post"].is_object(), "{item}");
        assert!(whole.document["components"]["schemas"]["Greeting"].is_object());
        let client = poem::test::TestClient::new(OpenApiService::new(Handlers(whole.table), "t", "1"));
        client.get("/hello").send().await.assert_json(serde_json::json!({"said": "hello anonymous"})).await;
        client.post("/hello").send().await.assert_text("posted").await;
    }

    #[test]
    fn what_is_taken_is_told() {
        let mut twice = whole();
        twice.add(Routes::new(Greeter)).unwrap();
        let error = twice.add(Routes::new(Taker)).unwrap_err().to_string();
        assert_eq!(error, "GET /hello is there already: give the route another path");
        let mut twice = whole();
        twice.add(Routes::new(Similar)).unwrap();
        assert!(matches!(twice.add(Routes::new(Similar)), Err(RoutesError::Operation(id)) if id == "greet"));
        let mut other = whole();
        other.document["components"]["schemas"]["Greeting"] = serde_json::json!({"type": "string"});
        assert!(matches!(other.add(Routes::new(Greeter)), Err(RoutesError::Schema(name)) if name == "Greeting"));
    }
}
