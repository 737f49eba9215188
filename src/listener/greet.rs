//! What happens between a connection and its first message: the header of a load balancer, the allow-list, the handshake of TLS.

use crate::listener::Opened;
use crate::listener::tls::{is_unnamed, reason};
use crate::metrics::{FrameFault, Metrics};
use ppp::{HeaderResult, v1, v2};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// A connection that may send messages: plain, or TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Lets a connection in, and says who is at its other end; `None` if it may not come in. That is counted and logged here.
pub(super) async fn greet(mut stream: TcpStream, mut peer: SocketAddr, opened: &Opened, metrics: &Metrics) -> Option<(Stream, SocketAddr)> {
    let refuse = |fault: FrameFault, peer: SocketAddr, why: &str| {
        metrics.frame_fault(&opened.name, fault);
        tracing::warn!(listener = %opened.name, %peer, fault = fault.word(), "refused a connection: {why}");
    };
    let deadline = Instant::now() + opened.handshake_timeout;
    const LATE: &str = "it took too long; see `limits: { handshake }`";
    if opened.is_proxy(peer.ip()) {
        match timeout_at(deadline, header(&mut stream)).await {
            Ok(Ok(Sender::Other(sender))) => {
                peer = sender;
                if !opened.allow.allows(peer.ip()) {
                    refuse(FrameFault::NotAllowed, peer, "`allow` does not name this peer");
                    return None;
                }
            }
            Ok(Ok(Sender::Proxy)) => {}
            Ok(Ok(Sender::Unknown)) if opened.allow.allows(peer.ip()) => {}
            Ok(Ok(Sender::Unknown)) => {
                refuse(FrameFault::NotAllowed, peer, "it does not say for whom it is, and `allow` does not name itself");
                return None;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                refuse(FrameFault::ProxyHeader, peer, "it is in `proxy-protocol`, and began with no PROXY header, or a broken one");
                return None;
            }
            Ok(Err(_)) => {
                closed(opened, metrics, FrameFault::ProxyHeader, peer);
                return None;
            }
            Err(_) => {
                refuse(FrameFault::ProxyHeader, peer, LATE);
                return None;
            }
        }
    }
    let Some(tls) = &opened.tls_held else { return Some((Either::Left(stream), peer)) };
    let acceptor = TlsAcceptor::from(tls.current(&opened.name));
    match timeout_at(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some((Either::Right(Box::new(stream)), peer)),
        Ok(Err(error)) if error.get_ref().is_none() || error.kind() == io::ErrorKind::UnexpectedEof => closed(opened, metrics, FrameFault::Handshake, peer),
        Ok(Err(error)) if is_unnamed(&error) => refuse(FrameFault::ClientName, peer, reason(&error)),
        Ok(Err(error)) => refuse(FrameFault::Handshake, peer, reason(&error)),
        Err(_) => refuse(FrameFault::Handshake, peer, LATE),
    }
    None
}

/// A peer that went away before it said what it wants: mostly something that looks whether the port is open, again and again.
fn closed(opened: &Opened, metrics: &Metrics, fault: FrameFault, peer: SocketAddr) {
    metrics.frame_fault(&opened.name, fault);
    tracing::debug!(listener = %opened.name, %peer, fault = fault.word(), "a connection was closed before its first message");
}

/// Who is behind a load balancer.
enum Sender {
    Other(SocketAddr),
    /// The load balancer itself, which looks whether somebody is there.
    Proxy,
    /// It does not know, or does not say.
    Unknown,
}

/// A header of version 1 is no longer (PROXY protocol, section 2.1).
const V1_BYTES_MAX: usize = 107;
/// Longer headers of version 2, with what load balancers add, are not seen.
const V2_BYTES_MAX: usize = 4_096;

/// Reads the header of the PROXY protocol (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>), version 1 or 2, and nothing after it.
async fn header(stream: &mut TcpStream) -> io::Result<Sender> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let mut bytes = vec![0; v2::PROTOCOL_PREFIX.len()];
    stream.read_exact(&mut bytes).await?;
    if bytes == v2::PROTOCOL_PREFIX {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > V2_BYTES_MAX {
            return Err(broken());
        }
        let begun = bytes.len() + rest.len();
        bytes.extend_from_slice(&rest);
        bytes.resize(begun + length, 0);
        stream.read_exact(bytes.get_mut(begun..).unwrap_or_default()).await?;
    } else {
        if !bytes.starts_with(b"PROXY ") {
            return Err(broken());
        }
        while !bytes.ends_with(b"\r\n") {
            if bytes.len() >= V1_BYTES_MAX {
                return Err(broken());
            }
            bytes.push(stream.read_u8().await?);
        }
    }
    let sender = |ip: IpAddr, port: u16| Sender::Other(SocketAddr::new(ip, port));
    match HeaderResult::parse(&bytes) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(a) => sender(a.source_address.into(), a.source_port),
            v1::Addresses::Tcp6(a) => sender(a.source_address.into(), a.source_port),
            v1::Addresses::Unknown => Sender::Unknown,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(a)) => sender(a.source_address.into(), a.source_port),
            (v2::Command::Proxy, v2::Addresses::IPv6(a)) => sender(a.source_address.into(), a.source_port),
            (v2::Command::Proxy, _) => Sender::Unknown,
            (v2::Command::Local, _) => Sender::Proxy,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(broken()),
    }
}
