use serde_json::json;

use super::*;

fn variables(state: &serde_json::Map<String, serde_json::Value>) -> Variables<'_> {
    Variables {
        input: json!("an urgent matter"),
        previous: json!({"score": 7, "tags": ["a", "b"]}),
        outputs: [("draft".to_owned(), json!("Hello")), ("par b".to_owned(), json!("Hi"))].into(),
        state: Some(state),
        iteration: 2,
    }
}

fn state() -> serde_json::Map<String, serde_json::Value> {
    let state = json!({"count": 3, "items": [{"ok": true, "n": 1}, {"ok": false, "n": 2.5}], "big": 18_446_744_073_709_551_615_u64});
    state.as_object().cloned().unwrap()
}

fn value(text: &str) -> Result<serde_json::Value, String> {
    let state = state();
    let compiled = Expression::compile(text).map_err(|error| error.to_string())?;
    compiled.value(&variables(&state)).map_err(|error| error.to_string())
}

#[test]
fn expressions_see_what_was_said() {
    for (text, wanted) in [
        ("input.contains('urgent')", json!(true)),
        ("previous.score > 5 && previous.tags.size() == 2", json!(true)),
        ("outputs.draft + '!'", json!("Hello!")),
        ("outputs['par b']", json!("Hi")),
        ("state.count < 3 ? 'few' : 'many'", json!("many")),
        ("state.items.exists(i, i.ok && i.n == 1)", json!(true)),
        ("state.items.filter(i, i.ok).size()", json!(1)),
        ("state.items.map(i, i.n)", json!([1, 2.5])),
        ("has(outputs.nothing) || 'draft' in outputs", json!(true)),
        ("[input, string(iteration)]", json!(["an urgent matter", "2"])),
        ("{'n': iteration * 2}", json!({"n": 4})),
        ("null", json!(null)),
        ("state.big", json!(18_446_744_073_709_551_615_u64)),
        ("'ü' + \"\\n\"", json!("ü\n")),
    ] {
        assert_eq!(value(text), Ok(wanted), "{text}");
    }
}

#[test]
fn what_comes_out_must_be_what_is_wanted() {
    let state = state();
    let compiled = |text| Expression::compile(text).unwrap();
    assert_eq!(compiled("iteration == 2").test(&variables(&state)), Ok(true));
    let error = compiled("iteration").test(&variables(&state)).unwrap_err().to_string();
    assert_eq!(error, "the expression \"iteration\" must say true or false, and says 2");
    assert_eq!(compiled("'a'").names(&variables(&state)).unwrap(), ["a"]);
    assert_eq!(compiled("['a', 'b']").names(&variables(&state)).unwrap(), ["a", "b"]);
    assert!(compiled("[1]").names(&variables(&state)).is_err());
    assert_eq!(compiled("previous.tags").string(&variables(&state)).unwrap(), "[\"a\",\"b\"]");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, reason) in [
        ("", "the expression is empty"),
        ("input ==", "Syntax error"),
        ("input.contains('a'", "Syntax error"),
        ("inptu == 'a'", "there is no variable \"inptu\"; there are: input, previous, outputs, state, iteration"),
        ("input.matches('a')", "there is no function \"matches\""),
        ("Thing{a: 1}", "typed objects cannot be made"),
        ("state.?a", "unsupported"),
    ] {
        let error = Expression::compile(text).unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert_eq!(error.line, 1, "{text}");
    }
    let error = Expression::compile("input == 'a' &&\n  nothing").unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
}

