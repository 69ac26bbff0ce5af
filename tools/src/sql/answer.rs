//! What a query gave, in JSON, and no more of it than fits.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::ToolError;

/// Rows, and what is to be said of those that are missing.
#[derive(Serialize)]
pub(super) struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(skip)]
    max_rows: usize,
    #[serde(skip)]
    max_bytes: usize,
    /// Without the note.
    #[serde(skip)]
    bytes: usize,
}

/// What stands around the columns and the rows.
const FRAME: usize = r#"{"columns":[],"rows":[]}"#.len();

/// What stands around the note.
const NOTE_FRAME: usize = r#","note":"""#.len();

/// More than a note takes.
const NOTE: usize = 256;

/// The least that can be held to: a note and a few names of columns.
const LEAST: usize = 512;

impl Answer {
    /// # Errors
    /// When the columns' names alone are too long.
    pub(super) fn new(columns: Vec<String>, max_rows: usize, max_bytes: usize) -> Result<Self, ToolError> {
        let written = |name: &String| serde_json::to_string(name).map_or(0, |text| text.len()) + 1;
        let bytes = FRAME + columns.iter().map(written).sum::<usize>();
        if bytes + NOTE > max_bytes.max(LEAST) {
            return Err(ToolError::Arguments(format!(
                "the names of the {} columns alone are too long: an answer has at most {max_bytes} bytes; select fewer",
                columns.len()
            )));
        }
        Ok(Self { columns, rows: Vec::new(), note: None, max_rows, max_bytes, bytes })
    }

    /// Adds a row by the names `c1` and so on, or none that was too long; whether more may come.
    pub(super) fn add(&mut self, values: Option<HashMap<String, Box<RawValue>>>) -> bool {
        if self.rows.len() == self.max_rows {
            self.end(format!("there are more rows; these are the first {}", self.max_rows));
            return false;
        }
        let row: Option<Vec<Box<RawValue>>> = values.and_then(|mut values| {
            (1..=self.columns.len()).map(|number| values.remove(&format!("c{number}"))).collect()
        });
        match row.map(|row| (size(&row), row)) {
            Some((size, row)) if self.bytes + size <= self.max_bytes => {
                self.bytes += size;
                self.rows.push(row);
                true
            }
            _ => {
                self.end(self.unfit());
                false
            }
        }
    }

    /// Says why there is no more. The note counts too: rows make room for it.
    fn end(&mut self, note: String) {
        let mut note = note;
        while self.bytes + NOTE_FRAME + note.len() > self.max_bytes
            && let Some(row) = self.rows.pop()
        {
            self.bytes -= size(&row);
            note = self.unfit();
        }
        self.note = Some(note);
    }

    fn unfit(&self) -> String {
        format!(
            "row {} and what follows did not fit: an answer has at most {} bytes; select fewer columns or rows, or parts of \
             long values",
            self.rows.len() + 1,
            self.max_bytes
        )
    }

    pub(super) fn to_json(&self) -> String {
        // It holds only texts and JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What a row takes, with a comma.
fn size(row: &[Box<RawValue>]) -> usize {
    row.iter().map(|value| value.get().len() + 1).sum::<usize>() + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer to which rows of a letter more each are added until no more fit.
    fn filled(max_rows: usize, max_bytes: usize) -> (String, usize) {
        let mut answer = Answer::new(vec!["a\"b".to_owned()], max_rows, max_bytes).unwrap();
        let value = |length: usize| RawValue::from_string(format!("\"{}\"", "x".repeat(length))).unwrap();
        let mut length = 0;
        while answer.add(Some(HashMap::from([("c1".to_owned(), value(length))]))) {
            length += 1;
        }
        (answer.to_json(), answer.rows.len())
    }

    #[test]
    fn the_whole_is_bounded_with_its_note() {
        for max_bytes in 512..1500 {
            let (text, rows) = filled(1000, max_bytes);
            assert!(text.len() <= max_bytes && text.contains(&format!("row {} and", rows + 1)), "{max_bytes}: {text}");
            // The rows are nearly full: one more would not fit beside the note.
            assert!(text.len() + 2 * rows + 20 > max_bytes, "{max_bytes}: {}", text.len());
            let (text, rows) = filled(15, max_bytes);
            let words = if rows == 15 { "there are more rows" } else { "did not fit" };
            assert!(text.len() <= max_bytes && text.contains(words), "{max_bytes}: {text}");
        }
    }

    #[test]
    fn columns_that_are_too_many_are_told() {
        let columns = |count: usize| (0..count).map(|_| "a_column_of_twenty_b".to_owned()).collect();
        assert!(Answer::new(columns(100), 10, 4096).is_ok());
        let fault = Answer::new(columns(200), 10, 4096).map(|_| ()).unwrap_err().to_string();
        assert!(fault.contains("200 columns") && fault.contains("4096"), "{fault}");
    }
}
