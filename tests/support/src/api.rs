//! A client of the REST interface.

use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::Value;

use super::{Stream, eventually};

/// A server's interface.
#[derive(Clone)]
pub struct Api {
    /// Its address, without a path.
    pub base: String,
    client: Client,
    /// What the first part of the paths is: which kind of component the ids name.
    kind: &'static str,
}

/// A value's text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The run ids of a list of runs.
pub fn ids_of(runs: &Value) -> Vec<String> {
    runs.as_array().expect("a list").iter().map(|run| text(&run["run_id"]).to_owned()).collect()
}

/// A path with a query.
fn with(path: &str, name: &str, value: &str) -> String {
    let url = Url::parse_with_params("http://host/", [(name, value)]).unwrap();
    format!("{path}?{}", url.query().unwrap_or_default())
}

impl Api {
    /// The interface at this address.
    pub fn at(base: &str) -> Self {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(200).build().unwrap();
        Self { base: base.to_owned(), client, kind: "agents" }
    }

    /// The same interface, where ids name teams.
    pub fn teams(&self) -> Self {
        Self { kind: "teams", ..self.clone() }
    }

    /// The same interface, where ids name workflows.
    pub fn workflows(&self) -> Self {
        Self { kind: "workflows", ..self.clone() }
    }

    /// A GET of this path.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    /// A POST to this path.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base))
    }

    /// A request to run an agent, with these fields.
    pub fn request(&self, agent: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        self.post(&format!("/{}/{agent}/runs", self.kind)).form(fields)
    }

    /// A plain run, to its end.
    pub async fn run(&self, agent: &str, fields: &[(&str, &str)]) -> Value {
        let fields = [fields, &[("stream", "false")]].concat();
        answer(self.request(agent, &fields).send().await.unwrap(), 200).await
    }

    /// A run in the background; gives its id.
    pub async fn background(&self, agent: &str, fields: &[(&str, &str)]) -> String {
        let fields = [fields, &[("stream", "false"), ("background", "true")]].concat();
        let accepted = answer(self.request(agent, &fields).send().await.unwrap(), 202).await;
        text(&accepted["run_id"]).to_owned()
    }

    /// A streamed run.
    pub async fn stream(&self, agent: &str, fields: &[(&str, &str)]) -> Stream {
        let fields = [fields, &[("stream", "true")]].concat();
        Stream::new(self.request(agent, &fields).send().await.unwrap())
    }

    /// Sends what may be sent twice, again and again while the server says that its database is away.
    pub async fn persist(&self, request: RequestBuilder) -> Response {
        eventually("an answer other than 503", async || {
            let response = request.try_clone().unwrap().send().await.unwrap();
            (response.status() != 503).then_some(response)
        })
        .await
    }

    /// A read that is behind nothing: the server says when its view lags, which it does on a machine that is slow enough.
    async fn read(&self, path: &str) -> Response {
        eventually(&format!("{path} is up to date"), async || {
            let response = self.persist(self.get(path)).await;
            (!response.headers().contains_key("x-daybook-lag")).then_some(response)
        })
        .await
    }

    /// A run watched again.
    pub async fn resume(&self, agent: &str, run: &str, session: &str, after: Option<u64>) -> Stream {
        let mut fields = vec![("session_id", session.to_owned())];
        fields.extend(after.map(|index| ("last_event_index", index.to_string())));
        Stream::new(self.persist(self.post(&format!("/{}/{agent}/runs/{run}/resume", self.kind)).form(&fields)).await)
    }

    /// A run as it stands; `Err` with the status when there is none.
    pub async fn look(&self, agent: &str, run: &str, session: &str) -> Result<Value, u16> {
        let path = with(&format!("/{}/{agent}/runs/{run}", self.kind), "session_id", session);
        let response = self.read(&path).await;
        match response.status().as_u16() {
            200 => Ok(response.json().await.unwrap()),
            status => Err(status),
        }
    }

    /// A run once it has this status.
    pub async fn until(&self, agent: &str, run: &str, session: &str, status: &str) -> Value {
        eventually(&format!("{run} is {status}"), async || {
            let seen = self.look(agent, run, session).await.ok()?;
            let over = ["COMPLETED", "ERROR", "CANCELLED", "PAUSED"].contains(&text(&seen["status"]));
            assert!(!over || seen["status"] == status, "waited for {status}: {seen}");
            (seen["status"] == status).then_some(seen)
        })
        .await
    }

    /// Cancels a run; gives the answer's status.
    pub async fn cancel(&self, agent: &str, run: &str, session: &str) -> u16 {
        let path = with(&format!("/{}/{agent}/runs/{run}/cancel", self.kind), "session_id", session);
        self.post(&path).send().await.unwrap().status().as_u16()
    }

    /// What a session's runs are.
    pub async fn runs(&self, agent: &str, session: &str) -> Value {
        self.ok(&with(&format!("/{}/{agent}/runs", self.kind), "session_id", session)).await
    }

    /// A session's state.
    pub async fn session_state(&self, session: &str) -> Value {
        self.ok(&with(&format!("/sessions/{session}"), "type", "agent")).await["session_state"].clone()
    }

    /// The body of an answer that must be good.
    pub async fn ok(&self, path: &str) -> Value {
        answer(self.read(path).await, 200).await
    }
}

/// The body of an answer that must have this status.
pub async fn answer(response: Response, expected: u16) -> Value {
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, expected, "{body}");
    serde_json::from_str(&body).unwrap()
}
