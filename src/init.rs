//! `daybook init` and `daybook check`: a file to begin with, and what a file would serve.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use crate::config::{ConfigError, Settings};
use crate::definitions::Definitions;
use crate::error::Error;
use crate::models::{DEFAULT_MODEL, default_model};
use crate::team::MemberDefinition;

/// The file that `daybook init` writes.
pub(crate) const FILE: &str = include_str!("definitions/init.yaml");

/// Writes the file, and tells what to do next. What is there already stays unless `force`.
pub(crate) fn write(path: &Path, force: bool) -> Result<String, Error> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).create_new(!force);
    let written = options.open(path).and_then(|mut file| file.write_all(FILE.as_bytes()));
    let shown = path.display();
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(ConfigError::Exists(path.to_owned()).into());
        }
        Err(source) => return Err(ConfigError::Write { path: path.to_owned(), source }.into()),
    }
    let usual = path == Path::new(crate::config::DEFAULT_FILE);
    let (named, config) = if usual { Default::default() } else { (format!(" {shown}"), format!(" --config {shown}")) };
    let (check, serve) = (format!("daybook check{named}"), format!("daybook serve{config}"));
    Ok(format!(
        "Wrote {shown}: one agent on the scripted demo model.

Next:
  {check:<20} what is wrong in it, and what it would serve
  {serve:<20} serve it
  curl -s http://127.0.0.1:8000/agents/my-agent/runs -F message='calculate 2+3*4' -F stream=false
"
    ))
}

/// What a right file would serve, with these settings. Nothing secret is in it.
pub(crate) fn summary(path: &Path, definitions: &Definitions, settings: &Settings) -> Result<String, Error> {
    let mut models = definitions.build_models()?;
    if models.is_empty() {
        models.insert(DEFAULT_MODEL.to_owned(), default_model(|name| std::env::var(name).ok())?);
    }
    let mut text = format!("{} is right.\n\nModels:\n", path.display());
    for (name, model) in &models {
        let info = model.info();
        text += &format!("  {name}: {} ({})\n", info.id, info.provider);
    }
    if !definitions.sources.is_empty() {
        text += "Sources of tools (asked at the start, and by `daybook doctor`):\n";
    }
    for source in &definitions.sources {
        let optional = if source.optional { ", optional" } else { "" };
        text += &format!("  {}: {}{optional}\n", source.name, source.kind.word());
    }
    text += "Agents:\n";
    if definitions.agents.is_empty() {
        text += "  none\n";
    }
    for agent in &definitions.agents {
        let model = agent.model.as_deref().or_else(|| models.keys().next().map(String::as_str)).unwrap_or_default();
        let tools = if agent.tools.is_empty() { "no tools".to_owned() } else { agent.tools.join(", ") };
        text += &format!("  {}: model {model}, {tools}\n", agent.id);
    }
    if !definitions.teams.is_empty() {
        text += "Teams:\n";
    }
    for team in &definitions.teams {
        let members: Vec<&str> = team.members.iter().map(MemberDefinition::id).collect();
        text += &format!("  {}: {}, {}\n", team.id(), team.mode.as_str(), members.join(", "));
    }
    if !definitions.workflows.is_empty() {
        text += "Workflows:\n";
    }
    for workflow in &definitions.workflows {
        let steps: Vec<&str> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
        text += &format!("  {}: {}\n", workflow.id, steps.join(", "));
    }
    let database = match &settings.database_url {
        Some(_) => "the PostgreSQL of database_url".to_owned(),
        None => format!("a private PostgreSQL in {}", settings.data_dir.display()),
    };
    Ok(text + &format!("It would be served at http://{}:{}, on {database}.\n", settings.host, settings.port))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::agent::built_in_tools;

    #[test]
    fn a_file_is_written_once_and_again_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my.yaml");
        let told = write(&path, false).unwrap();
        assert!(told.contains(&format!("daybook serve --config {}", path.display())), "{told}");
        std::fs::write(&path, "mine").unwrap();
        let refused = write(&path, false).unwrap_err();
        assert!(refused.to_string().contains("--force") && refused.exit_code() == 2, "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        write(&path, true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), FILE);
        let nowhere = write(&dir.path().join("no/my.yaml"), false).unwrap_err();
        assert!(nowhere.to_string().contains("cannot be written"), "{nowhere}");
    }

    #[test]
    fn what_is_written_is_right_and_needs_no_key() {
        let path = Path::new("daybook.yaml");
        let definitions = Definitions::parse(path, FILE, &HashMap::new(), &built_in_tools()).unwrap();
        let settings = Settings::from_layers([definitions.server.clone()]).unwrap();
        let summary = summary(path, &definitions, &settings).unwrap();
        for part in ["daybook.yaml is right", "main: demo", "my-agent: model main, calculator, current_time", ":8000"] {
            assert!(summary.contains(part), "{part} is not in:\n{summary}");
        }
    }

    #[test]
    fn a_summary_shows_no_secret() {
        let text = "server:\n  database_url: postgres://u:hushhush@h/d\nmodels:\n  a:\n    provider: openai\n    id: x\n    \
                    api_key: sk-hush\n";
        let definitions = Definitions::parse(Path::new("f"), text, &HashMap::new(), &built_in_tools()).unwrap();
        let settings = Settings::from_layers([definitions.server.clone()]).unwrap();
        let summary = summary(Path::new("f"), &definitions, &settings).unwrap();
        assert!(!summary.contains("hush") && summary.contains("PostgreSQL of database_url"), "{summary}");
    }
}
