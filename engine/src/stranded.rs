//! Runs that no living node can go on with: an agent or a tool that they need was taken out of all definitions. They wait
//! until it is put back, which is told in the log and by `/health`; only cancelling ends them, on any node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use daybook_domain::ids::{LogId, RunId};
use daybook_store::{Abilities, StoreError};

use crate::drive::Exit;
use crate::engine::{Inner, fold_run};
use crate::node::take_over;

/// The most of them that are told of.
const LIMIT: i64 = 1_000;

/// The most things lacking that are named.
const TOLD: usize = 10;

/// What the best of `nodes` lacks for a run; `None` when one has everything, or does not say what it has.
pub(crate) fn lacking(
    nodes: &[Option<Abilities>],
    component: &str,
    models: &[String],
    tools: &[String],
) -> Option<String> {
    let nodes: Vec<&Abilities> = nodes.iter().map(Option::as_ref).collect::<Option<_>>()?;
    let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
    let lacks = |node: &Abilities| {
        let component = Some(component).filter(|name| !has(&node.components, name)).map(spoken);
        let models = models.iter().filter(|key| !has(&node.models, key)).map(|key| format!("the model {key:?}"));
        let tools = tools.iter().filter(|name| !has(&node.tools, name)).map(|name| format!("the tool {name:?}"));
        component.into_iter().chain(models).chain(tools).collect::<Vec<String>>()
    };
    let fewest = nodes.into_iter().map(lacks).min_by_key(Vec::len);
    // Without any node, everything is lacking.
    let fewest = fewest.unwrap_or_else(|| lacks(&Abilities::default()));
    let told = fewest.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
    match fewest.len() {
        0 => None,
        1..=TOLD => Some(told),
        all => Some(format!("{told}, and {} more", all - TOLD)),
    }
}

/// `agent:notes` as people say it.
fn spoken(component: &str) -> String {
    let (kind, id) = component.split_once(':').unwrap_or(("component", component));
    format!("the {kind} {id:?}")
}

/// How many of those that are known already are looked at again each time, in turn: a node may have ended between a request
/// to cancel and the end of its run.
const AGAIN: usize = 20;

/// Looks which runs nobody can go on with. What each lacks is told once; one that is to be cancelled is ended.
pub(crate) async fn look_for_stranded(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let log = LogId::DEFAULT;
    let leases = inner.store.stranded_leases(log, LIMIT).await?;
    let nodes = if leases.is_empty() { Vec::new() } else { inner.store.living_nodes().await? };
    let before = inner.stranded.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let turn = usize::try_from(inner.now_ms() / 3000).unwrap_or_default().wrapping_mul(AGAIN);
    let again: BTreeSet<&RunId> = before
        .keys()
        .cycle()
        .skip(turn.checked_rem(before.len()).unwrap_or_default())
        .take(AGAIN.min(before.len()))
        .collect();
    let mut stranded = BTreeMap::new();
    for lease in leases {
        // Who came meanwhile and has everything claims it.
        let Some(lacks) = lacking(&nodes, &lease.component, &[], &lease.tools) else { continue };
        let run = lease.tree;
        let new = !before.contains_key(&run);
        if (new || again.contains(&run)) && is_to_be_cancelled(inner, log, &run).await {
            end_unheld(inner, log, &run).await;
            continue;
        }
        if new {
            let then = "it waits, and its session with it, until a server has that or the run is cancelled";
            tracing::warn!(%run, lacks, "no server that is up has all that a run needs; {then}");
        }
        stranded.insert(run, lacks);
    }
    *inner.stranded.lock().unwrap_or_else(PoisonError::into_inner) = stranded;
    Ok(())
}

async fn is_to_be_cancelled(inner: &Inner, log: LogId, run: &RunId) -> bool {
    fold_run(&inner.store, log, run).await.is_ok_and(|(state, _)| state.cancel.is_some())
}

/// Takes a run over whose request to cancel is in the log and that no living node holds. It needs neither model nor tools to
/// end. When that fails, the next look, or the next request, does it.
pub(crate) async fn end_unheld(inner: &Arc<Inner>, log: LogId, run: &RunId) {
    let taken: Result<(), Exit> = async {
        match inner.store.claim_lease(log, &inner.node_id, run).await? {
            Some(lease) => take_over(inner, log, lease).await,
            None => Ok(()),
        }
    }
    .await;
    if let Err(error) = taken {
        tracing::warn!(%run, %error, "a run that is to be cancelled was not taken over; it is tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(components: &[&str], models: &[&str], tools: &[&str]) -> Option<Abilities> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Some(Abilities { components: own(components), models: own(models), tools: own(tools) })
    }

    #[test]
    fn what_is_lacking_is_what_the_best_node_lacks() {
        let tools = ["search".to_owned(), "mail".to_owned()];
        let of = |nodes: &[Option<Abilities>]| lacking(nodes, "agent:a", &["m".to_owned()], &tools);
        let whole = node(&["agent:a"], &["m"], &["mail", "search"]);
        let half = node(&["agent:a"], &["m"], &["mail"]);
        let other = node(&["agent:b"], &["n"], &["search"]);
        assert_eq!(of(&[half.clone(), whole]), None);
        assert_eq!(of(&[half.clone(), None]), None, "it may have everything");
        assert_eq!(of(std::slice::from_ref(&other)).unwrap(), r#"the agent "a", the model "m", the tool "mail""#);
        assert_eq!(of(&[other, half]).unwrap(), r#"the tool "search""#, "what another has is of no use there");
        assert_eq!(of(&[]).unwrap(), r#"the agent "a", the model "m", the tool "search", the tool "mail""#);
        let many: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        let told = lacking(&[node(&["agent:a"], &[], &[])], "agent:a", &[], &many).unwrap();
        assert!(told.ends_with(r#"the tool "9", and 2 more"#), "{told}");
    }
}
