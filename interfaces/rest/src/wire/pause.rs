//! What a paused run asks, its own questions and those of the runs under it.

use daybook_domain::component::ComponentKind;
use daybook_domain::ids::{ComponentId, RunId};
use daybook_domain::run::{MemberAsk, Requirement, RequirementKind, ToolRecord};
use daybook_engine::RunDetail;
use serde_json::Value;

use super::tool::{self, Told};

/// What is asked of people in an event.
pub(crate) fn in_event(
    run: &RunId,
    requirements: &[Requirement],
    tools: &[ToolRecord],
    members: &[MemberAsk],
) -> Vec<Value> {
    let own = tool::requirements(run, requirements, tools, Told::InEvent);
    own.into_iter().chain(members.iter().map(of_ask)).collect()
}

/// What a run under the paused one asks, in an event.
pub(crate) fn of_ask(ask: &MemberAsk) -> Value {
    let tool = ToolRecord { asked: Some(ask.requirement.clone()), ..ask.tool.clone() };
    of_member(&ask.run_id, &ask.component.id, &ask.name, &tool, Told::InEvent)
}

/// What a run and those under it asked of people.
pub(crate) fn in_run(detail: &RunDetail) -> Vec<Value> {
    let state = &detail.state;
    let Some(accepted) = &state.accepted else { return Vec::new() };
    let mut asked = tool::requirements(&accepted.run_id, &state.requirements, &state.tools, Told::InRun);
    detail.children.iter().for_each(|child| add_members(child, &mut asked));
    asked
}

/// Adds what a run under another asked, and those under it.
pub(crate) fn add_members(member: &RunDetail, asked: &mut Vec<Value>) {
    let (state, config) = (&member.state, &member.config);
    if let Some(accepted) = &state.accepted {
        let tools = state.requirements.iter().filter_map(|needed| state.tool(&needed.call_id));
        let shown = |tool| of_member(&accepted.run_id, config.id(), config.name(), tool, Told::InRun);
        asked.extend(tools.map(shown));
    }
    member.children.iter().for_each(|child| add_members(child, asked));
}

/// What the runs under a run ask and nobody has answered.
pub(crate) fn asks_below(detail: &RunDetail) -> Vec<MemberAsk> {
    detail.children.iter().flat_map(asks).collect()
}

fn asks(member: &RunDetail) -> Vec<MemberAsk> {
    let ask = |(requirement, tool): (&Requirement, &ToolRecord)| {
        Some(MemberAsk {
            run_id: member.state.run_id()?.clone(),
            component: member.config.component(),
            name: member.config.name().to_owned(),
            requirement: requirement.clone(),
            tool: tool.clone(),
        })
    };
    let own = member.state.open_requirements().filter_map(ask);
    own.chain(asks_below(member)).collect()
}

fn of_member(run: &RunId, id: &ComponentId, name: &str, tool: &ToolRecord, told: Told) -> Value {
    let mut shown = tool::requirement(run, tool, told);
    shown["member_agent_id"] = id.as_str().into();
    shown["member_agent_name"] = name.into();
    shown["member_run_id"] = run.as_str().into();
    shown
}

/// What a paused run says in an event, when its model said nothing.
pub(crate) fn words_in_event(
    kind: ComponentKind,
    requirements: &[Requirement],
    tools: &[ToolRecord],
    members: &[MemberAsk],
) -> String {
    if kind == ComponentKind::Agent {
        return tool::paused_words(requirements, requirements.iter()).to_owned();
    }
    let call = |needed: &Requirement| tools.iter().find(|tool| tool.call.id == needed.call_id);
    let own = requirements.iter().filter_map(|needed| Some(line("team", needed, call(needed)?)));
    listed(own.chain(members.iter().map(|ask| line(&ask.name, &ask.requirement, &ask.tool))).collect())
}

/// What a paused team says, when its leader said nothing.
pub(crate) fn words_of_team(detail: &RunDetail) -> String {
    let mut lines = lines("team", detail);
    detail.children.iter().for_each(|child| add_lines(child, &mut lines));
    listed(lines)
}

fn add_lines(member: &RunDetail, all: &mut Vec<String>) {
    all.extend(lines(member.config.name(), member));
    member.children.iter().for_each(|child| add_lines(child, all));
}

