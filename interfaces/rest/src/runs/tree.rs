//! Runs with those under them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use daybook_domain::component::{ComponentConfig, ComponentKind};
use daybook_domain::ids::RunId;
use daybook_domain::message::Message;
use daybook_domain::run::{RunState, ToolRecord};
use daybook_engine::RunDetail;
use daybook_projections::RunRow;

use crate::errors::ApiError;
use crate::state::{AppState, LOG};

/// The runs of a list with those under them; each configuration is looked up once, and the runs of each depth together.
///
/// # Errors
/// What the log and the views answer.
pub(super) async fn of_rows(state: &AppState, rows: &[RunRow]) -> Result<Vec<RunDetail>, ApiError> {
    let mut known: HashMap<RunId, RunState> = HashMap::new();
    let mut next: Vec<RunId> = rows.iter().flat_map(|row| children(&row.state)).collect();
    while !next.is_empty() {
        let found = state.views.runs(LOG, next).await?.value;
        let found: Vec<RunState> = found.into_iter().map(|row| row.state).collect();
        next = found.iter().flat_map(children).filter(|run| !known.contains_key(run)).collect();
        known.extend(found.into_iter().filter_map(|run| Some((run.run_id()?.clone(), run))));
    }
    let mut configs = HashMap::new();
    for run in rows.iter().map(|row| &row.state).chain(known.values()) {
        let Some(accepted) = &run.accepted else { continue };
        let hash = accepted.config_hash.as_str();
        if !configs.contains_key(hash) {
            configs.insert(hash.to_owned(), state.engine.config(LOG, hash).await?);
        }
    }
    Ok(rows.iter().filter_map(|row| whole(&row.state, &known, &configs)).collect())
}

fn children(run: &RunState) -> impl Iterator<Item = RunId> {
    run.children().map(|child| child.run_id.clone())
}

fn whole(
    run: &RunState,
    known: &HashMap<RunId, RunState>,
    configs: &HashMap<String, Arc<ComponentConfig>>,
) -> Option<RunDetail> {
    let config = configs.get(&run.accepted.as_ref()?.config_hash)?.clone();
    let below = children(run).filter_map(|child| whole(known.get(&child)?, known, configs)).collect();
    Some(RunDetail { state: run.clone(), config, history: Vec::new(), children: below })
}

/// What a run took over from the runs that it goes on from: calls, and the runs that carried them out.
#[derive(Default)]
pub(super) struct TakenOver {
    tools: Vec<ToolRecord>,
    children: Vec<RunDetail>,
}

impl TakenOver {
    /// Of a team's run. Clients find the calls of the messages that it took over beside its own.
    ///
    /// # Errors
    /// What the log answers.
    pub async fn by(state: &AppState, run: &RunState) -> Result<Self, ApiError> {
        let team = run.component().is_some_and(|component| component.kind == ComponentKind::Team);
        let base = run.messages.get(..run.base).filter(|_| team).unwrap_or_default();
        let mut wanted: HashSet<&str> = base.iter().flat_map(calls).collect();
        let (mut all, mut from) = (Self::default(), forked(run));
        while let Some(earlier) = from.filter(|_| !wanted.is_empty()) {
            let Some(earlier) = state.engine.run(LOG, &earlier).await? else { break };
            from = forked(&earlier);
            let tools = earlier.tools.iter().filter(|tool| wanted.remove(tool.call.id.as_str()));
            let tools: Vec<ToolRecord> = tools.cloned().collect();
            let took = |child: &RunDetail| {
                let mut known = tools.iter().flat_map(|tool| &tool.children);
                known.any(|known| child.state.run_id() == Some(&known.run_id))
            };
            let detail = state.engine.detail(LOG, earlier).await?;
            let children = detail.map(|detail| detail.children).unwrap_or_default();
            all.children.splice(0..0, children.into_iter().filter(took));
            all.tools.splice(0..0, tools);
        }
        Ok(all)
    }

    /// Puts it before what the run did itself.
    pub fn before(self, detail: &mut RunDetail) {
        detail.state.tools.splice(0..0, self.tools);
        detail.children.splice(0..0, self.children);
    }
}

fn calls(message: &Message) -> impl Iterator<Item = &str> {
    message.tool_calls.iter().map(|call| call.id.as_str())
}

fn forked(run: &RunState) -> Option<RunId> {
    run.accepted.as_ref()?.forked.as_ref().map(|from| from.run_id.clone())
}
