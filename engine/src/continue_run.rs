//! Continuing a run: answers for one that is paused, a new run from where one ended, and the run itself for one that goes
//! on from these very answers already.

use daybook_domain::approval::{ApprovalEvent, ApprovalRequested, ApprovalResolved, Verdict};
use daybook_domain::command::{ContinueRun, Envelope};
use daybook_domain::component::ComponentKind;
use daybook_domain::ids::{ApprovalId, LogId, RunId, StreamId};
use daybook_domain::redact::Redactor;
use daybook_domain::run::{
    Answer, AnswerError, Decision, MemberAsk, Requirement, RequirementKind, RequirementResolved, RunEvent, RunState,
    RunStatus, ToolRecord,
};
use daybook_domain::tool::ToolSpec;
use daybook_store::{CommandKey, Expected, StreamWrite};
use serde_json::{Map, Value};

use crate::approvals::withdrawn;
use crate::engine::{Engine, Inner, Outcome};
use crate::error::ExecuteError;
use crate::flow::{StepAnswers, step_answers};
use crate::fork::fork_run;
use crate::plan::approval_of;
use crate::registry::Checks;
use crate::settle::{MAX_TRIES, Settlement, Standing, Unsettled, refused};
use crate::start::hash_of;

pub(crate) async fn continue_run(
    engine: &Engine,
    envelope: &Envelope,
    command: ContinueRun,
) -> Result<Outcome, ExecuteError> {
    let inner = &engine.inner;
    let unknown = || ExecuteError::UnknownRun(command.run_id.to_string());
    for _ in 0..MAX_TRIES {
        let run = Standing::read(inner, envelope.log_id, &command.run_id).await?.ok_or_else(unknown)?;
        if run.accepted.component != command.component || run.accepted.session_id != command.session_id {
            return Err(unknown());
        }
        if command.fork || command.regenerate {
            return fork_run(engine, envelope, &run, command).await;
        }
        if let Some(parent) = &run.accepted.parent {
            let why = format!("this run is part of run {}: continue that one", parent.root);
            return Err(ExecuteError::CannotContinue(why));
        }
        let (answers, below) = sorted_answers(inner, envelope.log_id, &run, &command.answers).await?;
        let by = &envelope.principal.name;
        let StepAnswers { new: steps, repeats } =
            step_answers(inner, envelope.log_id, &run, &command.step_answers, by).await?;
        let answered = !answers.is_empty() || !below.is_empty() || !steps.is_empty();
        if run.state.status != RunStatus::Paused && below.is_empty() && steps.is_empty() {
            return if let Some(outcome) = joined(&run, &command, &answers)? {
                Ok(outcome)
            } else {
                fork_run(engine, envelope, &run, command).await
            };
        }
        if !answered {
            let asks = inner.asks_below(envelope.log_id, &run.state).await.map_err(refused)?;
            // When nothing is asked any more, it goes on.
            let asked =
                run.state.is_asking() || inner.is_asked_below(envelope.log_id, &run.state).await.map_err(refused)?;
            if asked && repeats {
                // Sent once more: it is what the run went on from.
                return Ok(as_it_is(&run));
            }
            if asked {
                return Err(ExecuteError::Unanswered(silence(&run.state, &asks)));
            }
        }
        match settle(engine, envelope, run, &command, (answers, below), steps).await?.commit().await {
            Err(Unsettled::Conflict) => {}
            Err(Unsettled::Refused(error)) => return Err(error),
            // The same key with the same answers: what they came to then.
            Err(Unsettled::Duplicate) => {
                let run = Standing::read(inner, envelope.log_id, &command.run_id).await?.ok_or_else(unknown)?;
                return Ok(as_it_is(&run));
            }
            Ok(outcome) => return Ok(outcome),
        }
    }
    Err(ExecuteError::Contended)
}

