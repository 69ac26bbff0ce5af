//! Nodes and what is around them: a PostgreSQL, a scripted model, and each node's own way to the database.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use daybook_test_support::{Api, Server, eventually};
use nix::sys::signal::Signal;
use tokio::sync::Mutex as AsyncMutex;

use crate::guardian;
use crate::postgres::Postgres;
use crate::proxy::Proxy;

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(server) = self.server.get_mut().take() {
            let pid = server.pid();
            // Killed with that.
            drop(server);
            guardian::ended(pid);
        }
    }
}

/// Everything around the nodes.
pub struct World {
    /// The model, the directory, the tools' files.
    pub base: daybook_test_support::World,
    /// The database server.
    pub postgres: AsyncMutex<Postgres>,
    socket: PathBuf,
}

impl World {
    /// With a PostgreSQL of its own.
    pub async fn new() -> Self {
        Self::on(Postgres::start().await).await
    }

    /// With this PostgreSQL.
    pub async fn on(postgres: Postgres) -> Self {
        let mut base = daybook_test_support::World::with_private_database().await;
        guardian::made(base.dir.path());
        base.database = Some(postgres.create_database().await);
        let socket = postgres.socket();
        Self { base, postgres: AsyncMutex::new(postgres), socket }
    }
}

/// A node that can be killed, stopped and started again.
pub struct Node {
    /// What it is called here.
    pub name: &'static str,
    /// Its way to the database.
    pub proxy: Proxy,
    log: PathBuf,
    server: AsyncMutex<Option<Server>>,
    api: Mutex<Option<Api>>,
}

impl Node {
    /// Starts one.
    pub async fn start(world: &World, name: &'static str) -> Self {
        let proxy = Proxy::start(world.socket.clone()).await;
        let log = world.base.dir.path().join(format!("{name}.log"));
        let node = Self { name, proxy, log, server: AsyncMutex::default(), api: Mutex::default() };
        node.start_again(world).await;
        node
    }

    /// Starts it after [`Node::kill`] or [`Node::terminate`]; tries until it can.
    pub async fn start_again(&self, world: &World) {
        let server = eventually(&format!("{} starts", self.name), async || {
            let mut command = world.base.command();
            let database = world.base.database().url.rsplit('/').next().unwrap().split('?').next().unwrap();
            let url = format!("postgres://daybook@{}/{database}?sslmode=disable", self.proxy.address);
            command.env("DATABASE_URL", url);
            Server::try_start(command, &self.log).await.ok()
        })
        .await;
        guardian::started(server.pid());
        self.set_api(Some(server.api.clone()));
        *self.server.lock().await = Some(server);
    }

    fn set_api(&self, api: Option<Api>) {
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = api;
    }

    /// Its interface; none while it is down.
    pub fn api(&self) -> Option<Api> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its interface, when it must be up.
    pub fn up(&self) -> Api {
        self.api().expect("the node is up")
    }

    /// kill -9.
    pub async fn kill(&self) {
        let Some(server) = self.take().await else { return };
        let pid = server.pid();
        server.kill().await;
        guardian::ended(pid);
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(&self) {
        let Some(server) = self.take().await else { return };
        let pid = server.pid();
        assert!(server.terminate().await.success(), "{} ends in good order", self.name);
        guardian::ended(pid);
    }

    async fn take(&self) -> Option<Server> {
        self.set_api(None);
        self.server.lock().await.take()
    }

    /// Its process.
    pub async fn pid(&self) -> i32 {
        self.server.lock().await.as_ref().expect("the node is up").pid()
    }

    /// Stops it where it stands.
    pub async fn freeze(&self) {
        self.signal(Signal::SIGSTOP).await;
    }

    /// Lets it go on after [`Node::freeze`].
    pub async fn thaw(&self) {
        self.signal(Signal::SIGCONT).await;
    }

    async fn signal(&self, signal: Signal) {
        self.server.lock().await.as_ref().expect("the node is up").signal(signal);
    }
}
