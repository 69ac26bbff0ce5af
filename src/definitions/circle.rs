//! Components that would run themselves, by way of others.

use super::Mistake;
use super::place::{Location, Spanned};

/// That one component runs another of its kind, and where that is said.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// The other.
    pub to: String,
    /// Where.
    pub place: Location,
}

/// Adds a mistake for each circle, at its first component in the file.
pub(super) fn check(kind: &str, all: &[(Spanned<String>, Vec<Link>)], out: &mut Vec<Mistake>) {
    let place_of = |id: &str| all.iter().position(|(known, _)| known.value == id);
    for (at, (id, links)) in all.iter().enumerate() {
        for link in links {
            let Some(way) = back(all, &link.to, &id.value) else { continue };
            let is_first = way.iter().filter_map(|id| place_of(id)).all(|other| other >= at);
            if is_first {
                let fault = format!("{kind} {:?}: it would run itself, by way of {}", id.value, way.join(", "));
                out.push(Mistake::at(link.place, fault));
            }
        }
    }
}

/// The way from `from` to `to`, both included.
fn back(all: &[(Spanned<String>, Vec<Link>)], from: &str, to: &str) -> Option<Vec<String>> {
    let mut open = vec![vec![from.to_owned()]];
    let mut seen = vec![from.to_owned()];
    while let Some(way) = open.pop() {
        let last = way.last().map(String::as_str).unwrap_or_default();
        if last == to {
            return Some(way);
        }
        let links = all.iter().filter(|(id, _)| id.value == last).flat_map(|(_, links)| links);
        for link in links {
            if !seen.contains(&link.to) {
                seen.push(link.to.clone());
                open.push([way.as_slice(), std::slice::from_ref(&link.to)].concat());
            }
        }
    }
    None
}
