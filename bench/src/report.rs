//! The table: each figure beside its anchor of the same run, its budget, and where the time went.

use serde::Serialize;

use crate::budget::{Budget, Verdict};
use crate::stats::Spread;

/// What a figure is held against.
#[derive(Debug, Clone, Serialize)]
pub struct Anchor {
    /// What was measured.
    pub what: String,
    /// Its figure, in the row's unit.
    pub figure: Spread,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Of the figure and the anchor.
    pub unit: &'static str,
    /// The figure.
    pub figure: Spread,
    /// What it is held against, where there is something.
    pub anchor: Option<Anchor>,
    /// The figure's median by the anchor's.
    pub ratio: Option<f64>,
    /// The budget, where there is one.
    pub budget: Option<Budget>,
    /// Whether it is met.
    pub verdict: Option<Verdict>,
    /// What else a reader should know: latencies, CPU, errors.
    pub notes: Vec<String>,
}

impl Row {
    /// A row without anchor and budget; `None` when nothing was measured.
    pub fn of(what: impl Into<String>, unit: &'static str, figures: &[f64]) -> Option<Self> {
        let figure = Spread::of(figures)?;
        let (what, notes) = (what.into(), Vec::new());
        Some(Self { what, unit, figure, anchor: None, ratio: None, budget: None, verdict: None, notes })
    }

    /// With an anchor, where it was measured.
    pub fn beside(mut self, what: impl Into<String>, figures: &[f64]) -> Self {
        self.anchor = Spread::of(figures).map(|figure| Anchor { what: what.into(), figure });
        let anchor = self.anchor.as_ref().map(|anchor| anchor.figure.median).filter(|median| *median > 0.0);
        self.ratio = anchor.map(|anchor| self.figure.median / anchor);
        self
    }

    /// With a budget; after [`Row::beside`] where it is about the ratio.
    pub fn within(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self.verdict = Some(budget.judge(self.figure.median, self.ratio));
        self
    }

    /// With a note.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn cells(&self) -> [String; 6] {
        let spread = |spread: &Spread| {
            let median = figure(spread.median);
            if spread.min == spread.max {
                return format!("{median} {}", self.unit);
            }
            format!("{median} {} ({}..{})", self.unit, figure(spread.min), figure(spread.max))
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.what.clone(),
            spread(&self.figure),
            or_dash(self.anchor.as_ref().map(|anchor| format!("{}: {}", anchor.what, spread(&anchor.figure)))),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.2} x"))),
            or_dash(self.budget.map(|budget| budget.to_string())),
            or_dash(self.verdict.map(|verdict| verdict.to_string())),
        ]
    }
}

/// Everything one run of the table found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The machine, versions and settings, a line each.
    pub setting: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub gaps: Vec<String>,
}

const HEADINGS: [&str; 6] = ["what", "measured", "anchor", "ratio", "budget", "verdict"];

impl Report {
    /// As Markdown that also reads well as text.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        self.setting.iter().for_each(|setting| line(&format!("- {setting}")));
        line("");
        let cells: Vec<[String; 6]> = self.rows.iter().map(Row::cells).collect();
        table(&cells).iter().for_each(|row| line(row));
        let noted: Vec<&Row> = self.rows.iter().filter(|row| !row.notes.is_empty()).collect();
        if !noted.is_empty() {
            line("\nWhere the time went:");
            noted.iter().for_each(|row| line(&format!("- {}: {}", row.what, row.notes.join("; "))));
        }
        if !self.gaps.is_empty() {
            line("\nNot measured:");
            self.gaps.iter().for_each(|gap| line(&format!("- {gap}")));
        }
        text
    }
}

fn table(rows: &[[String; 6]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADINGS[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let row = |cells: [&str; 6]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}", padded.collect::<String>())
    };
    let rule = widths.map(|width| "-".repeat(width));
    let mut lines = vec![row(HEADINGS), row(rule.each_ref().map(String::as_str))];
    lines.extend(rows.iter().map(|cells| row(cells.each_ref().map(String::as_str))));
    lines
}

/// Three digits or so, with commas in the thousands.
pub fn figure(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.2}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_they_mean() {
        let shown = [0.123, 9.994, 12.34, 123.4, 1234.5, 1_234_567.0, -1234.0].map(figure);
        assert_eq!(shown, ["0.12", "9.99", "12.3", "123", "1,234", "1,234,567", "-1,234"]);
    }

    #[test]
    fn a_row_is_held_against_its_anchor() {
        let row = Row::of("append", "/s", &[3000.0, 4000.0, 5000.0]).unwrap();
        let row = row.beside("pgbench -N", &[1000.0]).within(Budget::TimesAnchor(4.5));
        assert_eq!((row.ratio, row.verdict), (Some(4.0), Some(Verdict::Missed)));
        let alone = Row::of("append", "/s", &[1.0]).unwrap().beside("pgbench -N", &[]).within(Budget::TimesAnchor(3.0));
        assert_eq!((alone.ratio, alone.verdict), (None, Some(Verdict::Unknown)));
        assert!(Row::of("nothing", "/s", &[]).is_none());
    }

    #[test]
    fn the_table_lines_up_and_tells_what_is_missing() {
        let row = Row::of("append", "/s", &[3000.0, 5000.0]).unwrap();
        let row = row.beside("pgbench", &[1000.0]).within(Budget::TimesAnchor(3.0)).note("0 errors");
        let lone = Row::of("a longer name", "ms", &[2.5]).unwrap();
        let report = Report {
            setting: vec!["2 cores".to_owned()],
            rows: vec![row, lone],
            gaps: vec!["agno: no pip".to_owned()],
        };
        let expected = "\
- 2 cores

| what          | measured               | anchor            | ratio  | budget | verdict |
| ------------- | ---------------------- | ----------------- | ------ | ------ | ------- |
| append        | 4,000 /s (3,000..5,000) | pgbench: 1,000 /s | 4.00 x | >= 3 x | met     |
| a longer name | 2.50 ms                | -                 | -      | -      | -       |

Where the time went:
- append: 0 errors

Not measured:
- agno: no pip
";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace("- -", "--");
        let rules = |text: &str| text.lines().filter(|line| !line.starts_with("| --")).collect::<Vec<_>>().join("\n");
        assert_eq!(squeeze(&rules(&report.markdown())), squeeze(&rules(expected)));
        let markdown = report.markdown();
        let widths: Vec<usize> =
            markdown.lines().filter(|line| line.starts_with('|')).map(|line| line.chars().count()).collect();
        assert!(widths.len() == 4 && widths.iter().all(|width| *width == widths[0]), "{markdown}");
    }
}
