//! Serves the agents, teams and workflows that the contract was recorded from, under the same ids, against a scripted model server.
//! Environment: PORT (7777), MODEL_URL (http://127.0.0.1:9111/v1), DATABASE_URL or else a private PostgreSQL in DATA_DIR
//! (.reference_os), RUST_LOG. With CALLS_FILE set there is `crash-agent` too, whose tools write their calls to that file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daybook::{
    AgentDefinition, Api, ApprovalKind, ApprovalRule, Builder, Confirmation, Daybook, Effect, Error, Expression, Fault,
    FunctionTool, Functions, Gate, HumanReview, InputField, MasterKey, ModelOptions, OnExpiry, Policies, ProviderModel,
    RetryPolicy, Selector, Settings, StepDefinition, StepInput, StepSaid, TeamDefinition, ToolContext, ToolError,
    UserInput, WorkflowDefinition,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape counts")]
struct Movie {
    title: String,
    year: i64,
    #[schemars(default)]
    tags: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
struct FilePath {
    path: String,
}

#[derive(Deserialize, JsonSchema)]
struct Email {
    subject: String,
    #[expect(dead_code, reason = "nothing is sent")]
    body: String,
    to_address: String,
}

#[derive(Deserialize, JsonSchema)]
struct Shell {
    #[expect(dead_code, reason = "it runs elsewhere")]
    command: String,
}

#[derive(Deserialize, JsonSchema)]
struct Choices {
    #[expect(dead_code, reason = "a person reads them")]
    questions: Vec<Asked>,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "a person reads it")]
struct Asked {
    question: String,
    #[serde(default)]
    header: Option<String>,
    options: Vec<Offered>,
    #[serde(default)]
    multi_select: bool,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "a person reads it")]
struct Offered {
    label: String,
    #[serde(default)]
    description: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Release {
    service: String,
    version: String,
}

#[derive(Deserialize, JsonSchema)]
struct Table {
    table: String,
}

#[derive(Deserialize, JsonSchema)]
struct Lines {
    /// How many.
    lines: u32,
}

#[derive(Deserialize, JsonSchema)]
struct City {
    city: String,
}

#[derive(Deserialize, JsonSchema)]
struct Why {
    why: String,
}

#[derive(Deserialize, JsonSchema)]
struct Seconds {
    seconds: u64,
}

#[derive(Deserialize, JsonSchema)]
struct KeyValue {
    key: String,
    value: String,
}

#[derive(Deserialize, JsonSchema)]
struct Pause {
    #[serde(default)]
    seconds: u64,
    #[serde(default)]
    milliseconds: u64,
}

#[derive(Deserialize, JsonSchema)]
struct SlowKeyValue {
    key: String,
    value: String,
    #[serde(default)]
    seconds: u64,
}

fn main() -> ExitCode {
    daybook::install_crypto();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).init();
    let ended = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(serve()).map_err(|error| error.to_string());
            runtime.shutdown_timeout(Duration::from_millis(100));
            ended
        }
        Err(error) => Err(error.to_string()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "reference_os: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Error> {
    let mut builder = recorded_workflows(recorded_teams(recorded_agents(server()?)?));
    if let Some(calls) = variable("CALLS_FILE") {
        builder = crash_agent(builder, Path::new(&calls));
    }
    let running = builder.build().await?.start();
    // Whoever started this waits for the line.
    let _ = writeln!(std::io::stdout(), "reference_os is ready at http://{}", running.address());
    let _ = std::io::stdout().flush();
    running.until_signal().await
}

