//! `POST /{components}/{id}/runs/{run_id}/resume`.

use daybook_domain::component::ComponentRef;
use daybook_domain::ids::{RunId, SessionId};
use daybook_engine::Watch;
use poem_openapi::param::{Header, Path};
use poem_openapi::{ApiResponse, Object, OpenApi};

use crate::errors::{ApiError, At};
use crate::forms::{Fields, Form};
use crate::guard::Guard;
use crate::kind::{self, Kind, Of};
use crate::params::{self, Raw, text};
use crate::state::LOG;
use crate::wire::stream::{Counts, Events};

pub(super) struct Resume<K>(pub Of<K>);

/// Where to go on.
#[derive(Debug, Object)]
#[oai(default)]
#[derive(Default)]
pub(super) struct ResumeForm {
    /// The last event the client has seen; all events come when absent.
    last_event_index: Option<i64>,
    /// The run's session; a run of another session is unknown.
    session_id: Option<String>,
}

/// The run's events.
#[derive(ApiResponse)]
pub(super) enum Resumed {
    /// A control frame (`catch_up`, `subscribed`, `replay` or `error`) tells what follows. An unknown run is told by
    /// an `error` frame.
    #[oai(status = 200)]
    Events(Events),
}

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Kind> Resume<K> {
    /// Watch a run again
    ///
    /// Sends the events after the last one seen, then those that come.
    #[oai(path = "/:component_id/runs/:run_id/resume", method = "post", operation_id = "resume_run")]
    async fn resume(
        &self,
        _guard: Guard<K::Run>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        /// The last event the client has seen, where the form does not say.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<Option<Raw<String>>>,
        form: Form<ResumeForm>,
    ) -> Result<Resumed, ApiError> {
        let after = after(&form.0, text(&last_event_id))?;
        let session: Option<SessionId> = form.0.id("session_id")?;
        let component = self.0.known(&component_id)?;
        let run = kind::run_id(&run_id)?;
        let Some(watch) = self.watch(&run, after, &component, session.as_ref()).await? else {
            return Ok(Resumed::Events(Events::unknown(&run)));
        };
        let (missed, total) = watch.counts().await?;
        Ok(Resumed::Events(Events::resumed(watch, Counts { missed, total, after })))
    }
}

impl<K: Kind> Resume<K> {
    /// Watches the run, if it is this component's and of this session.
    async fn watch(
        &self,
        run: &RunId,
        after: Option<u64>,
        component: &ComponentRef,
        session: Option<&SessionId>,
    ) -> Result<Option<Watch>, ApiError> {
        let watch = self.0.engine.watch(LOG, run, after).await?;
        Ok(watch.filter(|watch| {
            watch.meta.component == *component && session.is_none_or(|session| watch.meta.session_id == *session)
        }))
    }
}

/// The last event the client has seen; negative for none.
fn after(form: &Fields, header: Option<&str>) -> Result<Option<u64>, ApiError> {
    let index = match (form.int("last_event_index")?, header) {
        (Some(index), _) => Some(index),
        (None, Some(text)) => Some(params::int(At("header", "last-event-id"), text)?),
        (None, None) => None,
    };
    Ok(index.and_then(|index| u64::try_from(index).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::tests::urlencoded;

    #[tokio::test]
    async fn the_form_wins_over_the_header() {
        assert_eq!(after(&urlencoded(&[("last_event_index", "3")]).await, Some("7")).unwrap(), Some(3));
        assert_eq!(after(&urlencoded(&[]).await, Some("7")).unwrap(), Some(7));
        assert_eq!(after(&urlencoded(&[("last_event_index", "-1")]).await, None).unwrap(), None);
        assert_eq!(after(&urlencoded(&[]).await, None).unwrap(), None);
        assert!(after(&urlencoded(&[("last_event_index", "abc")]).await, None).is_err());
        assert!(after(&urlencoded(&[]).await, Some("abc")).is_err());
    }
}