#[test]
fn what_has_no_value_is_told_without_repeating_what_was_said() {
    for (text, reason) in [
        ("outputs.nothing == 'a'", "there is no key \"nothing\""),
        ("previous.tags[7]", "out of bounds"),
        ("1 / (iteration - 2)", "divides by zero"),
        ("9223372036854775807 + 1", "too large"),
        ("input + 1", "does not take values of these kinds"),
        ("int(input)", "int"),
    ] {
        let error = value(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(!error.contains("urgent"), "{error}");
    }
}

#[test]
fn only_what_is_used_is_needed() {
    let uses = |text| {
        let compiled = Expression::compile(text).unwrap();
        (compiled.outputs().clone(), compiled.state().clone())
    };
    let names = |names: &[&str]| Uses::Names(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(uses("outputs.a + outputs['b c'] + input"), (names(&["a", "b c"]), Uses::Nothing));
    assert_eq!(uses("outputs.a.size() > 1 || size(outputs) > 2"), (Uses::All, Uses::Nothing));
    assert_eq!(uses("outputs[input]"), (Uses::All, Uses::Nothing));
    assert_eq!(uses("state.items.exists(state, state.ok)"), (Uses::Nothing, names(&["items"])));
    assert_eq!(uses("has(state.x)"), (Uses::Nothing, names(&["x"])));
}

/// Nothing that can be written takes the process down or keeps it busy; each ends with a value or with a reason.
#[test]
fn hostile_expressions_are_refused_or_come_to_an_end() {
    let deep =
        |open: &str, inner: &str, close: &str, times| format!("{}{inner}{}", open.repeat(times), close.repeat(times));
    for text in [
        deep("(", "1", ")", 600),
        deep("[", "1", "]", 600),
        deep("{1:", "1", "}", 400),
        deep("size(", "input", ")", 300),
        deep("true?", "1", ":1", 300),
        vec!["1"; 900].join("+"),
        vec!["input"; 300].join("+"),
        vec!["true"; 390].join("&&"),
        "a".repeat(5000),
        "\u{0}".to_owned(),
        "'\u{0}".repeat(500),
        deep("state.items.map(i, ", "1", ")", 3),
        "[[1,2,3]].map(a, a + a)".to_owned(),
        "state.items.map(i, i).map(j, j)".to_owned(),
    ] {
        let shown: String = text.chars().take(40).collect();
        assert!(Expression::compile(&text).is_err(), "{shown}");
    }
    for (text, wanted) in [(deep("!", "true", "", 1500), json!(true)), (vec!["true"; 150].join("&&"), json!(true))] {
        assert_eq!(value(&text), Ok(wanted));
    }
}

#[test]
fn the_work_of_an_expression_is_bounded() {
    let large = json!({"items": vec!["a"; 30_000], "text": "b".repeat(100_000)});
    let state = large.as_object().cloned().unwrap();
    let see = |text: &str| {
        Expression::compile(text).unwrap().value(&Variables { state: Some(&state), ..Variables::default() })
    };
    assert_eq!(see("state.items.exists(i, i == 'b')").unwrap(), json!(false));
    let text = "state.items.exists(i, state.text.contains(i + i))";
    assert_eq!(see(text), Err(EvaluateError::TooLong(text.to_owned())));
    let text = "state.items.all(i, !(state.text.contains(i)) || true)";
    assert_eq!(see(text), Err(EvaluateError::TooLong(text.to_owned())));

    let huge = json!({"text": "b".repeat(MAX_SEEN)});
    let huge = huge.as_object().cloned().unwrap();
    let compiled = Expression::compile("state.text").unwrap();
    let seen = compiled.value(&Variables { state: Some(&huge), ..Variables::default() });
    assert_eq!(seen, Err(EvaluateError::TooMuch("state.text".to_owned())));
    // What it does not look at may be as large as it will.
    let compiled = Expression::compile("has(state.other)").unwrap();
    assert_eq!(compiled.value(&Variables { state: Some(&huge), ..Variables::default() }), Ok(json!(false)));
    let sum = vec!["state.text"; 30].join("+");
    assert_eq!(see(&sum), Err(EvaluateError::TooLarge(sum)));
}

proptest::proptest! {
    /// Whatever is written, nothing breaks.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z0-9 ().,+!?:'\"\\[\\]{}&|=<>-]{0,60}|.{0,40}") {
        if let Ok(compiled) = Expression::compile(&text) {
            let state = state();
            let _ = compiled.value(&variables(&state));
        }
    }

    #[test]
    fn values_are_what_they_were(text in ".{0,40}", number: i64, float in proptest::num::f64::NORMAL, is: bool) {
        let given = json!({"text": text, "number": number, "float": float, "is": is, "list": [number, text]});
        let compiled = Expression::compile("input").unwrap();
        let seen = compiled.value(&Variables { input: given.clone(), ..Variables::default() }).unwrap();
        proptest::prop_assert_eq!(seen, given);
    }
}