fn server() -> Result<Builder, Error> {
    let port = variable("PORT").and_then(|port| port.parse().ok()).unwrap_or(7777);
    let data_dir = PathBuf::from(variable("DATA_DIR").unwrap_or_else(|| ".reference_os".to_owned()));
    let mut builder = Daybook::builder().settings(Settings {
        port,
        data_dir: data_dir.clone(),
        id: "contract-os".to_owned(),
        name: "Contract OS".to_owned(),
        description: Some("Contract capture".to_owned()),
        version: "1.2.3".to_owned(),
        db_id: "main-db".to_owned(),
        ..Settings::default()
    });
    if let Some(url) = variable("DATABASE_URL") {
        builder = builder.database_url(url);
        // A database for tests: its key may lie beside it.
        if variable("DAYBOOK_MASTER_KEY").is_none() {
            std::fs::create_dir_all(&data_dir).map_err(|source| Error::Io { doing: "DATA_DIR", source })?;
            builder = builder.master_key(MasterKey::load_or_create(&data_dir.join("master.key"))?);
        }
    }
    Ok(builder)
}

fn recorded_agents(builder: Builder) -> Result<Builder, Error> {
    let options = ModelOptions {
        base_url: variable("MODEL_URL").unwrap_or_else(|| "http://127.0.0.1:9111/v1".to_owned()),
        api_key: Some("sk-fake".to_owned().into()),
        retry: RetryPolicy::NEVER,
        ..ModelOptions::new(Api::OpenAiChat, "fake-gpt")
    };
    let model = ProviderModel::new(&options).map_err(|source| Error::Model { name: "fake-gpt".to_owned(), source })?;
    let counting = Map::from_iter([("count".to_owned(), json!(0))]);
    Ok(builder
        .model("fake-gpt", Arc::new(model))
        .tool(FunctionTool::new("get_weather", "Weather of a city.", Effect::Pure, get_weather))
        .tool(FunctionTool::new("broken_tool", "Always raises.", Effect::Pure, broken_tool))
        .tool(FunctionTool::new("slow_tool", "Sleeps.", Effect::Pure, slow_tool))
        .tool(FunctionTool::new("delete_file", "Deletes a file.", Effect::Unsafe, delete_file).confirm())
        .tool(
            FunctionTool::new("send_email", "Sends an e-mail.", Effect::Unsafe, send_email)
                .gate(Gate::UserInput { fields: vec!["to_address".to_owned()] }),
        )
        .tool(
            FunctionTool::new("run_shell", "Runs a command outside.", Effect::Unsafe, run_shell)
                .gate(Gate::External { silent: false }),
        )
        .tool(
            FunctionTool::new("deploy_release", "Deploys a service.", Effect::Unsafe, deploy_release)
                .approval(ApprovalRule::new(ApprovalKind::Required)),
        )
        .tool(
            FunctionTool::new("drop_table", "Drops a table.", Effect::Unsafe, drop_table)
                .confirm()
                .approval(ApprovalRule::new(ApprovalKind::Audit)),
        )
        .tool(FunctionTool::new("set_state", "Sets a session-state key.", Effect::Idempotent, set_state))
        .agent(
            AgentDefinition::new("my-agent")
                .name("My Agent")
                .description("Plain agent")
                .history_runs(3)
                .instruction("Be brief."),
        )
        .agent(
            AgentDefinition::new("tool-agent")
                .name("Tool Agent")
                .tool("get_weather")
                .tool("broken_tool")
                .tool("slow_tool")
                .tool("set_state")
                .session_state(counting),
        )
        .agent(AgentDefinition::new("confirm-agent").name("Confirm Agent").tool("delete_file").tool("get_weather"))
        .agent(AgentDefinition::new("input-agent").name("Input Agent").tool("send_email"))
        .agent(AgentDefinition::new("external-agent").name("External Agent").tool("run_shell"))
        .agent(AgentDefinition::new("approval-agent").name("Approval Agent").tool("deploy_release").tool("drop_table"))
        .agent(AgentDefinition::new("struct-agent").name("Struct Agent").output_schema(schemars::schema_for!(Movie)))
        .agent(AgentDefinition::new("nohist-agent").name("No History Agent")))
}

