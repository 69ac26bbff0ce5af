//! What clients ask for: a JSON object each, with the action's name in `action`.

use daybook_domain::component::ComponentKind;
use daybook_domain::exact::inexact_number;
use daybook_domain::ids::{IdError, RunId, SessionId};
use serde_json::{Map, Value};

use crate::strict_json;

/// The members that are texts wherever they stand.
const TEXTS: [&str; 10] = [
    "message",
    "session_id",
    "user_id",
    "run_id",
    "on_busy",
    "on_disconnect",
    "input",
    "additional_instructions",
    "idempotency_key",
    "reason",
];

/// The longest text of a client that is repeated to it, in characters.
const MAX_REPEATED: usize = 100;

/// The longest idempotency key and request id, in bytes.
const MAX_KEY: usize = 255;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Say who it is.
    Authenticate,
    /// Say that the server is there.
    Ping,
    /// Run a component.
    Start {
        /// The component.
        id: String,
        /// All members, as a form would have them.
        fields: Map<String, Value>,
    },
    /// Answer a paused run, or go on from an ended one.
    Continue {
        /// The component.
        id: String,
        /// The run.
        run: RunId,
        /// All members, as a form would have them.
        fields: Map<String, Value>,
    },
    /// Stop a run.
    Cancel {
        /// The component.
        id: String,
        /// The run.
        run: RunId,
        /// Its session, if the client says it.
        session: Option<SessionId>,
        /// Why, in the client's words.
        reason: Option<String>,
    },
    /// Watch a run again.
    Reconnect(Reconnect),
}

/// Which run is watched again, and from where.
#[derive(Debug, PartialEq)]
pub(super) struct Reconnect {
    /// The run.
    pub run: RunId,
    /// The last event the client has seen.
    pub after: Option<u64>,
    /// Its component, if the client says it; a run of another is unknown to it.
    pub id: Option<String>,
    /// Its session, likewise.
    pub session: Option<SessionId>,
    /// Whether a run that has ended is told from there too, and not from its first event.
    pub resume: bool,
}

/// One message that makes sense.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// What is asked for.
    pub action: Action,
    /// The client's word for this message, which stands in what answers it.
    pub request_id: Option<String>,
    /// So that it is done once.
    pub idempotency_key: Option<String>,
}

/// Why a message makes no sense.
#[derive(Debug, PartialEq)]
pub(super) struct Refused {
    /// For people.
    pub why: String,
    /// As in [`Asked`].
    pub request_id: Option<String>,
}

/// Reads a message of a client that is connected for components of this kind.
///
/// # Errors
/// [`Refused`] says what is wrong with it.
pub(super) fn read(kind: ComponentKind, text: &str) -> Result<Asked, Refused> {
    let unnamed = |why| Refused { why, request_id: None };
    let fields = object(text).map_err(unnamed)?;
    let request_id = short(&fields, "request_id").map_err(unnamed)?;
    let refused = |why| Refused { why, request_id: request_id.clone() };
    let (action, idempotency_key) = named(kind, fields, text).map_err(refused)?;
    Ok(Asked { action, request_id, idempotency_key })
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    let how = "send a JSON object with an action, such as {\"action\": \"ping\"}";
    match strict_json::parse(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(format!("The message is no JSON object: {how}")),
        Err(error) => Err(format!("The message is no JSON that can be read ({error}): {how}")),
    }
}

