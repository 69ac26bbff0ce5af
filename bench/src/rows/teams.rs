//! Runs of teams and workflows: beside agno with the same team and workflow on the same mock model, and what many members
//! at once and many iterations take.

use crate::anchors;
use crate::error::Error;
use crate::load::Outcome;
use crate::pace::Pace;
use crate::report::Row;
use crate::seen::Kind;
use crate::serve::{ALL_AT_ONCE, TEAM, WORKFLOW};
use crate::stats::Spread;
use crate::world::{Plan, Server, World};

use super::agno::LEAST;
use super::loops;

const CLIENTS: u32 = 32;
/// Of streams, a second: far below what either serves, so that times are those of a server that is not busy.
const RATE: u32 = 20;
/// The model takes half a second for each answer; its calls of tools come at once.
const SLOW_MODEL: [&str; 4] = ["--first-token-ms", "500", "--tokens", "1"];
/// Seconds of warm-up and of measuring, where a run takes a second.
const SLOW_PACE: (f64, f64) = (1.2, 4.5);

/// What is run.
const WORKS: [Work; 2] =
    [Work { name: "team", kind: Kind::Team, id: TEAM }, Work { name: "workflow", kind: Kind::Workflow, id: WORKFLOW }];

#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    kind: Kind,
    id: &'static str,
}

impl Work {
    fn plan(self) -> Plan {
        Plan { kind: self.kind, id: self.id, ..Plan::runs(CLIENTS) }
    }

    fn streamed(self) -> Plan {
        Plan { rate: RATE, ..self.plan().streamed() }
    }
}

