//! Where tools come from while the server is up: sources are opened, listed, watched, and closed at the end.

mod assembly;
mod kind;
#[cfg(test)]
mod tests;
mod toolbox;

use std::fmt;
use std::sync::Arc;

use daybook_tools::{SourceError, Tool, ToolSet, ToolSource, choose};
use futures::future::join_all;

use crate::error::Error;
pub(crate) use assembly::Assembly;
pub(crate) use kind::{SourceDefinition, SourceKind};
pub(crate) use toolbox::Toolbox;

/// A source and the tools it had when it was last asked.
pub(crate) struct OpenSource {
    pub(crate) definition: SourceDefinition,
    source: Arc<dyn ToolSource>,
    /// None while it does not answer and need not.
    pub(crate) tools: Option<Vec<Arc<dyn Tool>>>,
}

/// Why the tools of sources are not there.
#[derive(Debug)]
pub struct SourcesError(Vec<SourceFault>);

/// What is wrong with one source.
#[derive(Debug)]
struct SourceFault {
    place: Option<String>,
    error: SourceError,
    /// Whether the source answers, and what is said of it is wrong.
    chosen_wrong: bool,
}

impl SourcesError {
    /// Whether another description would do, and the world need not change.
    pub(crate) fn is_of_definitions(&self) -> bool {
        self.0.iter().all(|fault| fault.chosen_wrong)
    }
}

impl fmt::Display for SourcesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, SourceFault { place, error, .. }) in self.0.iter().enumerate() {
            let place = place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default();
            let end = if at + 1 == self.0.len() { "" } else { "\n" };
            write!(f, "{place}the tools of {error}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SourcesError {}

impl OpenSource {
    /// Asks the source for its tools, and takes those that are chosen.
    async fn list(&self) -> Result<Vec<Arc<dyn Tool>>, SourceFault> {
        let fault = |error, chosen_wrong| SourceFault { place: self.definition.place.clone(), error, chosen_wrong };
        let tools = self.source.tools().await.map_err(|error| fault(error, false))?;
        choose(&self.definition.name, tools, &self.definition.choice).map_err(|error| fault(error, true))
    }

    /// The same source, before it is asked once more.
    fn asked_again(&self) -> Self {
        Self { definition: self.definition.clone(), source: Arc::clone(&self.source), tools: None }
    }

    /// Whether these are the tools it had, as models and the log know them.
    fn has(&self, tools: &[Arc<dyn Tool>]) -> bool {
        self.tools
            .as_ref()
            .is_some_and(|known| known.iter().map(|tool| tool.spec()).eq(tools.iter().map(|tool| tool.spec())))
    }
}

/// Opens all sources at once. One of `earlier` that is the same goes on.
///
/// # Errors
/// All that is wrong; then what was opened is closed again, and what is of `earlier` goes on.
pub(crate) async fn open(
    definitions: Vec<SourceDefinition>,
    own: &ToolSet,
    earlier: &[OpenSource],
) -> Result<Vec<OpenSource>, SourcesError> {
    let before = |name: &str| earlier.iter().find(|source| source.definition.name == name);
    let (mut opened, mut faults) = (Vec::new(), Vec::new());
    for definition in definitions {
        match definition.source(before(&definition.name), own) {
            Ok(source) => opened.push(OpenSource { definition, source, tools: None }),
            Err(error) => faults.push(SourceFault { place: definition.place.clone(), error, chosen_wrong: true }),
        }
    }
    let listed = join_all(opened.iter().map(OpenSource::list)).await;
    for (source, listed) in opened.iter_mut().zip(listed) {
        match listed {
            Ok(tools) => source.tools = Some(tools),
            Err(fault) if source.definition.optional && !fault.chosen_wrong => {
                tracing::warn!(error = %fault.error, "the server starts without the tools of an optional source, and asks it again");
            }
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        return Ok(opened);
    }
    close(new_ones(opened, earlier)).await;
    Err(SourcesError(faults))
}

/// What can be found wrong with the sources whose tools can be had on this machine alone, also between them.
///
/// # Errors
/// All that is wrong.
pub(crate) async fn check_local(definitions: &[SourceDefinition], own: &ToolSet) -> Result<(), Error> {
    let local = definitions.iter().filter(|definition| definition.is_local()).cloned().collect();
    let sources = open(local, own, &[]).await?;
    Toolbox::new(own.clone(), &sources).map(drop).map_err(Error::Tools)
}

/// The names of the tools that are taken of a source, which is opened for it and closed again.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn names_of(definition: &SourceDefinition, own: &ToolSet) -> Result<Vec<String>, SourcesError> {
    let wrong = |error| SourceFault { place: definition.place.clone(), error, chosen_wrong: true };
    let source = definition.source(None, own).map_err(|error| SourcesError(vec![wrong(error)]))?;
    let open = OpenSource { definition: definition.clone(), source, tools: None };
    let listed = open.list().await;
    open.source.close().await;
    Ok(listed.map_err(|fault| SourcesError(vec![fault]))?.iter().map(|tool| tool.spec().name.clone()).collect())
}

/// Those of `opened` that do not go on from `earlier`.
fn new_ones(opened: Vec<OpenSource>, earlier: &[OpenSource]) -> Vec<Arc<dyn ToolSource>> {
    let goes_on = |source: &Arc<dyn ToolSource>| earlier.iter().any(|other| Arc::ptr_eq(&other.source, source));
    opened.into_iter().map(|open| open.source).filter(|source| !goes_on(source)).collect()
}

/// Closes sources, all at once.
async fn close(sources: Vec<Arc<dyn ToolSource>>) {
    join_all(sources.iter().map(|source| source.close())).await;
}
