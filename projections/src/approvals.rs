//! The view of approvals: the fold of each approval's stream, found by id and in pages, with totals from counters; and
//! the times at which the clock demands something of them.

mod post;
mod query;

use daybook_domain::approval::{ApprovalState, ApprovalStatus};
use daybook_domain::component::ComponentKind;
use daybook_domain::run::RequirementKind;
use daybook_domain::tool::ApprovalKind;
use daybook_domain::{ComponentId, RunId, UserId};

pub(crate) use post::Approvals;
#[cfg(test)]
pub(crate) use query::page_query;
pub(crate) use query::{claim_due, page, pending};

/// An approval as the view has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalRow {
    /// The fold of its stream.
    pub state: ApprovalState,
    /// The order of request: the position of its first event.
    pub seq: i64,
}

/// Which approvals, and which page of them, newest first. Deleted ones are never given.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalFilter {
    /// In this state only.
    pub status: Option<ApprovalStatus>,
    /// Of this kind only.
    pub kind: Option<ApprovalKind>,
    /// About this kind of pause only.
    pub pause: Option<RequirementKind>,
    /// Of components of this kind only.
    pub component_kind: Option<ComponentKind>,
    /// Of components of this id only.
    pub component_id: Option<ComponentId>,
    /// Requested for this user only.
    pub user_id: Option<UserId>,
    /// Of this run only.
    pub run_id: Option<RunId>,
    /// From 1. The caller bounds `page * limit`: skipped rows are walked over.
    pub page: u32,
    /// The most to give.
    pub limit: u32,
}

impl Default for ApprovalFilter {
    fn default() -> Self {
        Self {
            status: None,
            kind: None,
            pause: None,
            component_kind: None,
            component_id: None,
            user_id: None,
            run_id: None,
            page: 1,
            limit: 100,
        }
    }
}

/// A page of approvals.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovalPage {
    /// The page's approvals, newest first.
    pub rows: Vec<ApprovalRow>,
    /// How many the filter lets through on all pages.
    pub total: u64,
}

/// The kind on the wire.
pub(crate) fn kind_name(kind: ApprovalKind) -> &'static str {
    match kind {
        ApprovalKind::Required => "required",
        ApprovalKind::Audit => "audit",
    }
}
