//! Every mistake has its line, and says what was expected.

use std::path::Path;

use daybook_models::Api;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::agent::built_in_tools;
use crate::config::Settings;

mod models;
mod sources;
mod teams;
mod workflows;

fn parse(text: &str) -> Result<Definitions, DefinitionsError> {
    let environment = [
        ("ANTHROPIC_API_KEY", "ant-hush"),
        ("GOOGLE_API_KEY", "AI-hush"),
        ("KEY", "sk-hush"),
        ("OPENAI_API_KEY", "sk-hush"),
        ("DATABASE_URL", "postgres://h/d"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Definitions::parse(Path::new("daybook.yaml"), text, &environment, &built_in_tools())
}

/// The only mistake, as it is shown.
fn mistake(text: &str) -> String {
    let error = parse(text).map(|_| ()).unwrap_err();
    assert_eq!(error.mistakes.len(), 1, "{error}");
    error.to_string()
}

#[test]
fn an_agent_is_read_whole() {
    let text = "
server:
  name: Mine
  limits:
    max_runs: 5
models:
  main:
    provider: openai
    id: gpt-5-mini
    api_key: ${KEY}
    retries: 0
    timeouts:
      first_token_seconds: 5
agents:
  - id: my-agent
    name: My Agent
    instructions: [Be brief., Be kind.]
    model: main
    tools: [calculator]
    history_runs: 3
    compaction: {after_tokens: 20000}
    session_state: {count: 0, list: [1, 2.5, x]}
    max_iterations: 4
    temperature: 0.5
    max_tokens: 100
    metadata: {team: red}
";
    let definitions = parse(text).unwrap();
    let agent = &definitions.agents[0];
    assert_eq!(agent.instructions, ["Be brief.", "Be kind."]);
    assert_eq!(serde_json::Value::from(agent.session_state.clone()), json!({"count": 0, "list": [1, 2.5, "x"]}));
    assert_eq!((agent.history_runs, agent.max_iterations, agent.temperature), (3, 4, Some(0.5)));
    assert_eq!(agent.compaction.unwrap().after_tokens, Some(20_000));
    let ModelDefinition::Served(model) = &definitions.models[0].1 else { panic!("not served") };
    assert_eq!(model.api, Api::OpenAiChat);
    assert_eq!(model.api_key.as_ref().unwrap().expose_secret(), "sk-hush");
    assert_eq!((model.retry.max_retries, model.timeouts.first_token.as_secs()), (0, 5));
    let settings = Settings::from_layers([definitions.server]).unwrap();
    assert_eq!((settings.name.as_str(), settings.limits.max_runs.get()), ("Mine", 5));
    assert_eq!(settings.limits.max_body_mb.get(), 100, "what is not said keeps its default");
}

#[test]
fn an_empty_file_says_nothing() {
    for text in ["", "# nothing\n"] {
        let definitions = parse(text).unwrap();
        assert!(definitions.agents.is_empty() && definitions.models.is_empty());
    }
}

#[test]
fn mistakes_of_shape_have_a_line_and_an_expectation() {
    let model = "models:\n  a:\n    provider: demo\n";
    assert_eq!(
        mistake("agents:\n  - id: my\n    modle: a\n"),
        "daybook.yaml:3:5: unknown field `modle`, expected one of id, name, description, role, instructions, model, \
         tools, history_runs, compaction, session_state, max_iterations, temperature, max_tokens, \
         output_schema, output_repairs, metadata"
    );
    assert_eq!(
        mistake("agents:\n  - id: my\n    history_runs: many\n"),
        "daybook.yaml:3:19: history_runs: expected a whole number, 0 or more"
    );
    assert_eq!(
        mistake("agents:\n  id: my\n"),
        "daybook.yaml:2:3: agents: expected a list, each item on a line of its own after `- `"
    );
    assert_eq!(
        mistake("agents:\n  - id: my\n    instructions: {a: 5}\n"),
        "daybook.yaml:3:19: instructions: expected a text, or a list of texts"
    );
    assert_eq!(
        mistake("models:\n  a:\n    provider: opena\n"),
        "daybook.yaml:3:15: provider: expected one of demo, openai, openai-responses, anthropic, gemini, ollama"
    );
    assert!(mistake(&format!("{model}agents:\n  - name: x\n")).contains("5:5: missing field `id`"));
    assert!(mistake("server:\n  hots: x\n").contains(":2:3: unknown field `hots`, expected one of host, port"));
    assert!(mistake("server:\n  limits:\n    max_runs: 0\n").starts_with("daybook.yaml:3:"));
    assert!(mistake("agents:\n  - id: a\n   model: x\n").starts_with("daybook.yaml:3:4: "));
    assert!(mistake("agents:\n  - id: a\n    id: b\n").starts_with("daybook.yaml:3:5: duplicate"));
}

/// Whether an editor would find the text right.
fn fits_the_schema(text: &str) -> bool {
    // An editor sees the references, not what they stand for.
    let names = ["KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "DATABASE_URL"];
    let itself = names.map(|name| (name.to_owned(), format!("${{{name}}}"))).into();
    let tree = tree::read(text, &itself).unwrap();
    let (mut skip, mut mistakes) = (HashSet::new(), Vec::new());
    let value: serde_json::Value = decode::decode(&tree.root, &mut skip, &mut mistakes).unwrap();
    jsonschema::validator_for(&schema()).unwrap().is_valid(&value)
}

#[test]
fn what_the_shape_forbids_the_schema_forbids_too() {
    for wrong in [
        "agents:\n  - id: my\n    modle: a\n",
        "agents:\n  - id: my\n    history_runs: many\n",
        "agents:\n  - id: my\n    history_runs: -1\n",
        "agents:\n  id: my\n",
        "agents:\n  - id: my\n    instructions: {a: 5}\n",
        "agents:\n  - id: my\n    max_iterations: 0\n",
        "agents:\n  - id: my\n    temperature: warm\n",
        "agents:\n  - name: x\n",
        "models:\n  a:\n    provider: opena\n",
        "models:\n  a:\n    id: x\n",
        "server:\n  hots: x\n",
        "server:\n  limits:\n    max_runs: 0\n",
        "server:\n  insecure: perhaps\n",
        "server:\n  port: 99999\n",
        "servers: {}\n",
    ] {
        assert_eq!(mistake(wrong).lines().count(), 1, "{wrong}");
        assert!(!fits_the_schema(wrong), "{wrong}");
    }
    for right in [
        "agents:\nmodels:\nserver:\n",
        "agents:\n  - id: a\n    tools:\n    name:\n",
        "server:\n  port: ${PORT:-8000}\n  log_format: \"${FORMAT:-json}\"\n  limits: {max_runs: \"${MOST:-5}\"}\n",
        "agents:\n  - &a\n    id: a\n    metadata: {x: 1, y: [true, null]}\n  - <<: *a\n    id: b\n",
    ] {
        parse(right).unwrap();
        assert!(fits_the_schema(right), "{right}");
    }
}

#[test]
fn the_schema_explains_every_setting() {
    let schema = schema();
    let shapes = schema["definitions"].as_object().unwrap().iter().filter(|(_, shape)| shape["properties"].is_object());
    for (name, shape) in shapes {
        assert_eq!(shape["additionalProperties"], json!(false), "{name}");
        if ["Layer", "LimitsLayer", "Agent", "Model", "ReasoningDefinition"].contains(&name.as_str()) {
            for (setting, said) in shape["properties"].as_object().unwrap() {
                assert!(said["description"].is_string(), "{name}.{setting} has no description");
            }
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "
server:
  port: eighty
  hots: x
  log_level: loud
models:
  main:
    provider: opena
  other:
    provider: openai
    id: x
    retries: ${NOPE}
agents:
  - id: one
    model: main
    history_runs: many
    tools: [calculator, [web]]
    max_iterations: 0
  - model: other
    temperature: hot
  - id: two
    id: three
    model: nowhere
  - id: four
    model: [main]
";
    let shown = parse(text).map(|_| ()).unwrap_err().to_string();
    let expected = "\
daybook.yaml:3:9: port: expected a whole number from 0 to 65535
daybook.yaml:4:3: unknown field `hots`, expected one of host, port, database_url, data_dir, postgres_bin_dir, \
insecure, log_format, log_level, id, name, description, version, db_id, cors_origins, redact, limits
daybook.yaml:5:14: log_level: \"loud\" is not a log level; use error, warn, info, debug or trace, or a filter like \
info,daybook=debug
daybook.yaml:8:15: provider: expected one of demo, openai, openai-responses, anthropic, gemini, ollama
daybook.yaml:12:14: retries: the environment has no variable NOPE; set it, or write ${NOPE:-default}
daybook.yaml:16:19: history_runs: expected a whole number, 0 or more
daybook.yaml:17:25: tools: expected a text
daybook.yaml:18:21: max_iterations: expected a whole number, at least 1
daybook.yaml:19:5: missing field `id`
daybook.yaml:20:18: temperature: expected a number
daybook.yaml:22:5: duplicate key `id`: it is there already, on line 21
daybook.yaml:23:12: agent \"two\": the model \"nowhere\" is not defined; defined are: main, other
daybook.yaml:25:12: model: expected a text";
    assert_eq!(shown, expected);
}

#[test]
fn what_is_no_yaml_or_too_much_of_it_is_told() {
    let open = mistake("agents: [\n");
    assert!(open.starts_with("daybook.yaml:1:9: this is not YAML: "), "{open}");
    assert!(mistake("a: 1\n---\nb: 1\n").contains("a second document"));
    assert!(mistake("agents:\n  - id: !secret x\n").contains("the tag !secret means nothing"));
    assert!(mistake("agents: *nobody\n").starts_with("daybook.yaml:1:9: "));
    assert!(mistake("[1]\n").contains("expected `key: value` lines"));
    let many: String = (1..40).map(|n| format!("  k{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    let laughs = format!("agents:\n- id: a\n  metadata:\n    k0: &a0 [x]\n{}", many.replace("  k", "    k"));
    assert!(mistake(&laughs).contains("too much"), "aliases can make much of little");
    assert!(mistake(&"[".repeat(100_000)).contains("not YAML"));
}

#[test]
fn what_came_from_the_environment_is_not_shown() {
    for text in [
        "agents:\n  - id: ${KEY}/\n",
        "agents:\n  - id: a\n    model: ${KEY}\n",
        "agents:\n  - id: a\n    tools: [\"${KEY}\"]\n",
        "server:\n  log_level: ${KEY}\n",
        "server:\n  cors_origins: [\"x${KEY}\"]\n",
        "models:\n  a:\n    provider: ${KEY}\n",
    ] {
        let shown = mistake(text);
        assert!(!shown.contains("hush"), "{shown}");
    }
}

#[test]
fn missing_variables_are_named_and_values_never_shown() {
    assert_eq!(
        mistake("models:\n  a:\n    provider: openai\n    id: x\n    api_key: ${NOPE}\n"),
        "daybook.yaml:5:14: api_key: the environment has no variable NOPE; set it, or write ${NOPE:-default}"
    );
    let wrong = mistake("models:\n  a:\n    provider: openai\n    id: x\n    api_key: [sk-hush]\n");
    assert!(!wrong.contains("sk-hush"), "{wrong}");
    let wrong = mistake("models:\n  a:\n    provider: openai\n    id: x\n    retries: ${KEY}\n");
    assert!(!wrong.contains("sk-hush"), "{wrong}");
    assert!(
        !format!("{:?}", parse("models: {a: {provider: openai, id: x, api_key: sk-hush}}").unwrap()).contains("hush")
    );
}

#[test]
fn names_that_lead_nowhere_are_all_found_at_their_places() {
    let text = "
models:
  main:
    provider: demo
    base_url: http://x
  other:
    provider: openai
agents:
  - id: one
    model: gpt
    tools:
      - calculator
      - web
      - calculator
  - id: one
    temperature: 7
    compaction: {}
  - id: a b
    model: main
";
    let shown = parse(text).map(|_| ()).unwrap_err().to_string();
    let expected = "\
daybook.yaml:5:15: base_url: the scripted demo model has no such setting
daybook.yaml:7:5: id is missing: expected the provider's id of the model, such as gpt-5-mini
daybook.yaml:10:12: agent \"one\": the model \"gpt\" is not defined; defined are: main, other
daybook.yaml:13:9: agent \"one\": there is no tool \"web\"; there are: calculator, current_time, read_result
daybook.yaml:14:9: agent \"one\": the tool \"calculator\" is named twice
daybook.yaml:15:9: the agent \"one\" is defined already, on line 9
daybook.yaml:15:9: agent \"one\": no model is named, and there are several: say which of main, other
daybook.yaml:16:18: temperature must be a number from 0 to 2
daybook.yaml:17:17: compaction needs history_runs of 1 to 50, not 0: the newest of a session's runs stay word for word, the others are summarised
daybook.yaml:18:9: the id \"a b\" holds ' ', but ids are part of addresses; use letters, digits, - _ or .";
    assert_eq!(shown, expected);
}

#[test]
fn a_variable_that_is_not_closed_is_a_mistake_where_variables_are_read() {
    let model = |key: &str| format!("models:\n  a:\n    provider: openai\n    id: x\n    api_key: {key}\n");
    for open in ["${NO", "x${KEY:-${KEY}", "${KEY # }"] {
        assert!(
            mistake(&model(open)).starts_with("daybook.yaml:5:14: api_key: ${ is not closed: expected ${NAME}"),
            "{open}"
        );
    }
    assert!(mistake(&model("\"${NO\"")).contains("not closed"), "double quotes mean what they mean to a shell");
    for fine in ["${KEY}", "\"${KEY}\"", "'${NO'", "$${NO", "|-\n      ${NO", "x}", "${KEY:-}"] {
        parse(&model(fine)).unwrap();
    }
}

#[test]
fn ids_are_one_part_of_an_address() {
    for id in ["..", ".", "a/b", "'a\\b'", "a?b", "\"a\\u0001\""] {
        let shown = mistake(&format!("agents:\n  - id: {id}\n"));
        assert!(shown.starts_with("daybook.yaml:2:9: the id ") && shown.contains("part of addresses"), "{shown}");
    }
    parse("agents:\n  - id: a.b-c_d\n  - id: über\n").unwrap();
}

#[test]
fn control_characters_are_found() {
    let text = r#"
server:
  name: "a\0b"
  description: "a\nb"
agents:
  - id: a
    name: "x\ty"
    instructions: ["fine\n\t", "\x07"]
    metadata: {k: ["a\0b"]}
    session_state: {"\0": 1}
"#;
    let shown = parse(text).map(|_| ()).unwrap_err().to_string();
    let places: Vec<_> = shown.lines().map(|line| line.splitn(5, ':').take(4).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(
        places,
        [
            "daybook.yaml:3:9: name",
            "daybook.yaml:7:11: name",
            "daybook.yaml:8:19: instructions",
            "daybook.yaml:9:15: metadata",
            "daybook.yaml:10:20: session_state",
        ],
        "{shown}"
    );
}

#[test]
fn settings_of_the_server_that_cannot_be_have_a_line() {
    for (setting, word) in [
        ("log_level: loud", "not a log level"),
        ("log_level: \"==\"", "not a log level"),
        ("database_url: 5", "relative URL"),
        ("database_url: mysql://u:hush@h/d", "begins with mysql://"),
        ("cors_origins: [http://localhost:3000, \"not an origin\\u0001\"]", "is not an origin"),
        ("cors_origins: [http://localhost:3000/]", "expected http://localhost:3000"),
        ("cors_origins: [localhost]", "is not an origin"),
    ] {
        let shown = mistake(&format!("server:\n  port: 1\n  {setting}\n"));
        let key = setting.split(':').next().unwrap();
        let column = 3 + key.len() + 2;
        assert!(shown.starts_with(&format!("daybook.yaml:3:{column}: {key}: ")), "{shown}");
        assert!(shown.contains(word) && !shown.contains("hush"), "{shown}");
    }
    parse("server:\n  cors_origins: ['*', https://a.example, 'chrome-extension://abc', 'http://[::1]:3000']\n")
        .unwrap();
}

#[test]
fn the_shape_of_an_agents_answers_is_checked() {
    let agent = |schema: &str| format!("agents:\n  - id: a\n    output_schema: {schema}\n");
    let definitions = parse(&agent("{type: object, title: Movie, properties: {year: {type: integer}}}")).unwrap();
    assert_eq!(definitions.agents[0].output_schema.as_ref().unwrap()["title"], "Movie");
    assert_eq!(definitions.agents[0].output_repairs, 2);
    assert_eq!(parse("agents:\n  - id: a\n    output_repairs: 0\n").unwrap().agents[0].output_repairs, 0);
    assert!(mistake(&agent("{type: array}")).starts_with("daybook.yaml:3:20: output_schema: root must declare"));
    assert!(mistake(&agent("movie")).starts_with("daybook.yaml:3:20: output_schema: expected"));
}

#[test]
fn numbers_from_1_say_so() {
    assert_eq!(
        mistake("agents:\n  - id: a\n    max_iterations: 0\n"),
        "daybook.yaml:3:21: max_iterations: expected a whole number, at least 1"
    );
    assert_eq!(
        mistake("server:\n  limits:\n    max_runs: 0\n"),
        "daybook.yaml:3:15: max_runs: expected a whole number, at least 1"
    );
}

#[test]
fn an_error_is_placed_at_the_setting_of_the_file_unless_a_later_source_overrides_it() {
    let dir = || daybook_store::embedded::EmbeddedError::BadBinDir { dir: "/tmp".into() };
    let mut places = parse("server:\n  postgres_bin_dir: /tmp\n  data_dir: ${KEY}\n").unwrap().places;
    let error = places.blame(dir().into());
    assert!(error.to_string().starts_with("daybook.yaml:2:21: /tmp does not hold"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert!(!places.blame(crate::Error::Public("x".to_owned())).to_string().contains("daybook.yaml"));
    places.forget(&Layer { postgres_bin_dir: Some("/x".into()), ..Layer::default() });
    assert!(!places.blame(dir().into()).to_string().contains("daybook.yaml"));
}

/// The first YAML of a page.
fn yaml_of(page: &str) -> &str {
    page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

const TEAMS: &str = include_str!("../../docs/teams.md");
const WORKFLOWS: &str = include_str!("../../docs/workflows.md");

#[test]
fn the_examples_are_right() {
    let block = yaml_of(include_str!("../../docs/definitions.md"));
    let tools = yaml_of(include_str!("../../docs/tools.md"));
    let (teams, workflows) = (yaml_of(TEAMS), yaml_of(WORKFLOWS));
    for text in [block, tools, teams, workflows, include_str!("../../daybook.example.yaml"), crate::init::FILE] {
        let definitions = parse(text).unwrap();
        assert!(fits_the_schema(text), "{text}");
        assert!(!definitions.agents.is_empty());
        definitions.build_models().unwrap();
        Settings::from_layers([definitions.server]).unwrap();
    }
    assert!(parse(block).unwrap().models.len() > 1, "the page shows every provider");
}

#[test]
fn every_setting_is_on_the_page() {
    let settings = include_str!("../../docs/definitions.md");
    let tools = include_str!("../../docs/tools.md");
    let kinds = ["mcp", "openapi", "http", "sql", "files", "shell", "rules: {a", "rules: {a: {approval"];
    let of_sources = kinds.map(|kind| {
        let opened = kind.matches('{').count();
        format!("tools: {{t: {{{kind}: {{x: 1}}}}}}{}", "}".repeat(opened))
    });
    let of_settings = ["server: {x: 1}", "server: {limits: {x: 1}}", "agents: [{x: 1}]", "models: {a: {x: 1}}"];
    let of_settings = of_settings.into_iter().map(|text| (text, settings));
    let of_sources = of_sources.iter().map(String::as_str).chain(["tools: {t: {x: 1}}"]).map(|text| (text, tools));
    let of_teams = [("teams: [{x: 1}]", TEAMS)];
    let of_steps = ["", "confirm: {x: 1}", "review_output: {x: 1}", "retries: {x: 1}", "user_input: {x: 1}"];
    let of_fields = ["user_input: {fields: [{x: 1}]}", "ask: {x: 1}"];
    let of_steps: Vec<String> = of_steps
        .into_iter()
        .chain(of_fields)
        .map(|step| format!("workflows: [{{id: w, steps: [{{{}}}]}}]", if step.is_empty() { "x: 1" } else { step }))
        .collect();
    let of_workflows = of_steps.iter().map(String::as_str).chain(["workflows: [{x: 1}]"]).map(|text| (text, WORKFLOWS));
    for (text, page) in of_settings.chain(of_sources).chain(of_teams).chain(of_workflows) {
        let known = parse(text).map(|_| ()).unwrap_err().to_string();
        let known = known.lines().find(|line| line.contains("unknown field")).unwrap();
        let known = known.split("expected one of ").nth(1).unwrap();
        for name in known.split(", ") {
            assert!(page.contains(&format!("{name}:")), "the page does not show {name} of {text}");
        }
    }
}
