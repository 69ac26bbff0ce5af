//! Putting a server together in code.

use std::path::PathBuf;
use std::sync::Arc;

use daybook_engine::{Functions, Listing, Registry};
use daybook_models::{ChatModel, Models};
use daybook_rest::{OpenApi, Routes};
use daybook_store::MasterKey;
use daybook_tools::{Choice, Tool, ToolSet, ToolSource};
use secrecy::SecretString;

use crate::agent::{AgentDefinition, built_in_tools};
use crate::config::Settings;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::handle::Handle;
use crate::hooks::Hooks;
use crate::models::{DEFAULT_MODEL, default_model};
use crate::notices::ApprovalNotice;
use crate::server::Daybook;
use crate::sources::{SourceDefinition, SourceKind, Toolbox};
use crate::team::{self, TeamDefinition};
use crate::workflow::{self, WorkflowDefinition};

/// Names the TLS implementation for the whole process. [`Builder::build`] does it too; a program that makes TLS
/// connections before that calls it first.
pub fn install_crypto() {
    // An error says that one is named already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Collects what a server is made of.
#[derive(Default)]
pub struct Builder {
    settings: Settings,
    parts: Parts,
    defined: Defined,
    master_key: Option<MasterKey>,
    around: Around,
}

/// What the program adds around the server.
#[derive(Default)]
pub(crate) struct Around {
    pub(crate) handle: Handle,
    pub(crate) hooks: Hooks,
    pub(crate) routes: Vec<Routes>,
}

/// What a server can run by its code; stays while it serves.
pub(crate) struct Parts {
    agents: Vec<AgentDefinition>,
    teams: Vec<TeamDefinition>,
    workflows: Vec<WorkflowDefinition>,
    functions: Vec<Functions>,
    models: Models,
    pub(crate) tools: ToolSet,
    sources: Vec<SourceDefinition>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            agents: Vec::new(),
            teams: Vec::new(),
            workflows: Vec::new(),
            functions: Vec::new(),
            models: Models::new(),
            tools: built_in_tools(),
            sources: Vec::new(),
        }
    }
}

/// What it can run by definitions; others may take their place.
#[derive(Default)]
pub(crate) struct Defined {
    agents: Vec<AgentDefinition>,
    teams: Vec<TeamDefinition>,
    workflows: Vec<WorkflowDefinition>,
    models: Models,
    sources: Vec<SourceDefinition>,
}

impl Defined {
    /// Adds a file's models, sources of tools, agents, teams and workflows.
    pub(crate) fn add(&mut self, definitions: Definitions) -> Result<(), Error> {
        self.models.extend(definitions.build_models()?);
        self.sources.extend(definitions.sources);
        self.agents.extend(definitions.agents);
        self.teams.extend(definitions.teams);
        self.workflows.extend(definitions.workflows);
        Ok(())
    }
}

impl Parts {
    /// The sources of tools of code and definitions together.
    pub(crate) fn sources(&self, defined: &Defined) -> Vec<SourceDefinition> {
        [self.sources.as_slice(), &defined.sources].concat()
    }

    /// What can be run by code and definitions together; wrong agents and models are found here.
    pub(crate) fn registry(&self, defined: &Defined, toolbox: &Toolbox) -> Result<Registry, Error> {
        let mut models = self.models.clone();
        models.extend(defined.models.clone());
        if models.is_empty() {
            models.insert(DEFAULT_MODEL.to_owned(), default_model(|name| std::env::var(name).ok())?);
        }
        let mut registry = Registry::default();
        registry.add_tools(toolbox.all());
        for (name, model) in &models {
            registry.add_model(name, Arc::clone(model));
        }
        for agent in self.agents.iter().chain(&defined.agents).cloned() {
            let (config, tools) = agent.resolve(&models, toolbox)?;
            registry.add_agent(config, tools, Listing::Public)?;
        }
        let teams = [self.teams.as_slice(), &defined.teams].concat();
        team::register(teams, &mut registry, &models, toolbox)?;
        self.functions.iter().cloned().for_each(|functions| registry.add_functions(functions));
        let workflows = [self.workflows.as_slice(), &defined.workflows].concat();
        workflow::register(workflows, &mut registry, &models, toolbox)?;
        Ok(registry)
    }
}

impl Builder {
    /// One more agent.
    #[must_use]
    pub fn agent(mut self, agent: AgentDefinition) -> Self {
        self.parts.agents.push(agent);
        self
    }

    /// One more team. The agents and teams that are its members may be added before or after it.
    #[must_use]
    pub fn team(mut self, team: TeamDefinition) -> Self {
        self.parts.teams.push(team);
        self
    }