fn named(kind: ComponentKind, fields: Map<String, Value>, whole: &str) -> Result<(Action, Option<String>), String> {
    let name = match fields.get("action") {
        Some(Value::String(name)) => name.clone(),
        // The word clients know.
        None | Some(Value::Null) => return Err("Unknown action: None".to_owned()),
        Some(other) => return Err(format!("Unknown action: {}", repeated(&other.to_string()))),
    };
    for text in TEXTS {
        self::text(&fields, text)?;
    }
    let key = short(&fields, "idempotency_key")?;
    let what = name.strip_suffix(kind.as_str()).and_then(|verb| verb.strip_suffix('-')).unwrap_or_default();
    let component = || component(kind, &fields)?.ok_or_else(|| format!("{}_id is required", kind.as_str()));
    let action = match (name.as_str(), what) {
        ("authenticate", _) => Action::Authenticate,
        ("ping", _) => Action::Ping,
        ("reconnect", _) => Action::Reconnect(reconnect(kind, &fields)?),
        (_, "start") => Action::Start { id: component()?, fields },
        (_, "continue") => {
            if let Some(number) = inexact_number(whole) {
                let number = repeated(number);
                return Err(format!(
                    "The number {number} cannot be kept exactly: give it as a text, or with fewer digits"
                ));
            }
            Action::Continue { id: component()?, run: run(&fields, "run_id is required")?, fields }
        }
        (_, "cancel") => Action::Cancel {
            id: component()?,
            run: run(&fields, "run_id is required")?,
            session: id(&fields, "session_id")?,
            reason: text(&fields, "reason")?,
        },
        (other, _) => return Err(format!("Unknown action: {}", repeated(other))),
    };
    Ok((action, key))
}

fn reconnect(kind: ComponentKind, fields: &Map<String, Value>) -> Result<Reconnect, String> {
    Ok(Reconnect {
        run: run(fields, "run_id is required for subscription")?,
        after: after(fields)?,
        id: component(kind, fields)?,
        session: id(fields, "session_id")?,
        resume: flag(fields, "resume")?,
    })
}

fn component(kind: ComponentKind, fields: &Map<String, Value>) -> Result<Option<String>, String> {
    text(fields, &format!("{}_id", kind.as_str()))
}

fn run(fields: &Map<String, Value>, missing: &str) -> Result<RunId, String> {
    id(fields, "run_id")?.ok_or_else(|| missing.to_owned())
}

/// The last event seen; negative for none.
fn after(fields: &Map<String, Value>) -> Result<Option<u64>, String> {
    match fields.get("last_event_index") {
        None | Some(Value::Null) => Ok(None),
        Some(index) if index.is_i64() || index.is_u64() => Ok(index.as_u64()),
        Some(_) => Err("last_event_index must be a whole number".to_owned()),
    }
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(yes)) => Ok(*yes),
        Some(_) => Err(format!("{name} must be true or false")),
    }
}

fn id<T: TryFrom<String, Error = IdError>>(fields: &Map<String, Value>, name: &str) -> Result<Option<T>, String> {
    let id = text(fields, name)?.map(T::try_from).transpose();
    id.map_err(|error| format!("{name}: {error}"))
}

/// A text; an empty one counts as absent.
fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(format!("{name} must be a text")),
    }
}

/// A text that is kept with a command, or repeated to the client.
fn short(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    let visible = |text: &str| text.len() <= MAX_KEY && text.bytes().all(|byte| byte.is_ascii_graphic());
    match text(fields, name)? {
        Some(text) if !visible(&text) => Err(format!("{name} must be 1 to {MAX_KEY} visible ASCII characters")),
        text => Ok(text),
    }
}

