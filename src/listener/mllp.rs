//! The MLLP listener: accepts connections, each served by one task, until it is told to close.

use crate::exchange::{Phi, Row, Timestamp};
use crate::hl7v2::{AckCode, Charset};
use crate::listener::folder;
use crate::listener::greet::greet;
use crate::listener::guard::Guard;
use crate::listener::http::{self, Conversation};
use crate::listener::tls::HeldTls;
use crate::listener::{AllowList, Folder, HttpAuth, Network, ServerTls, WayBack, connection};
use crate::metrics::{FrameFault, Metrics};
use crate::wire::{FRAME_BYTES_MAX, Tolerance};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What is spoken on a listener's port.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// MLLP: frames on a connection that stays.
    Mllp,
    /// HTTP: a request for each message.
    Http(Http),
    /// No port: files in a folder.
    Folder(Folder),
}

/// Where messages come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a port.
    Socket(SocketAddr),
    /// In a folder.
    Folder(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Socket(address) => address.fmt(f),
            Place::Folder(path) => path.display().fmt(f),
        }
    }
}

/// HL7 v2 over HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http {
    /// The path at which messages are taken; `None`: at every path.
    pub path: Option<String>,
    /// What a request must show; `None`: nothing.
    pub auth: Option<HttpAuth>,
    /// What decides the status of an answer.
    pub status: HttpStatus,
}

/// The status of an answer with an acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpStatus {
    /// By the acknowledgement's code: 200 for AA and CA, 400 for AR and CR, 500 for AE and CE.
    #[default]
    Acknowledgement,
    /// Always 200: the transport has done its work.
    Ok,
}

/// How a listener treats its peers. The defaults are the limits of docs/limits.md.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Its name in the site file.
    pub name: Arc<str>,
    /// What is spoken on its port.
    pub kind: Kind,
    /// Where it listens; port 0 takes a free one. Means nothing for a folder.
    pub address: SocketAddr,
    /// The longest payload of a frame, in bytes.
    pub frame_bytes_max: usize,
    /// How many connections may be open at once. At the limit nothing is accepted: further peers wait in the system's queue.
    pub connections_max: usize,
    /// How many messages of one connection may wait for their acknowledgement. At the limit the socket is not read.
    pub in_flight_max: usize,
    /// A connection on which nothing came for so long is closed; `None` keeps it for ever.
    pub idle_timeout: Option<Duration>,
    /// A frame that has begun must end within this time, and a peer must take its acknowledgements within it.
    pub frame_timeout: Duration,
    /// How often the system asks a silent peer whether it is still there (TCP keep-alive).
    pub keep_alive: Duration,
    /// Which peers may connect.
    pub allow: AllowList,
    /// Load balancers that say in a header of the PROXY protocol for whom they connect; then `allow` is about those.
    pub proxies: Vec<Network>,
    /// TLS; `None` for plain connections.
    pub tls: Option<ServerTls>,
    /// A connection must have come in within this time: header of the PROXY protocol, and handshake of TLS.
    pub handshake_timeout: Duration,
    /// What is taken besides MLLP's frames.
    pub tolerance: Tolerance,
    /// Whether bytes between frames are skipped; else they end the connection.
    pub noise: bool,
    /// After so long without a byte a message is whole, where messages are taken that nothing else ends.
    pub quiet: Duration,
}

impl ListenerConfig {
    /// The defaults, for a name and an address.
    pub fn new(name: impl Into<Arc<str>>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Mllp,
            address,
            frame_bytes_max: FRAME_BYTES_MAX,
            connections_max: 1_000,
            in_flight_max: 16,
            idle_timeout: Some(Duration::from_secs(3_600)),
            frame_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            allow: AllowList::default(),
            proxies: Vec::new(),
            tls: None,
            handshake_timeout: Duration::from_secs(10),
            tolerance: Tolerance::default(),
            noise: true,
            quiet: Duration::from_millis(500),
        }
    }
}