fn recorded_teams(builder: Builder) -> Builder {
    let agent = |id: &str, name: &str, role: &str| AgentDefinition::new(id).name(name).role(role);
    let leader = AgentDefinition::new("my-team").name("My Team").description("Two members");
    let team = TeamDefinition::new(leader)
        .own_member(agent("researcher", "Researcher", "Finds facts").tool("get_weather"))
        .own_member(agent("writer", "Writer", "Writes text"));
    let leader = AgentDefinition::new("hitl-team").name("HITL Team").tool("delete_file");
    let careful = agent("confirm-member", "Confirm Member", "Deletes files").tool("delete_file");
    builder.team(team).team(TeamDefinition::new(leader).own_member(careful))
}

fn recorded_workflows(builder: Builder) -> Builder {
    let functions = Functions::default()
        .step("fn_upper", |input: StepInput| async move { Ok(StepSaid::from(input.input.to_uppercase())) })
        .step("fn_join", |input: StepInput| async move { Ok(StepSaid::from(format!("joined: {}", input.text()))) })
        .step("fn_sleep", |_: StepInput| async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            Ok(StepSaid::from("slept"))
        })
        .step("fn_fail", |_: StepInput| async { Err::<StepSaid, Fault>("step failed on purpose".into()) })
        .rule("not_skipped", |asked| Ok(Value::from(!asked.input.to_lowercase().contains("skip"))));
    let step = |name: &str, function: &str| StepDefinition::function(name, function, Effect::Pure);
    let simple = WorkflowDefinition::new("my-workflow")
        .name("My Workflow")
        .description("Two steps")
        .step(step("upper", "fn_upper"))
        .step(StepDefinition::agent("agent step", "my-agent"));
    let slow = WorkflowDefinition::new("slow-workflow")
        .name("Slow Workflow")
        .step(step("s1", "fn_sleep"))
        .step(step("s2", "fn_sleep"))
        .step(step("s3", "fn_sleep"));
    let fail = WorkflowDefinition::new("fail-workflow").name("Fail Workflow").step(step("bad", "fn_fail"));
    let builder = builder.functions(functions).workflow(simple).workflow(full_workflow()).workflow(slow);
    builder.workflow(hitl_workflow()).workflow(fail)
}

fn full_workflow() -> WorkflowDefinition {
    let step = |name: &str, function: &str| StepDefinition::function(name, function, Effect::Pure);
    let writer = AgentDefinition::new("writer").name("Writer").role("Writes text");
    let chosen = Selector::Value(Expression::Constant("route a".into()));
    let shown = Expression::Function("not_skipped".to_owned());
    WorkflowDefinition::new("full-workflow")
        .name("Full Workflow")
        .step(step("start", "fn_upper"))
        .step(StepDefinition::condition("maybe", shown, [step("cond step", "fn_join")], []))
        .step(StepDefinition::parallel("par", [step("par a", "fn_upper"), StepDefinition::own_agent("par b", writer)]))
        .step(StepDefinition::repeat("looper", None, 2, [step("loop body", "fn_join")]))
        .step(StepDefinition::router("route", chosen, [step("route a", "fn_join"), step("route b", "fn_upper")]))
        .step(StepDefinition::group("group", [step("g1", "fn_join"), step("g2", "fn_join")]))
}

/// A workflow that waits for people, twice.
fn hitl_workflow() -> WorkflowDefinition {
    let confirmation = Confirmation { message: Some("Inspect now?".to_owned()), ..Confirmation::default() };
    let confirms = HumanReview { confirmation: Some(confirmation), ..HumanReview::default() };
    let environment = InputField {
        name: "environment".to_owned(),
        kind: "string".to_owned(),
        description: Some("env".to_owned()),
        required: true,
        nullable: false,
        asked: true,
        choices: vec!["staging".into(), "production".into()],
    };
    let user_input = UserInput { message: Some("Choose env".to_owned()), fields: vec![environment] };
    let asks = HumanReview { user_input: Some(user_input), ..HumanReview::default() };
    let step = |name: &str, function: &str, review: HumanReview| {
        let policies = Policies { review, ..Policies::default() };
        StepDefinition::function(name, function, Effect::Pure).policies(policies)
    };
    WorkflowDefinition::new("hitl-workflow")
        .name("HITL Workflow")
        .step(step("inspect", "fn_upper", confirms))
        .step(step("choose", "fn_join", asks))
        .step(step("finish", "fn_join", HumanReview::default()))
}

