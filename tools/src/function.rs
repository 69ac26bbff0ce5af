//! Tools from Rust closures: the schema comes from the argument type, and so do the messages about wrong arguments.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use async_trait::async_trait;
use daybook_domain::tool::{ApprovalRule, Effect, Gate, ToolSpec};
use futures::TryFutureExt as _;
use futures::future::BoxFuture;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Tool, ToolContext, ToolError, ToolOutput};

type Call = dyn Fn(ToolContext, Map<String, Value>) -> BoxFuture<'static, Result<ToolOutput, ToolError>> + Send + Sync;

/// A tool whose code is a closure and whose arguments are a type.
///
/// ```
/// use daybook_domain::tool::Effect;
/// use daybook_tools::{FunctionTool, ToolContext};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// struct Weather {
///     /// Which city.
///     city: String,
/// }
///
/// let tool = FunctionTool::new(
///     "get_weather",
///     "Weather of a city.",
///     Effect::Pure,
///     |_context: ToolContext, args: Weather| async move { Ok(format!("Sunny in {}, 21C", args.city)) },
/// );
/// ```
pub struct FunctionTool {
    spec: ToolSpec,
    call: Box<Call>,
}

impl FunctionTool {
    /// A tool that calls `function` with the arguments as a `A`.
    ///
    /// `name` is what the model calls, `description` what it reads, `effect` what a second call does: after a crash
    /// pure and idempotent tools are called again, and for an unsafe one a person is asked.
    pub fn new<A, F, R, O>(name: impl Into<String>, description: impl Into<String>, effect: Effect, function: F) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        F: Fn(ToolContext, A) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, ToolError>> + Send + 'static,
        O: Into<ToolOutput> + 'static,
    {
        let spec = ToolSpec::new(name, description, parameters_of::<A>()).effect(effect);
        let reader = Arguments::<A>::of(&spec);
        let call = move |context, arguments| -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
            match reader.read(arguments) {
                Ok(arguments) => Box::pin(function(context, arguments).map_ok(Into::into)),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            }
        };
        Self { spec, call: Box::new(call) }
    }

    /// The longest one call may take; 60 seconds unless said. Whole seconds, at least one.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout_seconds = timeout.as_secs().max(1);
        self
    }

    /// How often a call that failed is tried again at once, unless the tool is unsafe; never unless said.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.spec.retries = retries;
        self
    }

    /// What is asked of a person before it runs, or instead of running it.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.spec.gate = gate;
        self
    }

    /// A person is asked whether it may run.
    #[must_use]
    pub fn confirm(self) -> Self {
        self.gate(Gate::Confirmation)
    }

    /// The approval its calls need.
    #[must_use]
    pub fn approval(mut self, rule: ApprovalRule) -> Self {
        self.spec.approval = Some(rule);
        self
    }
}

impl fmt::Debug for FunctionTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTool").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[async_trait]
impl Tool for FunctionTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: ToolContext, arguments: Map<String, Value>) -> Result<ToolOutput, ToolError> {
        (self.call)(context, arguments).await
    }
}

/// Reads a call's arguments as `A`, and says in one sentence what does not fit.
struct Arguments<A> {
    tool: String,
    known: Vec<String>,
    required: Vec<String>,
    open: bool,
    as_type: PhantomData<fn() -> A>,
}

impl<A: DeserializeOwned> Arguments<A> {
    fn of(spec: &ToolSpec) -> Self {
        let schema = &spec.parameters;
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            tool: spec.name.clone(),
            known: schema["properties"].as_object().map(|known| known.keys().cloned().collect()).unwrap_or_default(),
            required: required.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            open: schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false)),
            as_type: PhantomData,
        }
    }

    fn read(&self, arguments: Map<String, Value>) -> Result<A, ToolError> {
        let missing = self.required.iter().filter(|name| !arguments.contains_key(*name));
        let unknown = arguments.keys().filter(|name| !self.open && !self.known.contains(name));
        let faults: Vec<String> = missing
            .map(|name| format!("the argument {name:?} is missing"))
            .chain(unknown.map(|name| format!("there is no argument {name:?}")))
            .collect();
        if !faults.is_empty() {
            return Err(self.refuse(&faults.join(", and ")));
        }
        serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
            let path = error.path().to_string();
            let which = if path == "." { "the arguments do".to_owned() } else { format!("the argument {path:?} does") };
            self.refuse(&format!("{which} not fit: {}", error.into_inner()))
        })
    }

    fn refuse(&self, fault: &str) -> ToolError {
        let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
        ToolError::Arguments(format!("{} was not called: {fault}. Its arguments: {known}.", self.tool))
    }
}

