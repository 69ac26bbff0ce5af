//! How far calls are, told by the server while they run.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rmcp::model::{ProgressNotificationParam, ProgressToken};

use crate::ToolContext;

/// The calls that are running.
#[derive(Default)]
pub(super) struct Calls(Mutex<HashMap<ProgressToken, (ToolContext, f64)>>);

impl Calls {
    pub(super) fn begin(&self, token: ProgressToken, context: ToolContext) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token, (context, f64::NEG_INFINITY));
    }

    pub(super) fn end(&self, token: &ProgressToken) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// Shows what the server said. Reports are handled each by a task of its own and may overtake one another: an older
    /// one is left out.
    pub(super) fn show(&self, report: &ProgressNotificationParam) {
        let context = {
            let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((context, last)) = calls.get_mut(&report.progress_token) else { return };
            if report.progress < *last {
                return;
            }
            *last = report.progress;
            context.clone()
        };
        context.progress(words(report));
    }
}

fn words(report: &ProgressNotificationParam) -> String {
    let how_far = match report.total {
        Some(total) => format!("{} of {total}", report.progress),
        None => report.progress.to_string(),
    };
    match report.message.as_deref().filter(|message| !message.is_empty()) {
        Some(message) => format!("{message} ({how_far})"),
        None => how_far,
    }
}