    /// One more workflow. What its steps run may be added before or after it.
    #[must_use]
    pub fn workflow(mut self, workflow: WorkflowDefinition) -> Self {
        self.parts.workflows.push(workflow);
        self
    }

    /// Functions that steps of workflows call, and closures that decide; those of an earlier call stay.
    #[must_use]
    pub fn functions(mut self, functions: Functions) -> Self {
        self.parts.functions.push(functions);
        self
    }

    /// A model, by the name that agents use. Without any, OpenAI answers when `OPENAI_API_KEY` is set, and the
    /// scripted demo model when it is not.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>, model: Arc<dyn ChatModel>) -> Self {
        self.parts.models.insert(name.into(), model);
        self
    }

    /// A tool that agents may name, beside `calculator` and `current_time`. One of the same name is replaced.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool) -> Self {
        self.parts.tools.insert(tool.spec().name.clone(), Arc::new(tool));
        self
    }

    /// Tools that agents may name, such as those of [`http_tools`](crate::http_tools). For a place whose tools may change,
    /// or that is to be closed at the end, there is [`Builder::source`].
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Self {
        self.parts.tools.extend(tools.into_iter().map(|tool| (tool.spec().name.clone(), tool)));
        self
    }

    /// A source of tools, such as an [`McpSource`](crate::McpSource), all of which agents get that name the source; one of
    /// them they get as `source.tool`. It is asked when the server is built, and again when its tools change; the server
    /// closes it at the end.
    #[must_use]
    pub fn source(self, source: impl ToolSource) -> Self {
        self.source_with(source, Choice::default())
    }

    /// As [`Builder::source`], with a prefix, lists of what is taken, and rules for single tools.
    #[must_use]
    pub fn source_with(mut self, source: impl ToolSource, choice: Choice) -> Self {
        self.parts.sources.push(SourceDefinition {
            name: source.name().to_owned(),
            place: None,
            kind: SourceKind::Given(Arc::new(source)),
            choice,
            optional: false,
        });
        self
    }

    /// Reaches the server's agents from routes, tools and hooks that are made before it.
    pub fn handle(&self) -> Handle {
        self.around.handle.clone()
    }

    /// Routes of your own: a poem-openapi API, served beside Daybook's routes and described with them in
    /// `/openapi.json` and `/docs`. They pass the same guard as Daybook's: once callers must show who they are, these
    /// routes ask for it too. A handler learns who calls from a [`Caller`](crate::Caller) argument.
    #[must_use]
    pub fn routes(mut self, api: impl OpenApi + 'static) -> Self {
        self.around.routes.push(Routes::new(api));
        self
    }

    /// Routes of your own that anybody may use, for callers that show in another way who they are, such as webhooks
    /// with a signature.
    #[must_use]
    pub fn public_routes(mut self, api: impl OpenApi + 'static) -> Self {
        self.around.routes.push(Routes::public(api));
        self
    }

    /// Done when agents can be run and before requests are served. An error ends the start.
    #[must_use]
    pub fn on_start<F, R, E>(mut self, hook: F) -> Self
    where
        F: FnOnce(Handle) -> R + Send + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        self.around.hooks.on_start(hook);
        self
    }

    /// Done before anything stops, while agents can still be run; the last one given first. Together they may take as
    /// long as `limits.shutdown_seconds`.
    #[must_use]
    pub fn on_stop<F, R>(mut self, hook: F) -> Self
    where
        F: FnOnce(Handle) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.around.hooks.on_stop(hook);
        self
    }

    /// Told what happens to approvals, so that the program can send a mail or a message: see [`ApprovalNotice`]. Of all
    /// nodes with such a hook one calls it, in the order in which things happened, one after the other. What happens from
    /// the first start with a hook on is told, also what happened while no such program ran, and what a crash interrupts is
    /// told again: at least once, that is. A call that fails, panics or takes longer than a minute is repeated three times
    /// within half a minute and then given up, with a line in the log. At a stop, a call that goes on has as long as
    /// `limits.shutdown_seconds`.
    #[must_use]
    pub fn on_approval<F, R, E>(mut self, hook: F) -> Self
    where
        F: Fn(Handle, ApprovalNotice) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        self.around.hooks.on_approval(hook);
        self
    }

    /// The models, agents, teams and workflows of a definitions file. Its server settings are a layer of [`Builder::settings`].
    ///
    /// # Errors
    /// [`Error::Model`] when a model cannot be set up.
    pub fn definitions(mut self, definitions: Definitions) -> Result<Self, Error> {
        self.defined.add(definitions)?;
        Ok(self)
    }

    /// All settings at once; those set before are lost.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The PostgreSQL it uses, such as `postgres://user:password@host/database`. Without it, a private one.
    #[must_use]
    pub fn database_url(mut self, url: impl Into<String>) -> Self {
        self.settings.database_url = Some(SecretString::from(url.into()));
        self
    }

    /// Where the private PostgreSQL and the generated master key are; `.daybook` unless said.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.data_dir = dir.into();
        self
    }

    /// The master key. Without it, `DAYBOOK_MASTER_KEY` or the file `master.key` in the data directory.
    #[must_use]
    pub fn master_key(mut self, key: MasterKey) -> Self {
        self.master_key = Some(key);
        self
    }

    /// The address it listens on; `127.0.0.1` unless said.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.settings.host = host.into();
        self
    }

    /// The port; 8000 unless said, and 0 takes a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.settings.port = port;
        self
    }

    /// Allows an address that other machines can reach, although nobody is asked who they are.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.settings.insecure = insecure;
        self
    }

    /// The server's id and name.
    #[must_use]
    pub fn named(mut self, id: impl Into<String>, name: impl Into<String>) -> Self {
        self.settings.id = id.into();
        self.settings.name = name.into();
        self
    }

    /// Opens the database, joins the log, takes over what dead nodes left, takes the port, and does what
    /// [`Builder::on_start`] says. Nothing is served yet.
    ///
    /// # Errors
    /// [`Error`] says in one sentence what is wrong and how to mend it; then nothing is left running.
    pub async fn build(self) -> Result<Daybook, Error> {
        install_crypto();
        let Self { settings, parts, defined, master_key, around } = self;
        tracing::debug!(data_dir = %settings.data_dir.display(), key = master_key.is_some(), "starting");
        Box::pin(Daybook::open(settings, parts, defined, master_key, around)).await
    }
}

