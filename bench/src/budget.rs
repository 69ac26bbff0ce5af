//! The budgets of the design, and whether a figure meets one.

use std::fmt;

use serde::Serialize;

/// What a figure, or its ratio to its anchor, must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// The figure is at least this.
    AtLeast(f64),
    /// The figure is at most this.
    AtMost(f64),
    /// The figure is at least so many times its anchor.
    TimesAnchor(f64),
}

/// Whether a budget is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// The anchor was not measured.
    Unknown,
}

impl Budget {
    /// Judges a figure and its ratio to its anchor, where there is one.
    pub fn judge(self, figure: f64, ratio: Option<f64>) -> Verdict {
        let met = match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
            Self::TimesAnchor(times) => match ratio {
                Some(ratio) => ratio >= times,
                None => return Verdict::Unknown,
            },
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {}", crate::report::figure(*least)),
            Self::AtMost(most) => write!(f, "<= {}", crate::report::figure(*most)),
            Self::TimesAnchor(times) => write!(f, ">= {times} x"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Unknown => "no anchor",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_met_at_its_limit_and_missed_beyond() {
        assert_eq!(Budget::AtLeast(1000.0).judge(1000.0, None), Verdict::Met);
        assert_eq!(Budget::AtLeast(1000.0).judge(999.9, Some(50.0)), Verdict::Missed);
        assert_eq!(Budget::AtMost(5.0).judge(5.0, None), Verdict::Met);
        assert_eq!(Budget::AtMost(5.0).judge(5.1, None), Verdict::Missed);
    }

    #[test]
    fn a_ratio_needs_an_anchor() {
        assert_eq!(Budget::TimesAnchor(4.5).judge(1.0, Some(4.5)), Verdict::Met);
        assert_eq!(Budget::TimesAnchor(4.5).judge(9999.0, Some(4.4)), Verdict::Missed);
        assert_eq!(Budget::TimesAnchor(4.5).judge(9999.0, None), Verdict::Unknown);
    }

    #[test]
    fn budgets_read_as_in_the_design() {
        let shown = [Budget::AtLeast(1000.0), Budget::AtMost(5.0), Budget::TimesAnchor(4.5)].map(|b| b.to_string());
        assert_eq!(shown, [">= 1,000", "<= 5.00", ">= 4.5 x"]);
    }
}