impl ListenerConfig {
    /// Where messages come in.
    pub fn place(&self) -> Place {
        match &self.kind {
            Kind::Mllp | Kind::Http(_) => Place::Socket(self.address),
            Kind::Folder(folder) => Place::Folder(folder.path.clone()),
        }
    }
}

/// Settings, and what they name opened: a listener runs with these.
pub struct Opened {
    config: ListenerConfig,
    pub(super) tls_held: Option<HeldTls>,
    pub(super) guard: Option<Guard>,
}

impl Opened {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where.
    pub fn read(config: ListenerConfig) -> Result<Self, String> {
        let tls_held = config.tls.clone().map(HeldTls::open).transpose()?;
        let guard = match &config.kind {
            Kind::Http(http) => http.auth.clone().map(Guard::open).transpose()?,
            Kind::Folder(folder) => {
                folder.prepare()?;
                None
            }
            Kind::Mllp => None,
        };
        Ok(Self { config, tls_held, guard })
    }

    /// True for a load balancer that speaks the PROXY protocol.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(peer))
    }
}

impl std::ops::Deref for Opened {
    type Target = ListenerConfig;

    fn deref(&self) -> &ListenerConfig {
        &self.config
    }
}

/// How many connections of a listener may hold a long frame (over 256 KiB) at once; others with one are read when a place is free.
const LARGE_FRAMES_MAX: usize = 16;

/// One frame, as it is handed to the intake.
#[derive(Clone, Debug)]
pub struct Received {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Who sent it.
    pub peer: Peer,
    /// When the frame's last byte was read.
    pub received: Timestamp,
    /// The payload; for a frame over the limit only its beginning.
    pub bytes: Phi<Bytes>,
    /// True if the frame was over the limit. The connection is closed after the reply.
    pub oversize: bool,
    /// How something can be sent to the peer later; `None` where only the reply can.
    pub back: Option<WayBack>,
    /// The character set in which the transport says that the bytes are written, above whatever the message says; `None` if it does not say.
    pub charset: Option<Charset>,
    /// What it has in common with the others of its connection or file, where several are under way at once: none is stored that would overtake one
    /// which could not be.
    pub row: Option<Arc<Row>>,
}

/// Where a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A connection from this address.
    Socket(SocketAddr),
    /// A file. Its name may tell of a patient: it stands in the journal, and in no log line.
    File {
        /// Its name.
        name: Phi<Arc<str>>,
        /// Which of its messages, from 1.
        number: u64,
    },
}

impl Peer {
    /// As the journal has it: `10.0.0.7:51123`, or `lab-0301.hl7#17`.
    pub fn text(&self) -> String {
        match self {
            Peer::Socket(address) => address.to_string(),
            Peer::File { name, number } => format!("{}#{number}", name.expose()),
        }
    }

    /// File and number of such a text.
    pub fn read_file(text: &str) -> Option<(&str, u64)> {
        let (name, number) = text.rsplit_once('#')?;
        Some((name, number.parse().ok()?))
    }
}

/// For log lines: of a file, only that it is one.
impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Socket(address) => address.fmt(f),
            Peer::File { .. } => f.write_str("a file"),
        }
    }
}

/// A message of a file that is stored already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which of the file's messages, from 1.
    pub number: u64,
    /// True if it was refused.
    pub refused: bool,
}

/// An acknowledgement, or another answer. Whoever carries it back needs not read it.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Its bytes, in the encoding of what it answers. They end with a segment's end.
    pub bytes: Phi<Bytes>,
    /// MSA-1; of a batch of answers, the worst.
    pub code: AckCode,
}

/// What becomes of a frame.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This is sent back, framed as the message was.
    Ack(Ack),
    /// These are sent back, each in a frame of its own: the frame held several messages.
    Acks(Vec<Ack>),
    /// No answer is due; the connection goes on.
    Silent,
    /// No answer can be given: the connection is closed, so that the peer keeps the message and sends it again.
    Close,
}

