//! A team as its owner describes it in code.

use daybook_domain::component::{
    AgentConfig, ComponentConfig, ComponentKind, ComponentRef, Member, OnMemberError, TeamConfig, TeamMode,
};
use daybook_domain::ids::ComponentId;
use daybook_engine::{Listing, Registry};
use daybook_models::Models;

use crate::agent::AgentDefinition;
use crate::error::Error;
use crate::sources::Toolbox;

/// A team: a leader, which is an agent, and members it hands work to. The team has the leader's id and name.
#[derive(Debug, Clone, PartialEq)]
pub struct TeamDefinition {
    pub(crate) leader: AgentDefinition,
    pub(crate) mode: TeamMode,
    pub(crate) members: Vec<MemberDefinition>,
    max_parallel: Option<u32>,
    member_history_runs: u32,
    share_interactions: bool,
    on_member_error: OnMemberError,
}

/// A member of a team.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MemberDefinition {
    /// An agent or a team of the server, by id.
    Known(String),
    /// An agent of this team alone.
    Own(Box<AgentDefinition>),
}

impl MemberDefinition {
    /// Its id.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Known(id) => id,
            Self::Own(agent) => &agent.id,
        }
    }
}

impl TeamDefinition {
    /// A team led by this agent, without members yet.
    pub fn new(leader: AgentDefinition) -> Self {
        Self {
            leader,
            mode: TeamMode::default(),
            members: Vec::new(),
            max_parallel: None,
            member_history_runs: 0,
            share_interactions: false,
            on_member_error: OnMemberError::default(),
        }
    }

    /// How the leader works with the members; `coordinate` unless said.
    #[must_use]
    pub fn mode(self, mode: TeamMode) -> Self {
        Self { mode, ..self }
    }

    /// One more member: an agent or a team of the server, by id. An agent is taken where both have it.
    #[must_use]
    pub fn member(mut self, id: impl Into<String>) -> Self {
        self.members.push(MemberDefinition::Known(id.into()));
        self
    }

    /// One more member: an agent that is not the server's, but this team's alone.
    #[must_use]
    pub fn own_member(mut self, agent: AgentDefinition) -> Self {
        self.members.push(MemberDefinition::Own(Box::new(agent)));
        self
    }

    /// The most members that work at once; the others wait.
    #[must_use]
    pub fn max_parallel(self, members: u32) -> Self {
        Self { max_parallel: Some(members), ..self }
    }

    /// How many earlier runs of the session members see; none unless said.
    #[must_use]
    pub fn member_history_runs(self, runs: u32) -> Self {
        Self { member_history_runs: runs, ..self }
    }

    /// Whether members are told what others of the same run were asked and answered before.
    #[must_use]
    pub fn share_interactions(self, share: bool) -> Self {
        Self { share_interactions: share, ..self }
    }

    /// What becomes of a run when a member's fails; the leader is told unless said.
    #[must_use]
    pub fn on_member_error(self, then: OnMemberError) -> Self {
        Self { on_member_error: then, ..self }
    }

    /// Its id, which is its leader's.
    pub(crate) fn id(&self) -> &str {
        &self.leader.id
    }

    /// The other teams that it hands work to.
    fn teams<'a>(&'a self, all: &'a [Self]) -> impl Iterator<Item = &'a Self> {
        let known = self.members.iter().filter_map(|member| match member {
            MemberDefinition::Known(id) => Some(id),
            MemberDefinition::Own(_) => None,
        });
        known.filter_map(|id| all.iter().find(|team| team.id() == id))
    }

    fn fault(&self, fault: String) -> Error {
        Error::Team { team: self.id().to_owned(), fault }
    }

    fn register(self, registry: &mut Registry, models: &Models, toolbox: &Toolbox) -> Result<(), Error> {
        let members = self.members.iter().map(|member| self.take_on(member, registry, models, toolbox));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(self.fault("it has no member: give it one with `member` or `own_member`".to_owned()));
        }
        if let Some(twice) = members
            .iter()
            .enumerate()
            .find(|(at, one)| members[..*at].iter().any(|other| other.component.id == one.component.id))
        {
            return Err(self.fault(format!("two members have the id {:?}", twice.1.component.id.as_str())));
        }
        if self.max_parallel == Some(0) {
            return Err(self.fault("max_parallel must be at least 1".to_owned()));
        }
        let mut team = TeamConfig::new(self.mode, members);
        team.max_parallel = self.max_parallel.unwrap_or(team.max_parallel);
        team.member_history_runs = self.member_history_runs;
        team.share_interactions = self.share_interactions;
        team.on_member_error = self.on_member_error;
        let (config, tools) = self.leader.resolve(models, toolbox)?;
        registry.add_agent(AgentConfig { team: Some(team), ..config }, tools, Listing::Public)?;
        Ok(())
    }

    /// A member, which must be registered already when it is the server's.
    fn take_on(
        &self,
        member: &MemberDefinition,
        registry: &mut Registry,
        models: &Models,
        toolbox: &Toolbox,
    ) -> Result<Member, Error> {
        match member {
            MemberDefinition::Own(agent) => {
                let (config, tools) = AgentDefinition::clone(agent).resolve(models, toolbox)?;
                let hash = registry.add_agent(config.clone(), tools, Listing::Inner)?;
                Ok(shown(&config.into(), hash))
            }
            MemberDefinition::Known(id) => {
                let kinds = [ComponentKind::Agent, ComponentKind::Team];
                let found = ComponentId::parse(id).ok().and_then(|id| {
                    kinds.iter().find_map(|kind| registry.component(&ComponentRef { kind: *kind, id: id.clone() }))
                });
                let known =
                    found.ok_or_else(|| self.fault(format!("there is no agent and no team {id:?} to be a member")))?;
                Ok(shown(&known.config, known.hash.clone()))
            }
        }
    }
}

/// What the leader is told of a member.
fn shown(config: &ComponentConfig, config_hash: String) -> Member {
    Member {
        component: config.component(),
        config_hash,
        name: config.name().to_owned(),
        role: config.agent().and_then(|agent| agent.role.clone()),
        description: config.agent().and_then(|agent| agent.description.clone()),
    }
}

/// Makes the teams known, each after those it hands work to.
pub(crate) fn register(
    mut teams: Vec<TeamDefinition>,
    registry: &mut Registry,
    models: &Models,
    toolbox: &Toolbox,
) -> Result<(), Error> {
    while !teams.is_empty() {
        let ready = teams.iter().position(|team| team.teams(&teams).next().is_none());
        let Some(ready) = ready else {
            let circle: Vec<&str> = teams.iter().map(TeamDefinition::id).collect();
            return Err(teams[0].fault(format!("it would be its own member, by way of {}", circle.join(", "))));
        };
        teams.remove(ready).register(registry, models, toolbox)?;
    }
    Ok(())
}
