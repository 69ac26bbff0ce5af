//! The view of sessions: the fold of each session's stream, found by id and in pages, with totals from counters.

mod post;
mod query;

use daybook_domain::component::ComponentKind;
use daybook_domain::session::SessionState;
use daybook_domain::{ComponentId, UserId};

pub(crate) use post::Sessions;
#[cfg(test)]
pub(crate) use query::{ONE, page_query};
pub(crate) use query::{one, page};

/// A session as the view has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The fold of its stream.
    pub state: SessionState,
    /// What its first run was told, cut to 1,000 characters; its name when it has none.
    pub first_message: Option<String>,
    /// The order of creation: the position of its first event.
    pub seq: i64,
}

impl SessionRow {
    /// Its name for people: its own, else the first message, else nothing.
    pub fn name(&self) -> &str {
        let own = self.state.name.as_deref().filter(|name| !name.is_empty());
        own.or(self.first_message.as_deref()).unwrap_or_default()
    }
}

/// What sessions are sorted by. Sessions that are equal in it stand in the order of creation, or its reverse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionSort {
    /// The time of creation.
    #[default]
    CreatedAt,
    /// The time of the last change.
    UpdatedAt,
    /// The given name, its first 200 characters; sessions without one have an empty one.
    SessionName,
    /// Nothing: the order of creation, oldest first, whatever the direction.
    Unsorted,
}

impl SessionSort {
    /// The sorting a caller names: `created_at`, `updated_at`, `session_name`; anything else sorts by nothing.
    pub fn from_name(name: &str) -> Self {
        match name {
            "created_at" => Self::CreatedAt,
            "updated_at" => Self::UpdatedAt,
            "session_name" => Self::SessionName,
            _ => Self::Unsorted,
        }
    }
}

/// Which sessions, in which order, and which page of them.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFilter {
    /// With components of this kind only.
    pub kind: Option<ComponentKind>,
    /// With components of this id only.
    pub component_id: Option<ComponentId>,
    /// Of this user only.
    pub user_id: Option<UserId>,
    /// Whose given name contains this, in any case of letters. What is shown instead of a missing name does not count.
    pub name_contains: Option<String>,
    /// The order.
    pub sort_by: SessionSort,
    /// Greatest first.
    pub descending: bool,
    /// From 1. The caller bounds `page * limit`: skipped rows are walked over.
    pub page: u32,
    /// The most to give.
    pub limit: u32,
}

impl Default for SessionFilter {
    fn default() -> Self {
        Self {
            kind: None,
            component_id: None,
            user_id: None,
            name_contains: None,
            sort_by: SessionSort::CreatedAt,
            descending: true,
            page: 1,
            limit: 20,
        }
    }
}

/// A page of sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPage {
    /// The page's sessions, in the order asked for.
    pub rows: Vec<SessionRow>,
    /// How many sessions the filter lets through on all pages; with `name_contains` counted up to 10,000.
    pub total: u64,
}
