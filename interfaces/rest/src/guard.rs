//! Who may do what: every handler takes a guard that names the scope it needs and yields the caller.
//! For now everybody is anonymous and may do everything; what changes is here, not in the handlers.

use std::marker::PhantomData;

use daybook_domain::command::{Command, Envelope, Principal};
use poem::{FromRequest, Request, RequestBody};
use serde_json::Value;

use crate::errors::{ApiError, At};
use crate::request_id::RequestId;

/// The longest idempotency key.
const MAX_KEY: usize = 255;

/// A right that a handler needs.
pub(crate) trait Scope: Send + Sync + 'static {
    /// Its name in tokens and documents; empty for what anybody may ask.
    const NAME: &'static str;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        $($(#[$doc])* pub(crate) struct $name;
        impl Scope for $name { const NAME: &'static str = $text; })+
    };
}

scopes! {
    /// What anybody may ask.
    Public = "",
    /// See the server's configuration.
    ConfigRead = "config:read",
    /// Change the server.
    ConfigWrite = "config:write",
    /// See agents and their runs.
    AgentsRead = "agents:read",
    /// Run agents.
    AgentsRun = "agents:run",
    /// See teams and their runs.
    TeamsRead = "teams:read",
    /// Run teams.
    TeamsRun = "teams:run",
    /// See workflows and their runs.
    WorkflowsRead = "workflows:read",
    /// Run workflows.
    WorkflowsRun = "workflows:run",
    /// See approvals.
    ApprovalsRead = "approvals:read",
    /// Decide about approvals.
    ApprovalsWrite = "approvals:write",
    /// Hide approvals.
    ApprovalsDelete = "approvals:delete",
    /// See sessions.
    SessionsRead = "sessions:read",
    /// Create sessions and change them.
    SessionsWrite = "sessions:write",
    /// Use the routes of the program that embeds Daybook.
    OwnRoutes = "routes:use",
}

/// Who calls, and what the request says about where it came from.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Principal,
    idempotency_key: Option<String>,
    correlation_id: Option<String>,
    traceparent: Option<String>,
}

impl Caller {
    /// The caller of `request`, when it has the right `scope`. Every request that needs one passes here.
    pub(crate) fn admit(request: &Request, scope: &'static str) -> poem::Result<Self> {
        tracing::trace!(scope, "everybody is allowed");
        Ok(Self {
            principal: Principal::anonymous(),
            idempotency_key: idempotency_key(request)?,
            correlation_id: request.data::<RequestId>().map(|id| id.0.clone()),
            traceparent: traceparent(request),
        })
    }

    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The key the caller gave so that something is done once.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// A command of this caller by `interface`, with what the request says about where it came from. The idempotency
    /// key is left out: it stands for the request, which may lead to several commands.
    pub fn envelope(&self, interface: &'static str, command: impl Into<Command>) -> Envelope {
        Envelope {
            correlation_id: self.correlation_id.clone(),
            traceparent: self.traceparent.clone(),
            ..Envelope::new(self.principal.clone(), interface, command)
        }
    }
}

impl<'a> FromRequest<'a> for Caller {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        // On a guarded route the guard has asked already.
        match request.data::<Self>() {
            Some(caller) => Ok(caller.clone()),
            None => Self::admit(request, Public::NAME),
        }
    }
}

/// A caller that has the right `S`.
pub(crate) struct Guard<S> {
    caller: Caller,
    scope: PhantomData<S>,
}

impl<S: Scope> Guard<S> {
    /// Who calls.
    pub fn principal(&self) -> &Principal {
        self.caller.principal()
    }

    /// A command of this caller, with what the request says about where it came from.
    pub fn envelope(&self, command: impl Into<Command>) -> Envelope {
        Envelope { idempotency_key: self.caller.idempotency_key.clone(), ..self.caller.envelope("rest", command) }
    }
}

impl<'a, S: Scope> FromRequest<'a> for Guard<S> {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self { caller: Caller::admit(request, S::NAME)?, scope: PhantomData })
    }
}

/// The caller's key for doing something once.
fn idempotency_key(request: &Request) -> Result<Option<String>, ApiError> {
    let mut values = request.headers().get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.any(|other| other != value) {
        let msg = "a request has one Idempotency-Key: send it once";
        return Err(At("header", "idempotency-key").wrong(msg, Value::Null));
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    if text.is_empty() || text.len() > MAX_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let msg = format!("an Idempotency-Key is 1 to {MAX_KEY} visible ASCII characters");
        return Err(At("header", "idempotency-key").wrong(msg, Value::String(text.chars().take(300).collect())));
    }
    Ok(Some(text.into_owned()))
}

/// The W3C trace context, when it looks like one.
fn traceparent(request: &Request) -> Option<String> {
    let text = request.header("traceparent")?;
    let fits = text.len() == 55 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &[u8]) -> Request {
        let value = poem::http::HeaderValue::from_bytes(key).unwrap();
        Request::builder().header("Idempotency-Key", value).finish()
    }

    #[test]
    fn two_keys_are_refused() {
        let two = |second| Request::builder().header("Idempotency-Key", "a").header("Idempotency-Key", second).finish();
        assert!(idempotency_key(&two("b")).is_err());
        assert_eq!(idempotency_key(&two("a")).unwrap().as_deref(), Some("a"));
    }

    #[test]
    fn keys_are_short_and_visible() {
        assert_eq!(idempotency_key(&request(b"order-7")).unwrap().as_deref(), Some("order-7"));
        assert!(idempotency_key(&request(&[b'x'; 256])).is_err());
        assert!(idempotency_key(&request(b"a b")).is_err());
        assert!(idempotency_key(&request("s\u{f8}t".as_bytes())).is_err());
        assert!(idempotency_key(&request(b"")).is_err());
    }
}
