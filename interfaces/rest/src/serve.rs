//! Serves an app on a socket until told to stop.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use poem::http::uri::Scheme;
use poem::listener::Acceptor;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{EndpointExt, IntoEndpoint, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::activity::Connections;
use crate::connection::Connection;

/// How long to wait after the system had no connection to give, such as when files run out.
const PAUSE: Duration = Duration::from_millis(50);

/// The most open connections, where the system allows so many files.
const MOST: usize = 20_000;

/// The fewest files left to everything else, such as the database and calls of models.
const RESERVE: usize = 64;

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// How long one may be without a request.
    idle: Duration,
    /// How long one is kept for a client that is still sending what is not read.
    linger: Duration,
    /// How many may be open.
    most: usize,
}

impl Rules {
    /// A minute, a moment, and as many as there are files for.
    fn of_system() -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(files, _)| usize::try_from(files).ok());
        let most = files.map_or(MOST, most_of);
        Self { idle: Duration::from_secs(60), linger: Duration::from_secs(5), most }
    }
}

/// How many connections may be open where `files` may: a quarter is for everything else, and at least [`RESERVE`].
fn most_of(files: usize) -> usize {
    files.saturating_sub(RESERVE.max(files / 4)).clamp(1, MOST)
}

/// Serves `app` until `shutdown` fires; open requests and streams then have `grace` to end. A connection without a
/// request for a minute is closed, and one too many is closed at once.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve<E>(app: E, listener: TcpListener, shutdown: CancellationToken, grace: Duration) -> io::Result<()>
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    serve_by(Rules::of_system(), app, listener, shutdown, grace).await
}

async fn serve_by<E>(
    rules: Rules,
    app: E,
    listener: TcpListener,
    shutdown: CancellationToken,
    grace: Duration,
) -> io::Result<()>
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    let connections = Connections::new(rules.most);
    let app = app.into_endpoint().with(connections.clone());
    let local = listener.local_addr()?;
    let doors = Doors { listener, local: LocalAddr(local.into()), connections, rules, full: false };
    let server = Server::new_with_acceptor(doors).name("rest");
    server.run_with_graceful_shutdown(app, shutdown.cancelled_owned(), Some(grace)).await
}

/// Where connections come in.
struct Doors {
    listener: TcpListener,
    local: LocalAddr,
    connections: Connections,
    rules: Rules,
    /// Whether the last one was turned away, so that the log tells it once.
    full: bool,
}

impl Doors {
    /// The connection of a socket, unless there are too many.
    fn admit(&mut self, socket: TcpStream) -> io::Result<Option<(Connection, LocalAddr, RemoteAddr, Scheme)>> {
        let (ours, theirs) = (socket.local_addr()?, socket.peer_addr()?);
        let entered = self.connections.enter((ours, theirs));
        if entered.is_none() && !self.full {
            tracing::warn!("too many open connections: further ones are closed at once");
        }
        self.full = entered.is_none();
        let connection = entered.map(|entered| Connection::new(socket, entered, self.rules.idle, self.rules.linger));
        Ok(connection.map(|open| (open, LocalAddr(ours.into()), RemoteAddr(theirs.into()), Scheme::HTTP)))
    }
}

