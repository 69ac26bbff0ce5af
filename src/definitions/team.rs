//! A team in the file: a leader, and members it hands work to.

use std::num::NonZeroU32;

use daybook_domain::component;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Mistake;
use super::agent::{Agent, Compaction, Known, Lines, Who, like_an_agent};
use super::circle::Link;
use super::place::Spanned;
use crate::team::TeamDefinition;

like_an_agent! {
    /// A leader, which has all that an agent has, and members it hands work to.
    Team {
        /// How the leader works with the members; coordinate unless said.
        #[serde(default)]
        pub(super) mode: Mode,
        /// The members: agents and teams by id, or agents described here, which are this team's alone.
        #[serde(default)]
        pub(super) members: Vec<Spanned<Who>>,
        /// The most members that work at once; 8 unless said.
        #[serde(default)]
        pub(super) max_parallel: Option<NonZeroU32>,
        /// How many earlier runs of the session members see; 0 unless said.
        #[serde(default)]
        pub(super) member_history_runs: u32,
        /// Whether members are told what others of the same run were asked and answered before; no unless said.
        #[serde(default)]
        pub(super) share_interactions: bool,
        /// What becomes of a run when a member's fails; the leader is told unless said.
        #[serde(default)]
        pub(super) on_member_error: OnMemberError,
    }
}

/// How a leader works with its members.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    /// It hands out sub-tasks and writes the answer itself.
    #[default]
    Coordinate,
    /// It hands the whole request to one member, whose answer is the team's.
    Route,
    /// All members work on the same task at once, and it writes the answer.
    Collaborate,
    /// It plans a list of tasks, which members work off until all are done.
    Tasks,
}

impl From<Mode> for component::TeamMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Coordinate => Self::Coordinate,
            Mode::Route => Self::Route,
            Mode::Collaborate => Self::Collaborate,
            Mode::Tasks => Self::Tasks,
        }
    }
}

/// What becomes of a team's run when a member's fails.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnMemberError {
    /// The leader is told, and goes on.
    #[default]
    Tell,
    /// It fails too.
    Fail,
}

impl From<OnMemberError> for component::OnMemberError {
    fn from(then: OnMemberError) -> Self {
        match then {
            OnMemberError::Tell => Self::Tell,
            OnMemberError::Fail => Self::Fail,
        }
    }
}

impl Team {
    /// The teams it hands work to, for finding circles.
    pub(super) fn links(&self, agents: &[String], teams: &[String]) -> Vec<Link> {
        let known = self.members.iter().filter_map(|member| match &member.value {
            Who::Known(id) if teams.contains(id) && !agents.contains(id) => Some((id, member.referenced)),
            _ => None,
        });
        known.map(|(id, place)| Link { to: id.clone(), place }).collect()
    }

    /// Adds what is wrong with it to `out`.
    pub(super) fn check(&self, known: Known<'_>, agents: &[String], teams: &[String], out: &mut Vec<Mistake>) {
        let id = &self.id.value;
        let mut tell = |place, fault: String| out.push(Mistake::at(place, format!("team {id:?}: {fault}")));
        if self.members.is_empty() {
            tell(self.id.referenced, "it has no member: name them, or describe them, under `members`".to_owned());
        }
        for (at, member) in self.members.iter().enumerate() {
            let name = member.value.id();
            let others = self.members[..at].iter().map(|other| other.value.id());
            let exists = |name: &str| agents.iter().chain(teams).any(|known| known == name);
            if others.clone().any(|other| other == name) {
                tell(member.referenced, format!("two members have the id {name:?}"));
            } else if matches!(member.value, Who::Known(_)) && !exists(name) {
                let there: Vec<&str> = agents.iter().chain(teams).map(String::as_str).collect();
                let there = there.join(", ");
                tell(member.referenced, format!("there is no agent and no team {name:?}; there are: {there}"));
            }
        }
        for member in &self.members {
            if let Who::Own(agent) = &member.value {
                agent.check("agent", known, out);
            }
        }
    }

    /// The leader, and the team as code would describe it without members.
    pub(super) fn split(self) -> (Agent, Members) {
        let Self {
            id,
            name,
            description,
            role,
            instructions,
            model,
            tools,
            history_runs,
            compaction,
            session_state,
            max_iterations,
            temperature,
            max_tokens,
            output_schema,
            output_repairs,
            metadata,
            mode,
            members,
            max_parallel,
            member_history_runs,
            share_interactions,
            on_member_error,
        } = self;
        let leader = Agent {
            id,
            name,
            description,
            role,
            instructions,
            model,
            tools,
            history_runs,
            compaction,
            session_state,
            max_iterations,
            temperature,
            max_tokens,
            output_schema,
            output_repairs,
            metadata,
        };
        let members = Members { mode, members, max_parallel, member_history_runs, share_interactions, on_member_error };
        (leader, members)
    }
}

/// What a team has beside its leader.
pub(super) struct Members {
    mode: Mode,
    members: Vec<Spanned<Who>>,
    max_parallel: Option<NonZeroU32>,
    member_history_runs: u32,
    share_interactions: bool,
    on_member_error: OnMemberError,
}

impl Members {
    /// The team that `leader` leads.
    pub(super) fn led_by(self, leader: Agent) -> TeamDefinition {
        let team = TeamDefinition::new(leader.into_definition())
            .mode(self.mode.into())
            .member_history_runs(self.member_history_runs)
            .share_interactions(self.share_interactions)
            .on_member_error(self.on_member_error.into());
        let team = match self.max_parallel {
            Some(most) => team.max_parallel(most.get()),
            None => team,
        };
        self.members.into_iter().fold(team, |team, member| match member.value {
            Who::Known(id) => team.member(id),
            Who::Own(agent) => team.own_member(agent.into_definition()),
        })
    }
}
