//! Sources of tools in the file.

use super::*;
use crate::sources::SourceKind;

fn source(entry: &str) -> String {
    format!("tools:\n  t:\n    {entry}\n")
}

#[test]
fn sources_are_read_with_their_rules() {
    let text = "
tools:
  crm:
    openapi:
      document: https://crm.example/openapi.json
      auth: {bearer: {token: \"${KEY}\"}}
    prefix: crm_
    allow: [find, send]
    rules:
      send:
        effect: idempotent
        approval: {kind: required, expires_after_seconds: 60, on_expiry: fail}
  careful:
    built_in: [calculator]
    rules: {calculator: {confirmation: true}}
  server:
    mcp: {command: [some-server], env: {TOKEN: \"${KEY}\"}}
    optional: true
agents:
  - id: a
    tools: [current_time, crm, careful.calculator, server]
";
    let definitions = parse(text).unwrap();
    assert!(fits_the_schema(text));
    let names: Vec<_> = definitions.sources.iter().map(|source| (&*source.name, source.kind.word())).collect();
    assert_eq!(names, [("careful", "built_in"), ("crm", "openapi"), ("server", "mcp")]);
    let crm = &definitions.sources[1];
    assert_eq!((crm.place.as_deref(), crm.optional), (Some("daybook.yaml:4:5"), false));
    assert_eq!(crm.choice.prefix.as_deref(), Some("crm_"));
    let rule = &crm.choice.rules["send"];
    assert_eq!(rule.approval.as_ref().unwrap().expires_after_seconds, Some(60));
    assert!(definitions.sources[2].optional);
    assert!(!format!("{definitions:?}").contains("hush"), "secrets are not shown");
    let SourceKind::Mcp(options) = &definitions.sources[2].kind else { panic!("another kind") };
    assert_eq!(options.env["TOKEN"].expose_secret(), "sk-hush");
}

#[test]
fn what_is_wrong_with_a_source_has_a_line() {
    for (entry, told) in [
        ("optional: true", "daybook.yaml:3:5: t: where its tools come from is missing: expected one of mcp, openapi"),
        ("files: {root: .}\n    http: {hosts: [a.example]}", "daybook.yaml:3:12: t: http and files exclude each other"),
        ("http: {hosts: []}", "daybook.yaml:3:11: t: hosts"),
        ("http: {hosts: [https://a/b]}", "is not a host"),
        ("files: {root: /nowhere/at/all}", "/nowhere/at/all"),
        ("shell: {directory: .}", "nothing may be run"),
        ("sql: {url: mysql://x}", "the database's URL cannot be read"),
        ("mcp: {}", "daybook.yaml:3:10: t: neither command nor url"),
        ("mcp: {command: [/nowhere/server]}", "daybook.yaml:3:10: t: there is no program /nowhere/server"),
        ("mcp: {command: [sh], directory: /nowhere/at/all}", "is not a directory"),
        ("openapi: {document: /nowhere/api.json}", "document: /nowhere/api.json cannot be read"),
        (
            "built_in: [calculator]\n    rules:\n      calculator: {confirmation: true, external: true}",
            "5:19: t: the rule of",
        ),
        ("built_in: [calculator]\n    rules:\n      calculater: {effect: pure}", "daybook.yaml:5:19: t: `rules` names"),
        ("built_in: [calculator]\n    allow: [calculator]\n    deny: [calculator]", "stands in `allow` and in `deny`"),
        ("openapi: {document: x, auth: {token: y}}", "expected one of bearer, header, query, basic"),
        ("built_in: [calculater]", "daybook.yaml:3:16: there is no tool \"calculater\"; there are: calculator"),
        ("files: {root: .}\n    rules: {read: {confirmation: true}}", "`rules` names \"read\", which is not among"),
        ("files: {root: .}\n    allow: [list_files]\n    prefix: a b", "the prefix \"a b\" may have"),
        ("files: {root: .}\n    rules: {read_file: {effect: maybe}}", "expected one of pure, idempotent, unsafe"),
        ("files: {root: .}\n    rules: {read_file: {timeout: 5}}", "unknown field `timeout`"),
    ] {
        let Err(error) = parse(&source(entry)) else { panic!("accepted: {entry}") };
        let told_of = error.to_string();
        assert!(told_of.contains(told), "{entry}: {told_of}");
    }
    let two = "files: {root: .}\n    rules:\n      read_file: {timeout_seconds: 0}\n      list_files: {silent: true}";
    let told: Vec<_> =
        parse(&source(two)).map(|_| ()).unwrap_err().mistakes.iter().map(|mistake| mistake.line).collect();
    assert_eq!(told, [5, 6], "each rule has its place");
    assert!(mistake("tools: {calculator: {files: {root: .}}}").contains("is the name of a tool"));
    assert!(mistake("tools: {a.b: {files: {root: .}}}").contains("the name of a source has no dot"));
    let agent = "tools: {docs: {files: {root: .}}}\nagents:\n  - id: a\n    tools: [dosc]\n";
    assert_eq!(
        mistake(agent),
        "daybook.yaml:4:13: agent \"a\": there is no tool \"dosc\"; there are: calculator, current_time, read_result, docs"
    );
}
