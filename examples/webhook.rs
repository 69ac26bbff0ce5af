//! A webhook that runs an agent: it answers at once, the run goes on, and a delivery that comes twice is run once.
//! Try it: `WEBHOOK_SECRET=secret cargo run --example webhook`, then
//! `curl http://127.0.0.1:8000/webhooks/tickets -H 'X-Secret: secret' -H 'X-Delivery: 1' -d '{"text": "It is on fire"}'
//! -H 'Content-Type: application/json'` and with the run's id `curl http://127.0.0.1:8000/tickets/RUN_ID`.

use daybook::domain::ids::RunId;
use daybook::{AgentDefinition, Builder, Caller, Daybook, Handle};
use poem::http::StatusCode;
use poem_openapi::param::{Header, Path};
use poem_openapi::payload::Json;
use poem_openapi::{Object, OpenApi};

/// A ticket, as the ticket system sends it.
#[derive(Object)]
struct Ticket {
    text: String,
}

/// What becomes of it.
#[derive(Object)]
struct Triage {
    run_id: String,
    /// What the agent said, once it has.
    answer: Option<String>,
}

/// Called by the ticket system, which shows a secret of its own. So the route is public to Daybook.
struct Webhook {
    daybook: Handle,
    secret: String,
}

#[OpenApi]
impl Webhook {
    /// Take a ticket
    #[oai(path = "/webhooks/tickets", method = "post")]
    async fn take(
        &self,
        #[oai(name = "X-Secret")] secret: Header<String>,
        #[oai(name = "X-Delivery")] delivery: Header<String>,
        ticket: Json<Ticket>,
    ) -> poem::Result<Json<Triage>> {
        if !same(&secret.0, &self.secret) {
            return Err(poem::Error::from_string("wrong X-Secret", StatusCode::UNAUTHORIZED));
        }
        let call = self.daybook.agent("triage").run(&ticket.text).idempotency_key(&delivery.0);
        // Accepted means recorded: from here on the run is not lost, whatever happens to this server.
        let accepted = call.start().await?;
        Ok(Json(Triage { run_id: accepted.run_id.to_string(), answer: None }))
    }
}

/// Called by people, who show Daybook who they are wherever it asks.
struct Desk {
    daybook: Handle,
}

#[OpenApi]
impl Desk {
    /// See what became of a ticket
    #[oai(path = "/tickets/:run_id", method = "get")]
    async fn see(&self, caller: Caller, run_id: Path<String>) -> poem::Result<Json<Triage>> {
        tracing::info!(caller = caller.principal().name, run = run_id.0, "a ticket is looked at");
        let run = RunId::parse(run_id.0.clone()).map_err(|error| poem::Error::new(error, StatusCode::NOT_FOUND))?;
        let answer = self.daybook.agent("triage").wait(&run).await?;
        Ok(Json(Triage { run_id: run_id.0, answer: Some(answer.content) }))
    }
}

/// Compares without telling by the time it takes how much is right.
fn same(given: &str, expected: &str) -> bool {
    let different = given.bytes().zip(expected.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == expected.len() && different == 0
}

fn server(secret: String) -> Builder {
    let builder = Daybook::builder().agent(AgentDefinition::new("triage").instruction("Say who should look at it."));
    let daybook = builder.handle();
    builder.public_routes(Webhook { daybook: daybook.clone(), secret }).routes(Desk { daybook })
}

#[tokio::main]
async fn main() -> Result<(), daybook::Error> {
    let secret = std::env::var("WEBHOOK_SECRET").unwrap_or_else(|_| "secret".to_owned());
    server(secret).build().await?.serve().await
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::time::Duration;

    use daybook::DemoModel;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_delivery_is_run_once_and_answered() {
        // The user that PostgreSQL runs as must be able to enter it.
        let dir = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let server = server("hush".to_owned()).model("scripted", Arc::new(DemoModel::new(Duration::ZERO)));
        let running = server.port(0).data_dir(dir.path().join("data")).build().await.unwrap().start();
        let base = format!("http://{}", running.address());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let deliver = |secret: &'static str, text: &'static str| {
            let post = client.post(format!("{base}/webhooks/tickets")).header("X-Secret", secret);
            post.header("X-Delivery", "d-1").json(&json!({ "text": text })).send()
        };

        assert_eq!(deliver("wrong", "On fire").await.unwrap().status(), 401);
        let first: Value = deliver("hush", "On fire").await.unwrap().json().await.unwrap();
        let again: Value = deliver("hush", "On fire").await.unwrap().json().await.unwrap();
        assert_eq!(first["run_id"], again["run_id"]);
        let other = deliver("hush", "Flooded").await.unwrap();
        assert_eq!(other.status(), 409, "the same delivery says something else");

        let path = format!("{base}/tickets/{}", first["run_id"].as_str().unwrap());
        let seen: Value = client.get(path).send().await.unwrap().json().await.unwrap();
        assert!(seen["answer"].as_str().unwrap().ends_with("You said: On fire"), "{seen}");
        assert_eq!(client.get(format!("{base}/tickets/nope")).send().await.unwrap().status(), 404);

        let document: Value = client.get(format!("{base}/openapi.json")).send().await.unwrap().json().await.unwrap();
        for path in ["/webhooks/tickets", "/tickets/{run_id}", "/agents/{agent_id}/runs"] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
        let page = client.get(format!("{base}/docs")).send().await.unwrap().text().await.unwrap();
        assert!(page.contains("/webhooks/tickets"));
        running.shutdown().await.unwrap();
    }
}
