//! The last reckoning: every run as it was told, and what the tools' own file says of their calls.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use daybook_test_support::ids_of;

use crate::client::content;
use crate::load::{Entry, Field};

/// A stopped process may have been about to write a call down: so long after it goes on, that is no new call.
const WAKING: u64 = 5_000;

/// A line of the tools' file.
#[derive(Debug)]
struct Line {
    tool: String,
    call: String,
    key: String,
    process: i32,
    at: u64,
}

/// When a process stood still: from, until.
pub type Stops = HashMap<i32, Vec<(u64, u64)>>;

/// Everything that is wrong, after all nodes are well again.
pub async fn reckon(field: &Field, stops: &Stops) -> Vec<String> {
    let entries = field.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut wrong = calls(field, &entries, stops);
    let mut by_session: HashMap<&str, HashSet<String>> = HashMap::new();
    for entry in &entries {
        by_session.entry(&entry.ask.session).or_default().insert(entry.ask.run.clone());
        match field.nodes[0].up().look(entry.ask.agent, &entry.ask.run, &entry.ask.session).await {
            Ok(seen) if seen["status"] != entry.status.as_str() || content(&seen) != entry.content => {
                wrong.push(format!("it was {entry:?}, and is {} {}", seen["status"], seen["content"]));
            }
            Ok(_) => {}
            Err(status) => wrong.push(format!("{status}: lost is {entry:?}")),
        }
    }
    for (session, runs) in by_session {
        let listed = ids_of(&field.nodes[0].up().runs("crash-agent", session).await);
        let different: HashSet<String> = listed.iter().cloned().collect();
        if listed.len() != different.len() || different != runs {
            wrong.push(format!("session {session} has {listed:?}, and its clients were told of {runs:?}"));
        }
    }
    wrong
}

fn calls(field: &Field, entries: &[Entry], stops: &Stops) -> Vec<String> {
    let file = std::fs::read_to_string(field.world.base.dir.path().join("calls")).unwrap_or_default();
    let lines: Vec<Line> = file.lines().map(line).collect();
    field.counts.add("tool calls", lines.len());
    let mut by_call: HashMap<&str, Vec<&Line>> = HashMap::new();
    for line in &lines {
        by_call.entry(&line.call).or_default().push(line);
    }
    let mut wrong = Vec::new();
    for (call, lines) in &by_call {
        if lines.iter().any(|line| line.key != lines[0].key) {
            wrong.push(format!("call {call} came under several keys: {lines:?}"));
        }
        if lines[0].tool == "count_unsafe" && lines.len() > 1 {
            wrong.push(format!("the unsafe call {call} came more than once: {lines:?}"));
        }
        field.counts.add("calls made again, as they may be", lines.len() - 1);
    }
    for (entry, (call, known_at)) in entries.iter().flat_map(|entry| entry.recorded.iter().map(move |one| (entry, one)))
    {
        let Some(lines) = by_call.get(call.as_str()) else {
            wrong.push(format!("{} has an outcome of {call}, which nobody called", entry.ask.run));
            continue;
        };
        for line in lines.iter().filter(|line| line.at > *known_at) {
            let waking = |(from, until): &(u64, u64)| from < &line.at && line.at < until + WAKING;
            if stops.get(&line.process).is_some_and(|stops| stops.iter().any(waking)) {
                field.counts.one("calls a stopped node had begun");
            } else {
                wrong.push(format!(
                    "{}: {call} was recorded at {known_at} and called after that: {lines:?}",
                    entry.ask.run
                ));
            }
        }
    }
    wrong
}

fn line(line: &str) -> Line {
    let words: Vec<&str> = line.split(' ').collect();
    let [tool, call, key, process, at] = words[..] else { panic!("{line:?} is no call") };
    let (tool, call, key) = (tool.to_owned(), call.to_owned(), key.to_owned());
    Line { tool, call, key, process: process.parse().unwrap(), at: at.parse().unwrap() }
}

/// For messages.
pub fn first(wrong: &[String]) -> String {
    let shown: Vec<&str> = wrong.iter().take(5).map(String::as_str).collect();
    format!("{} things are wrong:\n{}", wrong.len(), shown.join("\n"))
}