/// The schema in the form models and clients know it: `type`, `properties`, `required`, and no noise.
fn parameters_of<A: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
        settings.transforms.push(Box::new(RecursiveTransform(plain)));
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>();
    schema.remove("title");
    schema.remove("description");
    let mut rest = std::mem::take(schema.ensure_object());
    let mut parameters = Map::new();
    parameters.insert("type".to_owned(), json!("object"));
    parameters.insert("properties".to_owned(), rest.remove("properties").unwrap_or_else(|| json!({})));
    parameters.insert("required".to_owned(), rest.remove("required").unwrap_or_else(|| json!([])));
    rest.remove("type");
    parameters.extend(rest);
    Value::Object(parameters)
}

/// Takes off what a model has no use for: number formats, the lower bound of unsigned types, null defaults.
fn plain(schema: &mut Schema) {
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        let unsigned = format.starts_with("uint");
        if unsigned || ["int", "float", "double"].iter().any(|kind| format.starts_with(kind)) {
            schema.remove("format");
        }
        if unsigned && schema.get("minimum") == Some(&json!(0)) {
            schema.remove("minimum");
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::ids::{RunId, SessionId};
    use serde::Deserialize;

    use super::*;

    /// Words about the whole must not reach the model.
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Booking {
        city: String,
        nights: u32,
        #[serde(default)]
        note: Option<String>,
        /// Of the guests.
        #[serde(default)]
        names: Vec<String>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}

    fn context() -> ToolContext {
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

    fn booking() -> FunctionTool {
        FunctionTool::new("book", "Books.", Effect::Unsafe, |context: ToolContext, args: Booking| async move {
            context.set_state("nights", json!(args.nights));
            Ok(format!("{} {} {:?} {:?}", args.city, args.nights, args.note, args.names))
        })
        .timeout(Duration::from_secs(5))
    }

    async fn call(arguments: Value) -> Result<String, ToolError> {
        booking().call(context(), arguments.as_object().cloned().unwrap()).await.map(|output| output.text)
    }

    #[test]
    fn the_schema_has_the_recorded_form() {
        let expected = json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "nights": {"type": "integer"},
                "note": {"type": ["string", "null"]},
                "names": {"description": "Of the guests.", "type": "array", "items": {"type": "string"}, "default": []},
            },
            "required": ["city", "nights"],
        });
        let spec = booking().spec().clone();
        assert_eq!(spec.parameters, expected);
        let keys: Vec<_> = spec.parameters["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["city", "nights", "note", "names"], "in the order of the fields");
        assert_eq!((spec.timeout_seconds, spec.effect), (5, Effect::Unsafe));
        assert_eq!(parameters_of::<Nothing>(), json!({"type": "object", "properties": {}, "required": []}));
    }

    #[tokio::test]
    async fn fitting_arguments_reach_the_closure_with_the_context() {
        let context = context();
        let arguments = json!({"city": "Oslo", "nights": 2}).as_object().cloned().unwrap();
        assert_eq!(booking().call(context.clone(), arguments).await.unwrap().text, "Oslo 2 None []");
        assert_eq!(context.patch().set.get("nights"), Some(&json!(2)));
    }

    #[tokio::test]
    async fn wrong_arguments_are_told_by_name() {
        let error = |arguments| async { call(arguments).await.unwrap_err().to_string() };
        assert_eq!(
            error(json!({"nights": 1, "nope": 1})).await,
            "book was not called: the argument \"city\" is missing, and there is no argument \"nope\". \
             Its arguments: city, nights, note, names."
        );
        let wrong = error(json!({"city": "Oslo", "nights": "two"})).await;
        assert!(wrong.contains("the argument \"nights\" does not fit: invalid type: string \"two\""), "{wrong}");
        let inner = error(json!({"city": "Oslo", "nights": 1, "names": ["a", 5]})).await;
        assert!(inner.contains("the argument \"names[1]\" does not fit"), "{inner}");
        assert!(matches!(call(json!({})).await, Err(ToolError::Arguments(_))));
    }
}
