//! `POST /{components}/{id}/runs/{run_id}/continue`.

use daybook_domain::command::{ContinueFrom, ContinueRun};
use daybook_domain::component::{ComponentKind, ComponentRef};
use daybook_domain::ids::{RunId, SessionId, UserId};
use daybook_domain::run::{RunMode, RunState};
use daybook_engine::ExecuteError;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;

use super::answer::{Answered, Going, Started};
use super::continue_form::Continues;
use super::step_answers::Answers;
use crate::errors::ApiError;
use crate::forms::{Fields, Form};
use crate::guard::Guard;
use crate::kind::{self, Agents, Of, Teams, Workflows, run_not_found};
use crate::state::LOG;
use crate::wire::stream::Events;

pub(super) struct Continue<K>(pub Of<K>);

/// The fields that are read, besides the answers.
const FIELDS: [&str; 10] = [
    "input",
    "continue_from",
    "fork",
    "regenerate",
    "replace_original",
    "additional_instructions",
    "session_id",
    "user_id",
    "stream",
    "background",
];

#[OpenApi(prefix_path = K::PATH, tag = "K::TAG")]
impl<K: Continues> Continue<K> {
    /// Continue a run
    ///
    /// Answers what a paused run asks; once everything is answered, it goes on. An ended run is gone on from in a new
    /// one. Answers that match nothing, are incomplete or of the wrong type are refused and change nothing.
    #[oai(
        path = "/:component_id/runs/:run_id/continue",
        method = "post",
        operation_id = "continue_run",
        request_header(
            name = "Idempotency-Key",
            ty = "String",
            description = "The same key with the same fields is executed once; with others it is a 409."
        )
    )]
    async fn go_on(
        &self,
        guard: Guard<K::Run>,
        /// The component.
        component_id: Path<String>,
        /// The run.
        run_id: Path<String>,
        form: Form<K::Form>,
    ) -> Result<Started<K::Output>, ApiError> {
        let fields = form.0;
        fields.once(&FIELDS)?;
        fields.once(&[K::ANSWERS])?;
        let answers = K::answers(&fields)?;
        let component = self.0.known(&component_id)?;
        let (stream, background) = (fields.boolean("stream", true)?, fields.boolean("background", false)?);
        let command = read(&fields, component, kind::run_id(&run_id)?, answers, stream, background)?;
        if K::leaves_paused(&fields)
            && let Some(going) = self.paused(&command).await?
        {
            return going.answer(&self.0, stream, background, false).await;
        }
        match self.0.engine.execute(guard.envelope(command)).await {
            Ok(outcome) => {
                let going = Going::of(outcome).ok_or_else(run_not_found)?;
                going.answer(&self.0, stream, background, false).await
            }
            Err(ExecuteError::UnknownRun(_)) if K::KIND == ComponentKind::Workflow => Err(run_not_found()),
            Err(ExecuteError::CannotContinue(why)) if K::KIND == ComponentKind::Workflow => {
                Err(ApiError::conflict(why))
            }
            // Who asks for a stream is told in the stream.
            Err(error @ ExecuteError::UnknownRun(_)) if stream => {
                Ok(Started::Answered(Answered::Pieces(Events::failed(K::KIND, &error.to_string()))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl<K: Continues> Continue<K> {
    /// The run as it stands, when it is the one that is meant and waits for answers.
    async fn paused(&self, command: &ContinueRun) -> Result<Option<Going>, ApiError> {
        let run = self.0.engine.run(LOG, &command.run_id).await?;
        let meant = |run: &RunState| {
            run.component() == Some(&command.component) && run.session_id() == Some(&command.session_id)
        };
        Ok(run.filter(meant).as_ref().and_then(Going::paused))
    }
}

/// The command that these fields stand for, of a caller that watches what it continues and may leave.
///
/// # Errors
/// 400 or 422 for the first field that is wrong.
pub(crate) fn command(fields: &Fields, component: ComponentRef, run_id: RunId) -> Result<ContinueRun, ApiError> {
    let answers = match component.kind {
        ComponentKind::Agent => Agents::answers(fields)?,
        ComponentKind::Team => Teams::answers(fields)?,
        ComponentKind::Workflow => Workflows::answers(fields)?,
    };
    read(fields, component, run_id, answers, true, true)
}

fn read(
    fields: &Fields,
    component: ComponentRef,
    run_id: RunId,
    answers: Answers,
    stream: bool,
    background: bool,
) -> Result<ContinueRun, ApiError> {
    let session_id: Option<SessionId> = fields.id("session_id")?;
    let session_id = session_id.ok_or_else(|| no_session(fields))?;
    // Whom a run is for was said when it was started.
    let _: Option<UserId> = fields.id("user_id")?;
    let regenerate = fields.boolean("regenerate", false)?;
    let text = |name| fields.text(name).map(str::to_owned);
    let additional = text("additional_instructions");
    if !regenerate && (additional.is_some() || fields.text("replace_original").is_some()) {
        return Err(ApiError::bad("replace_original and additional_instructions are only valid with regenerate=true"));
    }
    Ok(ContinueRun {
        component,
        run_id,
        session_id,
        answers: answers.calls,
        step_answers: answers.steps,
        input: additional.or(text("input")),
        from: continue_from(fields)?,
        fork: fields.boolean("fork", false)?,
        regenerate,
        replace_original: fields.boolean("replace_original", true)?,
        mode: match (background, stream) {
            (false, false) => RunMode::Plain,
            (false, true) => RunMode::Streaming,
            (true, false) => RunMode::Background,
            (true, true) => RunMode::BackgroundStreaming,
        },
    })
}

fn no_session(fields: &Fields) -> ApiError {
    let why = "session_id is required for this action";
    let Some(kind) = fields.no_form() else { return ApiError::bad(why) };
    let kind: String = kind.chars().take(100).collect();
    ApiError::bad(format!(
        "{why}: send the fields as a form (multipart/form-data or application/x-www-form-urlencoded), not as {kind}"
    ))
}

fn continue_from(fields: &Fields) -> Result<ContinueFrom, ApiError> {
    match fields.text("continue_from").map(str::trim) {
        None | Some("" | "end") => Ok(ContinueFrom::End),
        Some("last_user") => Ok(ContinueFrom::LastUser),
        Some(number) => number
            .parse()
            .map(ContinueFrom::Message)
            .map_err(|_| ApiError::bad("Invalid continue_from. Use 'end', 'last_user', or a numeric message index.")),
    }
}