fn repeated(text: &str) -> String {
    text.chars().take(MAX_REPEATED).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(message: &Value) -> Result<Asked, Refused> {
        read(ComponentKind::Agent, &message.to_string())
    }

    fn refusal(message: &Value) -> String {
        said(message).unwrap_err().why
    }

    #[test]
    fn every_action_is_read() {
        let action = |message: Value| said(&message).unwrap().action;
        assert_eq!(action(json!({"action": "ping"})), Action::Ping);
        assert_eq!(action(json!({"action": "authenticate", "token": "x"})), Action::Authenticate);
        let start = json!({"action": "start-agent", "agent_id": "a", "message": "hi"});
        assert_eq!(
            action(start.clone()),
            Action::Start { id: "a".into(), fields: start.as_object().cloned().unwrap() }
        );
        let run = RunId::parse("r").unwrap();
        let go_on = json!({"action": "continue-agent", "agent_id": "a", "run_id": "r", "tools": [{"x": 1}]});
        let fields = go_on.as_object().cloned().unwrap();
        assert_eq!(action(go_on), Action::Continue { id: "a".into(), run: run.clone(), fields });
        let cancel = json!({"action": "cancel-agent", "agent_id": "a", "run_id": "r", "session_id": "s"});
        let session = SessionId::parse("s").ok();
        let expected = Action::Cancel { id: "a".into(), run: run.clone(), session: session.clone(), reason: None };
        assert_eq!(action(cancel), expected);
        let again = json!({"action": "reconnect", "run_id": "r", "last_event_index": 3, "session_id": "s",
            "agent_id": "a", "resume": true});
        let expected = Reconnect { run: run.clone(), after: Some(3), id: Some("a".into()), session, resume: true };
        assert_eq!(action(again), Action::Reconnect(expected));
        let bare = json!({"action": "reconnect", "run_id": "r", "last_event_index": -1, "session_id": null});
        let expected = Reconnect { run, after: None, id: None, session: None, resume: false };
        assert_eq!(action(bare), Action::Reconnect(expected));
    }

    #[test]
    fn what_lacks_is_told_as_recorded() {
        assert_eq!(refusal(&json!({"action": "zzz"})), "Unknown action: zzz");
        assert_eq!(refusal(&json!({})), "Unknown action: None");
        assert_eq!(refusal(&json!({"action": 5})), "Unknown action: 5");
        assert_eq!(refusal(&json!({"action": "start-agent", "message": "x"})), "agent_id is required");
        assert_eq!(refusal(&json!({"action": "reconnect"})), "run_id is required for subscription");
        assert_eq!(refusal(&json!({"action": "continue-agent", "agent_id": "a"})), "run_id is required");
        // Another route is for those.
        for other in ["start-workflow", "start", "start-", "-agent", "startagent", "agent"] {
            assert_eq!(refusal(&json!({"action": other, "agent_id": "a"})), format!("Unknown action: {other}"));
        }
        assert_eq!(refusal(&json!({"action": "z".repeat(5000)})).len(), "Unknown action: ".len() + MAX_REPEATED);
    }

    #[test]
    fn wrong_types_are_named() {
        let with = |name: &str, value: Value| {
            let mut message = json!({"action": "reconnect", "run_id": "r"});
            message[name] = value;
            refusal(&message)
        };
        assert_eq!(with("run_id", json!(5)), "run_id must be a text");
        assert_eq!(with("agent_id", json!([])), "agent_id must be a text");
        assert_eq!(with("last_event_index", json!("3")), "last_event_index must be a whole number");
        assert_eq!(with("last_event_index", json!(1.5)), "last_event_index must be a whole number");
        assert_eq!(with("resume", json!("yes")), "resume must be true or false");
        assert!(with("run_id", json!("a\u{0}")).starts_with("run_id: "));
        assert!(with("request_id", json!("x".repeat(256))).starts_with("request_id must be"));
        for message in [json!({"message": {"a": 1}}), json!({"session_id": 7}), json!({"user_id": true})] {
            let mut start = json!({"action": "start-agent", "agent_id": "a"});
            start.as_object_mut().unwrap().extend(message.as_object().cloned().unwrap());
            assert!(refusal(&start).ends_with(" must be a text"), "{start}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_told() {
        for text in ["{nope", "", "[1]", "\"ping\"", "7", "{\"action\": \"ping\", \"action\": \"ping\"}"] {
            let refused = read(ComponentKind::Agent, text).unwrap_err();
            assert!(refused.why.contains("send a JSON object"), "{text}: {}", refused.why);
        }
        let inexact = "{\"action\": \"continue-agent\", \"agent_id\": \"a\", \"run_id\": \"r\", \
            \"tools\": [{\"tool_args\": {\"n\": 12345678901234567890123}}]}";
        assert!(read(ComponentKind::Agent, inexact).unwrap_err().why.contains("12345678901234567890123"));
    }

    #[test]
    fn a_request_id_comes_back_also_with_what_is_refused() {
        let refused = said(&json!({"action": "zzz", "request_id": "q-1"})).unwrap_err();
        assert_eq!(refused.request_id.as_deref(), Some("q-1"));
        let asked = said(&json!({"action": "ping", "request_id": "q-2", "idempotency_key": "k"})).unwrap();
        assert_eq!((asked.request_id.as_deref(), asked.idempotency_key.as_deref()), (Some("q-2"), Some("k")));
    }
}
