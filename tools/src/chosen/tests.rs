use serde_json::json;

use super::*;
use crate::FunctionTool;
use crate::testing::{arguments, context};

#[derive(Deserialize, JsonSchema)]
struct Letter {
    to_address: String,
    text: String,
}

fn tool(name: &str, effect: Effect) -> Arc<dyn Tool> {
    Arc::new(FunctionTool::new(name, "Does.", effect, |_: ToolContext, letter: Letter| async move {
        Ok(format!("{}: {}", letter.to_address, letter.text))
    }))
}

fn tools() -> Vec<Arc<dyn Tool>> {
    vec![tool("send_email", Effect::Unsafe), tool("read_file", Effect::Pure), tool("delete_file", Effect::Idempotent)]
}

/// A tool that must ask.
struct Asking(ToolSpec);

#[async_trait]
impl Tool for Asking {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    fn must_ask(&self) -> bool {
        true
    }

    async fn call(&self, _: ToolContext, _: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        Ok("done".into())
    }
}

fn choice(value: Value) -> Choice {
    serde_json::from_value(value).unwrap()
}

fn names(tools: &[Arc<dyn Tool>]) -> Vec<&str> {
    tools.iter().map(|tool| tool.spec().name.as_str()).collect()
}

fn spec(rule: Value) -> Result<ToolSpec, String> {
    let rules = choice(json!({"rules": {"send_email": rule}}));
    choose("mail", tools(), &rules).map(|tools| tools[0].spec().clone()).map_err(|error| error.to_string())
}

fn fault(value: Value) -> String {
    choose("mail", tools(), &choice(value)).map(|tools| names(&tools).join(" ")).unwrap_err().to_string()
}

#[tokio::test]
async fn the_allowed_ones_are_taken_under_their_prefix_and_can_be_called() {
    assert_eq!(names(&choose("mail", tools(), &Choice::default()).unwrap()), names(&tools()));
    let some = choice(json!({"prefix": "mail_", "allow": ["delete_file", "send_email"]}));
    let taken = choose("mail", tools(), &some).unwrap();
    assert_eq!(names(&taken), ["mail_send_email", "mail_delete_file"], "in the order of the source");
    let output = taken[0].call(context(), arguments(json!({"to_address": "a@b", "text": "hi"}))).await.unwrap();
    assert_eq!(output.text, "a@b: hi");
    let fault = taken[0].call(context(), arguments(json!({"to": "a@b"}))).await.unwrap_err().to_string();
    assert!(fault.starts_with("mail_send_email was not called: "), "{fault}");
    assert_eq!(names(&choose("mail", tools(), &choice(json!({"deny": ["read_file"]}))).unwrap()).len(), 2);
}

#[test]
fn names_that_lead_nowhere_are_told_with_the_known_ones() {
    for list in [json!({"allow": ["nope"]}), json!({"deny": ["nope"]}), json!({"rules": {"nope": {}}})] {
        let fault = fault(list);
        assert!(fault.starts_with("mail: ") && fault.contains("\"nope\""), "{fault}");
        assert!(fault.contains("delete_file, read_file, send_email"), "{fault}");
    }
    assert!(fault(json!({"allow": ["read_file"], "deny": ["read_file"]})).contains("take it out of one"));
    assert!(fault(json!({"allow": []})).contains("leave it out"));
    assert!(fault(json!({"prefix": "a b"})).contains("letters, digits"));
    assert!(fault(json!({"prefix": "x".repeat(60)})).contains("shorter prefix"));
    let twice = choose("mail", vec![tool("a", Effect::Pure), tool("a", Effect::Pure)], &Choice::default());
    assert!(twice.map(|_| ()).unwrap_err().to_string().contains("two tools"));
}

#[test]
fn a_rule_says_it_otherwise() {
    let rule = json!({
        "description": "Sends.", "effect": "idempotent", "retries": 2, "confirmation": true, "timeout_seconds": 30,
        "approval": {
            "kind": "required", "expires_after_seconds": 86400, "on_expiry": "deny", "remind_every_seconds": 3600,
            "not_by_requester": true,
        },
    });
    let spec = spec(rule).unwrap();
    assert_eq!((spec.description.as_str(), spec.effect, spec.retries), ("Sends.", Effect::Idempotent, 2));
    assert_eq!((spec.gate, spec.timeout_seconds), (Gate::Confirmation, 30));
    let expected = ApprovalRule {
        expires_after_seconds: Some(86400),
        remind_every_seconds: Some(3600),
        not_by_requester: true,
        ..ApprovalRule::new(ApprovalKind::Required)
    };
    assert_eq!(spec.approval, Some(expected));
}

