//! Carrying out what a leader hands out: its members' runs, beside each other, and the list of tasks.

use std::time::Instant;

use daybook_domain::component::{OnMemberError, TeamConfig, TeamMode};
use daybook_domain::media::Media;
use daybook_domain::personal::Personal;
use daybook_domain::run::{Parent, RunEvent, RunState, RunStatus, Task, TaskChanged, TaskStatus, child_run_id};
use daybook_domain::session::StatePatch;
use daybook_domain::usage::Spent;
use daybook_tools::ToolOutput;
use futures::future::{BoxFuture, join_all};

use crate::child::{Asks, ChildEnd, ChildStart, MAX_DEPTH, run_child};
use crate::delegation::{Assignment, Order, TaskChange, interactions};
use crate::detail::RunDetail;
use crate::drive::Driver;
use crate::plan::ToolStart;
use crate::tool_calls::{End, ToolEnd};

/// What a call brings that was handed out.
#[derive(Default)]
pub(crate) struct Handed {
    /// Whether what it said is the run's answer.
    pub answers: bool,
    /// Whether the run fails with it.
    pub fatal: bool,
    /// What the runs cost.
    pub spent: Spent,
    /// The runs.
    pub children: Vec<RunDetail>,
    /// How the list of tasks changes.
    pub changes: Vec<TaskChange>,
}

impl RunDetail {
    /// What it and all runs under it cost.
    pub(crate) fn spent(&self) -> Spent {
        let mut spent = self.state.spent.clone();
        if let Some(model) = self.config.model() {
            spent.add((model.id.clone(), model.provider.clone()), self.state.usage);
        }
        spent
    }
}

impl Driver {
    /// The team it leads.
    pub fn team(&self) -> Option<&TeamConfig> {
        self.component.config.agent().and_then(|agent| agent.team.as_ref())
    }

    /// Whether a tool hands out work.
    pub fn handing(&self, tool: &str) -> bool {
        self.team().is_some_and(|team| team.tools.iter().any(|spec| spec.name == tool))
    }

    /// Carries out a call that hands out work.
    pub fn hand_out(&self, start: &ToolStart, order: Result<Order, String>) -> BoxFuture<'static, End> {
        let call_id = start.call_id.clone();
        match order {
            Err(fault) => Box::pin(async move { told(call_id, fault, Handed::default()) }),
            Ok(Order::Change(change)) => {
                Box::pin(
                    async move { told(call_id, String::new(), Handed { changes: vec![change], ..Handed::default() }) },
                )
            }
            Ok(Order::Hand(work)) => self.have_done(start, work),
        }
    }

    fn have_done(&self, start: &ToolStart, work: Vec<Assignment>) -> BoxFuture<'static, End> {
        let (call_id, depth) = (start.call_id.clone(), self.meta.parent.as_ref().map_or(0, |parent| parent.depth) + 1);
        let Some(team) = self.team().cloned().filter(|_| depth <= MAX_DEPTH) else {
            let fault = format!("no work is handed out here: there are {MAX_DEPTH} runs above already");
            return Box::pin(async move { told(call_id, fault, Handed::default()) });
        };
        let starts: Vec<ChildStart> =
            work.iter().enumerate().map(|(at, work)| self.child_start(start, &team, work, at, depth)).collect();
        let (engine, live) = (self.engine.clone(), self.live.clone());
        Box::pin(async move {
            let began = Instant::now();
            let runs = starts.into_iter().map(|start| run_child(engine.clone(), live.clone(), start));
            let ends = join_all(runs).await;
            match came_to(&team, &work, ends) {
                Came::Moved => End::Moved { call_id },
                Came::Waits(asks) => End::Waits { call_id, asks },
                Came::Done(result, handed) => {
                    let duration = began.elapsed().as_secs_f64();
                    let result = result.map(ToolOutput::from);
                    let (whole, patch) = (None, StatePatch::default());
                    End::Call(Box::new(ToolEnd { call_id, result, whole, patch, duration, handed }))
                }
            }
        })
    }

    fn child_start(
        &self,
        start: &ToolStart,
        team: &TeamConfig,
        work: &Assignment,
        at: usize,
        depth: u32,
    ) -> ChildStart {
        let accepted = self.state.accepted.as_ref();
        let shared = interactions(team, &self.state.tools).filter(|_| team.share_interactions);
        let message = shared.into_iter().chain([work.task.clone()]).collect::<Vec<_>>().join("\n\n");
        let media: Vec<Media> = accepted.and_then(|accepted| accepted.media.get().cloned()).unwrap_or_default();
        let map = |of: &Personal<Option<serde_json::Map<String, serde_json::Value>>>| of.get().cloned().flatten();
        ChildStart {
            run_id: child_run_id(&self.meta.run_id, &start.call_id, at),
            config_hash: work.member.config_hash.clone(),
            parent: Parent {
                run_id: self.meta.run_id.clone(),
                root: self.live.run_id.clone(),
                cause: start.call_id.clone(),
                depth,
                epoch: self.epoch,
                step: self.meta.parent.as_ref().and_then(|parent| parent.step.clone()),
            },
            message,
            media,
            sees: team.member_history_runs,
            fresh: start.fresh,
            places: self.places.clone(),
            cancelled: self.below.clone(),
            dependencies: accepted.and_then(|accepted| map(&accepted.dependencies)),
            metadata: accepted.and_then(|accepted| map(&accepted.metadata)),
        }
    }

    /// Applies what a call changes of the list of tasks, and says so to the leader.
    pub fn change_tasks(&self, end: &mut ToolEnd, tasks: &mut Vec<Task>, facts: &mut Vec<RunEvent>) {
        for change in std::mem::take(&mut end.handed.changes) {
            let (task, words) = match change {
                TaskChange::Create { title, description, member, depends_on } => {
                    let id = (tasks.len() + 1).to_string();
                    let words = format!("Task {id} is on the list: {title} ({}).", member.name);
                    let (title, description) = (self.engine.redactor.text(&title), description.into());
                    let (status, result) = (TaskStatus::Pending, None.into());
                    let member = member.component.id;
                    let task = Task { id, title: title.into(), description, member, depends_on, status, result };
                    (task, Some(words))
                }
                TaskChange::Settle { id, status, result } => {
                    let Some(known) = tasks.iter().find(|task| task.id == id) else { continue };
                    let result = result.map(|text| self.engine.redactor.text(&text)).into();
                    // What members did is told by their answers already.
                    let silent = known.status == TaskStatus::InProgress;
                    let words = (!silent).then(|| format!("Task {id} is {} now.", status.as_str()));
                    (Task { status, result, ..known.clone() }, words)
                }
            };
            match tasks.iter_mut().find(|known| known.id == task.id) {
                Some(known) => known.clone_from(&task),
                None => tasks.push(task.clone()),
            }
            let at_ms = self.engine.now_ms();
            facts.push(RunEvent::TaskChanged(TaskChanged { task, frame: 0, at_ms }));
            if let (Some(words), Ok(output)) = (words, &mut end.result) {
                output.text = words;
            }
        }
    }
}