fn lines(who: &str, detail: &RunDetail) -> Vec<String> {
    detail.state.open_requirements().map(|(needed, tool)| line(who, needed, tool)).collect()
}

fn listed(lines: Vec<String>) -> String {
    format!("Team run paused. The following require input:{}", lines.concat())
}

fn line(who: &str, needed: &Requirement, tool: &ToolRecord) -> String {
    let what = match needed.kind {
        RequirementKind::Confirmation => "requires confirmation",
        RequirementKind::UserInput => "requires user input",
        RequirementKind::UserFeedback => "asks a question",
        RequirementKind::ExternalExecution => "requires external execution",
        RequirementKind::UnknownOutcome => "may have run already: nobody knows how it ended",
    };
    format!("\n- {who}: {} {what}", tool.call.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(call: &str) -> (Requirement, ToolRecord) {
        let needed = Requirement::new(call, RequirementKind::Confirmation);
        let call = json!({"id": call, "name": "delete_file", "arguments": "{}"});
        let tool = ToolRecord::new(serde_json::from_value(call).unwrap(), 1);
        (needed.clone(), ToolRecord { asked: Some(needed), ..tool })
    }

    fn ask(run: &str) -> MemberAsk {
        let (requirement, tool) = asked("call_2");
        let component = json!({"kind": "agent", "id": "careful"});
        let component = serde_json::from_value(component).unwrap();
        MemberAsk { run_id: RunId::parse(run).unwrap(), component, name: "Careful".to_owned(), requirement, tool }
    }

    fn team(children: Vec<RunDetail>) -> RunDetail {
        detail("t1", "my-team", "My Team", asked("call_1"), children)
    }

    fn detail(
        run: &str,
        id: &str,
        name: &str,
        asked: (Requirement, ToolRecord),
        children: Vec<RunDetail>,
    ) -> RunDetail {
        let (needed, tool) = asked;
        let accepted = json!({"run_id": run, "session_id": "s", "component": {"kind": "agent", "id": id},
            "config_hash": "h", "mode": "plain", "admission": "active", "message": ["x"], "at_ms": 1});
        let model = json!({"key": "m", "id": "m", "provider": "P", "class": "C"});
        let state = json!({"status": "PAUSED", "accepted": accepted, "requirements": [needed], "tools": [tool]});
        let config = json!({"id": id, "name": name, "model": model});
        let shown = json!({"state": state, "config": config});
        RunDetail { children, ..serde_json::from_value(shown).unwrap() }
    }

    #[test]
    fn what_members_ask_is_asked_by_their_team_under_the_same_ids() {
        let (needed, tool) = asked("call_1");
        let told = in_event(&RunId::parse("t1").unwrap(), &[needed], &[tool], &[ask("m1")]);
        let read = in_run(&team(vec![detail("m1", "careful", "Careful", asked("call_2"), Vec::new())]));
        for both in [&told, &read] {
            assert!(both[0].get("member_run_id").is_none());
            assert_eq!((&both[1]["member_run_id"], &both[1]["member_agent_id"]), (&json!("m1"), &json!("careful")));
            assert_eq!(both[1]["member_agent_name"], "Careful");
            assert_eq!(both[1]["tool_execution"]["requires_confirmation"], true);
        }
        assert_eq!((&told[0]["id"], &told[1]["id"]), (&read[0]["id"], &read[1]["id"]));
        assert_ne!(told[0]["id"], told[1]["id"]);
    }

    #[test]
    fn a_team_says_who_waits_for_what() {
        let expected = "Team run paused. The following require input:\n- team: delete_file requires confirmation\n\
            - Careful: delete_file requires confirmation";
        let (needed, tool) = asked("call_1");
        assert_eq!(words_in_event(ComponentKind::Team, &[needed], &[tool], &[ask("m1")]), expected);
        let member = detail("m1", "careful", "Careful", asked("call_2"), Vec::new());
        assert_eq!(words_of_team(&team(vec![member])), expected);
        let nested = detail("m2", "careful", "Careful", asked("call_2"), Vec::new());
        let inner = detail("m1", "inner", "Inner", asked("call_3"), vec![nested]);
        assert_eq!(words_of_team(&team(vec![inner])).lines().count(), 4);
    }
}
