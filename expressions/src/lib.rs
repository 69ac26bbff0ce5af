//! Expressions in CEL (<https://cel.dev>), as workflows use them: tests, choices and values made of what was said so far.
//!
//! Whoever writes one cannot make the server work long for it or fill its memory: its text, its depth and what it sees are
//! limited, a macro (`all`, `exists`, `exists_one`, `filter`, `map`) goes over what it is given and not over what another
//! expression made, and never within another, and what it looks up is counted.

mod compile;
mod evaluate;
#[cfg(test)]
mod tests;

pub use compile::{CompileError, Expression, Uses};
pub use evaluate::{EvaluateError, MAX_SEEN, Variables};

/// The variables an expression may use.
pub const VARIABLES: [&str; 5] = ["input", "previous", "outputs", "state", "iteration"];