impl Acceptor for Doors {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        vec![self.local.clone()]
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        loop {
            match self.listener.accept().await {
                // A client that has gone again is no failure.
                Ok((socket, _)) => {
                    if let Ok(Some(admitted)) = self.admit(socket) {
                        return Ok(admitted);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use poem::{EndpointExt, Route, get, handler, web::Data};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
    use tokio::task::JoinSet;

    use super::*;
    use crate::limits::Limits;

    /// Longer than anything here takes, so that a failure ends.
    const LONG: Duration = Duration::from_secs(120);

    /// Tells when a request began and when it was dropped.
    #[derive(Clone, Default)]
    struct Signs {
        begun: Arc<Notify>,
        dropped: Arc<Notify>,
    }

    struct OnDrop(Arc<Notify>);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    #[handler]
    async fn endless(signs: Data<&Signs>) -> &'static str {
        let _dropped = OnDrop(signs.dropped.clone());
        signs.begun.notify_one();
        std::future::pending().await
    }

    #[handler]
    fn quick() -> &'static str {
        "quick"
    }

    struct Served {
        address: SocketAddr,
        signs: Signs,
        stop: CancellationToken,
        serving: JoinSet<io::Result<()>>,
    }

    #[handler]
    async fn read(body: poem::Body) -> poem::Result<String> {
        Ok(body.into_bytes().await?.len().to_string())
    }

    /// Ends when told to.
    #[handler]
    async fn slow(signs: Data<&Signs>) -> &'static str {
        signs.begun.notify_one();
        signs.dropped.notified().await;
        "slow"
    }

    async fn served(grace: Duration) -> Served {
        served_by(Rules { idle: LONG, linger: LONG, most: 100 }, grace).await
    }

    async fn served_by(rules: Rules, grace: Duration) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, signs, stop) = (listener.local_addr().unwrap(), Signs::default(), CancellationToken::new());
        let routes = Route::new().at("/endless", get(endless)).at("/quick", get(quick)).at("/slow", get(slow));
        let app = routes.at("/read", poem::post(read)).with(Limits::new(1000)).data(signs.clone());
        let mut serving = JoinSet::new();
        serving.spawn(serve_by(rules, app, listener, stop.clone(), grace));
        Served { address, signs, stop, serving }
    }

    async fn ask(served: &Served, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        socket
    }

    #[tokio::test]
    async fn a_request_ends_when_its_client_goes() {
        let served = served(LONG).await;
        let socket = ask(&served, "/endless").await;
        served.signs.begun.notified().await;
        drop(socket);
        tokio::time::timeout(LONG, served.signs.dropped.notified()).await.unwrap();
    }

    #[tokio::test]
    async fn one_connection_serves_many_requests() {
        let served = served(LONG).await;
        let mut socket = ask(&served, "/quick").await;
        for round in 0..3 {
            let mut answer = Vec::new();
            while !answer.ends_with(b"quick") {
                assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "closed in round {round}");
            }
            socket.write_all(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_endless_requests() {
        let mut served = served(Duration::from_millis(10)).await;
        let _socket = ask(&served, "/endless").await;
        served.signs.begun.notified().await;
        served.stop.cancel();
        tokio::time::timeout(LONG, served.serving.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }

    /// Short enough to wait for.
    const SHORT: Rules = Rules { idle: Duration::from_millis(300), linger: LONG, most: 2 };

    /// All the server sends until it closes the connection.
    async fn all(mut socket: TcpStream) -> String {
        let mut told = Vec::new();
        // A reset closes it too.
        let _ = tokio::time::timeout(LONG, socket.read_to_end(&mut told)).await.expect("the connection stays open");
        String::from_utf8(told).unwrap()
    }

    async fn sent(served: &Served, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        socket
    }

    #[tokio::test]
    async fn connections_without_a_request_are_closed() {
        let served = served_by(SHORT, LONG).await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        for bytes in [&b""[..], b"GET /quick HT", b"GET /quick HTTP/1.1\r\nHost: x\r\n", preface] {
            assert!(!all(sent(&served, bytes).await).await.contains("quick"));
        }
        assert!(all(ask(&served, "/quick").await).await.ends_with("quick"));
    }

    #[tokio::test]
    async fn headers_that_trickle_keep_no_connection() {
        let served = served_by(SHORT, LONG).await;
        let mut socket = sent(&served, b"GET /quick HTTP/1.1\r\nHost: x\r\nA: ").await;
        let trickle = async {
            while socket.write_all(b"a").await.is_ok() {
                tokio::time::sleep(SHORT.idle / 10).await
            }
        };
        tokio::time::timeout(LONG, trickle).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_may_take_longer_than_a_connection_may_idle() {
        let served = served_by(SHORT, LONG).await;
        let socket = ask(&served, "/slow").await;
        served.signs.begun.notified().await;
        tokio::time::sleep(SHORT.idle * 3).await;
        served.signs.dropped.notify_one();
        let told = all(socket).await;
        assert!(told.ends_with("slow") && told.contains("content-length: 4"), "{told}");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_until_another_goes() {
        let served = served_by(Rules { idle: LONG, linger: LONG, most: 2 }, LONG).await;
        let first = ask(&served, "/endless").await;
        served.signs.begun.notified().await;
        let _second = ask(&served, "/endless").await;
        served.signs.begun.notified().await;
        assert_eq!(all(TcpStream::connect(served.address).await.unwrap()).await, "");
        drop(first);
        served.signs.dropped.notified().await;
        let request = "GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let again = async { while !all(sent(&served, request.as_bytes()).await).await.ends_with("quick") {} };
        tokio::time::timeout(LONG, again).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_sends_too_much_is_told_at_once() {
        let served = served(LONG).await;
        let size = 8 << 20;
        let head = format!("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
        let mut socket = sent(&served, head.as_bytes()).await;
        let mut told = [0; 12];
        tokio::time::timeout(LONG, socket.read_exact(&mut told)).await.unwrap().unwrap();
        assert_eq!(&told, b"HTTP/1.1 413");
        // One that does not look before all is sent hears it as well.
        let mut socket = sent(&served, head.as_bytes()).await;
        socket.write_all(&vec![b'x'; size]).await.unwrap();
        assert!(all(socket).await.starts_with("HTTP/1.1 413"));
    }

    #[tokio::test]
    async fn a_client_that_ends_its_body_early_is_told() {
        let served = served(LONG).await;
        let mut socket = sent(&served, b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n123456789").await;
        socket.shutdown().await.unwrap();
        assert!(all(socket).await.starts_with("HTTP/1.1 400"));
    }

    #[test]
    fn connections_leave_files_to_others() {
        assert_eq!([most_of(10), most_of(160), most_of(1024), most_of(1 << 20)], [1, 96, 768, MOST]);
    }
}
