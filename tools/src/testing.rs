//! What the tests of several tools share.

use daybook_domain::ids::{RunId, SessionId};
use serde_json::{Map, Value};

use crate::ToolContext;

pub(crate) fn context() -> ToolContext {
    let id = |text: &str| text.to_owned();
    ToolContext::new(
        RunId::parse(id("r")).unwrap(),
        SessionId::parse(id("s")).unwrap(),
        None,
        id("call_1"),
        id("key"),
        Map::new(),
    )
}

pub(crate) fn arguments(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}
