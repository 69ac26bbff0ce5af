//! Answers that miss the shape they must have: the model is told why and asked again, a few times.

use daybook_domain::output::OutputSchema;
use daybook_domain::run::{AnswerMissed, RunEvent};
use daybook_models::ChatResponse;
use daybook_tools::SchemaCheck;
use serde_json::Value;

use crate::drive::Driver;
use crate::prompt::output_schema;

impl Driver {
    /// What is recorded when the model's answer misses its shape and may be asked for again; `None` when it counts as it
    /// is. It is recorded rather than found out again, so that another version of the check changes no run.
    pub fn missed(&self, call_id: &str, answer: &ChatResponse) -> Option<RunEvent> {
        let config = self.component.config.agent()?;
        let repair = self.state.repairs() + 1;
        let may_ask = repair <= config.output_repairs && self.state.iterations < config.max_iterations.max(1);
        if !may_ask || !answer.tool_calls.is_empty() {
            return None;
        }
        let shape = output_schema(&self.component.config, self.state.accepted.as_ref()?)?;
        // Before secrets are taken out of it: the model cannot mend what it did not write.
        let fault = fault(shape, &answer.text)?;
        let told = self.engine.redactor.text(&OutputSchema::told(&fault)).into();
        let (call_id, at_ms) = (call_id.to_owned(), self.engine.now_ms());
        Some(RunEvent::AnswerMissed(AnswerMissed { call_id, repair, told, at_ms }))
    }
}

/// What is wrong with an answer that must have this shape.
fn fault(shape: &OutputSchema, answer: &str) -> Option<String> {
    let check = |answer: Value| SchemaCheck::new(&Value::Object(shape.schema.clone())).check(&answer);
    OutputSchema::parse(answer).and_then(check).err()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let schema = json!({"type": "object", "required": ["title"], "properties": {
            "title": {"type": "string"}, "cast": {"type": "array", "items": {"type": "string"}}}});
        let shape = OutputSchema::new(schema.as_object().cloned().unwrap(), true).unwrap();
        assert_eq!(fault(&shape, "```json\n{\"title\": \"Up\"}\n```"), None);
        assert!(fault(&shape, "Up, I think").unwrap().contains("no JSON object"));
        assert!(fault(&shape, "{\"title\": \"Up").unwrap().contains("EOF"));
        assert!(fault(&shape, "{}").unwrap().contains("\"title\" is a required property"));
        let two = fault(&shape, "{\"title\": 5, \"cast\": [\"a\", null]}").unwrap();
        assert!(two.contains("at /title: ") && two.contains("at /cast/1: "), "{two}");
    }
}
