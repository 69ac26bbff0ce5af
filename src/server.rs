//! The wiring: what is opened in which order, what serves, and how all of it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daybook_domain::ids::LogId;
use daybook_engine::{Engine, EngineOptions, Ports, Registry};
use daybook_projections::{Follower, Runner};
use daybook_rest::{AppState, BoxEndpoint, EndpointExt as _, Routes};
use daybook_store::{MasterKey, Store};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::builder::{Around, Builder, Defined, Parts};
use crate::clock::Clock;
use crate::config::Settings;
use crate::database::Database;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::handle::Handle;
use crate::hooks::Hooks;
use crate::host;
use crate::notices;
use crate::run::AgentHandle;
use crate::sources::Assembly;

/// How many connections may wait to be accepted; the system may allow fewer (on Linux `net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// What a stop may take beyond twice `limits.shutdown_seconds`, which hooks and running work may use up.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// A server that is ready to serve. Opened by [`Builder::build`].
pub struct Daybook {
    address: SocketAddr,
    listener: TcpListener,
    app: BoxEndpoint<'static>,
    rooms: Rooms,
}

/// What works while the server is up.
struct Rooms {
    assembly: Arc<Assembly>,
    database: Database,
    runner: Arc<Runner>,
    clock: Clock,
    engine: Engine,
    state: AppState,
    handle: Handle,
    hooks: Hooks,
    /// Tells the program what happens to approvals, if it wants to know.
    follower: Option<Follower>,
    /// How long running work may take to end.
    grace: Duration,
}

