//! What every event has: a type name, a schema version, and a stored form with personal values kept apart.

use crate::personal;
use crate::{approval::ApprovalEvent, component::ComponentEvent, run::RunEvent, session::SessionEvent};

/// An event as the log keeps it, before encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredForm {
    /// The event's type, such as `RunAccepted`.
    pub kind: &'static str,
    /// The version of the payload's shape; readers of later versions bring older ones up (see [`DomainEvent::decode`]).
    pub schema_version: u16,
    /// JSON without personal values.
    pub payload: String,
    /// The personal values as a JSON list, to be encrypted.
    pub personal: Option<String>,
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No aggregate knows this type: a newer program wrote it. Projections stop at it.
    #[error("event type {0:?} is unknown to this program: was the log written by a newer one?")]
    UnknownType(String),
    /// The schema version is newer than this program's.
    #[error("event type {kind:?} has schema version {found}, this program knows up to {known}")]
    NewerVersion {
        /// The event's type.
        kind: String,
        /// The stored version.
        found: u16,
        /// The newest version this program reads.
        known: u16,
    },
    /// The payload does not have its type's shape.
    #[error("event {kind:?} cannot be read: {source}")]
    Malformed {
        /// The event's type.
        kind: String,
        /// What serde found.
        source: serde_json::Error,
    },
}

/// Any event of any aggregate.
#[derive(Debug, Clone, PartialEq)]
pub enum DomainEvent {
    /// Of a run.
    Run(RunEvent),
    /// Of a session.
    Session(SessionEvent),
    /// Of a component's configuration.
    Component(ComponentEvent),
    /// Of an approval.
    Approval(ApprovalEvent),
}

impl DomainEvent {
    /// The event's stored form.
    ///
    /// # Errors
    /// When serde_json cannot write it, which no event of ours causes.
    pub fn store(&self) -> serde_json::Result<StoredForm> {
        match self {
            Self::Run(event) => event.store(),
            Self::Session(event) => event.store(),
            Self::Component(event) => event.store(),
            Self::Approval(event) => event.store(),
        }
    }

    /// Reads a stored event; `personal` is `None` when there was nothing personal or its key is gone.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown type, a newer schema version or a malformed payload.
    pub fn decode(kind: &str, version: u16, payload: &str, personal: Option<&str>) -> Result<Self, DecodeError> {
        if let Some(event) = RunEvent::decode(kind, version, payload, personal)? {
            return Ok(Self::Run(event));
        }
        if let Some(event) = SessionEvent::decode(kind, version, payload, personal)? {
            return Ok(Self::Session(event));
        }
        if let Some(event) = ComponentEvent::decode(kind, version, payload, personal)? {
            return Ok(Self::Component(event));
        }
        if let Some(event) = ApprovalEvent::decode(kind, version, payload, personal)? {
            return Ok(Self::Approval(event));
        }
        Err(DecodeError::UnknownType(kind.to_owned()))
    }
}

/// Reads one payload of a known type after its version was checked.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    kind: &str,
    known: u16,
    found: u16,
    payload: &str,
    personal: Option<&str>,
) -> Result<T, DecodeError> {
    if found > known {
        return Err(DecodeError::NewerVersion { kind: kind.to_owned(), found, known });
    }
    personal::join(payload, personal).map_err(|source| DecodeError::Malformed { kind: kind.to_owned(), source })
}

/// Declares an aggregate's event enum: `Variant(Payload) = version`, stored under the aggregate's prefix and variant name.
macro_rules! events {
    ($(#[$doc:meta])* $name:ident, $prefix:literal { $($(#[$vdoc:meta])* $variant:ident($payload:ty) = $version:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* $variant($payload),)+
        }

        impl $name {
            /// The type's name in the log.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => concat!($prefix, stringify!($variant)),)+ }
            }

            /// Every (type, newest schema version) of this aggregate; golden files cover each.
            pub const KINDS: &[(&str, u16)] = &[$((concat!($prefix, stringify!($variant)), $version),)+];

            /// The stored form, personal values apart.
            ///
            /// # Errors
            /// When serde_json cannot write the payload.
            pub fn store(&self) -> serde_json::Result<$crate::event::StoredForm> {
                let ((payload, personal), schema_version) = match self {
                    $(Self::$variant(payload) => ($crate::personal::split(payload)?, $version),)+
                };
                Ok($crate::event::StoredForm { kind: self.kind(), schema_version, payload, personal })
            }

            /// Reads a stored event of this aggregate; `Ok(None)` when `kind` is not one of its types.
            ///
            /// # Errors
            /// [`DecodeError`](crate::event::DecodeError) for a newer version or a malformed payload.
            pub fn decode(
                kind: &str, version: u16, payload: &str, personal: Option<&str>,
            ) -> Result<Option<Self>, $crate::event::DecodeError> {
                Ok(Some(match kind {
                    $(concat!($prefix, stringify!($variant)) => {
                        Self::$variant($crate::event::read(kind, $version, version, payload, personal)?)
                    })+
                    _ => return Ok(None),
                }))
            }
        }

        impl cqrs_es::DomainEvent for $name {
            fn event_type(&self) -> String { self.kind().to_owned() }
            fn event_version(&self) -> String { "1".to_owned() }
        }

        impl From<$name> for $crate::event::DomainEvent {
            fn from(event: $name) -> Self { event.wrap() }
        }
    };
}
pub(crate) use events;
