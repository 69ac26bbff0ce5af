//! The wiring: what is opened in which order, what serves, and how all of it ends.

use std::net::SocketAddr;
use std::sync::Arc;

use daybook_domain::ids::LogId;
use daybook_engine::{Engine, EngineOptions, Ports, Registry};
use daybook_projections::Runner;
use daybook_rest::AppState;
use daybook_store::{MasterKey, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::builder::{Builder, Defined, Parts};
use crate::config::Settings;
use crate::database::Database;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::host;

/// A server that is ready to serve. Opened by [`Builder::build`].
pub struct Daybook {
    settings: Settings,
    address: SocketAddr,
    listener: TcpListener,
    rooms: Rooms,
}

/// What works while the server is up.
struct Rooms {
    parts: Parts,
    database: Database,
    runner: Arc<Runner>,
    engine: Engine,
}

/// A server that serves. Dropping it without [`Running::shutdown`] is like a crash: nothing is lost, and what ran goes
/// on at the next start or on another node.
pub struct Running {
    address: SocketAddr,
    rooms: Rooms,
    state: AppState,
    serving: JoinSet<std::io::Result<()>>,
}

impl Daybook {
    /// A server to be put together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn open(
        settings: Settings,
        parts: Parts,
        registry: Registry,
        master_key: Option<MasterKey>,
    ) -> Result<Self, Error> {
        // The port comes first: a second server on it must not claim the first one's work.
        let listener = listen(&settings).await?;
        let address = listener.local_addr().map_err(Error::io("the address cannot be read"))?;
        let database = Database::open(&settings, master_key).await?;
        match join(&settings, &database.store, registry).await {
            Ok(engine) => {
                let runner = Arc::new(Runner::start(database.store.clone(), LogId::DEFAULT));
                Ok(Self { settings, address, listener, rooms: Rooms { parts, database, runner, engine } })
            }
            Err(error) => {
                database.close_after(&error).await;
                Err(error)
            }
        }
    }

    /// Where it will be reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for commands and queries from the program itself.
    pub fn engine(&self) -> &Engine {
        &self.rooms.engine
    }

    /// Serves in the background until told to stop.
    pub fn start(self) -> Running {
        let Self { settings, address, listener, rooms } = self;
        let stop = CancellationToken::new();
        let state = AppState::new(
            rooms.engine.clone(),
            rooms.runner.views(),
            rooms.database.store.clone(),
            Some(Arc::clone(&rooms.runner)),
            presented(&settings),
            stop.clone(),
        );
        let (app, grace) = (daybook_rest::app(state.clone()), settings.limits.grace());
        let mut serving = JoinSet::new();
        serving.spawn(async move { Box::pin(daybook_rest::serve(app, listener, stop, grace)).await });
        tracing::info!(%address, "Daybook serves");
        Running { address, rooms, state, serving }
    }

    /// Ends in good order without having served.
    pub(crate) async fn close(self) -> Result<(), Error> {
        let Rooms { database, runner, engine, .. } = self.rooms;
        engine.shutdown().await;
        runner.stop().await;
        database.close().await
    }

    /// Serves until SIGTERM or SIGINT, then stops in good order. A second signal stops at once.
    ///
    /// # Errors
    /// [`Error`] when it did not serve or did not end well.
    pub async fn serve(self) -> Result<(), Error> {
        self.start().until_signal().await
    }
}

impl Running {
    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine, for commands and queries from the program itself.
    pub fn engine(&self) -> &Engine {
        &self.rooms.engine
    }

    /// Serves until SIGTERM or SIGINT, then stops in good order. A second signal stops at once.
    ///
    /// # Errors
    /// [`Error::Io`] when the network failed, [`Error::Forced`] after a second signal.
    pub async fn until_signal(self) -> Result<(), Error> {
        self.until(Signals::listen()?, async |_| ()).await
    }

    /// Puts other definitions in the place of those it was built with, for the runs that start from now on; what was
    /// given in code stays. Runs that were accepted end with what they were accepted with. The definitions' server
    /// settings change nothing: they need a restart.
    ///
    /// # Errors
    /// [`Error`] when they cannot be used, or the log does not answer; then nothing has changed.
    pub async fn reload(&self, definitions: Definitions) -> Result<(), Error> {
        let mut defined = Defined::default();
        defined.add(definitions)?;
        let registry = self.rooms.parts.registry(defined)?;
        Ok(self.rooms.engine.replace(registry).await?)
    }

    /// As [`Running::until_signal`], with signals that were listened to before. `hung_up` is what SIGHUP means.
    pub(crate) async fn until(mut self, mut signals: Signals, hung_up: impl AsyncFn(&Self)) -> Result<(), Error> {
        let mut hangups = signals.hangups.take();
        let failed = loop {
            tokio::select! {
                name = signals.next() => break stopping(name),
                ended = self.serving.join_next() => break ended,
                () = next_hangup(&mut hangups) => {}
            }
            tokio::select! {
                () = hung_up(&self) => {}
                name = signals.next() => break stopping(name),
            }
        };
        tokio::select! {
            ended = self.shutdown() => ended?,
            _ = signals.next() => return Err(Error::Forced),
        }
        match failed {
            None => Ok(()),
            Some(ended) => Err(Error::Io { doing: "the HTTP server ended by itself", source: why(ended) }),
        }
    }

    /// Stops in good order: no new requests, running work is handed over, everything is written, the private
    /// PostgreSQL ends.
    ///
    /// # Errors
    /// [`Error::Embedded`] when the private PostgreSQL did not end.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.state.stopping.cancel();
        self.state.finish().await;
        // Open streams end when the engine lets their runs go, so it stops while they are still served.
        self.rooms.engine.shutdown().await;
        while let Some(ended) = self.serving.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "the HTTP server did not end well");
            }
        }
        self.rooms.runner.stop().await;
        self.rooms.database.close().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Nothing failed: a signal came.
