//! An MLLP connection from its client's side: a frame goes out, and frames come in until one answers it.
//!
//! Never sends anything by itself, and never takes a frame that its caller does not take.

use crate::target::Tls;
use crate::target::tls::{ClientTls, find, tls_words};
use crate::wire::Mllp;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use rustls_pki_types::ServerName;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// No acknowledgement is longer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How often the system asks a silent receiver whether it is still there (TCP keep-alive).
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A receiver of MLLP, and how it is reached. Cheap to share behind an `Arc`.
pub struct MllpPeer {
    /// `HOST:PORT`; looked up anew for each connection.
    address: String,
    tls: Option<(ClientTls, ServerName<'static>)>,
    connect_timeout: Duration,
}

/// Why there is no connection: nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct NoConnection {
    /// A short, fixed word: `dns`, `connect`, `connect-timeout`, `tls-issuer`.
    pub code: &'static str,
    /// What happened, and what to do.
    pub text: String,
}

/// Why nobody has taken an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The connection ended before the frame was written whole: the receiver does not have it.
    Unsent,
    /// The receiver's TLS refused us after the handshake: it has read nothing.
    Refused(NoConnection),
    /// The connection ended without an answer.
    Closed(Heard),
    /// No answer in time.
    TimedOut(Heard),
    /// The frame that came is longer than 1 MiB.
    TooLong,
}

/// What came instead of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Frames that were not taken.
    pub frames: u32,
    /// Bytes outside of frames, or of a frame that never ended.
    pub unframed_bytes: u64,
}

impl MllpPeer {
    /// Reads certificates; connects to nothing. `name` is the one that the receiver's certificate must have, if not the address's.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn open(address: &str, tls: Option<(&Tls, Option<&str>)>, connect_timeout: Duration) -> Result<Self, String> {
        let host = host(address).ok_or_else(|| format!("'{address}' is not HOST:PORT"))?;
        let tls = match tls {
            None => None,
            Some((tls, name)) => {
                let name = name.unwrap_or(host);
                let server = ServerName::try_from(name.to_owned()).map_err(|_| format!("'{name}' cannot be a certificate's name"))?;
                Some((ClientTls::open(tls.clone())?, server))
            }
        };
        Ok(Self { address: address.to_owned(), tls, connect_timeout })
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects, TLS included.
    ///
    /// # Errors
    /// Nothing was sent.
    pub async fn connect(&self) -> Result<MllpConnection, NoConnection> {
        match tokio::time::timeout(self.connect_timeout, self.open_stream()).await {
            Ok(stream) => Ok(MllpConnection {
                stream: stream?,
                mllp: Mllp::new(ANSWER_BYTES_MAX),
                incoming: BytesMut::with_capacity(4096),
                outgoing: BytesMut::new(),
                exchanges: 0,
                spent: false,
            }),
            Err(_) => Err(no_connection("connect-timeout", format!("the receiver did not take the connection within {:?}", self.connect_timeout))),
        }
    }

    async fn open_stream(&self) -> Result<Stream, NoConnection> {
        let found = tokio::net::lookup_host(&self.address).await;
        let addresses: Vec<_> = found.map(Iterator::collect).unwrap_or_default();
        if addresses.is_empty() {
            return Err(no_connection("dns", "the receiver's name is not known: check the address, and the name server".to_owned()));
        }
        let stream =
            TcpStream::connect(&addresses[..]).await.map_err(|e| no_connection("connect", format!("the receiver could not be reached ({})", e.kind())))?;
        if let Err(error) = prepare(&stream) {
            tracing::debug!(kind = ?error.kind(), "a socket option was refused");
        }
        let Some((tls, name)) = &self.tls else { return Ok(Either::Left(stream)) };
        match TlsConnector::from(tls.config()).connect(name.clone(), stream).await {
            Ok(stream) => Ok(Either::Right(Box::new(stream))),
            Err(error) => {
                tls.look_again();
                Err(refusal(&error).unwrap_or_else(|| {
                    no_connection("tls-closed", "the receiver closed the connection instead of speaking TLS: does this port want TLS?".to_owned())
                }))
            }
        }
    }
}

fn no_connection(code: &'static str, text: String) -> NoConnection {
    NoConnection { code, text }
}

/// TLS's own reason.
fn refusal(error: &io::Error) -> Option<NoConnection> {
    let (code, text) = tls_words(find::<rustls::Error>(error)?);
    Some(no_connection(code, text))
}

/// `hl7.example`, `10.0.0.5`, `::1` of `[::1]:2575`.
fn host(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty() && !host.contains(['/', ' '])).then_some(host)
}

