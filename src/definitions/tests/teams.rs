//! Teams: read whole, and every mistake at its place.

use super::*;
use crate::TeamMode;
use crate::team::{MemberDefinition, TeamDefinition};
use crate::{AgentDefinition, OnMemberError};

#[test]
fn a_team_is_read_whole() {
    let text = "
agents:
  - id: researcher
teams:
  - id: my-team
    name: My Team
    instructions: Be brief.
    tools: [calculator]
    mode: tasks
    members:
      - researcher
      - inner
      - id: scribe
        role: Writes
        tools: [current_time]
    max_parallel: 3
    member_history_runs: 2
    share_interactions: true
    on_member_error: fail
    history_runs: 4
  - id: inner
    members: [researcher]
";
    let teams = parse(text).unwrap().teams;
    let leader = AgentDefinition::new("my-team").name("My Team").instruction("Be brief.").tool("calculator");
    let expected = TeamDefinition::new(leader.history_runs(4))
        .mode(TeamMode::Tasks)
        .member("researcher")
        .member("inner")
        .own_member(AgentDefinition::new("scribe").role("Writes").tool("current_time"))
        .max_parallel(3)
        .member_history_runs(2)
        .share_interactions(true)
        .on_member_error(OnMemberError::Fail);
    assert_eq!(teams[0], expected);
    assert!(matches!(&teams[1].members[..], [MemberDefinition::Known(id)] if id == "researcher"));
    assert!(fits_the_schema(text));
}

#[test]
fn all_mistakes_of_teams_are_told_at_once_each_at_its_place() {
    let text = "
agents:
  - id: a
teams:
  - id: none
  - id: t
    model: gone
    members:
      - a
      - nobody
      - a
      - id: own
        tools: [nothing]
        temperature: 9
  - id: t
    mode: chaos
    members: [a]
  - id: left
    members: [right]
  - id: right
    members: [left, a]
  - id: self
    members: [self]
  - id: odd
    members: [[a]]
  - id: more
    members: [a]
    max_parallel: 0
    handover: yes
";
    let shown = parse(text).map(|_| ()).unwrap_err().to_string();
    let expected = [
        "5:9: team \"none\": it has no member: name them, or describe them, under `members`",
        "7:12: team \"t\": the model \"gone\" is not defined; defined are: default",
        "10:9: team \"t\": there is no agent and no team \"nobody\"; there are: a, none, t, t, left, right, self, odd, more",
        "11:9: team \"t\": two members have the id \"a\"",
        "13:17: agent \"own\": there is no tool \"nothing\"; there are: calculator, current_time, read_result",
        "14:22: temperature must be a number from 0 to 2",
        "16:11: mode: expected one of coordinate, route, collaborate, tasks",
        "19:15: team \"left\": it would run itself, by way of right, left",
        "23:15: team \"self\": it would run itself, by way of self",
        "25:15: members: expected an id, or an agent as `key: value` lines",
        "28:19: max_parallel: expected a whole number, at least 1",
        "29:5: unknown field `handover`, expected one of",
    ];
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{shown}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.strip_prefix("daybook.yaml:").unwrap().starts_with(expected), "{line}\ninstead of {expected}");
    }
}

#[test]
fn one_id_is_one_team_but_an_agent_may_have_it_too() {
    assert!(parse("agents: [{id: x}]\nteams: [{id: x, members: [x]}]\n").is_ok(), "the agent is the member");
    let twice = mistake("agents: [{id: a}]\nteams:\n  - {id: t, members: [a]}\n  - {id: t, members: [a]}\n");
    assert!(twice.contains("4:10: the team \"t\" is defined already, on line 3"), "{twice}");
}