#[cfg(test)]
mod tests {
    use daybook_domain::component::{ComponentKind, TeamMode};
    use daybook_domain::tool::Effect;
    use daybook_domain::workflow::{Expression, StepKind};
    use daybook_models::DemoModel;
    use daybook_tools::{FunctionTool, ToolContext};

    use super::*;
    use crate::workflow::StepDefinition;

    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Nothing {}

    fn own(name: &str) -> FunctionTool {
        FunctionTool::new(name, "Mine.", Effect::Unsafe, |_: ToolContext, _: Nothing| async { Ok(String::new()) })
    }

    fn builder() -> Builder {
        Daybook::builder().model("main", Arc::new(DemoModel::default()))
    }

    fn registry(builder: &Builder) -> Result<Registry, Error> {
        let toolbox = Toolbox::new(builder.parts.tools.clone(), &[]).unwrap();
        builder.parts.registry(&builder.defined, &toolbox)
    }

    fn fault(builder: &Builder) -> Error {
        match registry(builder) {
            Err(error) => error,
            Ok(_) => panic!("accepted"),
        }
    }

    fn team(id: &str) -> TeamDefinition {
        TeamDefinition::new(AgentDefinition::new(id))
    }

    #[test]
    fn teams_are_put_together_in_any_order() {
        let outer = team("outer").member("inner").member("a");
        let own = AgentDefinition::new("scribe").role("Writes");
        let inner = team("inner").mode(TeamMode::Route).own_member(own).max_parallel(2);
        let registry = registry(&builder().team(outer).team(inner).agent(AgentDefinition::new("a"))).unwrap();
        let teams: Vec<_> = registry.listed(ComponentKind::Team).filter_map(|known| known.config.agent()).collect();
        let members = |at: usize| &teams[at].team.as_ref().unwrap().members;
        assert_eq!((teams[0].id.as_str(), members(0)[0].role.as_deref()), ("inner", Some("Writes")));
        assert_eq!(teams[0].team.as_ref().unwrap().max_parallel, 2);
        let of_outer: Vec<_> = members(1).iter().map(|member| member.component.to_string()).collect();
        assert_eq!(of_outer, ["team:inner", "agent:a"]);
        // Its own members are nobody else's.
        assert_eq!(registry.listed(ComponentKind::Agent).count(), 1);
    }

    #[test]
    fn wrong_teams_are_told_by_id_and_fault() {
        let told = |builder: Builder| fault(&builder).to_string();
        assert_eq!(
            told(builder().team(team("t").member("x"))),
            "team \"t\": there is no agent and no team \"x\" to be a member"
        );
        assert!(told(builder().team(team("t"))).contains("no member"));
        let circle = builder().team(team("s").member("t")).team(team("t").member("s"));
        assert!(told(circle).contains("its own member, by way of s, t"));
        assert!(told(builder().team(team("t").member("t"))).contains("its own member"));
        let twice = team("t").own_member(AgentDefinition::new("a")).own_member(AgentDefinition::new("a"));
        assert!(told(builder().team(twice)).contains("two members"));
        let none = team("t").own_member(AgentDefinition::new("a")).max_parallel(0);
        assert!(told(builder().team(none)).contains("max_parallel"));
    }

