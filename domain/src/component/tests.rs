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
    }
}

#[test]
fn the_hash_does_not_depend_on_the_order_of_keys() {
    let mut turned = config();
    turned.session_state = Map::from_iter([("a".into(), json!(2)), ("b".into(), json!(1))]);
    assert_eq!(config_hash(&config()).unwrap(), config_hash(&turned).unwrap());
    turned.name = "Other".into();
    assert_ne!(config_hash(&config()).unwrap(), config_hash(&turned).unwrap());
}

#[test]
fn a_configuration_is_recorded_once() {
    let configured = ComponentConfigured { hash: config_hash(&config()).unwrap(), config: config() };
    let event = ComponentEvent::Configured(configured);
    let framework = || TestFramework::<ComponentState>::with(());
    framework().given_no_previous_events().when(Configure { config: config() }).then_expect_events(vec![event.clone()]);
    framework().given(vec![event]).when(Configure { config: config() }).then_expect_events(vec![]);
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