/// A server that serves. Dropping it without [`Running::shutdown`] is like a crash: nothing is lost, and what ran goes
/// on at the next start or on another node.
pub struct Running {
    address: SocketAddr,
    rooms: Rooms,
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
        defined: Defined,
        master_key: Option<MasterKey>,
        around: Around,
    ) -> Result<Self, Error> {
        // The port comes first: a second server on it must not claim the first one's work.
        let listener = listen(&settings).await?;
        let address = listener.local_addr().map_err(Error::io("the address cannot be read"))?;
        let (assembly, registry) = Assembly::open(parts, defined).await?;
        let (database, engine) = match Box::pin(connect(&settings, master_key, registry)).await {
            Ok(connected) => connected,
            Err(error) => {
                assembly.close().await;
                return Err(error);
            }
        };
        assembly.watch(&engine).await;
        let runner = Arc::new(Runner::start(database.store.clone(), LogId::DEFAULT));
        let clock = Clock::start(engine.clone(), runner.views());
        let (views, store) = (runner.views(), database.store.clone());
        let (shown, stop) = (presented(&settings), CancellationToken::new());
        let state = AppState::new(engine.clone(), views, store, Some(Arc::clone(&runner)), shown, stop);
        let Around { handle, hooks, routes } = around;
        let grace = settings.limits.grace();
        let mut rooms =
            Rooms { assembly, database, runner, clock, engine, state, handle, hooks, follower: None, grace };
        match rooms.furnish(routes).await {
            Ok(app) => Ok(Self { address, listener, app, rooms }),
            Err(error) => {
                if let Err(second) = rooms.close().await {
                    tracing::warn!(error = %second, after = %error, "what was opened was not closed well");
                }
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

    /// The agent of this id, to be run from the program itself.
    pub fn agent(&self, id: impl Into<String>) -> AgentHandle {
        self.rooms.handle.agent(id)
    }

    /// Serves in the background until told to stop.
    pub fn start(self) -> Running {
        let Self { address, listener, app, rooms } = self;
        let (stop, grace) = (rooms.state.stopping.clone(), rooms.grace);
        let mut serving = JoinSet::new();
        serving.spawn(async move { Box::pin(daybook_rest::serve(app, listener, stop, grace)).await });
        tracing::info!(%address, "Daybook serves");
        Running { address, rooms, serving }
    }

    /// Ends in good order without having served.
    pub(crate) async fn close(self) -> Result<(), Error> {
        self.rooms.close().await
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

    /// The agent of this id, to be run from the program itself.
    pub fn agent(&self, id: impl Into<String>) -> AgentHandle {
        self.rooms.handle.agent(id)
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
        self.rooms.assembly.reload(defined, &self.rooms.engine).await
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

    /// Stops in good order: what [`Builder::on_stop`] says is done, no new requests, running work is handed over,
    /// everything is written, the private PostgreSQL ends.
    ///
    /// # Errors
    /// [`Error::Embedded`] when the private PostgreSQL did not end, [`Error::Slow`] after twice
    /// `limits.shutdown_seconds` and 15 seconds: then what was not done by then is cut off, as by a crash.
    pub async fn shutdown(self) -> Result<(), Error> {
        let limit = self.rooms.grace * 2 + STOP_MARGIN;
        let engine = self.rooms.engine.clone();
        match tokio::time::timeout(limit, Box::pin(self.stop())).await {
            Ok(stopped) => stopped,
            Err(_) => {
                engine.abandon();
                Err(Error::Slow(limit))
            }
        }
    }

    async fn stop(self) -> Result<(), Error> {
        let Self { mut rooms, mut serving, .. } = self;
        let (handle, grace) = (rooms.handle.clone(), rooms.grace);
        tokio::join!(rooms.hooks.stop(&handle, grace), notices::stop(rooms.follower.as_ref(), grace));
        rooms.state.stopping.cancel();
        rooms.state.finish().await;
        // Open streams end when the engine lets their runs go, so it stops while they are still served.
        rooms.engine.shutdown().await;
        while let Some(ended) = serving.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "the HTTP server did not end well");
            }
        }
        rooms.release().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

impl Rooms {
    /// Puts the routes together, connects the handle, and does what is to be done at the start.
    async fn furnish(&mut self, routes: Vec<Routes>) -> Result<BoxEndpoint<'static>, Error> {
        let app = daybook_rest::app(self.state.clone(), routes)?.map_to_response().boxed();
        self.handle.connect(&self.engine);
        let told = self.hooks.approval();
        if !told.is_empty() {
            // What the hooks at the start do belongs to it.
            self.follower = Some(Follower::mark(self.database.store.clone(), LogId::DEFAULT).await?);
        }
        self.hooks.start(&self.handle).await?;
        if let Some(follower) = &self.follower {
            notices::follow(follower, self.handle.clone(), told);
        }
        Ok(app)
    }

    async fn close(self) -> Result<(), Error> {
        self.engine.shutdown().await;
        self.release().await
    }

    /// Closes what the engine worked with, once it has stopped.
    async fn release(self) -> Result<(), Error> {
        let Self { assembly, database, runner, clock, handle, follower, .. } = self;
        notices::stop(follower.as_ref(), Duration::ZERO).await;
        assembly.close().await;
        clock.stop().await;
        handle.disconnect();
        runner.stop().await;
        database.close().await
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

/// Opens the database, and joins its log; when that fails, nothing is left open.
async fn connect(
    settings: &Settings,
    master_key: Option<MasterKey>,
    registry: Registry,
) -> Result<(Database, Engine), Error> {
    let database = Database::open(settings, master_key).await?;
    match join(settings, &database.store, registry).await {
        Ok(engine) => Ok((database, engine)),
        Err(error) => {
            database.close_after(&error).await;
            Err(error)
        }
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

/// Whether others could reach `host`, and nobody would be asked who they are; a name is not looked up.
pub(crate) fn is_open_to_others(settings: &Settings) -> bool {
    let address = settings.host.parse::<std::net::IpAddr>();
    !settings.insecure && address.is_ok_and(|address| !address.is_loopback())
}

/// Takes the port, unless others could reach it and nobody would be asked who they are.
pub(crate) async fn listen(settings: &Settings) -> Result<TcpListener, Error> {
    let host = |source| Error::Host { host: settings.host.clone(), source };
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((settings.host.as_str(), settings.port)).await.map_err(host)?.collect();
    let private = addresses.iter().all(|address| address.ip().is_loopback());
    if !private && !settings.insecure {
        return Err(Error::Public(settings.host.clone()));
    }
    let mut failed = None;
    for address in addresses {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => failed = failed.or(Some(Error::Bind { address, source })),
        }
    }
    Err(failed.unwrap_or_else(|| host(std::io::Error::other("it names no address"))))
}

/// As [`TcpListener::bind`], but with room for a crowd: with its 128 places, clients that come at once are turned away.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