async fn settle<'a>(
    engine: &'a Engine,
    envelope: &'a Envelope,
    run: Standing,
    command: &ContinueRun,
    (answers, below): (Vec<RequirementResolved>, Below),
    steps: Vec<(Standing, Vec<RunEvent>)>,
) -> Result<Settlement<'a>, ExecuteError> {
    let inner = &engine.inner;
    let mut beside = Vec::new();
    let mut answers = stamped(engine, envelope, &run, answers, &mut beside).await?;
    let mut events = Vec::with_capacity(below.len());
    for (member, answers) in below {
        let answers = stamped(engine, envelope, &member, answers, &mut beside).await?;
        events.push((member, answers));
    }
    for (asking, answered) in steps {
        let same = |(known, _): &&mut (Standing, Vec<RunEvent>)| known.accepted.run_id == asking.accepted.run_id;
        if asking.accepted.run_id == run.accepted.run_id {
            answers.extend(answered);
        } else if let Some((_, known)) = events.iter_mut().find(same) {
            known.extend(answered);
        } else {
            events.push((asking, answered));
        }
    }
    let key = envelope.idempotency_key.clone().map(|key| CommandKey {
        principal: envelope.principal.name.clone(),
        route: format!("{}:runs/{}:continue", command.component, command.run_id),
        key,
        body_hash: hash_of(command).unwrap_or_default(),
        resource: command.run_id.to_string(),
    });
    Ok(Settlement { inner, envelope, root: run, answers, below: events, beside, mode: command.mode, key })
}

/// The answers as they are recorded, and what they do to approvals.
async fn stamped(
    engine: &Engine,
    envelope: &Envelope,
    run: &Standing,
    answers: Vec<RequirementResolved>,
    beside: &mut Vec<StreamWrite>,
) -> Result<Vec<RunEvent>, ExecuteError> {
    let inner = &engine.inner;
    let (by, at_ms) = (&envelope.principal.name, inner.now_ms());
    let mut events = Vec::with_capacity(answers.len());
    for answer in answers {
        let resolved = RequirementResolved { by: by.clone(), at_ms, ..answer };
        beside.extend(audit(engine, envelope, run, &resolved));
        let asked = run.state.tool(&resolved.call_id).and_then(|tool| tool.asked.as_ref());
        // How it ended is known now: nobody need decide whether it runs again.
        if let Some(id) = asked.and_then(|asked| asked.approval.as_ref()) {
            beside.extend(withdrawn(inner, envelope.log_id, id).await?);
        }
        events.push(RunEvent::RequirementResolved(resolved));
    }
    Ok(events)
}

/// Answers of one run under another.
type Below = Vec<(Standing, Vec<RequirementResolved>)>;

/// The answers that say something new, by the runs that asked: the run itself, and those under it.
async fn sorted_answers(
    inner: &Inner,
    log: LogId,
    run: &Standing,
    answers: &[Answer],
) -> Result<(Vec<RequirementResolved>, Below), ExecuteError> {
    let (mut own, mut others): (Vec<Answer>, Vec<(RunId, Vec<Answer>)>) = (Vec::new(), Vec::new());
    let below = if answers.iter().all(|answer| answer.run.is_none() && run.state.tool(&answer.call_id).is_some()) {
        Vec::new()
    } else {
        inner.open_below(log, &run.state).await.map_err(refused)?
    };
    for answer in answers {
        let has = |(state, _): &&(RunState, u64)| state.tool(&answer.call_id).is_some();
        let asking = || below.iter().find(has).and_then(|(state, _)| state.run_id()).cloned();
        let named = answer.run.clone().filter(|named| *named != run.accepted.run_id);
        match named.or_else(|| asking().filter(|_| run.state.tool(&answer.call_id).is_none())) {
            None => own.push(answer.clone()),
            Some(id) => match others.iter_mut().find(|(known, _)| *known == id) {
                Some((_, answers)) => answers.push(answer.clone()),
                None => others.push((id, vec![answer.clone()])),
            },
        }
    }
    let own = inner.new_answers(run, &own)?;
    let mut members = Vec::new();
    for (id, answers) in others {
        let no_such = || AnswerError::NoSuchCall(answers[0].call_id.clone());
        let member = Standing::read(inner, log, &id).await?.ok_or_else(no_such)?;
        if member.accepted.parent.as_ref().is_none_or(|parent| parent.root != run.accepted.run_id) {
            return Err(no_such().into());
        }
        let answers = inner.new_answers(&member, &answers)?;
        if !answers.is_empty() {
            members.push((member, answers));
        }
    }
    Ok((own, members))
}

impl Inner {
    fn new_answers(&self, run: &Standing, answers: &[Answer]) -> Result<Vec<RequirementResolved>, AnswerError> {
        let component = self.registry().pinned(run.config.clone(), &run.accepted.config_hash);
        read_answers(run, &component.checks, answers, &self.redactor)
    }
}

