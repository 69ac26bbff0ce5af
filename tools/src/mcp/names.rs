//! Names that model providers take, for tools that servers name as they like.

use std::collections::HashSet;

use uuid::Uuid;

/// The longest name that every provider takes, in characters.
const LONGEST: usize = 64;

/// A name of `[A-Za-z0-9_-]{1,64}` for each of these, in the same order; different names for different originals.
///
/// A name that is fine stays. Another gets underscores, and where that is taken already, an ending made of the original:
/// so what a tool is called does not depend on which tools come before it.
pub(super) fn for_models(originals: &[String]) -> Vec<String> {
    let mut taken: HashSet<String> = originals.iter().filter(|name| is_fine(name)).cloned().collect();
    let mut names = Vec::with_capacity(originals.len());
    for original in originals {
        if is_fine(original) {
            names.push(original.clone());
            continue;
        }
        let plain: String = original.chars().take(LONGEST).map(|c| if fits(c) { c } else { '_' }).collect();
        let free = !plain.is_empty() && original.chars().count() <= LONGEST && !taken.contains(&plain);
        let name = if free { plain } else { with_ending(&plain, original) };
        taken.insert(name.clone());
        names.push(name);
    }
    names
}

fn is_fine(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.chars().all(fits)
}

fn fits(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

fn with_ending(plain: &str, original: &str) -> String {
    let ending = Uuid::new_v5(&Uuid::NAMESPACE_OID, original.as_bytes()).simple().to_string();
    let start: String = plain.chars().take(LONGEST - 17).collect();
    format!("{start}_{}", ending.get(..16).unwrap_or(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        for_models(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn fine_names_stay_and_others_are_made_fine() {
        assert_eq!(of(&["add", "get-it_2", "files.read", "größe"]), ["add", "get-it_2", "files_read", "gr__e"]);
    }

    #[test]
    fn names_differ_and_do_not_depend_on_the_others() {
        let long = "x".repeat(100);
        let longer = format!("{long}y");
        let names = of(&["a.b", "a_b", "a b", &long, &longer, "", "🦀"]);
        assert_eq!(names[1], "a_b");
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| is_fine(name)), "{names:?}");
        assert_eq!(of(&[&longer])[0], names[4]);
    }

    #[test]
    fn many_names_are_no_trouble() {
        let many: Vec<String> = (0..10_000).map(|number| format!("tool.{number}")).collect();
        assert_eq!(for_models(&many).iter().collect::<HashSet<_>>().len(), 10_000);
    }
}
