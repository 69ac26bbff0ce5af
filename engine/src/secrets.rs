//! Secrets that a model would hand to a tool about which a person is asked: they are not kept while the person is asked, so
//! the call cannot be made with them.

use daybook_domain::message::ToolCall;
use daybook_domain::redact::{REDACTED, Redactor};
use daybook_domain::tool::ToolSpec;
use serde_json::Value;

use crate::registry::Registry;

/// What the model is told of a call whose arguments are gone because its node is: it has them still.
pub(crate) const LOST_SECRET: &str = "an argument held a secret, which is not kept: call again with all arguments";

/// Whether recorded arguments lack a secret that was never recorded, so that the call cannot be made again.
pub(crate) fn lost_a_secret(arguments: &str) -> bool {
    arguments.contains(REDACTED)
}

/// What the model is told of a call that would have to wait for a person with a secret in its arguments. To repeat it
/// would not help.
pub(crate) fn cannot_wait(call: &ToolCall) -> Option<String> {
    if !lost_a_secret(&call.arguments) {
        return None;
    }
    let arguments = call.parsed().unwrap_or_default();
    let named = arguments.iter().filter(|(_, value)| lost_a_secret(&value.to_string()));
    let named: Vec<String> = named.map(|(name, _)| format!("{name:?}")).collect();
    Some(format!(
        "{} was not called: its argument {} holds a secret, by its name or by its value. A person is asked before this tool \
         runs, and secrets are never kept meanwhile, so it cannot be given one: do not call it again with that. Call it \
         without, or say that whoever runs this server has to let the tool find the secret elsewhere",
        call.name,
        named.join(", ")
    ))
}

impl Registry {
    /// Warns of tools that ask a person first and have arguments in which no secret could be handed over.
    pub(crate) fn warn_of_secrets(&self, redactor: &Redactor) {
        for (component, spec) in
            self.all().flat_map(|known| known.config.tools().into_iter().map(move |spec| (known, spec)))
        {
            for argument in secret_arguments(spec, redactor) {
                tracing::warn!(
                    component = %component.config.component(),
                    tool = spec.name,
                    argument,
                    "a person is asked before this tool runs, and the argument's name is a secret's: it is not kept \
                     meanwhile, so a call that has it fails. Let the tool find the secret elsewhere, or rename the argument"
                );
            }
        }
    }
}

/// The arguments of a tool that asks a person first, at any depth, whose names are those of secrets.
fn secret_arguments<'a>(spec: &'a ToolSpec, redactor: &Redactor) -> Vec<&'a str> {
    let mut found = Vec::new();
    if spec.gate.is_none() && spec.approval.is_none() {
        return found;
    }
    // Without recursion: nobody says how deep a schema is.
    let mut open = vec![&spec.parameters];
    while let Some(schema) = open.pop() {
        let properties = schema.get("properties").and_then(Value::as_object);
        found.extend(
            properties
                .into_iter()
                .flat_map(|all| all.keys())
                .map(String::as_str)
                .filter(|name| redactor.names_a_secret(name)),
        );
        match schema {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values()),
            _ => {}
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use daybook_domain::tool::{ApprovalKind, ApprovalRule, Gate};
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_that_could_not_be_kept_are_found_at_any_depth() {
        let redactor = Redactor::new(["pin".to_owned()]);
        let parameters = json!({"properties": {"user": {"type": "string"}, "Password": {"type": "string"},
            "cards": {"items": {"$ref": "#/$defs/card"}}}, "$defs": {"card": {"properties": {"pin": {}, "name": {}}}}});
        let plain = ToolSpec::new("t", "", parameters);
        assert!(secret_arguments(&plain, &redactor).is_empty(), "nothing has to be kept");
        let approval = Some(ApprovalRule::new(ApprovalKind::Audit));
        for gated in [
            ToolSpec { gate: Gate::UserInput { fields: vec!["Password".into()] }, ..plain.clone() },
            ToolSpec { approval, ..plain.clone() },
        ] {
            assert_eq!(secret_arguments(&gated, &redactor), ["Password", "pin"]);
        }
    }

    #[test]
    fn the_model_is_told_which_argument_and_not_to_repeat_it() {
        let call = |arguments: &str| ToolCall { id: "c".into(), name: "send".into(), arguments: arguments.into() };
        assert_eq!(cannot_wait(&call(r#"{"to": "bob"}"#)), None);
        let told =
            cannot_wait(&call(r#"{"to": "bob", "password": "[redacted]", "more": [{"k": "[redacted]"}]}"#)).unwrap();
        assert!(
            told.contains(r#"its argument "password", "more" holds"#) && told.contains("do not call it again"),
            "{told}"
        );
    }
}