/// Agents for killing the server in the middle of their tools; the calls of the second wait for a person.
fn crash_agent(builder: Builder, calls: &Path) -> Builder {
    let mut agent = AgentDefinition::new("crash-agent").name("Crash Agent").tool("set_key");
    let mut asking = AgentDefinition::new("asking-agent").name("Asking Agent");
    let mut builder = builder.tool(FunctionTool::new("set_key", "Sets a key, slowly.", Effect::Idempotent, set_key));
    let asks = ApprovalRule::new(ApprovalKind::Required);
    let briefly = ApprovalRule { expires_after_seconds: Some(1), on_expiry: OnExpiry::Deny, ..asks.clone() };
    let another = ApprovalRule { not_by_requester: true, ..asks.clone() };
    for (name, effect, rule) in [
        ("count_pure", Effect::Pure, None),
        ("count_idempotent", Effect::Idempotent, None),
        ("count_unsafe", Effect::Unsafe, None),
        ("ask_pure", Effect::Pure, Some(asks.clone())),
        ("ask_idempotent", Effect::Idempotent, Some(asks.clone())),
        ("ask_unsafe", Effect::Unsafe, Some(asks)),
        ("ask_briefly", Effect::Unsafe, Some(briefly)),
        ("ask_another", Effect::Unsafe, Some(another)),
    ] {
        let calls = calls.to_owned();
        let count = move |context: ToolContext, args: Pause| {
            let calls = calls.clone();
            async move {
                write_down(&calls, name, &context).map_err(ToolError::failed)?;
                tokio::time::sleep(Duration::from_secs(args.seconds) + Duration::from_millis(args.milliseconds)).await;
                // Lets a test hold the tools in their calls, for as long as it takes.
                while calls.with_extension("hold").exists() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok("ok".to_owned())
            }
        };
        let tool = FunctionTool::new(name, "Writes its call down, sleeps, says ok.", effect, count);
        if let Some(rule) = rule {
            builder = builder.tool(tool.approval(rule));
            asking = asking.tool(name);
        } else {
            builder = builder.tool(tool);
            agent = agent.tool(name);
        }
    }
    let report = FunctionTool::new("report", "Says so many lines.", Effect::Pure, report);
    let reporting = AgentDefinition::new("report-agent").name("Report Agent").tool("report").tool("read_result");
    let (builder, asking) = tools_that_wait(builder, asking);
    let led = TeamDefinition::new(AgentDefinition::new("crash-team")).member("crash-agent").member("asking-agent");
    let above = TeamDefinition::new(AgentDefinition::new("upper-team")).member("crash-team");
    let takes_its_time = Expression::Cel("iteration == 2 ? 600 : 0".to_owned());
    let parallel = WorkflowDefinition::new("crash-parallel")
        .step(StepDefinition::parallel(
            "both",
            [StepDefinition::agent("say", "crash-agent"), StepDefinition::tool("count", "count_idempotent", [])],
        ))
        .step(StepDefinition::tool("after", "count_unsafe", []));
    let turn = StepDefinition::tool("turn", "count_unsafe", [("seconds".to_owned(), takes_its_time)]);
    let rounds = WorkflowDefinition::new("crash-loop").step(StepDefinition::repeat("rounds", None, 3, [turn]));
    let team_step = WorkflowDefinition::new("crash-team-step").step(StepDefinition::team("led", "crash-team"));
    let builder = builder.tool(report).agent(agent).agent(asking).agent(reporting).team(led).team(above);
    builder.workflow(parallel).workflow(rounds).workflow(team_step)
}

