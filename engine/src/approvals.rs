//! Approvals: who decides first wins, and what was decided goes to the run in the same append.

use daybook_domain::approval::{ApprovalCommand, ApprovalError, ApprovalEvent, ApprovalState, Verdict, call_hash};
use daybook_domain::command::{Envelope, ResolveApproval};
use daybook_domain::event::DomainEvent;
use daybook_domain::ids::{ApprovalId, LogId, StreamId};
use daybook_domain::run::{
    Decision, Ending, ErrorKind, RequirementKind, RequirementResolved, RunEvent, RunState, RunStatus,
};
use daybook_domain::tool::OnExpiry;
use daybook_store::{Append, AppendError, Expected, LeaseOp, Store, StoreError, StreamWrite, Subject};

use crate::engine::{Engine, Inner, Outcome};
use crate::error::ExecuteError;
use crate::plan::{Partial, Planner};
use crate::settle::{MAX_TRIES, Settlement, Standing, Unsettled, meta_of};

/// What the model is told of a call that nobody decided about in time.
const EXPIRED: &str = "The approval of this call expired before anybody decided";

/// The same, of a call that may have run already.
const EXPIRED_AGAIN: &str =
    "It is not known whether the call was carried out, and the approval to run it again expired before anybody decided";

/// Folds an approval's stream; gives the stream's version too.
pub(crate) async fn fold_approval(
    store: &Store,
    log: LogId,
    id: &ApprovalId,
) -> Result<(ApprovalState, u64), StoreError> {
    let mut state = ApprovalState::default();
    let mut version = 0;
    for recorded in store.read_stream(log, &StreamId::approval(id), 0).await? {
        version = recorded.version;
        if let DomainEvent::Approval(event) = &recorded.event {
            state.evolve(event);
        }
    }
    Ok((state, version))
}

/// Somebody decides: the first wins, and the run learns of it and goes on in the same append.
pub(crate) async fn resolve(
    engine: &Engine,
    envelope: &Envelope,
    command: ResolveApproval,
) -> Result<Outcome, ExecuteError> {
    let ResolveApproval { approval_id, verdict, resolved_by, data } = command;
    let redactor = &engine.inner.redactor;
    let mut data = data;
    data.iter_mut().for_each(|data| redactor.object(data));
    let resolved_by = envelope.principal.user.as_ref().map(ToString::to_string).or(resolved_by);
    let resolved_by = resolved_by.map(|name| redactor.text(&name));
    let note = data.as_ref().and_then(|data| data.get("note")?.as_str().map(str::to_owned));
    let decision = match verdict {
        Verdict::Approved => Decision::Confirmed,
        Verdict::Rejected => Decision::Rejected,
    };
    let note = note.filter(|_| verdict == Verdict::Rejected);
    let ask = |at_ms| ApprovalCommand::Resolve {
        verdict,
        by: envelope.principal.name.clone(),
        resolved_by: resolved_by.clone(),
        data: data.clone(),
        at_ms,
    };
    decide(engine, envelope, &approval_id, ask, |_| Some((decision, note.clone()))).await
}

/// Hides an approval from lists.
pub(crate) async fn delete(engine: &Engine, envelope: &Envelope, id: &ApprovalId) -> Result<Outcome, ExecuteError> {
    let by = &envelope.principal.name;
    decide(engine, envelope, id, |at_ms| ApprovalCommand::Delete { by: by.clone(), at_ms }, |_| None).await
}

/// Does what the clock demands: reminds, or lets it expire as its rule says. Does nothing when it is too early or too late.
pub(crate) async fn watch(engine: &Engine, envelope: &Envelope, id: &ApprovalId) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    let (state, _) = fold_approval(&inner.store, envelope.log_id, id).await?;
    let now = inner.now_ms();
    let Some(requested) = state.visible().filter(|_| state.due_ms().is_some_and(|due| due <= now)) else {
        return Ok(Outcome::Approval(Box::new(state)));
    };
    let policy = requested.rule.on_expiry;
    if requested.expires_at_ms.is_none_or(|at| at > now) || policy == OnExpiry::Wait {
        let outcome = decide(engine, envelope, id, |at_ms| ApprovalCommand::Remind { at_ms }, |_| None).await?;
        tracing::info!(approval = %id, run = %requested.run_id, tool = requested.tool, "an approval still waits");
        return Ok(outcome);
    }
    let expire = |at_ms| ApprovalCommand::Expire { at_ms };
    let outcome = match policy {
        OnExpiry::Fail => fail_run(engine, envelope, id).await?,
        _ => {
            let why = |state: &ApprovalState| if is_again(state) { EXPIRED_AGAIN } else { EXPIRED };
            let rejected = |state: &ApprovalState| Some((Decision::Rejected, Some(why(state).to_owned())));
            decide(engine, envelope, id, expire, rejected).await?
        }
    };
    tracing::info!(approval = %id, run = %requested.run_id, tool = requested.tool, ?policy, "an approval expired");
    Ok(outcome)
}

