//! The fakes as a server of their own, for the providers' own clients: `docs/models.md` says how they were driven.

use std::io::Read as _;
use std::net::SocketAddr;

use poem::listener::{Acceptor, Listener, TcpListener};
use poem::web::Json;
use poem::{Response, Route, Server, handler, post};
use serde_json::Value;

use crate::fake::Act;
use crate::{anthropic, gemini, ollama, responses};

/// The act of the scenario that the request names as its model.
#[handler]
fn scripted(request: &poem::Request, body: Json<Value>) -> Response {
    let path = request.uri().path();
    let named = path.rsplit_once("/models/").map(|(_, rest)| rest.split(':').next().unwrap_or_default());
    let scenario = named.or_else(|| body["model"].as_str()).unwrap_or_default();
    let act: Option<Act> = match path {
        path if path.ends_with("/v1/messages") => anthropic::scenario(scenario),
        path if path.ends_with("/responses") => responses::scenario(scenario),
        path if path.ends_with("/api/chat") => ollama::scenario(scenario),
        _ => gemini::scenario(scenario),
    };
    act.unwrap_or_else(|| Act::refuses(404, "{\"error\": \"no such scenario\"}".into(), vec![])).response()
}

#[tokio::test]
#[ignore = "serves until its input ends; for the providers' own clients"]
async fn serve_the_fakes() {
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
    let address: SocketAddr = *acceptor.local_addr()[0].as_socket_addr().unwrap();
    std::fs::write(std::env::var("ADDRESS_FILE").expect("ADDRESS_FILE"), address.to_string()).unwrap();
    let app = Route::new().at("/*path", post(scripted));
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    Server::new_with_acceptor(acceptor)
        .run_with_graceful_shutdown(app, async { drop(ended.await) }, None)
        .await
        .unwrap();
}
