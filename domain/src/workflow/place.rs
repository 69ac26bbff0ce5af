//! Where a step stands in a workflow, and in which iterations.

use std::fmt;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::ids::RunId;
use crate::run::child_run_id;

/// A step's place: the indexes of the steps around it and its own, from outside in, with the iterations of loops between
/// them. `3.i2.0` is the first step in the second iteration of the fourth step, a loop; `1.e0` is the first of the steps
/// that the second step, a condition, runs when its test does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(String);

impl Place {
    /// The place of the workflow's step at `index`.
    pub fn top(index: usize) -> Self {
        Self(index.to_string())
    }

    /// A place as it was recorded.
    pub fn recorded(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The place of this block's step at `index`.
    #[must_use]
    pub fn step(&self, index: usize) -> Self {
        Self(format!("{self}.{index}"))
    }

    /// The place of the step at `index` among those that this condition runs when its test does not hold.
    #[must_use]
    pub fn else_step(&self, index: usize) -> Self {
        Self(format!("{self}.e{index}"))
    }

    /// An iteration of this loop, which counts from 1; its steps are steps of it.
    #[must_use]
    pub fn iteration(&self, number: u32) -> Self {
        Self(format!("{self}.i{number}"))
    }

    /// The place without iterations: the same whenever the step runs.
    pub fn static_path(&self) -> String {
        let parts: Vec<&str> = self.parts().filter(|part| !part.starts_with('i')).collect();
        parts.join(".")
    }

    /// The block around it.
    pub fn parent(&self) -> Option<Self> {
        let (mut rest, _) = self.0.rsplit_once('.')?;
        while let Some((outer, part)) = rest.rsplit_once('.')
            && part.starts_with('i')
        {
            rest = outer;
        }
        Some(Self(rest.to_owned()))
    }

    /// The iteration of the innermost loop around it.
    pub fn iteration_number(&self) -> Option<u32> {
        self.parts().rev().find_map(|part| part.strip_prefix('i')?.parse().ok())
    }

    /// The indexes of the steps around it and its own, iterations left out.
    pub fn indexes(&self) -> Vec<u32> {
        let parts = self.parts().filter(|part| !part.starts_with('i'));
        parts.filter_map(|part| part.trim_start_matches('e').parse().ok()).collect()
    }

    /// Whether it is a step of the workflow itself, within no block.
    pub fn is_top(&self) -> bool {
        !self.0.contains('.')
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The step's id: the same in every iteration, and different in every run.
    pub fn step_id(&self, run: &RunId) -> String {
        derived(run, "step", &self.static_path())
    }

    /// The id of the child run that carries the step out, `round` outcomes after it was first reached.
    pub fn child_run(&self, run: &RunId, round: u32) -> RunId {
        child_run_id(run, &self.0, usize::try_from(round).unwrap_or(usize::MAX))
    }

    /// What every attempt of the step carries that is to have the same outcome.
    pub fn idempotency_key(&self, run: &RunId, round: u32) -> String {
        derived(run, "idempotency key", &format!("{self} {round}"))
    }

    /// The bounds of all places within it.
    pub(super) fn within(&self) -> (Bound<Self>, Bound<Self>) {
        // '/' follows '.'.
        (Bound::Excluded(Self(format!("{self}."))), Bound::Excluded(Self(format!("{self}/"))))
    }

    /// Its last part: an index, of the steps or of the other steps of its block.
    pub(super) fn own_index(&self) -> usize {
        self.indexes().last().map_or(0, |index| usize::try_from(*index).unwrap_or(usize::MAX))
    }

    /// Whether it is directly in `block`, or in an iteration of it.
    pub(super) fn is_directly_in(&self, block: &Self) -> bool {
        let rest = self.0.strip_prefix(&block.0).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| !rest.contains('.'))
    }

    /// Where the step stands on the wire: a number for a step of the workflow itself, a list of numbers for one in a block.
    /// A router's steps stand where the router does.
    pub fn step_index(&self, in_router: bool) -> Value {
        let mut indexes = self.indexes();
        if in_router {
            indexes.pop();
        }
        if let [one] = indexes.as_slice() { Value::from(*one) } else { Value::from(indexes) }
    }

    fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn derived_id(run: &RunId, what: &str, of: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("daybook {run} {what} {of}").as_bytes())
}

fn derived(run: &RunId, what: &str, of: &str) -> String {
    derived_id(run, what, of).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_where_a_step_is_and_in_which_iteration() {
        let inner = Place::top(3).iteration(2).step(0).else_step(1).iteration(7).step(10);
        assert_eq!(inner.as_str(), "3.i2.0.e1.i7.10");
        assert_eq!(inner.static_path(), "3.0.e1.10");
        assert_eq!(inner.iteration_number(), Some(7));
        assert_eq!(inner.indexes(), [3, 0, 1, 10]);
        assert_eq!(inner.parent().unwrap().as_str(), "3.i2.0.e1");
        assert_eq!(inner.parent().unwrap().parent().unwrap().as_str(), "3.i2.0");
        assert_eq!(Place::top(3).iteration(2).step(0).parent(), Some(Place::top(3)));
        assert_eq!((Place::top(3).parent(), Place::top(3).iteration_number()), (None, None));
        assert!(Place::top(3).is_top() && !inner.is_top());
    }

    #[test]
    fn ids_are_of_the_run_and_of_the_step() {
        let (run, other) = (RunId::parse("r").unwrap(), RunId::parse("s").unwrap());
        let (first, second) = (Place::top(1).iteration(1).step(0), Place::top(1).iteration(2).step(0));
        assert_eq!(first.step_id(&run), second.step_id(&run));
        assert_ne!(first.step_id(&run), first.step_id(&other));
        assert_ne!(first.child_run(&run, 0), second.child_run(&run, 0));
        assert_ne!(first.child_run(&run, 0), first.child_run(&run, 1));
        assert_ne!(first.idempotency_key(&run, 0), first.idempotency_key(&run, 1));
    }

    #[test]
    fn what_is_within_a_place() {
        let within = |outer: &Place, inner: &Place| std::ops::RangeBounds::contains(&outer.within(), inner);
        let block = Place::top(1);
        assert!(within(&block, &block.step(0)) && within(&block, &block.iteration(3).step(2)));
        assert!(
            !within(&block, &block) && !within(&block, &Place::top(10)) && !within(&block, &Place::top(10).step(0))
        );
        assert!(block.step(2).is_directly_in(&block) && block.else_step(2).is_directly_in(&block));
        assert!(!block.step(2).step(0).is_directly_in(&block));
        assert!(!block.iteration(1).step(2).is_directly_in(&block));
        assert!(block.iteration(1).step(2).is_directly_in(&block.iteration(1)));
    }
}
