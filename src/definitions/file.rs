//! The file's shape, and the checks that need more than one place of it.

use std::collections::{BTreeMap, HashMap};

use daybook_tools::ToolSet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::agent::{Agent, Known, take_id};
use super::model::Model;
use super::place::Spanned;
use super::step::Components;
use super::team::Team;
use super::tools::Source;
use super::workflow::Workflow;
use super::{Definitions, Mistake, Places, circle, server};
use crate::config::Layer;
use crate::models::DEFAULT_MODEL;
use crate::team::TeamDefinition;
use crate::workflow::WorkflowDefinition;

/// What a Daybook serves: models, tools, agents, teams, workflows, and the server's settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    /// The server's settings. Each can also come from the environment or the command line, which override it.
    server: Layer,
    /// The models, by the names that agents use.
    models: BTreeMap<String, Spanned<Model>>,
    /// Where tools come from beside those the server has by itself, by the names that agents use.
    tools: BTreeMap<String, Spanned<Source>>,
    /// The agents.
    agents: Vec<Agent>,
    /// The teams: leaders, and members they hand work to.
    teams: Vec<Team>,
    /// The workflows.
    workflows: Vec<Workflow>,
}

/// The names that the file may use, also of what is not here because of a mistake.
pub(super) struct Names<'a> {
    /// The models'.
    pub models: Vec<String>,
    /// The tools that the server has by itself.
    pub tools: &'a ToolSet,
    /// The sources' of tools.
    pub sources: Vec<String>,
    /// The agents' ids.
    pub agents: Vec<String>,
    /// The teams'.
    pub teams: Vec<String>,
    /// The workflows'.
    pub workflows: Vec<String>,
}

impl File {
    /// What the file says; names in it that lead nowhere are added to `mistakes`.
    pub(super) fn check(
        self,
        names: Names<'_>,
        places: Places,
        environment: &HashMap<String, String>,
        mistakes: &mut Vec<Mistake>,
    ) -> Definitions {
        let Names { models: mut names, tools: built_in, sources: known, agents: ids, teams, workflows } = names;
        mistakes.extend(server::check(&self.server, &places));
        let mut models = Vec::new();
        if names.is_empty() {
            names.push(DEFAULT_MODEL.to_owned());
        }
        for (name, model) in self.models {
            match model.value.check(&name, model.referenced, environment) {
                Ok(model) => models.push((name, model)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let mut sources = Vec::new();
        for (name, source) in self.tools {
            match source.value.check(&name, source.referenced, places.path(), built_in) {
                Ok(source) => sources.push(source),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        let tools: Vec<String> = built_in.keys().cloned().chain(known).collect();
        let known = Known { models: &names, tools: &tools };
        let mut seen: HashMap<String, u64> = HashMap::new();
        let mut agents = Vec::new();
        for agent in self.agents {
            take_id("agent", &agent.id, &mut seen, mistakes);
            agent.check("agent", known, mistakes);
            agents.push(agent.into_definition());
        }
        let teams_here = check_teams(self.teams, known, &ids, &teams, mistakes);
        let components = Components { agents: &ids, teams: &teams, workflows: &workflows };
        let workflows = check_workflows(self.workflows, known, components, mistakes);
        Definitions { server: self.server, models, sources, agents, teams: teams_here, workflows, places }
    }
}

fn check_teams(
    teams: Vec<Team>,
    known: Known<'_>,
    agents: &[String],
    ids: &[String],
    mistakes: &mut Vec<Mistake>,
) -> Vec<TeamDefinition> {
    let links: Vec<_> = teams.iter().map(|team| (team.id.clone(), team.links(agents, ids))).collect();
    circle::check("team", &links, mistakes);
    let mut seen = HashMap::new();
    let mut checked = Vec::new();
    for team in teams {
        take_id("team", &team.id, &mut seen, mistakes);
        team.check(known, agents, ids, mistakes);
        let (leader, members) = team.split();
        leader.check("team", known, mistakes);
        checked.push(members.led_by(leader));
    }
    checked
}

fn check_workflows(
    workflows: Vec<Workflow>,
    known: Known<'_>,
    components: Components<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<WorkflowDefinition> {
    let links: Vec<_> = workflows.iter().map(|workflow| (workflow.id.clone(), workflow.links())).collect();
    circle::check("workflow", &links, mistakes);
    let mut seen = HashMap::new();
    let mut checked = Vec::new();
    for workflow in workflows {
        take_id("workflow", &workflow.id, &mut seen, mistakes);
        checked.push(workflow.check(known, components, mistakes));
    }
    checked
}
