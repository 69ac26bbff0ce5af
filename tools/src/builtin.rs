//! The tools that every server has: arithmetic and the time.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use daybook_domain::tool::Effect;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{FunctionTool, ToolContext, ToolError};

/// The longest expression, in bytes: the parser's work and depth grow with it.
const MAX_EXPRESSION: usize = 500;

/// 2^53 - 1: a result up to here was not rounded from another whole number.
const MOST_EXACT: f64 = 9_007_199_254_740_991.0;

#[derive(Deserialize, JsonSchema)]
struct Expression {
    /// Such as `2 + 3 * 4`, `(1 + 0.05)^10` or `sqrt(2) * PI`.
    expression: String,
}

#[derive(Deserialize, JsonSchema)]
struct Place {
    /// IANA name of the time zone, such as `Europe/Oslo`; UTC when left out.
    #[serde(default)]
    timezone: Option<String>,
}

/// `calculator(expression)`: arithmetic on decimal numbers, with the usual functions and constants.
pub fn calculator() -> FunctionTool {
    FunctionTool::new(
        "calculator",
        "Computes an arithmetic expression: + - * / ^, parentheses, sqrt, sin, cos, tan, ln, log10, exp, abs, PI, E. \
         A leading minus binds before ^: write -(2^2). Write 10^3 for 1e3. About 15 digits are exact.",
        Effect::Pure,
        |_context: ToolContext, args: Expression| std::future::ready(compute(&args.expression)),
    )
}

/// `current_time(timezone)`: the date, the time and the weekday.
pub fn current_time() -> FunctionTool {
    // Called again after a crash it gives a later time, which is the better answer: nothing in the world changed.
    FunctionTool::new(
        "current_time",
        "The current date, time and weekday, in a time zone of your choice.",
        Effect::Pure,
        |_context: ToolContext, args: Place| std::future::ready(tell_time(Utc::now(), args.timezone.as_deref())),
    )
}

fn compute(expression: &str) -> Result<String, ToolError> {
    if expression.len() > MAX_EXPRESSION {
        let message = format!("the expression has {} characters; {MAX_EXPRESSION} are the most", expression.len());
        return Err(ToolError::Arguments(message));
    }
    if let Some(number) = whole_numbers(expression).find(|number| !is_exact(number)) {
        let message = format!("{number} has more digits than can be computed with exactly; at most 15 are safe");
        return Err(ToolError::Arguments(message));
    }
    // What the library says of a fault is about its own insides.
    let value = exmex::eval_str::<f64>(expression).map_err(|_| {
        ToolError::Arguments(format!(
            "{expression:?} cannot be computed: write numbers (10^3 for 1e3), + - * / ^, closed parentheses, and the \
             functions and constants that the tool has, and no names of your own"
        ))
    })?;
    if !value.is_finite() {
        return Err(ToolError::failed(format!("{expression:?} has no finite value")));
    }
    if value.abs() > MOST_EXACT {
        return Ok(format!("about {value} (from 2^53 on, results are rounded: not every digit need be right)"));
    }
    Ok(value.to_string())
}

/// The numbers without a decimal point in the expression, by their digits.
fn whole_numbers(expression: &str) -> impl Iterator<Item = &str> {
    let numbers = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.' && letter != '_');
    numbers.filter(|number| !number.is_empty() && number.chars().all(|letter| letter.is_ascii_digit()))
}

/// Whether the number is read as itself, and not as one near to it.
fn is_exact(number: &str) -> bool {
    let digits = number.trim_start_matches('0');
    digits.is_empty() || number.parse::<f64>().is_ok_and(|read| read.to_string() == digits && read <= MOST_EXACT)
}

fn tell_time(now: DateTime<Utc>, zone: Option<&str>) -> Result<String, ToolError> {
    let zone: Tz = match zone.map(str::trim).filter(|name| !name.is_empty()) {
        None => Tz::UTC,
        Some(name) => name.parse().map_err(|_| {
            ToolError::Arguments(format!("{name:?} is not a time zone; give an IANA name such as Europe/Oslo"))
        })?,
    };
    let local = now.with_timezone(&zone);
    Ok(format!("{} ({}, {zone})", local.format("%Y-%m-%dT%H:%M:%S%:z"), local.format("%A")))
}

#[cfg(test)]
mod tests {
    use daybook_domain::tool::Effect;

    use super::*;
    use crate::Tool;

    #[test]
    fn arithmetic_follows_the_usual_order() {
        assert_eq!(compute("2 + 3 * 4").unwrap(), "14");
        assert_eq!(compute("(2+3)*4 / 8").unwrap(), "2.5");
        assert_eq!(compute("-2^2").unwrap(), "4", "the sign binds first here");
        assert_eq!(compute("sqrt(16) + abs(-1)").unwrap(), "5");
    }

    #[test]
    fn what_cannot_be_computed_is_refused_with_a_reason() {
        assert!(matches!(compute("1/0"), Err(ToolError::Failed(_))));
        assert!(matches!(compute("two plus two"), Err(ToolError::Arguments(_))));
        assert!(matches!(compute("x + 1"), Err(ToolError::Arguments(_))));
        assert!(matches!(compute(""), Err(ToolError::Arguments(_))));
        assert!(matches!(compute(&"(".repeat(MAX_EXPRESSION + 1)), Err(ToolError::Arguments(_))));
        assert!(matches!(compute(&"(".repeat(MAX_EXPRESSION)), Err(ToolError::Arguments(_))));
    }

    #[test]
    fn what_is_not_exact_is_said() {
        assert_eq!(compute("9007199254740991").unwrap(), "9007199254740991");
        assert_eq!(compute("007 + 0 + 0.1000000000000000055511151231257827").unwrap(), "7.1");
        for number in ["9007199254740993", "9007199254740993 - 9007199254740990", "123456789012345678901234567890"] {
            let fault = compute(number).unwrap_err().to_string();
            assert!(fault.contains("more digits than can be computed with exactly"), "{fault}");
        }
        for rounded in ["2^53 + 1", "-(2^60)", "3^50"] {
            let value = compute(rounded).unwrap();
            assert!(value.starts_with("about ") && value.contains("rounded"), "{value}");
        }
        for fault in ["1e308*10", "2 *", "(1", "x + 1", "\u{663}+1"] {
            let said = compute(fault).unwrap_err().to_string();
            assert!(said.contains("10^3 for 1e3") && !said.contains("node"), "{said}");
        }
    }

    #[test]
    fn the_time_is_told_where_it_is_asked() {
        let now = DateTime::from_timestamp(1_785_672_000, 0).unwrap();
        assert_eq!(tell_time(now, None).unwrap(), "2026-08-02T12:00:00+00:00 (Sunday, UTC)");
        assert_eq!(tell_time(now, Some("")).unwrap(), "2026-08-02T12:00:00+00:00 (Sunday, UTC)");
        assert_eq!(tell_time(now, Some("Europe/Oslo")).unwrap(), "2026-08-02T14:00:00+02:00 (Sunday, Europe/Oslo)");
        let error = tell_time(now, Some("Mars/Base")).unwrap_err().to_string();
        assert!(error.contains("Mars/Base") && error.contains("Europe/Oslo"), "{error}");
    }

    #[test]
    fn both_are_pure_and_described() {
        for tool in [calculator(), current_time()] {
            assert_eq!(tool.spec().effect, Effect::Pure);
            assert!(!tool.spec().description.is_empty());
        }
        assert_eq!(current_time().spec().parameters["required"], serde_json::json!([]));
    }
}
