//! The MLLP client of `kiln send` and `kiln try`: one connection with one message in flight, and what a person is told where no answer came.

use crate::hl7v2::Answer;
use crate::target::{Heard, MllpConnection, MllpPeer, NoConnection, Silence, Tls};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection.
    #[error("no connection to {0}")]
    Connect(String),
    /// The peer closed before it had the message whole.
    #[error("the connection was closed before the message was sent whole: it was not accepted")]
    Unsent,
    /// The peer closed before it answered.
    #[error(
        "the connection was closed without an answer: whether the message was accepted is not known; a listener of Kiln takes the same message once, so send it again"
    )]
    Closed,
    /// No answer in time.
    #[error("no answer within {0:?}: whether the message was accepted is not known")]
    TimedOut(Duration),
    /// Bytes came, but no frame.
    #[error("the answer is not framed as MLLP (0x0B ... 0x1C 0x0D)")]
    NoFrame,
    /// A frame came that is no acknowledgement.
    #[error("the answer is no acknowledgement: it has no MSA segment")]
    NoAcknowledgement,
    /// Acknowledgements came, but of others.
    #[error("the acknowledgement answers another message: MSA-2 is not this MSH-10")]
    OfAnother(Box<Answer>),
}

impl Failure {
    /// True if the message cannot have arrived.
    pub(crate) fn is_before(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Unsent)
    }
}

/// What `--tls` and its companions say.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// Speak TLS, and trust the authorities of the system
    #[arg(long)]
    pub tls: bool,
    /// Speak TLS, and trust the authorities in this PEM file alone
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The client's own certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The private key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The name in the receiver's certificate, where it is not that of the address
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
}

impl TlsArgs {
    /// The settings; `None` without TLS.
    pub(crate) fn settings(&self) -> Option<Tls> {
        let wanted = self.tls || self.ca.is_some() || self.cert.is_some() || self.tls_name.is_some();
        wanted.then(|| Tls { ca: self.ca.clone(), identity: self.cert.clone().zip(self.key.clone()), ..Tls::default() })
    }
}

/// Where messages go, ready to be connected to.
pub(crate) fn peer(to: &str, tls: &TlsArgs, timeout: Duration) -> Result<Arc<MllpPeer>, String> {
    let settings = tls.settings();
    let settings = settings.as_ref().map(|settings| (settings, tls.tls_name.as_deref()));
    MllpPeer::open(to, settings, timeout).map(Arc::new)
}

/// One MLLP connection with one message in flight; reconnects when the peer has closed.
pub(crate) struct Client {
    peer: Arc<MllpPeer>,
    timeout: Duration,
    connection: Option<MllpConnection>,
}

impl Client {
    /// Connects at the first message.
    pub(crate) fn new(peer: Arc<MllpPeer>, timeout: Duration) -> Self {
        Self { peer, timeout, connection: None }
    }

    /// Connects if needed.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            self.connection = Some(self.peer.connect().await.map_err(|why| unreached(self.peer.address(), &why))?);
        }
        Ok(())
    }

    /// Sends a message in a frame and waits for the acknowledgement of its control ID.
    pub(crate) async fn exchange(&mut self, message: &[u8], control_id: &str) -> Result<Answer, Failure> {
        /// Some receivers close after each answer. That is found out before a message is written, with a moment's patience for the
        /// close to arrive: written messages are never sent twice.
        const MOMENT: Duration = Duration::from_millis(2);
        if let Some(connection) = &mut self.connection
            && !connection.is_alive_for(MOMENT).await
        {
            self.connection = None;
        }
        self.connect().await?;
        self.wait(Some(message), control_id, self.timeout, |_| true).await
    }

    /// Waits for the application acknowledgement of a message that was accepted.
    pub(crate) async fn second(&mut self, control_id: &str, wait: Duration) -> Result<Answer, Failure> {
        self.wait(None, control_id, wait, |answer| answer.code != "CA").await
    }

    async fn wait(&mut self, message: Option<&[u8]>, control_id: &str, wait: Duration, wanted: impl Fn(&Answer) -> bool) -> Result<Answer, Failure> {
        let Some(connection) = &mut self.connection else { return Err(Failure::Closed) };
        let mut of_another = None;
        let take = |payload: Bytes| match Answer::read(&payload) {
            None => Some(None),
            Some(answer) if answer.control_id.trim() != control_id.trim() => {
                of_another = Some(answer);
                None
            }
            Some(answer) => wanted(&answer).then_some(Some(answer)),
        };
        let ended = match message {
            Some(message) => connection.exchange(message, wait, take).await,
            None => connection.exchange_frame(&[], wait, take).await,
        };
        match ended {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                self.connection = None;
                Err(Failure::NoAcknowledgement)
            }
            Err(silence) => {
                self.connection = None;
                let failure = self.failure(silence, wait);
                Err(match of_another {
                    Some(answer) if matches!(failure, Failure::Closed | Failure::TimedOut(_)) => Failure::OfAnother(Box::new(answer)),
                    _ => failure,
                })
            }
        }
    }

    /// Sends a frame as it is and takes the first that comes: for those who count. After any failure the connection is dropped.
    pub(crate) async fn exchange_frame(&mut self, frame: &[u8]) -> Result<Bytes, Failure> {
        let Some(connection) = &mut self.connection else { return Err(Failure::Closed) };
        match connection.exchange_frame(frame, self.timeout, Some).await {
            Ok(payload) => Ok(payload),
            Err(silence) => {
                self.connection = None;
                Err(self.failure(silence, self.timeout))
            }
        }
    }

    fn failure(&self, silence: Silence, wait: Duration) -> Failure {
        match silence {
            Silence::Unsent => Failure::Unsent,
            Silence::Refused(why) => unreached(self.peer.address(), &why),
            Silence::Closed(Heard { unframed_bytes: 1.., .. }) | Silence::TimedOut(Heard { unframed_bytes: 1.., .. }) | Silence::TooLong => Failure::NoFrame,
            Silence::Closed(_) => Failure::Closed,
            Silence::TimedOut(_) => Failure::TimedOut(wait),
        }
    }
}

/// The reason, with what to do in the words of the command line.
fn unreached(address: &str, why: &NoConnection) -> Failure {
    let text = match why.code {
        "tls-issuer" => "its certificate comes from an authority that is not trusted here: say `--ca FILE`",
        "tls-name" => "its certificate is for another name: use that name in `--to`, or say `--tls-name NAME`",
        "tls-client-certificate" => "it wants a client certificate that it knows: say `--cert FILE --key FILE`",
        _ => why.text.as_str(),
    };
    Failure::Connect(format!("{address} ({text})"))
}