/// Who takes what listeners receive. It runs in the connection's task, so that connections are served in parallel;
/// a future that is not ready holds back only its own connection.
pub trait Intake: Send + Sync + 'static {
    /// Takes one frame; resolves when its reply is known. Several of one connection may run at once; their replies are sent in order.
    fn take(&self, received: Received) -> impl Future<Output = Reply> + Send;

    /// The number of the newest message that is stored: what is taken later has a higher one.
    fn newest(&self) -> u64 {
        0
    }

    /// Which messages of a file of this name were stored after message `since`; `None` if that cannot be said now.
    fn taken(&self, _file: &str, _since: u64) -> impl Future<Output = Option<Vec<Taken>>> + Send {
        std::future::ready(Some(Vec::new()))
    }

    /// False while nothing can be stored: then nothing is accepted and no socket is read, and peers keep what they have.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns when there is room again; at once if there is.
    fn room(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A socket that is bound and listens. Whoever holds it may accept from it; it is closed when nobody holds it any more.
#[derive(Clone)]
pub struct Socket(Arc<TcpListener>);

impl Socket {
    /// Binds an address, so that a port that is taken is found before anything starts.
    pub fn bind(address: SocketAddr) -> std::io::Result<Self> {
        const BACKLOG: u32 = 1_024;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(Arc::new(socket.listen(BACKLOG)?)))
    }

    /// The address that it is bound to.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What of a listener can be changed while it runs.
pub(super) struct Live {
    config: ArcSwap<Opened>,
    /// None once it is closed: connections that still answer must not keep the port.
    socket: ArcSwapOption<TcpListener>,
    /// Open connections.
    open: AtomicUsize,
    /// Is told when one of these was changed.
    changed: Notify,
}

/// A connection's place among those that may be open at once.
struct Seat(Arc<Live>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

impl Live {
    /// The settings of this moment.
    pub(super) fn config(&self) -> Arc<Opened> {
        self.config.load_full()
    }

    /// The same, if they are others than `known`.
    pub(super) fn other_than(&self, known: &Arc<Opened>) -> Option<Arc<Opened>> {
        let now = self.config.load();
        (!Arc::ptr_eq(&now, known)).then(|| Arc::clone(&now))
    }
}

/// A bound socket and its settings; [`Listener::run`] serves it.
pub struct Listener {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

/// Changes a listener while it runs.
#[derive(Clone)]
pub struct Reins(Arc<Live>);

impl Reins {
    /// Puts other settings in force: for the next peer that connects, and, but for TLS, on open connections for the next message.
    pub fn change(&self, settings: Opened) {
        self.0.config.store(Arc::new(settings));
        self.0.changed.notify_waiters();
    }

    /// Accepts from this socket from now on. Connections that are open stay so.
    pub fn accept_from(&self, socket: &Socket) {
        self.0.socket.store(Some(Arc::clone(&socket.0)));
        self.0.changed.notify_waiters();
    }

    /// The socket from which it accepts; none once it is closing.
    pub fn socket(&self) -> Option<Socket> {
        self.0.socket.load_full().map(Socket)
    }
}

impl Listener {
    /// Binds the socket that the settings name.
    pub fn bind(config: ListenerConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let settings = Opened::read(config).map_err(std::io::Error::other)?;
        let socket = match settings.place() {
            Place::Socket(address) => Some(Socket::bind(address)?),
            Place::Folder(_) => None,
        };
        Ok(Self::over(socket, settings, metrics))
    }

    /// A listener over a socket that is bound already; a folder needs none.
    pub fn over(socket: Option<Socket>, settings: Opened, metrics: Arc<Metrics>) -> Self {
        let live = Live {
            config: ArcSwap::from_pointee(settings),
            socket: ArcSwapOption::new(socket.map(|socket| socket.0)),
            open: AtomicUsize::new(0),
            changed: Notify::new(),
        };
        Self { live: Arc::new(live), metrics }
    }

    /// The address that it is bound to.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.live.socket.load().as_ref().map_or_else(|| Err(std::io::ErrorKind::NotConnected.into()), |socket| socket.local_addr())
    }

    /// What changes it while it runs.
    pub fn reins(&self) -> Reins {
        Reins(Arc::clone(&self.live))
    }

    /// Accepts and serves until `closing`; then it stops accepting, every connection answers what it has read, and this returns.
    pub async fn run<I: Intake>(self, intake: Arc<I>, closing: CancellationToken) {
        if let Kind::Folder(_) = self.live.config().kind {
            return folder::run(self.live, self.metrics, intake, closing).await;
        }
        let large_frames = Arc::new(Semaphore::new(LARGE_FRAMES_MAX));
        let tasks = TaskTracker::new();
        while let Some((stream, peer)) = self.accept(&closing, &*intake).await {
            let settings = self.live.config();
            let (live, metrics, name) = (Arc::clone(&self.live), Arc::clone(&self.metrics), Arc::clone(&settings.name));
            let (intake, large_frames, closing) = (Arc::clone(&intake), Arc::clone(&large_frames), closing.clone());
            metrics.connections(&name, 1);
            live.open.fetch_add(1, Ordering::AcqRel);
            let seat = Seat(Arc::clone(&live));
            tasks.spawn(async move {
                let _seat = seat;
                // Who has not come in yet has sent no message, and is owed no answer.
                if let Some(Some((stream, peer))) = closing.run_until_cancelled(greet(stream, peer, &settings, &metrics)).await {
                    match settings.kind {
                        Kind::Mllp => connection::serve(stream, peer, live, Arc::clone(&metrics), intake, large_frames, closing).await,
                        Kind::Http(_) => {
                            http::serve(stream, Conversation { peer, live, metrics: Arc::clone(&metrics), intake, large: large_frames }, closing).await;
                        }
                        // A folder has no connections.
                        Kind::Folder(_) => {}
                    }
                }
                metrics.connections(&name, -1);
            });
        }
        self.live.socket.store(None);
        tasks.close();
        tasks.wait().await;
    }

    /// The next peer that may connect; `None` when closing. At the limit of connections nothing is accepted.
    async fn accept<I: Intake>(&self, closing: &CancellationToken, intake: &I) -> Option<(TcpStream, SocketAddr)> {
        /// How long to wait when the system cannot give a socket, mostly for want of file descriptors.
        const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
        loop {
            // Asked for before anything is looked at, so that no change goes unnoticed.
            let changed = self.live.changed.notified();
            let (config, socket) = (self.live.config(), self.live.socket.load_full()?);
            let has_place = self.live.open.load(Ordering::Acquire) < config.connections_max;
            let accepted = tokio::select! {
                () = closing.cancelled() => return None,
                () = changed => continue,
                accepted = async {
                    // HTTP has an answer for it.
                    if config.kind == Kind::Mllp {
                        intake.room().await;
                    }
                    socket.accept().await
                }, if has_place => accepted,
            };
            match accepted {
                Ok((stream, peer)) if config.is_proxy(peer.ip()) || config.allow.allows(peer.ip()) => {
                    if let Err(error) = prepare(&stream, &config) {
                        tracing::debug!(listener = %config.name, kind = ?error.kind(), "a socket option was refused");
                    }
                    return Some((stream, peer));
                }
                Ok((_, peer)) => {
                    self.metrics.frame_fault(&config.name, FrameFault::NotAllowed);
                    tracing::warn!(listener = %config.name, %peer, "refused a peer that `allow` does not name");
                }
                Err(error) => {
                    tracing::error!(listener = %config.name, kind = ?error.kind(), "could not accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }
}

fn prepare(stream: &TcpStream, config: &ListenerConfig) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, config.keep_alive)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, config.keep_alive)?;
    Ok(())
}
