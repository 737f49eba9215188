//! `kiln send`: an MLLP client that prints acknowledgements, and with `--repeat` or `--for` a load generator.

use crate::cli::Exit;
use crate::cli::ack::Ack;
use crate::cli::message_file;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, WARN, err, micros, out, paint, plain};
use crate::cli::send_load;
use crate::site::words;
use crate::wire::Mllp;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Send messages over MLLP and print the acknowledgements; with --repeat or --for, measure
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln send admit.hl7 --to 127.0.0.1:2575
  kiln send archive/*.hl7 --to hospital.example:2575 --json
  kiln send admit.hl7 --to 127.0.0.1:2575 --repeat 100000 --connections 64
  kiln send admit.hl7 --to 127.0.0.1:2575 --for 10m --rate 500

Exits 1 if a message got anything but a positive acknowledgement of its own control ID.
Copies made by --repeat and --for each have their own MSH-10 and MSH-7, and are of one of 10,000 patients: identifiers in PID-2, -3, -4, -18,
PV1-19 and MRG are the patient's, those in ORC-2, -3, OBR-2, -3 and SCH-1, -2 the copy's. Authorities and types stay, and equal identifiers
of one message stay equal.")]
pub(crate) struct Args {
    /// Files with messages: plain, MLLP-wrapped, batches, any line ends; `-` is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Where to
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
    /// Send so many copies of each message
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub repeat: Option<u64>,
    /// Send copies for so long, such as 60s
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Connections, each with one message in flight
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// At most so many messages per second, all connections together, evenly; tells also how long after it was due each was sent and answered
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// How long to wait for a connection and for an acknowledgement
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Give each message a control ID and a time of its own, so that it is no duplicate
    #[arg(long)]
    pub force: bool,
    /// Append the control ID of each accepted copy to this file, a line each
    #[arg(long, value_name = "FILE")]
    pub acked: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::site::duration(text).ok_or_else(|| "a whole number and a unit: 300ms, 30s, 5m, 24h".to_owned())
}

pub(crate) fn run(args: &Args) -> Exit {
    let mut messages = Vec::new();
    for file in &args.files {
        match message_file::read(file) {
            Ok(found) if found.is_empty() => {
                err!("kiln: {}: there is no message in it", file.display());
                return Exit::CouldNot;
            }
            Ok(found) => messages.extend(found.into_iter().enumerate().map(|(n, m)| (message_file::name(file, n), m))),
            Err(e) => {
                err!("kiln: {}: {}", file.display(), words(&e));
                return Exit::CouldNot;
            }
        }
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            err!("kiln: {}", words(&e));
            return Exit::CouldNot;
        }
    };
    runtime.block_on(async {
        let address = match resolve(&args.to).await {
            Ok(address) => address,
            Err(what) => {
                err!("kiln: {what}");
                return Exit::CouldNot;
            }
        };
        if args.repeat.is_some() || args.duration.is_some() {
            return send_load::run(args, address, messages.into_iter().map(|(_, m)| m).collect()).await;
        }
        one_by_one(args, address, messages).await
    })
}

async fn resolve(to: &str) -> Result<SocketAddr, String> {
    let mut found = tokio::net::lookup_host(to).await.map_err(|e| format!("cannot find {to} ({}); write HOST:PORT", words(&e)))?;
    found.next().ok_or_else(|| format!("cannot find {to}"))
}

async fn one_by_one(args: &Args, address: SocketAddr, messages: Vec<(String, Vec<u8>)>) -> Exit {
    let mut client = Client::new(address, args.timeout);
    let mut all_well = true;
    let mut any_sent = false;
    for (name, message) in messages {
        let message = if args.force { send_load::Template::fresh(&message) } else { message };
        let control_id = message_file::control_id(&message);
        let began = Instant::now();
        let answer = client.exchange(&message).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        any_sent |= !matches!(answer, Err(Failure::Connect(_)));
        all_well &= show(args.json, &name, &control_id, answer, took);
    }
    match (all_well, any_sent) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Found,
        (false, false) => Exit::CouldNot,
    }
}

/// Prints one answer; true if it is a positive one of this message.
fn show(json: bool, name: &str, control_id: &str, answer: Result<Vec<u8>, Failure>, took: u64) -> bool {
    let ack = match &answer {
        Ok(bytes) => Ack::read(bytes),
        Err(_) => None,
    };
    let matches = ack.as_ref().is_some_and(|a| a.control_id == control_id);
    let well = matches && ack.as_ref().is_some_and(Ack::is_positive);
    let fault = match (&answer, &ack) {
        (Err(failure), _) => Some(failure.to_string()),
        (Ok(_), None) => Some("the answer is no acknowledgement: it has no MSA segment".to_owned()),
        (Ok(_), Some(_)) if !matches => Some("the acknowledgement answers another message: MSA-2 is not this MSH-10".to_owned()),
        _ => None,
    };
    if json {
        let errors = ack.iter().flat_map(|a| &a.errors);
        let errors: Vec<_> = errors.map(|e| serde_json::json!({ "location": e.location, "code": e.code, "severity": e.severity, "text": e.text })).collect();
        out!(
            "{}",
            serde_json::json!({
                "file": name, "controlId": control_id, "accepted": well, "code": ack.as_ref().map(|a| &a.code), "ackControlId": ack.as_ref().map(|a| &a.control_id),
                "text": ack.as_ref().map(|a| &a.text), "errors": errors, "fault": fault, "micros": took,
            })
        );
        return well;
    }
    let code = ack.as_ref().map_or("--", |a| a.code.as_str());
    let style = if well { GOOD } else { BAD };
    out!("{}  {}  {}  {}", paint(style, &format!("{:<2}", plain(code))), paint(NAME, &plain(control_id)), name, paint(FAINT, &micros(took)));
    if let Some(a) = &ack {
        if !a.text.is_empty() {
            out!("    {}", plain(&a.text));
        }
        for e in &a.errors {
            let style = if e.severity == "E" || e.severity == "F" { BAD } else { WARN };
            let place = if e.location.is_empty() { String::new() } else { format!(" at {}", plain(&e.location)) };
            out!("    {}{place}: {}", paint(style, &plain(&e.code)), plain(&e.text));
        }
    }
    if let Some(fault) = fault {
        out!("    {}", paint(BAD, &fault));
    }
    well
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No connection.
    #[error("no connection to {0}")]
    Connect(String),
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
}

/// One MLLP connection with one message in flight; reconnects when the peer has closed.
pub(crate) struct Client {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<TcpStream>,
    mllp: Mllp,
    incoming: BytesMut,
    outgoing: BytesMut,
}

/// No acknowledgement is longer.
const ACK_BYTES_MAX: usize = 1 << 20;

impl Client {
    /// Connects at the first message.
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            stream: None,
            mllp: Mllp::new(ACK_BYTES_MAX),
            incoming: BytesMut::with_capacity(4096),
            outgoing: BytesMut::with_capacity(4096),
        }
    }

    /// Sends a message in a frame and waits for the frame that answers it.
    pub(crate) async fn exchange(&mut self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.outgoing.clear();
        let mut outgoing = std::mem::take(&mut self.outgoing);
        Mllp::write_frame(message, &mut outgoing);
        self.drop_if_closed().await;
        self.connect().await?;
        let answer = self.exchange_frame(&outgoing).await.map(|b| b.to_vec());
        self.outgoing = outgoing;
        answer
    }

    /// Some receivers close after each answer. That is found out before a message is written, with a moment's patience for the
    /// close to arrive: written messages are never sent twice.
    async fn drop_if_closed(&mut self) {
        const MOMENT: Duration = Duration::from_millis(2);
        if let Some(stream) = &self.stream
            && tokio::time::timeout(MOMENT, stream.readable()).await.is_ok()
            && !matches!(stream.try_read(&mut [0; 64]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        {
            // Closed, or it says something that nobody asked for: either way not a connection to go on with.
            self.stream = None;
        }
    }

    /// Connects if needed.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        if self.stream.is_some() {
            return Ok(());
        }
        let failed = |what: String| Failure::Connect(format!("{} ({what})", self.address));
        let stream = match tokio::time::timeout(self.timeout, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(failed(words(&e))),
            Err(_) => return Err(failed(format!("nothing within {:?}", self.timeout))),
        };
        // Without it a message waits for the acknowledgement of the packet before.
        let _ = stream.set_nodelay(true);
        self.stream = Some(stream);
        self.mllp = Mllp::new(ACK_BYTES_MAX);
        self.incoming.clear();
        Ok(())
    }

    /// Sends a frame as it is. After any failure the connection is dropped: a late answer must not count for the next message.
    pub(crate) async fn exchange_frame(&mut self, frame: &[u8]) -> Result<bytes::Bytes, Failure> {
        let answer = tokio::time::timeout(self.timeout, self.round_trip(frame)).await.unwrap_or(Err(Failure::TimedOut(self.timeout)));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn round_trip(&mut self, frame: &[u8]) -> Result<bytes::Bytes, Failure> {
        let stream = self.stream.as_mut().ok_or(Failure::Closed)?;
        // A peer that refuses early may answer before it has read everything; its answer counts.
        let wrote = stream.write_all(frame).await;
        loop {
            match self.mllp.next_frame(&mut self.incoming) {
                Ok(Some(frame)) => return Ok(frame.payload),
                Ok(None) => {}
                Err(_) => return Err(Failure::NoFrame),
            }
            match stream.read_buf(&mut self.incoming).await {
                Ok(0) if self.mllp.take_noise_bytes() > 0 || self.mllp.inside_frame() => return Err(Failure::NoFrame),
                Ok(0) | Err(_) => return Err(Failure::Closed),
                Ok(_) => {}
            }
            if wrote.is_err() && self.incoming.is_empty() {
                return Err(Failure::Closed);
            }
        }
    }
}