/// Records what `ask` comes to, and the answer that `answer` makes of it for the run.
async fn decide(
    engine: &Engine,
    envelope: &Envelope,
    id: &ApprovalId,
    ask: impl Fn(i64) -> ApprovalCommand,
    answer: impl Fn(&ApprovalState) -> Option<(Decision, Option<String>)>,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    for _ in 0..MAX_TRIES {
        let (mut state, version) = fold_approval(&inner.store, envelope.log_id, id).await?;
        let events = state.decide(ask(inner.now_ms()))?;
        if events.is_empty() {
            return Ok(Outcome::Approval(Box::new(state)));
        }
        let write = write_of(&state, id, version, &events)?;
        events.iter().for_each(|event| state.evolve(event));
        let run = Box::pin(waiting(inner, envelope.log_id, &state)).await?;
        let recorded = match (answer(&state), run) {
            (Some((decision, note)), Some(run)) => {
                let resolved = RunEvent::RequirementResolved(answered(envelope, &state, &run, decision, note)?);
                let settlement = Settlement::of(inner, envelope, run, vec![resolved], vec![write]).await?;
                Box::pin(settlement.commit()).await.map(|_| ())
            }
            _ => alone(inner, envelope, vec![write]).await,
        };
        match recorded {
            Ok(()) => return Ok(Outcome::Approval(Box::new(state))),
            Err(Unsettled::Conflict | Unsettled::Duplicate) => {}
            Err(Unsettled::Refused(error)) => return Err(error),
        }
    }
    Err(ExecuteError::Contended)
}

async fn alone(inner: &Inner, envelope: &Envelope, writes: Vec<StreamWrite>) -> Result<(), Unsettled> {
    let meta = meta_of(envelope, inner.now_ms());
    let request = Append { log_id: envelope.log_id, writes, command: None, lease: LeaseOp::None, meta };
    match inner.store.append(request).await {
        Ok(_) => Ok(()),
        Err(AppendError::Store(error)) => Err(error.into()),
        Err(_) => Err(Unsettled::Conflict),
    }
}

fn write_of(
    state: &ApprovalState,
    id: &ApprovalId,
    version: u64,
    events: &[ApprovalEvent],
) -> Result<StreamWrite, ApprovalError> {
    let requested = state.visible().ok_or(ApprovalError::Unknown)?;
    Ok(StreamWrite {
        stream: StreamId::approval(id),
        expected: Expected::Version(version),
        subject: Some(Subject { session: requested.session_id.clone(), user: requested.user_id.clone() }),
        events: events.iter().cloned().map(DomainEvent::from).collect(),
    })
}

/// The run, when it waits for this approval.
async fn waiting(inner: &Inner, log: LogId, state: &ApprovalState) -> Result<Option<Standing>, ExecuteError> {
    let Some(requested) = &state.requested else { return Ok(None) };
    let run = Standing::read(inner, log, &requested.run_id).await?;
    Ok(run.filter(|run| run.state.status == RunStatus::Paused && asks_for(&run.state, &requested.approval_id)))
}

fn asks_for(state: &RunState, id: &ApprovalId) -> bool {
    state.open_requirements().any(|(needed, _)| needed.approval.as_ref() == Some(id))
}

/// Whether it is about running a call again whose outcome nobody knows.
fn is_again(state: &ApprovalState) -> bool {
    state.requested.as_ref().is_some_and(|requested| requested.requirement.kind == RequirementKind::UnknownOutcome)
}

/// The answer for the run. What was approved is exactly what runs.
fn answered(
    envelope: &Envelope,
    state: &ApprovalState,
    run: &Standing,
    decision: Decision,
    note: Option<String>,
) -> Result<RequirementResolved, ExecuteError> {
    let requested = state.requested.as_ref().ok_or(ApprovalError::Unknown)?;
    let call_id = requested.requirement.call_id.clone();
    let tool = run.state.tool(&call_id).ok_or(ApprovalError::Unknown)?;
    let hash = tool.arguments().map(|arguments| call_hash(&tool.call.name, &arguments)).unwrap_or_default();
    if hash != requested.call_hash {
        let why = "the run's call is not the one this approval is for: it needs a new decision".to_owned();
        return Err(ExecuteError::CannotContinue(why));
    }
    let again = decision == Decision::Confirmed && is_again(state);
    Ok(RequirementResolved {
        call_id,
        decision: if again { Decision::RunAgain } else { decision },
        note: note.into(),
        values: None.into(),
        result: None.into(),
        by: envelope.principal.name.clone(),
        approval: Some(requested.approval_id.clone()),
        at_ms: state.updated_ms,
        fails: false,
    })
}

