use cqrs_es::test::TestFramework;
use serde_json::{Map, json};

use super::*;
use crate::ids::ComponentId;

pub(crate) fn config() -> AgentConfig {
    AgentConfig {
        id: ComponentId::parse("my-agent").unwrap(),
        name: "My Agent".into(),
        description: Some("Plain agent".into()),
        role: None,
        instructions: vec!["Be brief.".into()],
        model: ModelRef { key: "main".into(), id: "m".into(), provider: "P".into(), class: "C".into() },
        temperature: None,
        max_tokens: None,
        output_schema: None,
        output_repairs: 0,
        tools: vec![],
        history_runs: 3,
        compaction: None,
        session_state: Map::from_iter([("b".into(), json!(1)), ("a".into(), json!(2))]),
        max_iterations: 25,
        metadata: Map::new(),
        team: None,
    }
}

#[test]
fn the_hash_does_not_depend_on_the_order_of_keys() {
    let mut turned = config();
    turned.session_state = Map::from_iter([("a".into(), json!(2)), ("b".into(), json!(1))]);
    assert_eq!(config_hash(&config().into()).unwrap(), config_hash(&turned.clone().into()).unwrap());
    turned.name = "Other".into();
    assert_ne!(config_hash(&config().into()).unwrap(), config_hash(&turned.clone().into()).unwrap());
}

#[test]
fn a_configuration_is_recorded_once() {
    let configured = ComponentConfigured { hash: config_hash(&config().into()).unwrap(), config: config().into() };
    let event = ComponentEvent::Configured(configured);
    let framework = || TestFramework::<ComponentState>::with(());
    framework()
        .given_no_previous_events()
        .when(Configure { config: config().into() })
        .then_expect_events(vec![event.clone()]);
    framework().given(vec![event]).when(Configure { config: config().into() }).then_expect_events(vec![]);
}

#[test]
fn the_system_prompt_has_description_role_and_instructions() {
    let mut config = config();
    assert_eq!(config.system_prompt().as_deref(), Some("Plain agent\nBe brief."));
    config.role = Some("Writes".into());
    config.instructions.push("Be kind.".into());
    let expected = "Plain agent\n<your_role>\nWrites\n</your_role>\n- Be brief.\n- Be kind.";
    assert_eq!(config.system_prompt().as_deref(), Some(expected));
}

#[test]
fn agents_teams_and_workflows_are_told_apart_by_what_they_have() {
    let member = Member {
        component: ComponentRef::agent(ComponentId::parse("writer").unwrap()),
        config_hash: "00".into(),
        name: "Writer".into(),
        role: Some("Writes".into()),
        description: None,
    };
    let team = AgentConfig { team: Some(TeamConfig::new(TeamMode::Route, vec![member])), ..config() };
    let workflow = json!({"id": "w", "name": "W", "steps": [{"name": "s", "kind": "function", "function": "f"}]});
    let workflow: ComponentConfig = serde_json::from_value(workflow).unwrap();
    for (config, kind) in [
        (config().into(), ComponentKind::Agent),
        (team.clone().into(), ComponentKind::Team),
        (workflow, ComponentKind::Workflow),
    ] {
        let read: ComponentConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
        assert_eq!((&read, read.component().kind), (&config, kind));
    }
    let team: ComponentConfig = team.into();
    assert!(team.agent().unwrap().system_prompt().unwrap().contains("<member id=\"writer\" name=\"Writer\">"));
    assert!(team.tool(DELEGATE).is_some() && team.tools().is_empty(), "code carries out its own tools only");
}
