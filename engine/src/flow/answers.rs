//! Answers to what is asked about the steps of a workflow.

use daybook_domain::ids::LogId;
use daybook_domain::redact::Redactor;
use daybook_domain::run::{AnswerError, RunEvent, RunState};
use daybook_domain::workflow::{StepAnswer, StepAnswered, StepRequirement};

use crate::engine::Inner;
use crate::error::ExecuteError;
use crate::settle::{Standing, refused};

/// What the answers to steps come to.
#[derive(Default)]
pub(crate) struct StepAnswers {
    /// What is new, as it is recorded, by the runs that asked: the run itself, and those under it.
    pub new: Vec<(Standing, Vec<RunEvent>)>,
    /// Whether one was said before, to a question that has its answer.
    pub repeats: bool,
}

/// Sorts the answers. Clients send what they answered before along with what is new; each names its question.
pub(crate) async fn step_answers(
    inner: &Inner,
    log: LogId,
    run: &Standing,
    answers: &[StepAnswer],
    by: &str,
) -> Result<StepAnswers, ExecuteError> {
    let mut all = StepAnswers::default();
    let mut below = None;
    let mut read: Vec<&StepAnswer> = Vec::new();
    for answer in answers {
        let asking = if asked(&run.state, answer).is_some() {
            Some(run.clone())
        } else {
            if below.is_none() {
                below = Some(inner.open_below(log, &run.state).await.map_err(refused)?);
            }
            let here = below.iter().flatten().find(|(state, _)| asked(state, answer).is_some());
            let id = here.and_then(|(state, _)| state.run_id().cloned());
            match id {
                Some(id) => Standing::read(inner, log, &id).await?,
                None => None,
            }
        };
        let Some(asking) = asking else {
            if is_a_step(run, answer) {
                all.repeats = true;
                continue;
            }
            let fault =
                format!("the run has no step {:?}: answer with the step_id of what it waits for", answer.step_id);
            return Err(AnswerError::Unfit(fault).into());
        };
        let current = asked(&asking.state, answer).map(|asked| asked.number);
        if answer.number.is_some_and(|number| current.is_some_and(|current| number < current)) {
            all.repeats = true;
            continue;
        }
        if let Some(other) = read.iter().find(|other| other.step_id == answer.step_id) {
            if same(other, answer) {
                continue;
            }
            let fault =
                format!("the step {:?} is answered twice, and not alike: say once what is meant", answer.step_id);
            return Err(AnswerError::Unfit(fault).into());
        }
        read.push(answer);
        let Some(event) = new_answer(inner, &asking, answer, by)? else {
            // It says nothing, or what was said already.
            all.repeats |= is_answered(&asking.state, answer);
            continue;
        };
        let id = &asking.accepted.run_id;
        match all.new.iter_mut().find(|(known, _)| known.accepted.run_id == *id) {
            Some((_, events)) => events.push(event),
            None => all.new.push((asking, vec![event])),
        }
    }
    Ok(all)
}

/// Whether two answers to one question say the same.
fn same(one: &StepAnswer, other: &StepAnswer) -> bool {
    StepAnswer { number: None, ..one.clone() } == StepAnswer { number: None, ..other.clone() }
}

fn asked<'a>(state: &'a RunState, answer: &StepAnswer) -> Option<&'a StepRequirement> {
    let (asked, _) = state.flow.as_ref()?.asked(state.run_id()?, &answer.step_id)?;
    Some(asked)
}

fn is_answered(state: &RunState, answer: &StepAnswer) -> bool {
    let flow = state.flow.as_ref().zip(state.run_id());
    let record = flow.and_then(|(flow, run)| flow.asked(run, &answer.step_id));
    record.is_some_and(|(_, record)| record.given.is_some())
}

/// Whether the workflow has this step, though nothing is asked about it any more.
fn is_a_step(run: &Standing, answer: &StepAnswer) -> bool {
    let steps = run.config.workflow().map(|workflow| workflow.walk()).unwrap_or_default();
    steps.iter().any(|(place, _)| place.step_id(&run.accepted.run_id) == answer.step_id)
}

fn new_answer(inner: &Inner, run: &Standing, answer: &StepAnswer, by: &str) -> Result<Option<RunEvent>, AnswerError> {
    let flow = run.state.flow.as_ref().and_then(|flow| flow.asked(&run.accepted.run_id, &answer.step_id));
    let Some((asked, record)) = flow else { return Ok(None) };
    let Some(given) = asked.read(answer)? else { return Ok(None) };
    if let Some(known) = &record.given {
        if *known == given {
            return Ok(None);
        }
        let fault = format!("the step {:?} was answered already, and the first answer counts", asked.name);
        return Err(AnswerError::StepAnswered(fault));
    }
    if run.state.status.is_end() {
        return Err(AnswerError::Ended(run.state.status));
    }
    let values = clean_values(&inner.redactor, given.values, &asked.name)?;
    let clean = |value: Option<serde_json::Value>| {
        value.map(|value| {
            let mut map = serde_json::Map::from_iter([("value".to_owned(), value)]);
            inner.redactor.object(&mut map);
            map.remove("value").unwrap_or_default()
        })
    };
    Ok(Some(RunEvent::StepAnswered(StepAnswered {
        place: asked.place.clone(),
        confirmed: given.confirmed,
        feedback: given.feedback.map(|text| inner.redactor.text(&text)).into(),
        values: values.into(),
        choices: given.choices,
        input: clean(given.input).into(),
        output: clean(given.output).into(),
        by: by.to_owned(),
        at_ms: inner.now_ms(),
    })))
}

type Values = Option<serde_json::Map<String, serde_json::Value>>;

fn clean_values(redactor: &Redactor, given: Values, step: &str) -> Result<Values, AnswerError> {
    let mut values = given.clone();
    values.iter_mut().for_each(|values| redactor.object(values));
    if values == given {
        return Ok(values);
    }
    let fault = format!("what was filled in for the step {step:?} holds a secret, which is not kept");
    Err(AnswerError::Unfit(fault))
}
