//! All routes and what surrounds them: request ids, CORS, compression, limits, and errors in one shape.

use std::any::Any;

use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::middleware::CatchPanic;
use poem::web::Html;
use poem::{Endpoint, EndpointExt, Response, Route};
use poem_openapi::{OpenApi, OpenApiService};
use serde_json::json;

use crate::compress::Compressed;
use crate::cors::Cors;
use crate::docs::Merged;
use crate::limits::Limits;
use crate::own::{Handlers, Routes, RoutesError, Table, Whole};
use crate::request_id::RequestIds;
use crate::settings::Settings;
use crate::state::AppState;
use crate::{approvals, components, databases, meta, runs, sessions, ws};

/// The whole interface, with `own` routes beside its own.
///
/// # Errors
/// [`RoutesError`] when they do not fit together.
pub fn app(state: AppState, own: Vec<Routes>) -> Result<impl Endpoint, RoutesError> {
    let (settings, tasks) = (state.settings.clone(), state.tasks.clone());
    let service = service(routes(state.clone()), &settings);
    let (document, html) = (service.spec(), service.swagger_ui_html());
    let mut table = Table::new();
    routes(state).add_routes(&mut table);
    let mut whole = Whole::new(table, &document);
    let any = !own.is_empty();
    own.into_iter().try_for_each(|own| whole.add(own))?;
    let described = if any { format!("{:#}", whole.document) } else { document.clone() };
    let html = html.replace(&document, &described);
    let json = make_sync(move |_| Response::builder().content_type("application/json").body(described.clone()));
    let routes = Route::new()
        .at("/openapi.json", poem::get(json))
        .nest("/docs", Route::new().at("/", poem::get(make_sync(move |_| Html(html.clone())))))
        .nest("/", OpenApiService::new(Handlers(whole.table), settings.name.clone(), settings.version.clone()));
    Ok(surrounded(routes.data(tasks), &settings))
}

/// Every handler.
fn routes(state: AppState) -> impl OpenApi {
    let (meta, components) = (meta::routes(&state), components::routes(&state));
    let (runs, approvals) = (runs::routes(&state), approvals::routes(&state));
    let (sessions, sockets) = (sessions::routes(&state), ws::routes(&state));
    Merged((meta, components, runs, approvals, sessions, sockets, databases::routes(&state)))
}

fn service<T: OpenApi + 'static>(routes: T, settings: &Settings) -> OpenApiService<T, ()> {
    let about = "Runs agents, teams and workflows, and records everything they do in one append-only log. Compatible with the \
        AgentOS API.";
    let service = OpenApiService::new(routes, settings.name.clone(), settings.version.clone());
    service.description(settings.description.clone().unwrap_or_else(|| about.to_owned())).server("/")
}

/// What every request passes, outermost last.
fn surrounded<E: Endpoint + 'static>(routes: E, settings: &Settings) -> impl Endpoint + use<E> {
    routes
        .catch_all_error(|error| async move { in_our_shape(error) })
        .with(Limits::new(settings.max_body_bytes))
        .with(CatchPanic::new().with_handler(panicked))
        .with(Compressed)
        .with(Cors::new(&settings.cors_origins))
        .with(RequestIds)
}

/// An error that is not one of ours, such as the router's.
fn in_our_shape(error: poem::Error) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    let status = error.status();
    if status.is_server_error() {
        tracing::error!(%error, "a request failed");
        return problem(status, "Internal server error");
    }
    let known = matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
    match status.canonical_reason().filter(|_| known) {
        Some(reason) => problem(status, reason),
        None => problem(status, &error.to_string()),
    }
}

fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("of unknown kind"), "a request panicked");
    problem(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
}

/// An error in the shape of all errors.
pub fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({ "detail": detail }).to_string();
    Response::builder().status(status).content_type("application/json; charset=utf-8").body(body)
}

#[cfg(test)]
mod tests {
    use poem::test::TestClient;
    use poem::{get, handler};

    use super::*;

    #[handler]
    fn fine() -> &'static str {
        "fine"
    }

    #[handler]
    fn broken() -> &'static str {
        panic!("a bug")
    }

    fn client() -> TestClient<impl Endpoint> {
        let routes = Route::new().at("/fine", get(fine)).at("/broken", get(broken));
        TestClient::new(surrounded(routes, &Settings::default()))
    }

    #[tokio::test]
    async fn errors_of_the_router_have_our_shape() {
        let answer = client().get("/nope").send().await;
        answer.assert_status(StatusCode::NOT_FOUND);
        answer.assert_json(json!({"detail": "Not Found"})).await;
        let answer = client().put("/fine").send().await;
        answer.assert_status(StatusCode::METHOD_NOT_ALLOWED);
        answer.assert_json(json!({"detail": "Method Not Allowed"})).await;
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_an_id() {
        let answer = client().get("/broken").header("Origin", "http://localhost:3000").send().await;
        answer.assert_status(StatusCode::INTERNAL_SERVER_ERROR);
        answer.assert_header_exist("x-request-id");
        answer.assert_header("access-control-allow-origin", "http://localhost:3000");
        answer.assert_json(json!({"detail": "Internal server error"})).await;
    }
}
