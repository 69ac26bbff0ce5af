//! Whether the models can be reached. No key is sent and none is shown.

use std::time::Duration;

use futures::future::join_all;

use super::Finding;
use crate::definitions::Definitions;
use crate::models::{DEFAULT_MODEL, ModelDefinition, default_definition};

/// How long a model's server may take to answer anything.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()
}

pub(super) async fn look(definitions: &Definitions, variables: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let usual = [(DEFAULT_MODEL.to_owned(), default_definition(variables))];
    let models = if definitions.models.is_empty() { &usual[..] } else { &definitions.models };
    join_all(models.iter().map(|(name, model)| one(name, model))).await
}

async fn one(name: &str, model: &ModelDefinition) -> Finding {
    let Some((address, has_key)) = model.place() else {
        return Finding::ok("model", format!("{name}: the scripted demo model, which needs nothing"));
    };
    let Ok(url) = url::Url::parse(address) else {
        return Finding::problem("model", format!("{name}: its address cannot be read"), "see docs/definitions.md");
    };
    let host = url.host_str().unwrap_or_default().to_owned();
    let asked = match client() {
        Ok(client) => client.get(url.clone()).send().await,
        Err(error) => Err(error),
    };
    if let Err(error) = asked {
        let why = if error.is_timeout() { format!("within {} s", PATIENCE.as_secs()) } else { "at all".to_owned() };
        let says = format!("{name}: {host} does not answer {why}");
        return Finding::problem("model", says, "check base_url, the network, and whether the server runs");
    }
    let near = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
    match has_key {
        true => Finding::ok("model", format!("{name}: {host} answers, and a key is set")),
        false if near => Finding::ok("model", format!("{name}: {host} answers; no key is set")),
        false => {
            let says = format!("{name}: {host} answers, but no key is set");
            Finding::warning("model", says, "set api_key, unless that server asks for none")
        }
    }
}
