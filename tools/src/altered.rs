//! A tool that promises something else than it does by itself: another name, effect, gate or approval.

use std::sync::Arc;

use async_trait::async_trait;
use daybook_domain::tool::ToolSpec;
use serde_json::{Map, Value};

use crate::text::renamed;
use crate::{Tool, ToolContext, ToolError, ToolOutput};

struct Altered {
    spec: ToolSpec,
    inner: Arc<dyn Tool>,
}

#[async_trait]
impl Tool for Altered {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn must_ask(&self) -> bool {
        self.inner.must_ask()
    }

    fn check(&self, arguments: &Map<String, Value>) -> Result<(), ToolError> {
        let checked = self.inner.check(arguments);
        checked.map_err(|fault| renamed(fault, &self.inner.spec().name, &self.spec.name))
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        let called = self.inner.call(context, arguments).await;
        called.map_err(|fault| renamed(fault, &self.inner.spec().name, &self.spec.name))
    }
}

/// The same tool with the spec that `alter` makes of its own: so tools that come from elsewhere get a gate, an approval, a
/// shorter timeout or a prefix to their name. The arguments it is called with stay those of its own schema.
///
/// ```
/// use std::sync::Arc;
///
/// use daybook_domain::tool::{Gate, ToolSpec};
/// use daybook_tools::{altered, calculator};
///
/// let asks_first = altered(Arc::new(calculator()), |spec| ToolSpec { gate: Gate::Confirmation, ..spec });
/// assert_eq!(asks_first.spec().name, "calculator");
/// ```
pub fn altered(tool: Arc<dyn Tool>, alter: impl FnOnce(ToolSpec) -> ToolSpec) -> Arc<dyn Tool> {
    let spec = alter(tool.spec().clone());
    Arc::new(Altered { spec, inner: tool })
}

#[cfg(test)]
mod tests {
    use daybook_domain::ids::{RunId, SessionId};
    use daybook_domain::tool::Gate;

    use super::*;
    use crate::calculator;

    #[tokio::test]
    async fn the_promise_changes_and_the_work_does_not() {
        let tool = altered(Arc::new(calculator()), |spec| ToolSpec {
            name: format!("math_{}", spec.name),
            gate: Gate::Confirmation,
            ..spec
        });
        assert_eq!((tool.spec().name.as_str(), &tool.spec().gate), ("math_calculator", &Gate::Confirmation));
        let (run, session) = (RunId::parse("r").unwrap(), SessionId::parse("s").unwrap());
        let context = ToolContext::new(run, session, None, "c".to_owned(), "k".to_owned(), Map::new());
        let arguments = Map::from_iter([("expression".to_owned(), Value::from("1+1"))]);
        assert_eq!(tool.call(context.clone(), arguments).await.unwrap().text, "2");
        let fault = tool.call(context, Map::new()).await.unwrap_err().to_string();
        assert!(fault.starts_with("math_calculator was not called: "), "{fault}");
    }
}
