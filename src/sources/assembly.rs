//! What a server can run, put together anew when its definitions or its sources' tools change.

use std::sync::{Arc, Weak};
use std::time::Duration;

use daybook_engine::{Engine, Registry};
use daybook_tools::ToolSource;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::{OpenSource, SourceKind, SourcesError, Toolbox, close, new_ones, open};
use crate::builder::{Defined, Parts};
use crate::error::Error;

/// The most sources that are kept open for runs that began with them: each may be a program.
const MOST_LEFT: usize = 32;

/// A source that did not answer is asked again after this time.
const ASKS_AGAIN: Duration = Duration::from_secs(15);

/// A source is not asked more often than this, however often it says that its tools changed.
const RESTS: Duration = Duration::from_secs(1);

/// What a server can run by its code, its definitions, and its sources.
pub(crate) struct Assembly {
    parts: Parts,
    current: Mutex<Current>,
}

struct Current {
    defined: Defined,
    sources: Vec<OpenSource>,
    /// Sources that other definitions left out. Runs that began with their tools may go on, so they are closed at the end.
    left: Vec<Arc<dyn ToolSource>>,
    watching: JoinSet<()>,
}

impl Current {
    fn source(&mut self, name: &str) -> Option<&mut OpenSource> {
        self.sources.iter_mut().find(|open| open.definition.name == name)
    }
}

impl Assembly {
    /// Opens the sources, and puts everything together once.
    ///
    /// # Errors
    /// What is wrong with sources, models or agents; then no source is left open.
    pub(crate) async fn open(parts: Parts, defined: Defined) -> Result<(Arc<Self>, Registry), Error> {
        let sources = open(parts.sources(&defined), &parts.tools, &[]).await?;
        match registry(&parts, &defined, &sources) {
            Ok(registry) => {
                let current = Current { defined, sources, left: Vec::new(), watching: JoinSet::new() };
                Ok((Arc::new(Self { parts, current: Mutex::new(current) }), registry))
            }
            Err(error) => {
                close(new_ones(sources, &[])).await;
                Err(error)
            }
        }
    }

    /// Looks after the sources from now on: when the tools of one change, runs that start from then on have the new ones.
    pub(crate) async fn watch(self: &Arc<Self>, engine: &Engine) {
        self.watch_all(&mut *self.current.lock().await, engine);
    }

    fn watch_all(self: &Arc<Self>, current: &mut Current, engine: &Engine) {
        current.watching.abort_all();
        for open in &current.sources {
            let name = open.definition.name.clone();
            let watcher = Watcher { assembly: Arc::downgrade(self), engine: engine.clone(), name };
            current.watching.spawn(watcher.watch(Arc::clone(&open.source), open.tools.is_some()));
        }
    }

    /// Puts other definitions in the place of those there are.
    ///
    /// # Errors
    /// What is wrong with them, or with their sources; then everything stays as it is.
    pub(crate) async fn reload(self: &Arc<Self>, defined: Defined, engine: &Engine) -> Result<(), Error> {
        let current = &mut *self.current.lock().await;
        let sources = open(self.parts.sources(&defined), &self.parts.tools, &current.sources).await?;
        if let Err(error) = self.replace(&defined, &sources, engine).await {
            close(new_ones(sources, &current.sources)).await;
            return Err(error);
        }
        let mut earlier = std::mem::replace(&mut current.sources, sources);
        // The others hold nothing that would have to be closed.
        earlier.retain(|open| matches!(open.definition.kind, SourceKind::Mcp(_)));
        current.left.extend(new_ones(earlier, &current.sources));
        let too_many = current.left.len().saturating_sub(MOST_LEFT);
        let oldest: Vec<_> = current.left.drain(..too_many).collect();
        for source in &oldest {
            tracing::warn!(
                source = source.name(),
                "a source that was left out long ago is closed; calls of its tools fail"
            );
        }
        close(oldest).await;
        current.defined = defined;
        self.watch_all(current, engine);
        Ok(())
    }

    /// Asks one source for its tools again, and puts everything together anew when they are others.
    async fn refresh(&self, name: &str, engine: &Engine) -> Result<(), Error> {
        // A source may take long to answer, and nobody is kept waiting for it.
        let Some(asked) = self.current.lock().await.source(name).map(|open| open.asked_again()) else { return Ok(()) };
        let tools = asked.list().await.map_err(|fault| SourcesError(vec![fault]))?;
        let current = &mut *self.current.lock().await;
        let known = current.source(name).filter(|open| Arc::ptr_eq(&open.source, &asked.source));
        let Some(open) = known.filter(|open| !open.has(&tools)) else { return Ok(()) };
        let count = tools.len();
        let before = open.tools.replace(tools);
        let replaced = self.replace(&current.defined, &current.sources, engine).await;
        match (replaced, current.source(name)) {
            (Err(error), Some(open)) => {
                open.tools = before;
                return Err(error);
            }
            (replaced, _) => replaced?,
        }
        tracing::info!(source = name, tools = count, "the tools of a source are others now; new runs use them");
        Ok(())
    }

    async fn replace(&self, defined: &Defined, sources: &[OpenSource], engine: &Engine) -> Result<(), Error> {
        Ok(engine.replace(registry(&self.parts, defined, sources)?).await?)
    }

    /// Ends the watching, and closes all sources.
    pub(crate) async fn close(&self) {
        let current = &mut *self.current.lock().await;
        current.watching.shutdown().await;
        let sources = std::mem::take(&mut current.sources);
        let mut all = std::mem::take(&mut current.left);
        all.extend(new_ones(sources, &[]));
        close(all).await;
    }
}

fn registry(parts: &Parts, defined: &Defined, sources: &[OpenSource]) -> Result<Registry, Error> {
    let toolbox = Toolbox::new(parts.tools.clone(), sources).map_err(Error::Tools)?;
    parts.registry(defined, &toolbox)
}

/// Looks after one source.
struct Watcher {
    // A server that was dropped is not looked after any more.
    assembly: Weak<Assembly>,
    engine: Engine,
    name: String,
}

impl Watcher {
    async fn watch(self, source: Arc<dyn ToolSource>, mut answers: bool) {
        loop {
            tokio::select! {
                () = source.changed() => {}
                () = tokio::time::sleep(ASKS_AGAIN), if !answers => {}
            }
            let Some(assembly) = self.assembly.upgrade() else { return };
            let refreshed = assembly.refresh(&self.name, &self.engine).await;
            drop(assembly);
            if let Err(error) = &refreshed {
                tracing::warn!(source = self.name, %error, "the tools of a source stay as they were");
            }
            // What does not fit together is not mended by asking again, until the source changes once more.
            answers = match &refreshed {
                Err(Error::Sources(error)) => error.is_of_definitions(),
                Err(Error::Engine(_)) => false,
                _ => true,
            };
            tokio::time::sleep(RESTS).await;
        }
    }
}