fn stopping<T>(signal: &str) -> Option<T> {
    tracing::info!(signal, "stopping; a second signal stops at once");
    None
}

/// The next SIGHUP; never, when nobody listens.
async fn next_hangup(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => std::future::pending().await,
    }
}

/// Why a server that never ends has ended.
fn why(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> std::io::Error {
    match ended {
        Ok(Ok(())) => std::io::Error::other("it gave no reason"),
        Ok(Err(error)) => error,
        Err(error) => std::io::Error::other(error),
    }
}

/// Joins the log as a node of this machine.
async fn join(settings: &Settings, store: &Store, registry: Registry) -> Result<Engine, Error> {
    let host = host::name();
    host::bury_dead(store, &host).await?;
    let options = EngineOptions {
        host,
        max_runs: usize::try_from(settings.limits.max_runs.get()).unwrap_or(usize::MAX),
        grace: settings.limits.grace(),
        redact: settings.redact.clone(),
    };
    Ok(Engine::start(store.clone(), registry, options, Ports::default()).await?)
}

/// What the interface tells of the server.
fn presented(settings: &Settings) -> daybook_rest::Settings {
    daybook_rest::Settings {
        os_id: settings.id.clone(),
        name: settings.name.clone(),
        description: settings.description.clone(),
        version: settings.version.clone(),
        db_id: settings.db_id.clone(),
        cors_origins: settings.cors_origins.clone(),
        max_body_bytes: settings.limits.max_body_bytes(),
        ..daybook_rest::Settings::default()
    }
}

/// Takes the port, unless others could reach it and nobody would be asked who they are.
async fn listen(settings: &Settings) -> Result<TcpListener, Error> {
    let host = |source| Error::Host { host: settings.host.clone(), source };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((settings.host.as_str(), settings.port)).await.map_err(host)?.collect();
    let private = addresses.iter().all(|address| address.ip().is_loopback());
    if !private && !settings.insecure {
        return Err(Error::Public(settings.host.clone()));
    }
    let first = addresses.first().copied();
    let address = first.ok_or_else(|| host(std::io::Error::other("it names no address")))?;
    TcpListener::bind(addresses.as_slice()).await.map_err(|source| Error::Bind { address, source })
}

/// The signals that end a server. What arrives before [`Signals::next`] is called is kept.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangups: Option<Signal>,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(Error::io("signals cannot be received"));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())?, hangups: None })
    }

    /// SIGHUP too, from now on; it would end the process otherwise.
    pub(crate) fn and_hangups(self) -> Result<Self, Error> {
        let hangups = signal(SignalKind::hangup()).map_err(Error::io("signals cannot be received"))?;
        Ok(Self { hangups: Some(hangups), ..self })
    }

    /// Does `work` to its end, and tells whether a signal came meanwhile: what is half opened cannot be closed well.
    ///
    /// # Errors
    /// Those of `work`, and [`Error::Forced`] after a second signal, which drops the work where it is.
    pub(crate) async fn finish<T>(&mut self, work: impl Future<Output = Result<T, Error>>) -> Result<(T, bool), Error> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            signal = self.next() => {
                tracing::info!(signal, "stopping as soon as what was begun is done; a second signal stops at once");
            }
            done = &mut work => return Ok((done?, false)),
        }
        tokio::select! {
            done = work => Ok((done?, true)),
            _ = self.next() => Err(Error::Forced),
        }
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(host: &str, insecure: bool) -> Settings {
        Settings { host: host.to_owned(), port: 0, insecure, ..Settings::default() }
    }

    #[tokio::test]
    async fn loopback_is_taken_and_what_others_reach_is_not() {
        for host in ["127.0.0.1", "localhost"] {
            assert!(listen(&settings(host, false)).await.unwrap().local_addr().unwrap().ip().is_loopback());
        }
        let error = listen(&settings("0.0.0.0", false)).await.unwrap_err();
        assert!(matches!(&error, Error::Public(_)) && error.to_string().contains("--insecure"), "{error}");
        assert!(listen(&settings("0.0.0.0", true)).await.is_ok());
    }

    fn raise() {
        nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    #[tokio::test]
    async fn what_was_begun_is_finished_after_one_signal_and_dropped_after_two() {
        let mut signals = Signals::listen().unwrap();
        let (done, stopped) = signals.finish(async { Ok(1) }).await.unwrap();
        assert_eq!((done, stopped), (1, false));

        let mut seen = Signals::listen().unwrap();
        raise();
        let work = async {
            // Both have it by now, and the work goes on.
            seen.next().await;
            tokio::task::yield_now().await;
            Ok(2)
        };
        assert_eq!(signals.finish(work).await.unwrap(), (2, true));

        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        let mut seen = Signals::listen().unwrap();
        let work = async {
            let _guard = guard;
            raise();
            seen.next().await;
            tokio::task::yield_now().await;
            raise();
            std::future::pending::<Result<(), Error>>().await
        };
        assert!(matches!(signals.finish(work).await, Err(Error::Forced)));
        assert!(dropped.is_cancelled());
    }

    #[tokio::test]
    async fn a_taken_port_is_told() {
        let first = listen(&settings("127.0.0.1", false)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen(&Settings { port, ..settings("127.0.0.1", false) }).await.unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
        assert_eq!(Error::Public("x".to_owned()).exit_code(), 2);
    }
}