/// Nobody decided in time, and the tool's rule says that the run fails then.
async fn fail_run(engine: &Engine, envelope: &Envelope, id: &ApprovalId) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    for _ in 0..MAX_TRIES {
        let (mut state, version) = fold_approval(&inner.store, envelope.log_id, id).await?;
        let events = state.decide(ApprovalCommand::Expire { at_ms: inner.now_ms() })?;
        if events.is_empty() {
            return Ok(Outcome::Approval(Box::new(state)));
        }
        let mut writes = vec![write_of(&state, id, version, &events)?];
        events.iter().for_each(|event| state.evolve(event));
        let run = waiting(inner, envelope.log_id, &state).await?;
        if let Some(run) = run.as_ref().filter(|run| run.accepted.parent.is_some()) {
            // Its parent has to hear of it: it ends when it goes on.
            let answer = answered(envelope, &state, run, Decision::Rejected, Some(EXPIRED.to_owned()))?;
            let resolved = RunEvent::RequirementResolved(RequirementResolved { fails: true, ..answer });
            let settlement = Settlement::of(inner, envelope, run.clone(), vec![resolved], writes).await?;
            match Box::pin(settlement.commit()).await {
                Ok(_) => return Ok(Outcome::Approval(Box::new(state))),
                Err(Unsettled::Refused(error)) => return Err(error),
                Err(_) => continue,
            }
        }
        if let Some(run) = run {
            writes.push(failed(inner, &run, &state));
            writes.extend(cancelled(inner, envelope.log_id, &run.state, Some(id)).await?);
        }
        match alone(inner, envelope, writes).await {
            Ok(()) => return Ok(Outcome::Approval(Box::new(state))),
            Err(Unsettled::Refused(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Err(ExecuteError::Contended)
}

fn failed(inner: &Inner, run: &Standing, state: &ApprovalState) -> StreamWrite {
    let tool = state.requested.as_ref().map(|requested| requested.tool.as_str()).unwrap_or_default();
    let planner = Planner {
        config: &run.config,
        now_ms: inner.now_ms(),
        fresh_id: &*inner.ports.ids,
        history: Default::default(),
        granted: false,
        in_flight: &Default::default(),
        waiting: &Default::default(),
        code: None,
        checks: &Default::default(),
        partial: Partial::default(),
        session_state: serde_json::Map::new(),
    };
    let why = format!("The approval of {tool} expired before anybody decided");
    let mut plan = planner.finish(&run.state, Ending::Fail(ErrorKind::ApprovalExpired, why));
    plan.events.iter_mut().for_each(|event| crate::frame::set_frame(event, run.state.next_frame));
    StreamWrite {
        stream: StreamId::run(&run.accepted.run_id),
        expected: Expected::Version(run.version),
        subject: Some(run.subject()),
        events: plan.events.into_iter().map(DomainEvent::from).collect(),
    }
}

/// What happens to the approvals that a run waits for when it ends without them; `except` is settled otherwise.
pub(crate) async fn cancelled(
    inner: &Inner,
    log: LogId,
    run: &RunState,
    except: Option<&ApprovalId>,
) -> Result<Vec<StreamWrite>, StoreError> {
    let mut writes = Vec::new();
    for id in run.open_requirements().filter_map(|(needed, _)| needed.approval.as_ref()) {
        if except != Some(id) {
            writes.extend(withdrawn(inner, log, id).await?);
        }
    }
    Ok(writes)
}

/// What happens to an approval that nobody needs any more; nothing when it is settled.
pub(crate) async fn withdrawn(inner: &Inner, log: LogId, id: &ApprovalId) -> Result<Option<StreamWrite>, StoreError> {
    let (state, version) = fold_approval(&inner.store, log, id).await?;
    let events = state.decide(ApprovalCommand::Cancel { at_ms: inner.now_ms() }).unwrap_or_default();
    Ok(write_of(&state, id, version, &events).ok().filter(|_| !events.is_empty()))
}