/// Tools that never run here: a person chooses, or they are run elsewhere.
fn tools_that_wait(builder: Builder, agent: AgentDefinition) -> (Builder, AgentDefinition) {
    let elsewhere = |silent| {
        let name = if silent { "run_unseen" } else { "run_elsewhere" };
        FunctionTool::new(name, "Runs a command outside.", Effect::Unsafe, run_shell).gate(Gate::External { silent })
    };
    let choose = FunctionTool::new("ask_choice", "Asks the user to choose.", Effect::Pure, ask_choice);
    let builder = builder.tool(choose.gate(Gate::Feedback)).tool(elsewhere(true)).tool(elsewhere(false));
    (builder, agent.tool("ask_choice").tool("run_unseen").tool("run_elsewhere"))
}

/// One short write to a file opened for appending, so that a kill leaves whole lines: tool, call, key, process, and when.
fn write_down(calls: &Path, tool: &str, context: &ToolContext) -> std::io::Result<()> {
    let (process, at) = (std::process::id(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let line = format!("{tool} {} {} {process} {}\n", context.call_id, context.idempotency_key, at.as_millis());
    OpenOptions::new().create(true).append(true).open(calls)?.write_all(line.as_bytes())
}

/// A long result with what looks like a token in its middle.
async fn report(_: ToolContext, args: Lines) -> Result<String, ToolError> {
    let line = |n: u32| match n == args.lines / 2 {
        true => "Bearer abcdefghijklmnopqrstuvwxyz0123456789\n".to_owned(),
        false => format!("{n} is größer than € {n}\n"),
    };
    std::future::ready(Ok((0..args.lines).map(line).collect())).await
}

async fn get_weather(_: ToolContext, args: City) -> Result<String, ToolError> {
    std::future::ready(Ok(format!("Sunny in {}, 21C", args.city))).await
}

async fn delete_file(_: ToolContext, args: FilePath) -> Result<String, ToolError> {
    std::future::ready(Ok(format!("deleted {}", args.path))).await
}

async fn send_email(_: ToolContext, args: Email) -> Result<String, ToolError> {
    std::future::ready(Ok(format!("sent {} to {}", args.subject, args.to_address))).await
}

async fn run_shell(_: ToolContext, _: Shell) -> Result<String, ToolError> {
    std::future::ready(Err::<String, _>(ToolError::failed("never here"))).await
}

async fn ask_choice(_: ToolContext, _: Choices) -> Result<String, ToolError> {
    std::future::ready(Err::<String, _>(ToolError::failed("a person answers instead"))).await
}

async fn deploy_release(_: ToolContext, args: Release) -> Result<String, ToolError> {
    std::future::ready(Ok(format!("Deployed {} at {}", args.service, args.version))).await
}

async fn drop_table(_: ToolContext, args: Table) -> Result<String, ToolError> {
    std::future::ready(Ok(format!("dropped {}", args.table))).await
}

async fn broken_tool(_: ToolContext, args: Why) -> Result<String, ToolError> {
    std::future::ready(Err(ToolError::failed(format!("broken: {}", args.why)))).await
}

async fn slow_tool(_: ToolContext, args: Seconds) -> Result<String, ToolError> {
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    Ok(format!("slept {}", args.seconds))
}

async fn set_state(context: ToolContext, args: KeyValue) -> Result<String, ToolError> {
    let said = format!("{}={}", args.key, args.value);
    context.set_state(args.key, Value::String(args.value));
    std::future::ready(Ok(said)).await
}

async fn set_key(context: ToolContext, args: SlowKeyValue) -> Result<String, ToolError> {
    let said = format!("{}={}", args.key, args.value);
    context.set_state(args.key, Value::String(args.value));
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    Ok(said)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