    #[test]
    fn workflows_are_put_together_in_any_order() {
        let cel = |text: &str| Expression::Cel(text.to_owned());
        let outer = WorkflowDefinition::new("outer")
            .step(StepDefinition::workflow("sub", "inner"))
            .step(StepDefinition::own_agent("own", AgentDefinition::new("scribe")).input(cel("outputs.sub")));
        let sum = StepDefinition::tool("sum", "calculator", [("expression".to_owned(), cel("input"))]);
        let inner = WorkflowDefinition::new("inner").step(sum).step(StepDefinition::team("ask", "t"));
        let crew = team("t").own_member(AgentDefinition::new("a"));
        let registry = registry(&builder().workflow(outer).workflow(inner).team(crew)).unwrap();
        let known: Vec<_> = registry.listed(ComponentKind::Workflow).collect();
        let steps = |at: usize| &known[at].config.workflow().unwrap().steps;
        assert_eq!((known[0].config.id().as_str(), known[1].config.id().as_str()), ("inner", "outer"));
        let StepKind::Component(sub) = &steps(1)[0].kind else { panic!("{:?}", steps(1)) };
        assert_eq!((&sub.config_hash, sub.component_name.as_str()), (&known[0].hash, "inner"));
        assert!(known[0].tools.contains_key("calculator"));
        assert_eq!(known[1].config.children().len(), 2);
        assert_eq!(registry.listed(ComponentKind::Agent).count(), 0, "own agents are nobody else's");
    }

    #[test]
    fn wrong_workflows_are_told_by_id_and_fault() {
        let told =
            |step: StepDefinition| fault(&builder().workflow(WorkflowDefinition::new("w").step(step))).to_string();
        let none = fault(&builder().workflow(WorkflowDefinition::new("w"))).to_string();
        assert!(none.contains("the workflow has no steps"), "{none}");
        assert_eq!(told(StepDefinition::agent("s", "x")), "workflow \"w\": step \"s\": there is no agent \"x\"");
        assert!(told(StepDefinition::tool("s", "x", [])).contains("there is no tool \"x\""));
        assert!(told(StepDefinition::workflow("s", "w")).contains("it would run itself, by way of w"));
        let cel = |text: &str| Expression::Cel(text.to_owned());
        let own = || StepDefinition::own_agent("a", AgentDefinition::new("a"));
        assert!(told(own().input(cel("1 +"))).contains("a: `input`: "));
        assert!(told(own().input(cel("outputs.b"))).contains("no step \"b\" to look at"));
        assert!(told(StepDefinition::group("g", [own(), own()])).contains("called \"a\""));
        assert!(told(StepDefinition::group("g", [])).contains("g: the group has no `steps`"));
        assert!(told(StepDefinition::repeat("l", None, 0, [own()])).contains("`max_iterations` must be from 1"));
        assert!(told(StepDefinition::parallel("p", [own()]).limit(0)).contains("`limit` must be at least 1"));
        assert!(told(own().timeout_seconds(0)).contains("timeout_seconds"));
    }

    #[test]
    fn agents_get_built_in_and_own_tools() {
        let agent = AgentDefinition::new("a").tool("mine").tool("calculator");
        let builder = builder().tool(own("mine")).agent(agent);
        let registry = registry(&builder).unwrap();
        let abilities = registry.abilities();
        assert_eq!(abilities.tools, ["calculator", "current_time", "mine", "read_result"]);
        assert_eq!(abilities.components, ["agent:a"]);
        let config = registry.listed(ComponentKind::Agent).next().unwrap().config.agent().unwrap();
        assert_eq!((config.model.id.as_str(), config.tools[0].name.as_str()), ("demo", "mine"));
        assert_eq!(config.tools[0].effect, Effect::Unsafe);
    }

    #[test]
    fn mistakes_are_found_before_anything_is_opened() {
        let twice = builder().agent(AgentDefinition::new("a")).agent(AgentDefinition::new("a"));
        assert!(fault(&twice).to_string().contains("two agents have the id \"a\""));
        let unknown = fault(&builder().agent(AgentDefinition::new("a").tool("mine")));
        assert!(unknown.to_string().contains("there is no tool \"mine\""), "{unknown}");
        assert_eq!(unknown.exit_code(), 2);
    }

    #[tokio::test]
    async fn a_public_address_is_refused_before_anything_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let built = builder().host("0.0.0.0").port(0).data_dir(dir.path().join("data")).build().await;
        let Err(error) = built else { panic!("accepted") };
        assert!(matches!(error, Error::Public(_)), "{error}");
        assert!(error.to_string().contains("--insecure"), "{error}");
        assert!(!dir.path().join("data").exists());
    }
}
