//! References to the environment in a value: `${NAME}`, `${NAME:-default}`, and `$${` for the characters themselves.
//! The form is the shell's and Docker Compose's, without their other operators.

use std::collections::HashMap;

/// How deep defaults may hold references themselves.
const MOST_NESTED: usize = 8;

/// What a text comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub text: String,
    /// The values that came from the environment: they may be secrets.
    pub taken: Vec<String>,
}

/// The text with its references replaced; `None` when it has none.
///
/// # Errors
/// What is wrong with the first wrong reference. The values of variables are never in it.
pub(super) fn expand(text: &str, environment: &HashMap<String, String>) -> Result<Option<Expanded>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = Expanded { text: String::with_capacity(text.len()), taken: Vec::new() };
    into(text, environment, &mut expanded, 0)?;
    Ok(Some(expanded))
}

fn into(mut rest: &str, environment: &HashMap<String, String>, out: &mut Expanded, depth: usize) -> Result<(), String> {
    if depth > MOST_NESTED {
        return Err(format!("references are nested more than {MOST_NESTED} deep"));
    }
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.text.push_str(before);
            out.text.push_str("${");
            rest = &reference[2..];
            continue;
        }
        out.text.push_str(before);
        let inside = &reference[2..];
        let end = closing(inside)
            .ok_or("${ is not closed: expected ${NAME} or ${NAME:-default}; write $${ for the characters themselves")?;
        replace(&inside[..end], environment, out, depth)?;
        rest = &inside[end + 1..];
    }
    out.text.push_str(rest);
    Ok(())
}

/// Where the brace is that closes a reference.
fn closing(inside: &str) -> Option<usize> {
    let mut open = 0;
    let mut last = ' ';
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' if last == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        last = letter;
    }
    None
}

fn replace(
    inside: &str,
    environment: &HashMap<String, String>,
    out: &mut Expanded,
    depth: usize,
) -> Result<(), String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        return Err(format!(
            "{name:?} is not the name of a variable: expected ${{NAME}} or ${{NAME:-default}}; \
             write $${{ for the characters themselves"
        ));
    }
    match (environment.get(name), default) {
        // As in a shell, an empty variable has its default too.
        (Some(value), None) => take(value, out),
        (Some(value), Some(_)) if !value.is_empty() => take(value, out),
        (_, Some(default)) => return into(default, environment, out, depth + 1),
        (None, None) => {
            return Err(format!("the environment has no variable {name}; set it, or write ${{{name}:-default}}"));
        }
    }
    Ok(())
}

fn take(value: &str, out: &mut Expanded) {
    out.text.push_str(value);
    out.taken.push(value.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<String, String> {
        let environment = [("A", "one"), ("B_2", "two"), ("EMPTY", ""), ("ODD", "${A}")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        expand(text, &environment).map(|expanded| expanded.map_or_else(|| text.to_owned(), |expanded| expanded.text))
    }

    #[test]
    fn references_are_replaced_and_everything_else_stays() {
        for (given, expected) in [
            ("${A}", "one"),
            ("x${A}y${B_2}z", "xoneytwoz"),
            ("${NO:-d}", "d"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("${A:-d}", "one"),
            ("${NO:-a${NO:-b${A}}}c", "abonec"),
            ("$${A}", "${A}"),
            ("a$$${A}", "a$${A}"),
            ("$A {} } $ {x}", "$A {} } $ {x}"),
            ("${ODD}", "${A}"),
        ] {
            assert_eq!(text(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn wrong_references_are_told() {
        for (given, word) in [
            ("${NO}", "no variable NO; set it, or write ${NO:-default}"),
            ("${A", "not closed"),
            ("${A:-${A}", "not closed"),
            ("${}", "\"\" is not the name"),
            ("${A-x}", "\"A-x\" is not the name"),
            ("${A:?x}", "is not the name"),
            ("${1}", "is not the name"),
        ] {
            let fault = text(given).unwrap_err();
            assert!(fault.contains(word), "{given}: {fault}");
        }
        let deep = format!("{}x{}", "${NO:-".repeat(100_000), "}".repeat(100_000));
        assert!(text(&deep).unwrap_err().contains("nested"));
    }
}
