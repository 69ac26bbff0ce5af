//! Daybook with the agent, the teams and the workflows that are measured: the library that `daybook serve` serves with, in
//! a program of its own, since a workflow's function is code, here as with agno.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use daybook::{
    AgentDefinition, Api, Builder, Daybook, Effect, Functions, Limits, MasterKey, ModelOptions, ProviderModel,
    RetryPolicy, Settings, StepDefinition, StepInput, StepSaid, TeamDefinition, TeamMode, WorkflowDefinition,
};

use crate::error::Error;
use crate::serving;
use crate::world::AGENT;

/// A leader and two members, of whom the mock model calls the writer.
pub const TEAM: &str = "my-team";

/// A function, and then the agent.
pub const WORKFLOW: &str = "my-workflow";

/// What workflows repeat, and how often: see [`loop_of`].
pub const REPEATED: [&str; 2] = [FUNCTION, "agent"];

/// The iterations of those workflows.
pub const ITERATIONS: [u32; 3] = [10, 100, 1_000];

const FUNCTION: &str = "function";
/// The function's name: it says what the workflow was told, in capitals.
const UPPER: &str = "upper";

/// Teams whose members all work at once, and how many those are.
pub const ALL_AT_ONCE: [(&str, usize); 2] = [("team-of-1", 1), ("team-of-5", 5)];

/// The most runs at once, as with `daybook serve` in the other rows.
const MAX_RUNS: NonZeroU32 = NonZeroU32::MIN.saturating_add(19_999);

/// The options of `daybook-bench serve`.
#[derive(Debug, Args)]
pub struct Options {
    /// Where the model is
    #[arg(long, value_name = "HOST:PORT")]
    model: SocketAddr,
    /// For its files
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Serves on a free port and the log of DATABASE_URL, until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), Error> {
    let variable = |name: &str| std::env::var(name).map_err(|_| Error::Missing(format!("{name} is not set")));
    let settings = Settings {
        port: 0,
        data_dir: options.data_dir,
        limits: Limits { max_runs: MAX_RUNS, ..Limits::default() },
        ..Settings::default()
    };
    let builder = Daybook::builder()
        .settings(settings)
        .database_url(variable("DATABASE_URL")?)
        .master_key(MasterKey::from_base64(&variable("DAYBOOK_MASTER_KEY")?)?)
        .model("main", Arc::new(model(options.model)?));
    let running = workflows(agents_and_teams(builder)).build().await?.start();
    serving::announce(running.address())?;
    Ok(running.until_signal().await?)
}

fn model(address: SocketAddr) -> Result<ProviderModel, Error> {
    let options = ModelOptions {
        base_url: format!("http://{address}/v1"),
        api_key: Some("none".to_owned().into()),
        retry: RetryPolicy::NEVER,
        ..ModelOptions::new(Api::OpenAiChat, "mock")
    };
    ProviderModel::new(&options).map_err(|error| Error::Missing(format!("the model cannot be used: {error}")))
}

fn agents_and_teams(builder: Builder) -> Builder {
    let member = |id: &str, name: &str, role: &str| AgentDefinition::new(id).name(name).role(role);
    let team = TeamDefinition::new(AgentDefinition::new(TEAM).name("My Team"))
        .own_member(member("researcher", "Researcher", "Finds facts"))
        .own_member(member("writer", "Writer", "Writes text"));
    let agent = AgentDefinition::new(AGENT).name("My Agent").instruction("Be brief.").history_runs(3);
    let builder = builder.agent(agent).team(team);
    ALL_AT_ONCE.iter().fold(builder, |builder, (id, members)| {
        let team = TeamDefinition::new(AgentDefinition::new(*id)).mode(TeamMode::Collaborate);
        let members = (1..=*members).map(|n| member(&format!("member-{n}"), &format!("Member {n}"), "Writes text"));
        builder.team(members.fold(team, TeamDefinition::own_member))
    })
}

/// The workflow that repeats a step so often.
pub fn loop_of(step: &str, iterations: u32) -> String {
    format!("{step}-{iterations}-times")
}

fn workflows(builder: Builder) -> Builder {
    let upper = |input: StepInput| async move { Ok(StepSaid::from(input.input.to_uppercase())) };
    let step = |step: &str| match step {
        FUNCTION => StepDefinition::function("upper", UPPER, Effect::Pure),
        _ => StepDefinition::agent("agent step", AGENT),
    };
    let workflow = WorkflowDefinition::new(WORKFLOW).name("My Workflow").step(step(FUNCTION)).step(step("agent"));
    let builder = builder.functions(Functions::default().step(UPPER, upper)).workflow(workflow);
    let loops = REPEATED.iter().flat_map(|repeated| ITERATIONS.map(|iterations| (*repeated, iterations)));
    loops.fold(builder, |builder, (repeated, iterations)| {
        let repeat = StepDefinition::repeat("loop", None, iterations, [step(repeated)]);
        builder.workflow(WorkflowDefinition::new(loop_of(repeated, iterations)).step(repeat))
    })
}
