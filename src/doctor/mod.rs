//! `daybook doctor`: what is set up, what is wrong, and how to mend it. It changes nothing, and starts nothing but
//! the programs that tools come from, so it works beside a running server; a private PostgreSQL that does not run stays so.

mod database;
mod machine;
mod models;
mod tools;

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::{ConfigError, Layer, Settings, unknown_names};
use crate::definitions::Definitions;
use crate::error::Error;
use crate::reload::definitions;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    /// One sentence. Nothing secret is in it.
    says: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, says: impl Into<String>) -> Self {
        Self { check, state: State::Ok, says: says.into(), mend: None }
    }

    fn warning(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, state: State::Warning, says: says.into(), mend: Some(mend.into()) }
    }

    fn problem(check: &'static str, says: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, state: State::Problem, says: says.into(), mend: Some(mend.into()) }
    }

    /// An error whose text says already how to mend it.
    fn error(check: &'static str, error: &impl fmt::Display) -> Self {
        Self { check, state: State::Problem, says: error.to_string(), mend: None }
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    findings: Vec<Finding>,
    problems: usize,
    warnings: usize,
}

impl Report {
    /// Whether something keeps the server from working.
    pub(crate) fn has_problems(&self) -> bool {
        self.problems > 0
    }

    /// For programs.
    pub(crate) fn json(&self) -> String {
        format!("{:#}\n", serde_json::to_value(self).unwrap_or_default())
    }
}

/// For people: a line for each finding, and one for how to mend it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, state, says, mend } in &self.findings {
            let state = match state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Problem => "PROBLEM",
            };
            let says = says.replace('\n', "\n                       ");
            writeln!(f, "{state:<8} {check:<13} {says}")?;
            if let Some(mend) = mend {
                writeln!(f, "                       -> {mend}")?;
            }
        }
        writeln!(f, "\nproblems: {}, warnings: {}", self.problems, self.warnings)
    }
}

/// Looks at everything. `flags` are the options of the command line.
pub(crate) async fn examine(
    named: Option<PathBuf>,
    flags: Layer,
    variables: impl Fn(&str) -> Option<String>,
) -> Report {
    let mut findings = Vec::new();
    let read = read_file(named.as_ref(), &mut findings);
    let environment = Layer::from_environment(&variables);
    let environment = environment.unwrap_or_else(|error| {
        findings.push(Finding::error("environment", &error));
        Layer::default()
    });
    findings.extend(misspelt());
    match Settings::from_layers([read.server.clone(), environment, flags]) {
        Ok(settings) => {
            findings.extend(machine::look(&settings).await);
            findings.extend(database::look(&settings, &variables).await);
        }
        Err(error) => findings.push(Finding::error("settings", &error)),
    }
    findings.extend(models::look(&read, &variables).await);
    findings.extend(tools::look(&read).await);
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (problems, warnings) = (count(State::Problem), count(State::Warning));
    Report { findings, problems, warnings }
}

/// What the file says; nothing when it is wrong, which is told.
fn read_file(named: Option<&PathBuf>, findings: &mut Vec<Finding>) -> Definitions {
    let (finding, definitions) = match definitions(named) {
        Ok(Some((path, definitions))) => {
            let (path, ids) = (path.display(), definitions.ids());
            let finding = match ids[..] {
                [] => Finding::warning(
                    "definitions",
                    format!("{path} defines no agent, team or workflow"),
                    "see docs/definitions.md",
                ),
                _ => Finding::ok("definitions", format!("{path} is right; it defines: {}", ids.join(", "))),
            };
            (finding, definitions)
        }
        Ok(None) => {
            let mend = "write one with `daybook init`, or try `daybook demo`";
            (
                Finding::warning("definitions", "there is no daybook.yaml, so there are no agents", mend),
                Definitions::default(),
            )
        }
        Err(Error::Config(ConfigError::File { path, source })) => {
            let says = format!("{} cannot be read ({source})", path.display());
            (Finding::problem("definitions", says, "name another file with --config"), Definitions::default())
        }
        Err(error) => (Finding::error("definitions", &error), Definitions::default()),
    };
    findings.push(finding);
    definitions
}

fn misspelt() -> Option<Finding> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = unknown_names(names);
    let says = format!("these variables mean nothing to Daybook: {}", unknown.join(", "));
    (!unknown.is_empty()).then(|| Finding::warning("environment", says, "see `daybook serve --help` for those that do"))
}