/// The answers that say something new.
///
/// # Errors
/// [`AnswerError`] for the first that does not fit.
fn read_answers(
    run: &Standing,
    checks: &Checks,
    answers: &[Answer],
    redactor: &Redactor,
) -> Result<Vec<RequirementResolved>, AnswerError> {
    let mut state = run.state.clone();
    let mut all = Vec::new();
    for answer in answers {
        let tool = state.tool(&answer.call_id).ok_or_else(|| AnswerError::NoSuchCall(answer.call_id.clone()))?;
        let Some(asked) = &tool.asked else { continue };
        let Some(given) = asked.read(tool, answer)? else { continue };
        if let Some(known) = &tool.given {
            if *known == given {
                continue;
            }
            return Err(AnswerError::Answered(answer.call_id.clone()));
        }
        if state.status.is_end() {
            return Err(AnswerError::Ended(state.status));
        }
        let required = || run.config.tool(&tool.call.name).is_some_and(ToolSpec::needs_approval);
        if is_for_an_approval(asked, given.decision, required) {
            return Err(AnswerError::NeedsApproval);
        }
        let mut values = given.values.clone();
        values.iter_mut().for_each(|values| redactor.object(values));
        if values != given.values {
            let fault = "what was filled in holds a secret, which is not kept: let the tool find it elsewhere";
            return Err(AnswerError::Unfit(fault.to_owned()));
        }
        if given.decision == Decision::Filled {
            fits_the_tool(tool, values.clone().unwrap_or_default(), checks)?;
        }
        let resolved = RequirementResolved {
            call_id: answer.call_id.clone(),
            decision: given.decision,
            note: given.note.map(|note| redactor.text(&note)).into(),
            values: values.into(),
            result: given.result.map(|result| redactor.text(&result)).into(),
            by: String::new(),
            approval: None,
            fails: false,
            at_ms: 0,
        };
        state.evolve(&RunEvent::RequirementResolved(resolved.clone()));
        all.push(resolved);
    }
    Ok(all)
}

/// Whether the call may be made with what was filled in: the whole of it, by all that the tool's schema says.
fn fits_the_tool(tool: &ToolRecord, values: Map<String, Value>, checks: &Checks) -> Result<(), AnswerError> {
    let mut filled = tool.clone();
    filled.fill(values);
    let arguments = filled.arguments().map_err(AnswerError::Unfit)?;
    let Some(check) = checks.get(&tool.call.name) else { return Ok(()) };
    check.fault(&arguments).map_err(|fault| {
        AnswerError::Unfit(format!("{} cannot be called with what was filled in: {fault}", tool.call.name))
    })
}

/// Whether only an approval says this. The result of a call that may have run was allowed with the call, and runs
/// nothing; a pause that an earlier version recorded names no approval for running it again.
fn is_for_an_approval(asked: &Requirement, decision: Decision, required: impl Fn() -> bool) -> bool {
    match (asked.kind, decision) {
        (RequirementKind::UnknownOutcome, Decision::Executed) => false,
        (RequirementKind::UnknownOutcome, Decision::RunAgain) => asked.approval.is_some() || required(),
        _ => asked.approval.is_some(),
    }
}

/// What is told to who answered nothing: silence is neither consent nor rejection.
fn silence(state: &RunState, below: &[MemberAsk]) -> String {
    let asked = || state.open_requirements().chain(below.iter().map(|ask| (&ask.requirement, &ask.tool)));
    let external = |(needed, _): &(&Requirement, _)| needed.kind == RequirementKind::ExternalExecution;
    if let Some((_, tool)) = asked().find(external) {
        return format!("Tool {} requires external execution, cannot continue run", tool.call.name);
    }
    if asked().any(|(needed, _)| needed.approval.is_some()) {
        // The words clients know.
        return "Run has unresolved HITL requirements. Provide the `requirements` parameter (or resolve an admin approval \
                first)."
            .to_owned();
    }
    let steps: Vec<&str> = state.open_steps().map(|(asked, _)| asked.name.as_str()).collect();
    if !steps.is_empty() {
        return format!(
            "The run waits for answers about the steps {}: send what it told in `step_requirements`, each with `confirmed`, \
             `user_input`, `selected_choices` or `edited_output` filled in",
            steps.join(", ")
        );
    }
    if state.flow.is_some() && asked().next().is_none() {
        return "The run waits for what the runs of its steps ask: send what it told in `step_requirements`, with \
                `executor_requirements` and `executor_step_requirements` filled in"
            .to_owned();
    }
    let calls = asked().map(|(_, tool)| tool.call.name.as_str()).collect::<Vec<_>>().join(", ");
    let agent = state.component().is_none_or(|component| component.kind == ComponentKind::Agent);
    let told = if agent { "the calls that it told in `tools`" } else { "what it told in `requirements`" };
    format!(
        "The run waits for answers about {calls}: send {told}, each with `confirmed`, its `user_input_schema`, its \
         `user_feedback_schema` or its `result` filled in"
    )
}

