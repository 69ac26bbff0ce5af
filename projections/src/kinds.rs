//! The event types this program knows, so that those a projection does not want need not be decrypted.

use daybook_domain::DomainEvent;
use daybook_domain::approval::ApprovalEvent;
use daybook_domain::component::ComponentEvent;
use daybook_domain::run::RunEvent;
use daybook_domain::session::SessionEvent;

/// The event's type.
pub(crate) fn of(event: &DomainEvent) -> &'static str {
    match event {
        DomainEvent::Run(event) => event.kind(),
        DomainEvent::Session(event) => event.kind(),
        DomainEvent::Component(event) => event.kind(),
        DomainEvent::Approval(event) => event.kind(),
    }
}

/// Every type of this program's aggregates.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    [RunEvent::KINDS, SessionEvent::KINDS, ComponentEvent::KINDS, ApprovalEvent::KINDS]
        .into_iter()
        .flatten()
        .map(|(kind, _)| *kind)
}

/// Whether some aggregate of this program has the type.
pub(crate) fn is_known(kind: &str) -> bool {
    known().any(|known| known == kind)
}

/// Whether it is a run's.
pub(crate) fn is_run(kind: &str) -> bool {
    has(RunEvent::KINDS, kind)
}

/// Whether it is a session's.
pub(crate) fn is_session(kind: &str) -> bool {
    has(SessionEvent::KINDS, kind)
}

/// Whether it is an approval's.
pub(crate) fn is_approval(kind: &str) -> bool {
    has(ApprovalEvent::KINDS, kind)
}

fn has(kinds: &[(&str, u16)], kind: &str) -> bool {
    kinds.iter().any(|(known, _)| *known == kind)
}