/// What a client waits for, and how long it did.
type Wait = (&'static str, fn(&Outcome) -> f64);

const WAITS: [Wait; 4] = [
    ("first frame, p50", |outcome| outcome.first_frame.p50),
    ("first frame, p99", |outcome| outcome.first_frame.p99),
    ("first text, p50", |outcome| outcome.first_token.p50),
    ("first text, p99", |outcome| outcome.first_token.p99),
];

/// A server that is measured.
struct Contender {
    name: String,
    process: &'static str,
    server: Server,
    pace: Pace,
}

/// Beside agno, then members at once, then loops.
pub async fn measure(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    beside_agno(world, rows).await?;
    members_at_once(world, rows).await?;
    loops::measure(world, rows).await
}

/// All serve at the same time and are loaded in turn: what else happens on the machine meets all of them.
async fn beside_agno(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    world.say("teams: making .venv-bench");
    anchors::prepare_agno(world).await?;
    let mock = world.mock(&[]).await?;
    let daybook = daybook(world, &mock).await?;
    let mut agnos = Vec::new();
    for (db, workers) in world.pace.agno_teams.iter().copied() {
        agnos.push(agno(world, &mock, db, workers).await?);
    }
    for work in WORKS {
        let best = rates(world, work, &mock, &daybook, &agnos, rows).await?;
        if let Some(best) = agnos.get(best) {
            firsts(world, work, &daybook, best, rows).await?;
        }
    }
    for contender in agnos.into_iter().chain([daybook]) {
        contender.server.child.stop().await;
    }
    mock.child.stop().await;
    Ok(())
}

async fn daybook(world: &World<'_>, mock: &Server) -> Result<Contender, Error> {
    let database = world.database("teams").await?;
    let server = world.embedded("daybook", &database, mock).await?;
    Ok(Contender { name: "Daybook".to_owned(), process: "daybook", server, pace: world.pace })
}

async fn agno(world: &World<'_>, mock: &Server, db: crate::pace::AgnoDb, workers: u32) -> Result<Contender, Error> {
    let name = anchors::title(db, workers);
    world.say(format!("teams: starting {name}"));
    let server = anchors::agno(world, "teams", db, workers, mock).await?;
    let (warm_up, seconds) = (world.pace.warm_up.max(LEAST.0), world.pace.seconds.max(LEAST.1));
    Ok(Contender { name, process: "agno", server, pace: Pace { warm_up, seconds, ..world.pace } })
}

/// Whole runs a second of each; gives the index of agno's best setting.
async fn rates(
    world: &World<'_>,
    work: Work,
    mock: &Server,
    daybook: &Contender,
    agnos: &[Contender],
    rows: &mut Vec<Row>,
) -> Result<usize, Error> {
    let all: Vec<&Contender> = agnos.iter().chain([daybook]).collect();
    let mut found = vec![(Vec::new(), String::new()); all.len()];
    for repeat in 1..=world.pace.repeats {
        for (contender, (rates, note)) in all.iter().zip(&mut found) {
            world.say(format!("teams: {} runs of {}, {repeat} of {}", work.name, contender.name, world.pace.repeats));
            let own = (contender.process, contender.server.child.pid());
            let watched = [own, world.watch_postgres(), ("model", mock.child.pid())];
            let targets = [contender.server.address];
            let measured = world.load_at(contender.pace, &targets, work.plan(), &watched).await?;
            rates.push(measured.outcome.rate);
            *note = measured.note();
        }
    }
    let Some((own, own_note)) = found.pop() else { return Ok(0) };
    let median = |rates: &[f64]| Spread::of(rates).map_or(0.0, |spread| spread.median);
    let best = (0..agnos.len()).max_by(|a, b| median(&found[*a].0).total_cmp(&median(&found[*b].0))).unwrap_or(0);
    for (contender, (rates, note)) in agnos.iter().zip(&found) {
        let row = Row::of(format!("{}: {} runs, {CLIENTS} clients", contender.name, work.name), "/s", rates);
        rows.extend(row.map(|row| row.note(note)));
    }
    if let Some(row) = Row::of(format!("{} runs beside agno, {CLIENTS} clients", work.name), "/s", &own) {
        let row = match (agnos.get(best), found.get(best)) {
            (Some(contender), Some((rates, _))) => row.beside(format!("best: {}", contender.name), rates),
            _ => row,
        };
        rows.push(row.note(own_note));
    }
    Ok(best)
}

/// Milliseconds to the first frame and to the first text of streams, of which few are asked for.
async fn firsts(
    world: &World<'_>,
    work: Work,
    daybook: &Contender,
    agno: &Contender,
    rows: &mut Vec<Row>,
) -> Result<(), Error> {
    let mut found: [Vec<Outcome>; 2] = Default::default();
    for repeat in 1..=world.pace.repeats {
        for (contender, outcomes) in [daybook, agno].into_iter().zip(&mut found) {
            let (who, of) = (&contender.name, world.pace.repeats);
            world.say(format!("teams: {} streams of {who}, {repeat} of {of}", work.name));
            let measured = world.load_at(contender.pace, &[contender.server.address], work.streamed(), &[]).await?;
            outcomes.push(measured.outcome);
        }
    }
    let mut own_rows = Vec::new();
    for (what, wait) in WAITS {
        let [own, other] = found.each_ref().map(|all| all.iter().map(wait).collect::<Vec<_>>());
        let row = Row::of(format!("{} runs, {RATE} a second: to the {what}", work.name), "ms", &own);
        own_rows.extend(row.map(|row| row.beside(&agno.name, &other)));
    }
    if let Some(first) = own_rows.first_mut() {
        first.notes.push(streams(&found));
    }
    rows.extend(own_rows);
    Ok(())
}

fn streams([own, other]: &[Vec<Outcome>; 2]) -> String {
    let told = |all: &[Outcome]| {
        let (count, failed) =
            all.iter().fold((0, 0), |(count, failed), one| (count + one.count, failed + one.failed()));
        format!("{count} streams, {failed} failed")
    };
    format!("Daybook: {}; agno: {}", told(own), told(other))
}

/// A run of a team whose members all work at once, by the number of members.
async fn members_at_once(world: &World<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let mock = world.mock(&SLOW_MODEL).await?;
    let database = world.database("teams_at_once").await?;
    let daybook = world.embedded("daybook", &database, &mock).await?;
    let pace = Pace { warm_up: SLOW_PACE.0, seconds: SLOW_PACE.1, ..world.pace };
    let mut found = [Vec::new(), Vec::new()];
    for repeat in 1..=world.pace.repeats {
        for ((id, members), times) in ALL_AT_ONCE.iter().zip(&mut found) {
            world.say(format!("teams: {members} members at once, {repeat} of {}", world.pace.repeats));
            let plan = Plan { kind: Kind::Team, id, ..Plan::runs(1) };
            times.push(world.load_at(pace, &[daybook.address], plan, &[]).await?.outcome.latency.p50);
        }
    }
    let [(_, one), (_, many)] = ALL_AT_ONCE;
    let [of_one, of_many] = &found;
    let row = Row::of(format!("a team of {many} members at once: a run, p50"), "ms", of_many);
    rows.extend(row.map(|row| row.beside(format!("a team of {one}"), of_one).note(AT_ONCE)));
    daybook.child.stop().await;
    mock.child.stop().await;
    Ok(())
}

/// How to read it.
const AT_ONCE: &str = "the model takes 500 ms for a member's answer and 500 ms for the leader's; one after the other, five \
                       members would take 2,500 ms";