/// The run itself, when the caller says nothing that it does not go on from already; `None` when a new run is wanted.
fn joined(
    run: &Standing,
    command: &ContinueRun,
    answers: &[RequirementResolved],
) -> Result<Option<Outcome>, ExecuteError> {
    if !answers.is_empty() {
        return Err(ExecuteError::GoesOn);
    }
    let says_more = command.input.is_some() || command.from != Default::default();
    if !run.state.status.is_end() {
        return if says_more { Err(ExecuteError::GoesOn) } else { Ok(Some(as_it_is(run))) };
    }
    // Who was told "continue it once the approval is resolved", or sends the answers once more, wants that run.
    let approved = run.state.tools.iter().any(|tool| tool.approval.is_some());
    let repeats = !command.answers.is_empty() || !command.step_answers.is_empty() || approved;
    Ok((repeats && !says_more && run.state.continued.is_some()).then(|| as_it_is(run)))
}

/// The run from where it went on last.
fn as_it_is(run: &Standing) -> Outcome {
    let continued = run.state.continued.as_ref().and_then(|continued| continued.frame.checked_sub(1));
    Outcome::Continued {
        run_id: run.accepted.run_id.clone(),
        session_id: run.accepted.session_id.clone(),
        queued: run.state.status == RunStatus::Pending,
        after: if run.state.status == RunStatus::Paused { run.state.paused_frame } else { continued },
    }
}

/// The record of a decision whose tool wants it kept as an approval.
fn audit(engine: &Engine, envelope: &Envelope, run: &Standing, resolved: &RequirementResolved) -> Option<StreamWrite> {
    let tool = run.state.tool(&resolved.call_id)?;
    let asked = tool.asked.as_ref().filter(|asked| asked.audited)?;
    let spec = run.config.tool(&tool.call.name)?;
    let approval_id = ApprovalId::from((engine.inner.ports.ids)());
    let requirement = Requirement { approval: Some(approval_id.clone()), ..asked.clone() };
    // With what a person filled in: that is what runs.
    let mut decided = tool.clone();
    if resolved.decision == Decision::Filled {
        decided.fill(resolved.values.get().cloned().flatten().unwrap_or_default());
    }
    let requested = approval_of(&run.accepted, &run.config, spec, &requirement, &decided, resolved.at_ms)?;
    let requested = ApprovalRequested { expires_at_ms: None, ..requested };
    let verdict = if resolved.decision == Decision::Rejected { Verdict::Rejected } else { Verdict::Approved };
    let by = envelope.principal.name.clone();
    let resolved_by = envelope.principal.user.as_ref().map(ToString::to_string).into();
    let decision = ApprovalResolved { verdict, by, resolved_by, data: None.into(), at_ms: resolved.at_ms };
    Some(StreamWrite {
        stream: StreamId::approval(&approval_id),
        expected: Expected::Version(0),
        subject: Some(run.subject()),
        events: vec![ApprovalEvent::Requested(Box::new(requested)).into(), ApprovalEvent::Resolved(decision).into()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_an_approval_says() {
        let asked = |kind, approval: Option<&str>| {
            let approval = approval.map(|id| ApprovalId::parse(id).unwrap());
            Requirement { approval, ..Requirement::new("c", kind) }
        };
        let refused = |asked: &Requirement, decision| is_for_an_approval(asked, decision, || true);
        let confirmation = asked(RequirementKind::Confirmation, Some("a"));
        assert!(refused(&confirmation, Decision::Confirmed) && refused(&confirmation, Decision::Rejected));
        let again = asked(RequirementKind::UnknownOutcome, Some("a"));
        assert!(refused(&again, Decision::RunAgain) && refused(&again, Decision::Rejected));
        assert!(!refused(&again, Decision::Executed), "its result runs nothing");
        // As an earlier version paused: it may be rejected, and nobody lets it run again without an approval.
        let older = asked(RequirementKind::UnknownOutcome, None);
        assert!(refused(&older, Decision::RunAgain) && !refused(&older, Decision::Rejected));
        assert!(!is_for_an_approval(&older, Decision::RunAgain, || false), "the tool needs none");
    }
}