/// Is this `HOST:PORT`?
pub fn is_host_and_port(address: &str) -> bool {
    host(address).is_some()
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Without it a message waits for the acknowledgement of the packet before.
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    Ok(())
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// An open connection. One message at a time.
pub struct MllpConnection {
    stream: Stream,
    mllp: Mllp,
    incoming: BytesMut,
    outgoing: BytesMut,
    exchanges: u64,
    /// A frame went out and nobody took an answer, or only half of it went out: what comes now may belong to that.
    spent: bool,
}

impl MllpConnection {
    /// How many frames were answered.
    pub fn exchanges(&self) -> u64 {
        self.exchanges
    }

    /// May it be used for another message? Drops what came unasked: a second answer to an earlier message is nobody's.
    pub fn is_alive(&mut self) -> bool {
        while !self.spent {
            while matches!(self.mllp.next_frame(&mut self.incoming), Ok(Some(_))) {}
            match self.stream.read_buf(&mut self.incoming).now_or_never() {
                None => break,
                Some(read) => self.spent = !matches!(read, Ok(1..)),
            }
        }
        !self.spent
    }

    /// The same, with patience: a receiver that closes after its answer may take a moment to do so.
    pub async fn is_alive_for(&mut self, patience: Duration) -> bool {
        if self.is_alive()
            && let Ok(read) = tokio::time::timeout(patience, self.stream.read_buf(&mut self.incoming)).await
        {
            self.spent = !matches!(read, Ok(1..));
        }
        self.is_alive()
    }

    /// Sends a message in a frame, and gives each frame that comes to `take` until it keeps one.
    ///
    /// # Errors
    /// After any the connection is of no further use.
    pub async fn exchange<T>(&mut self, message: &[u8], wait: Duration, take: impl FnMut(Bytes) -> Option<T>) -> Result<T, Silence> {
        let mut frame = std::mem::take(&mut self.outgoing);
        frame.clear();
        Mllp::write_frame(message, &mut frame);
        let taken = self.exchange_frame(&frame, wait, take).await;
        // A document of 40 MB does not stay in memory with every connection.
        if frame.capacity() <= 1 << 20 {
            self.outgoing = frame;
        }
        taken
    }

    /// The same with bytes that are framed already; with none, waits only: for a second acknowledgement.
    ///
    /// # Errors
    /// After any the connection is of no further use.
    pub async fn exchange_frame<T>(&mut self, frame: &[u8], wait: Duration, mut take: impl FnMut(Bytes) -> Option<T>) -> Result<T, Silence> {
        if self.spent {
            return Err(Silence::Unsent);
        }
        self.spent = true;
        let mut heard = Heard::default();
        self.mllp.take_noise_bytes();
        let talk = talk(&mut self.stream, &mut self.mllp, &mut self.incoming, frame, &mut take, &mut heard);
        let ended = tokio::time::timeout(wait, talk).await;
        heard.unframed_bytes += self.mllp.take_noise_bytes() + if self.mllp.inside_frame() { self.incoming.len() as u64 } else { 0 };
        match ended {
            Ok(Ok((taken, whole))) => {
                self.spent = !whole;
                self.exchanges += 1;
                Ok(taken)
            }
            Ok(Err(End::Unsent)) => Err(Silence::Unsent),
            Ok(Err(End::Refused(reason))) => Err(Silence::Refused(reason)),
            Ok(Err(End::Closed)) => Err(Silence::Closed(heard)),
            Ok(Err(End::TooLong)) => Err(Silence::TooLong),
            Err(_) => Err(Silence::TimedOut(heard)),
        }
    }

    /// Closes this side and reads until the peer has closed its own, at most for `patience`. False if the connection was reset: then the peer
    /// has not read what it was sent.
    pub async fn finish(mut self, patience: Duration) -> bool {
        let rest = async {
            self.stream.shutdown().await?;
            loop {
                self.incoming.clear();
                if self.stream.read_buf(&mut self.incoming).await? == 0 {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        match tokio::time::timeout(patience, rest).await {
            // A peer that closes TCP without closing TLS first has read, too.
            Ok(Err(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
            Ok(Ok(())) | Err(_) => true,
        }
    }

    /// Sends a frame that nobody answers, such as an accept acknowledgement. False if it could not be written.
    pub async fn tell(&mut self, message: &[u8], wait: Duration) -> bool {
        let mut frame = BytesMut::new();
        Mllp::write_frame(message, &mut frame);
        let write = async {
            self.stream.write_all(&frame).await?;
            self.stream.flush().await
        };
        let written = matches!(tokio::time::timeout(wait, write).await, Ok(Ok(())));
        self.spent |= !written;
        written
    }
}

enum End {
    Unsent,
    Refused(NoConnection),
    Closed,
    TooLong,
}

/// Writes and reads at the same time: a receiver that refuses early may answer before it has read everything, and its answer counts.
/// Says too whether the frame was written whole.
async fn talk<T>(
    stream: &mut Stream,
    mllp: &mut Mllp,
    incoming: &mut BytesMut,
    frame: &[u8],
    take: &mut impl FnMut(Bytes) -> Option<T>,
    heard: &mut Heard,
) -> Result<(T, bool), End> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut writing = std::pin::pin!(async {
        writer.write_all(frame).await?;
        writer.flush().await
    });
    // `None` while it is being written; then whether it was written whole.
    let mut written = frame.is_empty().then_some(true);
    loop {
        loop {
            match mllp.next_frame(incoming) {
                Ok(Some(frame)) => match take(frame.payload) {
                    Some(taken) => return Ok((taken, written == Some(true))),
                    None => heard.frames += 1,
                },
                Ok(None) => break,
                Err(_) => return Err(End::TooLong),
            }
        }
        tokio::select! {
            biased;
            wrote = &mut writing, if written.is_none() => written = Some(wrote.is_ok()),
            read = reader.read_buf(incoming) => match read {
                Ok(1..) => {}
                Err(error) if find::<rustls::Error>(&error).is_some_and(|e| matches!(e, rustls::Error::AlertReceived(_))) => {
                    return Err(refusal(&error).map_or(End::Closed, End::Refused));
                }
                Ok(_) | Err(_) => return Err(if written == Some(true) { End::Closed } else { End::Unsent }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{host, is_host_and_port};

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(host("hl7.example:2575"), Some("hl7.example"));
        assert_eq!(host("[::1]:2575"), Some("::1"));
        for wrong in ["hl7.example", ":2575", "a:0", "a:x", "mllp://a/b:1", ""] {
            assert!(!is_host_and_port(wrong), "{wrong}");
        }
    }
}
