//! Every event type ever released must stay readable: one golden file for each (type, version), never edited.
//! A new type or version needs a new file; `GOLDEN_WRITE=1 cargo test -p daybook-domain --test golden` proposes it.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use daybook_domain::approval::*;
use daybook_domain::component::{AgentConfig, ComponentConfigured, ComponentEvent, ComponentRef, ModelRef};
use daybook_domain::ids::{ApprovalId, ComponentId, RunId, SessionId, UserId};
use daybook_domain::long_result::WholeResult;
use daybook_domain::media::{Media, MediaContent, MediaKind};
use daybook_domain::message::{CallMetrics, Replay};
use daybook_domain::output::OutputSchema;
use daybook_domain::run::*;
use daybook_domain::session::*;
use daybook_domain::tool::{ApprovalKind, ApprovalRule, Effect, OnExpiry, ToolSpec};
use daybook_domain::usage::{Spent, Usage};
use daybook_domain::workflow::{
    self, AfterError, BlockDecided, BlockEnded, Executor, ExecutorKind, Place, StepAnswered, StepEnded, StepStarted,
    StepType,
};
use daybook_domain::{DomainEvent, Personal};
use serde_json::{Map, Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn text(text: &str) -> Personal<String> {
    text.to_owned().into()
}

fn map() -> Map<String, Value> {
    Map::from_iter([("k".to_owned(), json!("v\u{0}"))])
}

fn samples() -> Vec<DomainEvent> {
    let mut all: Vec<DomainEvent> = run_samples().into_iter().map(DomainEvent::from).collect();
    all.extend(step_samples().into_iter().map(DomainEvent::from));
    all.extend(session_samples().into_iter().map(DomainEvent::from));
    all.extend(approval_samples().into_iter().map(DomainEvent::from));
    all.push(ComponentEvent::Configured(ComponentConfigured { hash: "00ff".into(), config: config().into() }).into());
    all
}

fn config() -> AgentConfig {
    AgentConfig {
        id: ComponentId::parse("my-agent").unwrap(),
        name: "My Agent".into(),
        description: Some("Plain".into()),
        role: Some("Writes".into()),
        instructions: vec!["Be brief.".into()],
        model: ModelRef { key: "main".into(), id: "m".into(), provider: "P".into(), class: "C".into() },
        temperature: Some(0.5),
        max_tokens: Some(100),
        output_schema: None,
        output_repairs: 0,
        tools: vec![ToolSpec::new("t", "d", json!({"type": "object"})).effect(Effect::Idempotent)],
        history_runs: 3,
        compaction: None,
        session_state: map(),
        max_iterations: 25,
        metadata: map(),
        team: None,
    }
}

fn step_samples() -> Vec<RunEvent> {
    let place = Place::top(3).iteration(2).step(0);
    vec![
        RunEvent::StepStarted(StepStarted {
            place: place.clone(),
            name: "draft".into(),
            executor: Executor { kind: ExecutorKind::Agent, name: "Writer".into(), id: Some("writer".into()) },
            attempt: 2,
            effect: Effect::Idempotent,
            idempotency_key: "key".into(),
            child: Some(ChildRef {
                run_id: RunId::parse("r-2").unwrap(),
                component: ComponentRef::agent(ComponentId::parse("writer").unwrap()),
            }),
            input: Some(json!("Hello")).into(),
            frame: 5,
            at_ms: 3,
        }),
        RunEvent::StepEnded(StepEnded {
            place: place.clone(),
            name: "draft".into(),
            kind: StepType::Step,
            attempt: 2,
            content: json!({"said": "Hi"}).into(),
            media: None.into(),
            error: Some("boom".to_owned()).into(),
            then: Some(AfterError::Retry),
            stop: true,
            spent: Spent(vec![(("m".into(), "P".into()), Usage { input_tokens: 3, ..Usage::default() })]),
            time_to_first_token: None,
            duration: 0.5,
            frame: 6,
            at_ms: 4,
        }),
        RunEvent::BlockDecided(BlockDecided {
            place: Place::top(3),
            name: "loop".into(),
            decision: workflow::Decision::Iteration { number: 2, goes_on: true },
            frame: 8,
            at_ms: 4,
        }),
        RunEvent::BlockEnded(BlockEnded { place: Place::top(3), name: "loop".into(), frame: 10, at_ms: 4 }),
        RunEvent::StepAnswered(StepAnswered {
            place,
            confirmed: true,
            feedback: Some("good".to_owned()).into(),
            values: Some(map()).into(),
            choices: vec!["a".into()],
            input: Some(json!("in")).into(),
            output: Some(json!("out")).into(),
            by: "user:alice".into(),
            at_ms: 5,
        }),
    ]
}

fn run_samples() -> Vec<RunEvent> {
    let usage = Usage {
        input_tokens: 5,
        output_tokens: 3,
        total_tokens: 8,
        cache_read_tokens: 2,
        cache_write_tokens: 1,
        reasoning_tokens: 1,
    };
    let media = Media {
        id: "f-1".into(),
        kind: MediaKind::File,
        mime_type: Some("text/plain".into()),
        filename: Some("a.txt".into()),
        format: Some("txt".into()),
        content: MediaContent::Blob { hash: "aa".into(), len: 70_000, text: true },
        metadata: Some(map()),
    };
    vec![
        RunEvent::Accepted(Box::new(RunAccepted {
            run_id: RunId::parse("r-1").unwrap(),
            session_id: SessionId::parse("s-1").unwrap(),
            user_id: Some(UserId::parse("alice").unwrap()),
            component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
            config_hash: "00ff".into(),
            mode: RunMode::BackgroundStreaming,
            on_busy: OnBusy::Parallel,
            admission: Admission::Parallel,
            cancel_on_disconnect: true,
            message: text("Hello\u{0}"),
            media: vec![media].into(),
            dependencies: Some(map()).into(),
            metadata: Some(map()).into(),
            output_schema: None.into(),
            forked: None,
            base: None.into(),
            copied_from: None,
            at_ms: 1_700_000_000_123,
            frame: 0,
            parent: None,
        })),
        RunEvent::TaskChanged(TaskChanged {
            task: Task {
                id: "1".into(),
                title: text("Look"),
                description: text("Look it up"),
                member: ComponentId::parse("researcher").unwrap(),
                depends_on: vec!["0".into()],
                status: TaskStatus::Completed,
                result: Some("Found".to_owned()).into(),
            },
            frame: 3,
            at_ms: 1,
        }),
        RunEvent::TakenOver(RunTakenOver { node: "n".into(), epoch: 2, frame: 1_000_000, at_ms: 1 }),
        RunEvent::ModelCallRequested(ModelCallRequested {
            call_id: "m-1".into(),
            iteration: 1,
            attempt: 2,
            summary: None,
            history: vec![RunId::parse("r-0").unwrap()],
            own_messages: 1,
            prompt_hash: "p".into(),
            tools_hash: "t".into(),
            frame: 1,
            at_ms: 1,
        }),
        RunEvent::ModelCallCompleted(ModelCallCompleted {
            call_id: "m-1".into(),
            text: text("Hi"),
            reasoning: Some("Hm".to_owned()).into(),
            replay: None.into(),
            tool_calls: vec![RequestedCall { id: "c-1".into(), name: "t".into(), arguments: text("{\"a\":1}") }],
            finish_reason: "tool_calls".into(),
            provider_data: Some(json!({"id": "x"})),
            metrics: CallMetrics { usage, time_to_first_token: Some(0.25), duration: 0.5 },
            frame: 4,
            at_ms: 2,
        }),
        RunEvent::AnswerMissed(AnswerMissed { call_id: "m-1".into(), repair: 1, told: text("no object"), at_ms: 2 }),
        RunEvent::ModelCallFailed(ModelCallFailed {
            call_id: "m-1".into(),
            error: ErrorKind::ModelTimeout,
            message: text("slow"),
            partial: Some("Hi".to_owned()).into(),
            at_ms: 2,
        }),
        RunEvent::ToolCallRequested(ToolCallRequested {
            call_id: "c-1".into(),
            tool: "t".into(),
            idempotency_key: "key".into(),
            effect: Effect::Unsafe,
            attempt: 1,
            frame: 5,
            at_ms: 3,
            children: Vec::new(),
        }),
        RunEvent::ToolCallCompleted(ToolCallCompleted {
            call_id: "c-1".into(),
            result: text("ok"),
            whole: None.into(),
            media: None.into(),
            duration: 0.5,
            frame: 6,
            at_ms: 4,
            answers: false,
            spent: Default::default(),
        }),
        RunEvent::ToolCallFailed(ToolCallFailed {
            call_id: "c-1".into(),
            error: text("no"),
            whole: None.into(),
            duration: 0.5,
            frame: 6,
            at_ms: 4,
            fatal: false,
            spent: Default::default(),
        }),
        RunEvent::ToolOutcomeUnknown(ToolOutcomeUnknown { call_id: "c-1".into(), at_ms: 4 }),
        RunEvent::Paused(RunPaused {
            steps: Vec::new(),
            requirements: vec![Requirement::new("c-1", RequirementKind::UnknownOutcome)],
            frame: 7,
            at_ms: 5,
            members: None.into(),
        }),
        RunEvent::RequirementResolved(RequirementResolved {
            call_id: "c-1".into(),
            decision: Decision::Filled,
            note: Some("why".to_owned()).into(),
            values: Some(map()).into(),
            result: Some("done".to_owned()).into(),
            by: "user:alice".into(),
            approval: Some(ApprovalId::parse("a-1").unwrap()),
            at_ms: 5,
            fails: false,
        }),
        RunEvent::Continued(RunContinued {
            steps: Vec::new(),
            mode: RunMode::Streaming,
            admission: Admission::Queued,
            frame: 9,
            at_ms: 5,
        }),
        RunEvent::Replaced(RunReplaced { by: RunId::parse("r-2").unwrap(), at_ms: 9 }),
        RunEvent::CancelRequested(CancelRequested {
            by: "anonymous".into(),
            why: Some("enough".to_owned()).into(),
            at_ms: 6,
        }),
        RunEvent::Succeeded(RunSucceeded { session_state: map().into(), duration: 1.5, frame: 8, at_ms: 7 }),
        RunEvent::Failed(RunFailed {
            error: ErrorKind::ModelProviderError,
            message: text("boom"),
            session_state: map().into(),
            duration: 1.5,
            frame: 8,
            at_ms: 7,
        }),
        RunEvent::Cancelled(RunCancelled {
            reason: text("enough"),
            stage: RunStage::Executing,
            partial: Some("half".to_owned()).into(),
            provider_data: None,
            time_to_first_token: None,
            session_state: map().into(),
            duration: 1.5,
            frame: 8,
            at_ms: 7,
        }),
    ]
}

fn session_samples() -> Vec<SessionEvent> {
    let run_id = RunId::parse("r-1").unwrap();
    vec![
        SessionEvent::Created(SessionCreated {
            session_id: SessionId::parse("s-1").unwrap(),
            user_id: Some(UserId::parse("alice").unwrap()),
            component: Some(ComponentRef::agent(ComponentId::parse("my-agent").unwrap())),
            name: Some("Hello".to_owned()).into(),
            metadata: Some(map()).into(),
            at: 1,
        }),
        SessionEvent::RunAdmitted(SessionRunAdmitted {
            run_id: run_id.clone(),
            admission: Admission::Queued,
            again: false,
            at: 1,
        }),
        SessionEvent::RunEnded(SessionRunEnded {
            run_id: run_id.clone(),
            status: RunStatus::Completed,
            usage: Usage { input_tokens: 1, output_tokens: 1, total_tokens: 2, ..Usage::default() },
            model: Some(("m".into(), "P".into())),
            at: 2,
            others: Default::default(),
        }),
        SessionEvent::RunReplaced(SessionRunReplaced {
            run_id: run_id.clone(),
            by: RunId::parse("r-2").unwrap(),
            at: 3,
        }),
        SessionEvent::StateChanged(SessionStateChanged {
            run_id: Some(run_id),
            patch: StatePatch { set: map(), unset: vec!["old".into()] }.into(),
            at: 2,
        }),
        SessionEvent::Compacted(SessionCompacted {
            version: 9,
            component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
            config_hash: "h".into(),
            previous: Some(4),
            runs: vec![RunId::parse("r-1").unwrap(), RunId::parse("r-2").unwrap()],
            messages: 4,
            summary: text("Alice likes tea."),
            source_hash: "s".into(),
            first_kept: Some("m-5".into()),
            model: ("m".into(), "P".into()),
            usage: Usage { input_tokens: 9, output_tokens: 3, total_tokens: 12, ..Usage::default() },
            duration: 1.5,
            tokens_before: 100,
            tokens_after: 20,
            at: 4,
        }),
    ]
}

fn approval_samples() -> Vec<ApprovalEvent> {
    let field = InputField {
        name: "to".into(),
        kind: "string".into(),
        description: Some("Whom".into()),
        required: true,
        nullable: false,
        asked: true,
        choices: vec![json!("bob")],
    };
    let requirement = Requirement {
        fields: vec![field],
        silent: true,
        approval: Some(ApprovalId::parse("a-1").unwrap()),
        audited: true,
        ..Requirement::new("c-1", RequirementKind::UserInput)
    };
    let rule = ApprovalRule {
        kind: ApprovalKind::Required,
        expires_after_seconds: Some(60),
        on_expiry: OnExpiry::Fail,
        remind_every_seconds: Some(10),
        not_by_requester: true,
    };
    vec![
        ApprovalEvent::Requested(Box::new(ApprovalRequested {
            approval_id: ApprovalId::parse("a-1").unwrap(),
            run_id: RunId::parse("r-1").unwrap(),
            session_id: SessionId::parse("s-1").unwrap(),
            user_id: Some(UserId::parse("alice").unwrap()),
            component: ComponentRef::agent(ComponentId::parse("my-agent").unwrap()),
            source_name: "My Agent".into(),
            requirement,
            tool: "t".into(),
            arguments: map().into(),
            call_hash: "aa".into(),
            rule,
            expires_at_ms: Some(60_001),
            at_ms: 1,
        })),
        ApprovalEvent::Resolved(ApprovalResolved {
            verdict: Verdict::Rejected,
            by: "anonymous".into(),
            resolved_by: Some("boss".to_owned()).into(),
            data: Some(map()).into(),
            at_ms: 2,
        }),
        ApprovalEvent::Reminded(ApprovalReminded { count: 1, at_ms: 2 }),
        ApprovalEvent::Expired(ApprovalExpired { at_ms: 3 }),
        ApprovalEvent::Cancelled(ApprovalCancelled { at_ms: 3 }),
        ApprovalEvent::Deleted(ApprovalDeleted { by: "user:boss".into(), at_ms: 4 }),
    ]
}

#[test]
fn every_released_event_is_still_read() {
    let mut covered = BTreeSet::new();
    for event in samples() {
        let form = event.store().unwrap();
        covered.insert((form.kind.to_owned(), form.schema_version));
        let path = folder().join(format!("{}.v{}.json", form.kind, form.schema_version));
        if std::env::var_os("GOLDEN_WRITE").is_some() && !path.exists() {
            let golden = json!({"payload": form.payload, "personal": form.personal});
            std::fs::write(&path, serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no golden file {}", path.display()));
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let (payload, personal) = (golden["payload"].as_str().unwrap(), golden["personal"].as_str());
        let read = DomainEvent::decode(form.kind, form.schema_version, payload, personal).unwrap();
        assert_eq!(read, event, "{} is read differently than it was written", form.kind);
    }
    let kinds = RunEvent::KINDS.iter().chain(SessionEvent::KINDS).chain(ComponentEvent::KINDS);
    for (kind, version) in kinds.chain(ApprovalEvent::KINDS) {
        assert!(covered.contains(&((*kind).to_owned(), *version)), "no sample of {kind} version {version}");
    }
}

#[test]
fn every_golden_file_is_read_also_those_of_older_versions() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (kind, version) = name.rsplit_once(".v").unwrap();
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let payload = golden["payload"].as_str().unwrap();
        DomainEvent::decode(kind, version.parse().unwrap(), payload, golden["personal"].as_str()).unwrap();
        // Without its key an event still reads, erased.
        DomainEvent::decode(kind, version.parse().unwrap(), payload, None).unwrap();
    }
}

#[test]
fn what_came_later_is_personal_and_leaves_nothing_where_it_is_not() {
    let schema = json!({"type": "object", "title": "Hush"});
    let shape = OutputSchema::new(schema.as_object().cloned().unwrap(), true).unwrap();
    let replay = Replay { protocol: "p".into(), model: "m".into(), items: vec![json!({"thought": "Hush"})] };
    let whole = WholeResult { hash: "Hush".into(), len: 70_000, lost: 1, beginning: 3, end: 2 };
    for event in run_samples() {
        let mut later = event.clone();
        match &mut later {
            RunEvent::Accepted(e) => e.output_schema = Some(shape.clone()).into(),
            RunEvent::ModelCallCompleted(e) => e.replay = Some(replay.clone()).into(),
            RunEvent::ToolCallCompleted(ToolCallCompleted { whole: kept, .. })
            | RunEvent::ToolCallFailed(ToolCallFailed { whole: kept, .. }) => *kept = Some(whole.clone()).into(),
            _ => continue,
        }
        let before = DomainEvent::from(event).store().unwrap();
        for field in ["output_schema", "replay", "whole"] {
            assert!(!before.payload.contains(field), "{}", before.payload);
        }
        let later = DomainEvent::from(later);
        let form = later.store().unwrap();
        assert!(!form.payload.contains("Hush") && form.personal.as_ref().unwrap().contains("Hush"), "{}", form.payload);
        let read = DomainEvent::decode(form.kind, form.schema_version, &form.payload, form.personal.as_deref());
        assert_eq!(read.unwrap(), later);
        DomainEvent::decode(form.kind, form.schema_version, &form.payload, None).unwrap();
    }
}

#[test]
fn unknown_types_and_newer_versions_are_told_apart() {
    use daybook_domain::event::DecodeError;
    let unknown = DomainEvent::decode("RunFlown", 1, "{}", None);
    assert!(matches!(unknown, Err(DecodeError::UnknownType(_))));
    let newer = DomainEvent::decode("RunPaused", 99, "{}", None);
    assert!(matches!(newer, Err(DecodeError::NewerVersion { known: 1, .. })));
}
