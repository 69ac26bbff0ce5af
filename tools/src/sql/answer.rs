//! What a query gave, in JSON, and no more of it than fits.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

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
    #[serde(skip)]
    bytes: usize,
}

/// What stands around the columns and the rows.
const FRAME: usize = r#"{"columns":[],"rows":[]}"#.len();

impl Answer {
    pub(super) fn new(columns: Vec<String>, max_rows: usize, max_bytes: usize) -> Self {
        let bytes = FRAME + columns.iter().map(|name| name.len() + 3).sum::<usize>();
        Self { columns, rows: Vec::new(), note: None, max_rows, max_bytes, bytes }
    }

    /// Adds a row by the names `c1` and so on, or none that was too long; whether more may come.
    pub(super) fn add(&mut self, values: Option<HashMap<String, Box<RawValue>>>) -> bool {
        if self.rows.len() == self.max_rows {
            self.note = Some(format!("there are more rows; these are the first {}", self.max_rows));
            return false;
        }
        let number = self.rows.len() + 1;
        let row: Option<Vec<Box<RawValue>>> = values.and_then(|mut values| {
            (1..=self.columns.len()).map(|number| values.remove(&format!("c{number}"))).collect()
        });
        let size = row.as_ref().map(|row| row.iter().map(|value| value.get().len() + 1).sum::<usize>() + 3);
        match (row, size) {
            (Some(row), Some(size)) if self.bytes + size <= self.max_bytes => {
                self.bytes += size;
                self.rows.push(row);
                true
            }
            _ => {
                self.note = Some(format!(
                    "row {number} and what follows did not fit: an answer has at most {} bytes; select fewer columns or \
                     rows, or parts of long values",
                    self.max_bytes
                ));
                false
            }
        }
    }

    pub(super) fn to_json(&self) -> String {
        // It holds only texts and JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}
