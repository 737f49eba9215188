//! The MLLP listener: accepts connections, each served by one task, until it is told to close.

use crate::exchange::{Phi, Timestamp};
use crate::listener::AllowList;
use crate::listener::connection;
use crate::metrics::{FrameFault, Metrics};
use crate::wire::FRAME_BYTES_MAX;
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a listener treats its peers. The defaults are the limits of docs/limits.md.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Its name in the site file.
    pub name: Arc<str>,
    /// Where it listens; port 0 takes a free one.
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
}

impl ListenerConfig {
    /// The defaults, for a name and an address.
    pub fn new(name: impl Into<Arc<str>>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            frame_bytes_max: FRAME_BYTES_MAX,
            connections_max: 1_000,
            in_flight_max: 16,
            idle_timeout: Some(Duration::from_secs(3_600)),
            frame_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            allow: AllowList::default(),
        }
    }
}

/// How many connections of a listener may hold a long frame (over 256 KiB) at once; others with one are read when a place is free.
const LARGE_FRAMES_MAX: usize = 16;

/// One frame, as it is handed to the intake.
#[derive(Clone, Debug)]
pub struct Received {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The peer's address.
    pub peer: SocketAddr,
    /// When the frame's last byte was read.
    pub received: Timestamp,
    /// The payload; for a frame over the limit only its beginning.
    pub bytes: Phi<Bytes>,
    /// True if the frame was over the limit. The connection is closed after the reply.
    pub oversize: bool,
}

/// What becomes of a frame.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes are sent back, in a frame.
    Ack(Phi<Bytes>),
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

    /// False while nothing can be stored: then nothing is accepted and no socket is read, and peers keep what they have.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns when there is room again; at once if there is.
    fn room(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A bound socket; [`Listener::run`] serves it.
pub struct Listener {
    config: Arc<ListenerConfig>,
    socket: TcpListener,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Binds the socket, so that a port that is taken is found before anything starts.
    pub fn bind(config: ListenerConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        const BACKLOG: u32 = 1_024;
        let socket = if config.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(config.address)?;
        Ok(Self { socket: socket.listen(BACKLOG)?, config: Arc::new(config), metrics })
    }

    /// The address that it is bound to.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Its settings.
    pub fn config(&self) -> &ListenerConfig {
        &self.config
    }

    /// Accepts and serves until `closing`; then it stops accepting, every connection answers what it has read, and this returns.
    pub async fn run<I: Intake>(self, intake: Arc<I>, closing: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.config.connections_max));
        let large_frames = Arc::new(Semaphore::new(LARGE_FRAMES_MAX));
        let tasks = TaskTracker::new();
        while let Some((stream, peer, permit)) = self.accept(&permits, &closing, &*intake).await {
            let (config, metrics, name) = (Arc::clone(&self.config), Arc::clone(&self.metrics), Arc::clone(&self.config.name));
            let serve = connection::serve(stream, peer, config, Arc::clone(&metrics), Arc::clone(&intake), Arc::clone(&large_frames), closing.clone());
            metrics.connections(&name, 1);
            tasks.spawn(async move {
                serve.await;
                metrics.connections(&name, -1);
                drop(permit);
            });
        }
        drop(self.socket);
        tasks.close();
        tasks.wait().await;
    }

    /// The next peer that may connect; `None` when closing. The permit comes first: without one nothing is accepted.
    async fn accept<I: Intake>(
        &self,
        permits: &Arc<Semaphore>,
        closing: &CancellationToken,
        intake: &I,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        /// How long to wait when the system cannot give a socket, mostly for want of file descriptors.
        const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
        loop {
            let permit = tokio::select! {
                () = closing.cancelled() => return None,
                permit = Arc::clone(permits).acquire_owned() => permit.expect("the semaphore is never closed"),
            };
            let accepted = tokio::select! {
                () = closing.cancelled() => return None,
                accepted = async {
                    intake.room().await;
                    self.socket.accept().await
                } => accepted,
            };
            match accepted {
                Ok((stream, peer)) if self.config.allow.allows(peer.ip()) => {
                    if let Err(error) = self.prepare(&stream) {
                        tracing::debug!(listener = %self.config.name, kind = ?error.kind(), "a socket option was refused");
                    }
                    return Some((stream, peer, permit));
                }
                Ok((_, peer)) => {
                    self.metrics.frame_fault(&self.config.name, FrameFault::NotAllowed);
                    tracing::warn!(listener = %self.config.name, %peer, "refused a peer that `allow` does not name");
                }
                Err(error) => {
                    tracing::error!(listener = %self.config.name, kind = ?error.kind(), "could not accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    fn prepare(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(stream, true)?;
        rustix::net::sockopt::set_tcp_keepidle(stream, self.config.keep_alive)?;
        rustix::net::sockopt::set_tcp_keepintvl(stream, self.config.keep_alive)?;
        Ok(())
    }
}