#[test]
fn one_thing_is_asked_of_a_person() {
    let gate = |rule| spec(rule).map(|spec| spec.gate);
    assert_eq!(gate(json!({})), Ok(Gate::None));
    let asked = Gate::UserInput { fields: vec!["to_address".to_owned()] };
    assert_eq!(gate(json!({"user_input": ["to_address"]})), Ok(asked));
    assert_eq!(gate(json!({"user_input": []})), Ok(Gate::UserInput { fields: Vec::new() }));
    assert_eq!(gate(json!({"external": true})), Ok(Gate::External { silent: false }));
    assert_eq!(gate(json!({"external": true, "silent": true})), Ok(Gate::External { silent: true }));
    assert_eq!(gate(json!({"external": true, "confirmation": false})), Ok(Gate::External { silent: false }));
    for (rule, words) in [
        (json!({"confirmation": true, "external": true}), "`confirmation` and `external` exclude"),
        (json!({"user_input": [], "feedback": true}), "`user_input` and `feedback` exclude"),
        (json!({"user_input": ["to"]}), "\"to\", which is not among the tool's arguments: to_address, text"),
        (json!({"feedback": true}), "\"questions\", which is not among"),
        (json!({"silent": true}), "add `external: true`"),
        (json!({"retries": 1}), "effect: idempotent"),
        (json!({"timeout_seconds": 0}), "at least 1"),
        (json!({"description": " "}), "leave it out"),
        (json!({"approval": {"kind": "required", "on_expiry": "fail"}}), "needs `expires_after_seconds`"),
        (json!({"approval": {"kind": "required", "remind_every_seconds": 0}}), "at least 1"),
        (json!({"approval": {"kind": "audit", "expires_after_seconds": 9, "on_expiry": "deny"}}), "`kind: required`"),
        (json!({"approval": {"kind": "audit", "not_by_requester": true}}), "`kind: required`"),
    ] {
        let fault = spec(rule.clone()).unwrap_err();
        assert!(fault.contains(words) && fault.contains("send_email"), "{rule}: {fault}");
    }
}

#[test]
fn a_confirmation_is_taken_away_except_where_it_must_be_asked() {
    let mut own = ToolSpec::new("run_command", "Runs.", json!({"type": "object", "properties": {"command": {}}}));
    own.gate = Gate::Confirmation;
    let asking: Arc<dyn Tool> = Arc::new(Asking(own));
    let with = |rule: Value| {
        let rules = choice(json!({"prefix": "x_", "rules": {"run_command": rule}}));
        choose("shell", vec![Arc::clone(&asking)], &rules).map(|tools| tools[0].clone())
    };
    for rule in [json!({"confirmation": false}), json!({"external": true}), json!({"user_input": ["command"]})] {
        let fault = with(rule).map(|_| ()).unwrap_err().to_string();
        assert!(fault.contains("cannot be changed"), "{fault}");
    }
    for rule in [json!({"effect": "pure"}), json!({"effect": "idempotent", "retries": 3}), json!({"retries": 0})] {
        let fault = with(rule).map(|_| ()).unwrap_err().to_string();
        assert!(fault.contains("take out effect and retries"), "{fault}");
    }
    let kept = with(json!({"timeout_seconds": 5, "confirmation": true})).unwrap();
    assert_eq!((kept.spec().timeout_seconds, &kept.spec().gate), (5, &Gate::Confirmation));
    assert!(kept.must_ask(), "chosen once more, it still must");
    let again = choose("again", vec![kept], &choice(json!({"rules": {"x_run_command": {"confirmation": false}}})));
    assert!(again.is_err());

    let free: Arc<dyn Tool> = Arc::new(
        FunctionTool::new("free", "Does.", Effect::Pure, |_: ToolContext, _: Letter| async { Ok("") }).confirm(),
    );
    let rules = choice(json!({"rules": {"free": {"confirmation": false}}}));
    assert_eq!(choose("other", vec![free], &rules).unwrap()[0].spec().gate, Gate::None);
}

#[test]
fn what_stands_in_a_file_has_a_schema() {
    let schema = schemars::schema_for!(Choice).to_value().to_string();
    for words in ["deny", "\"unsafe\"", "remind_every_seconds", "additionalProperties\":false"] {
        assert!(schema.contains(words), "{words}: {schema}");
    }
    assert!(serde_json::from_value::<ToolRule>(json!({"confirm": true})).is_err());
}