/// A call that is done at once.
fn told(call_id: String, words: String, handed: Handed) -> End {
    let (result, whole, patch, duration) = (Ok(ToolOutput::from(words)), None, StatePatch::default(), 0.0);
    End::Call(Box::new(ToolEnd { call_id, result, whole, patch, duration, handed }))
}

enum Came {
    Moved,
    Waits(Asks),
    Done(Result<String, String>, Handed),
}

/// What the members' runs came to together.
fn came_to(team: &TeamConfig, work: &[Assignment], ends: Vec<ChildEnd>) -> Came {
    let (mut asks, mut paused, mut done) = (Asks::default(), false, Vec::new());
    for end in ends {
        match end {
            ChildEnd::Moved => return Came::Moved,
            ChildEnd::Paused(more) => {
                paused = true;
                asks.members.extend(more.members);
            }
            ChildEnd::Ended(detail) => done.push(Some(*detail)),
            ChildEnd::NotBegun => done.push(None),
        }
    }
    if paused || done.len() < work.len() {
        return Came::Waits(asks);
    }
    let mut handed = Handed::default();
    let mut answers = Vec::with_capacity(done.len());
    for (work, detail) in work.iter().zip(done) {
        let answer = match &detail {
            None => Err("it was stopped before it began".to_owned()),
            Some(detail) => answer(&detail.state),
        };
        if let Some(id) = work.task_id.clone() {
            let status = if answer.is_ok() { TaskStatus::Completed } else { TaskStatus::Failed };
            let result = Some(answer.clone().unwrap_or_else(|fault| fault));
            handed.changes.push(TaskChange::Settle { id, status, result });
        }
        if let Some(detail) = detail {
            handed.spent.extend(&detail.spent());
            handed.children.push(detail);
        }
        answers.push(answer);
    }
    let failed = answers.iter().any(Result::is_err);
    let result = together(work, answers);
    handed.fatal = failed && team.on_member_error == OnMemberError::Fail;
    handed.answers = team.mode == TeamMode::Route && result.is_ok();
    if handed.fatal {
        return Came::Done(Err(result.unwrap_or_else(|fault| fault)), handed);
    }
    Came::Done(result, handed)
}

/// What a run answered.
fn answer(state: &RunState) -> Result<String, String> {
    match state.status {
        RunStatus::Completed | RunStatus::Regenerated => Ok(state.content()),
        RunStatus::Error => Err(state.error.as_ref().map(|(_, why)| why.clone()).unwrap_or_default()),
        _ => Err(state.cancel_reason.clone().unwrap_or_else(|| "it was cancelled".to_owned())),
    }
}

/// The answers as the leader reads them. It fails when all of them did.
fn together(work: &[Assignment], answers: Vec<Result<String, String>>) -> Result<String, String> {
    if let ([work], [only]) = (work, answers.as_slice()) {
        return only.clone().map_err(|fault| format!("{} did not get it done: {fault}", work.member.name));
    }
    let told = |(work, answer): (&Assignment, &Result<String, String>)| {
        let (id, name) = (&work.member.component.id, &work.member.name);
        let failed = if answer.is_err() { " failed=\"true\"" } else { "" };
        let text = answer.as_ref().unwrap_or_else(|fault| fault);
        format!("<member id=\"{id}\" name=\"{name}\"{failed}>\n{text}\n</member>")
    };
    let text = work.iter().zip(&answers).map(told).collect::<Vec<_>>().join("\n");
    if answers.iter().all(Result::is_err) { Err(text) } else { Ok(text) }
}
