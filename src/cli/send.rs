//! `kiln send`: a client of MLLP and HTTP that prints acknowledgements, and with `--repeat` or `--for` a load generator.

use crate::cli::Exit;
use crate::cli::message_file;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, WARN, err, micros, out, paint, plain};
use crate::cli::send_client::{Client, Failure, TlsArgs, peer};
use crate::cli::send_load;
use crate::hl7v2::{Answer, Charset, Conditions, Header, Message, ParseOptions};
use crate::site::words;
use crate::target::{Auth, HttpConfig, HttpSender, Retry, SecretSource};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Send messages over MLLP or HTTP and print the acknowledgements, or measure
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln send admit.hl7 --to 127.0.0.1:2575
  kiln send archive/*.hl7 --to hospital.example:2575 --json
  kiln send admit.hl7 --to hospital.example:2576 --ca ca.pem --cert kiln.pem --key kiln-key.pem
  kiln send admit.hl7 --to https://hospital.example/hl7 --user kiln --secret-file password
  kiln send admit.hl7 --to 127.0.0.1:2575 --repeat 100000 --connections 64
  kiln send admit.hl7 --to 127.0.0.1:2575 --for 10m --rate 500

Exits 0 if each message got a positive acknowledgement of its own control ID, 1 if one did not, and 2 if none could be sent. In enhanced mode
(MSH-15, MSH-16) both acknowledgements are shown, and the one that ends it is the application's where MSH-16 asks for it.
Copies made by --repeat and --for each have their own MSH-10 and MSH-7, and are of one of 10,000 patients: identifiers in PID-2, -3, -4, -18,
PV1-19 and MRG are the patient's, those in ORC-2, -3, OBR-2, -3 and SCH-1, -2 the copy's. Authorities and types stay, and equal identifiers
of one message stay equal.")]
pub(crate) struct Args {
    /// Files with messages: plain, MLLP-wrapped, batches, any line ends; `-` is standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Where to: HOST:PORT for MLLP, or an http:// or https:// URL
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The user's name, for HTTP; with --secret-file for the password
    #[arg(long, value_name = "NAME", requires = "secret_file")]
    pub user: Option<String>,
    /// A file with the password of --user or, alone, a bearer token, for HTTP
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Which acknowledgement ends it: what MSH-15 and MSH-16 ask for, the first positive one, or the application's
    #[arg(long, value_enum, default_value = "as-asked")]
    pub expect: Ends,
    /// How long to wait for an application acknowledgement after the accept acknowledgement; as --timeout
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub application_wait: Option<Duration>,
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

/// `--expect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ends {
    /// As MSH-15 and MSH-16 say
    AsAsked,
    /// CA or AA, whichever comes first
    Accept,
    /// AA
    Application,
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
    if args.to.starts_with("http://") || args.to.starts_with("https://") {
        if args.repeat.is_some() || args.duration.is_some() {
            err!("kiln: load is made over MLLP only; leave --repeat and --for away");
            return Exit::CouldNot;
        }
        let sender = match http(args) {
            Ok(sender) => sender,
            Err(what) => {
                err!("kiln: {what}");
                return Exit::CouldNot;
            }
        };
        return runtime.block_on(one_by_one(args, Way::Http(Box::new(sender)), messages));
    }
    runtime.block_on(async {
        let peer = match peer(&args.to, &args.tls, args.timeout) {
            Ok(peer) => peer,
            Err(what) => {
                err!("kiln: {what}");
                return Exit::CouldNot;
            }
        };
        if args.repeat.is_some() || args.duration.is_some() {
            return send_load::run(args, &peer, messages.into_iter().map(|(_, m)| m).collect()).await;
        }
        one_by_one(args, Way::Mllp(Client::new(peer, args.timeout)), messages).await
    })
}

fn http(args: &Args) -> Result<HttpSender, String> {
    let secret = args.secret_file.clone().map(SecretSource::File);
    let auth = match (&args.user, secret) {
        (Some(user), Some(password)) => Auth::Basic { user: user.clone(), password },
        (None, Some(token)) => Auth::Bearer(token),
        (_, None) => Auth::None,
    };
    if args.tls.tls_name.is_some() {
        return Err("--tls-name is for MLLP: a URL has the server's name".to_owned());
    }
    let tls = args.tls.settings().unwrap_or_default();
    HttpSender::open(&HttpConfig { auth, tls, timeout: args.timeout, ..HttpConfig::new(&args.to) }).map_err(|e| e.to_string())
}

/// How messages are sent.
enum Way {
    Mllp(Client),
    Http(Box<HttpSender>),
}

/// What came of one message.
#[derive(Default)]
struct Told {
    /// The accept acknowledgement, where another one was awaited, and when it came.
    accept: Option<(Answer, u64)>,
    /// The acknowledgement that ends it, or the last that came.
    answer: Option<Answer>,
    /// Why that is not enough.
    fault: Option<String>,
    /// The HTTP status.
    status: Option<u16>,
    /// True if the message cannot have arrived.
    unsent: bool,
}

async fn one_by_one(args: &Args, mut way: Way, messages: Vec<(String, Vec<u8>)>) -> Exit {
    let mut all_well = true;
    let mut any_sent = false;
    for (name, message) in messages {
        let message = if args.force { send_load::Template::fresh(&message) } else { message };
        let control_id = message_file::control_id(&message);
        let began = Instant::now();
        let told = match &mut way {
            Way::Mllp(client) => over_mllp(args, client, &message, &control_id, began).await,
            Way::Http(sender) => over_http(args, sender, &message, &control_id).await,
        };
        any_sent |= !told.unsent;
        all_well &= show(args.json, &name, &control_id, &told, since(began));
    }
    match (all_well, any_sent) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Found,
        (false, false) => Exit::CouldNot,
    }
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Is the message done with a CA, or is the application's word still to come?
fn awaits_application(args: &Args, message: &[u8]) -> bool {
    match args.expect {
        Ends::Accept => false,
        Ends::Application => true,
        Ends::AsAsked => {
            let asked = Header::read(message).ok().as_ref().and_then(Conditions::of);
            asked.is_some_and(|asked| asked.application.asks(true))
        }
    }
}

async fn over_mllp(args: &Args, client: &mut Client, message: &[u8], control_id: &str, began: Instant) -> Told {
    let answer = match client.exchange(message, control_id).await {
        Ok(answer) => answer,
        Err(failure) => return failed(failure, Told::default()),
    };
    if answer.code != "CA" || !awaits_application(args, message) {
        return Told { answer: Some(answer), ..Told::default() };
    }
    let accepted = Told { accept: Some((answer, since(began))), ..Told::default() };
    match client.second(control_id, args.application_wait.unwrap_or(args.timeout)).await {
        Ok(answer) => Told { answer: Some(answer), ..accepted },
        Err(failure) => failed(failure, accepted),
    }
}

fn failed(failure: Failure, told: Told) -> Told {
    let fault = match (&failure, &told.accept) {
        (Failure::TimedOut(wait), Some(_)) => format!("accepted, but no application acknowledgement came within {wait:?}"),
        (Failure::Closed, Some(_)) => "accepted, but the connection was closed before the application acknowledgement came".to_owned(),
        _ => failure.to_string(),
    };
    let unsent = failure.is_before() && told.accept.is_none();
    let answer = if let Failure::OfAnother(answer) = failure { Some(*answer) } else { None };
    Told { answer, fault: Some(fault), unsent, ..told }
}

/// The set that the message is written in, as Kiln would read it; of one that it cannot read, UTF-8 where the bytes are, else ISO 8859-1.
fn charset(message: &[u8]) -> Charset {
    let read = Message::parse(message.to_vec().into(), &ParseOptions::default()).map(|message| message.charset());
    read.unwrap_or(if std::str::from_utf8(message).is_ok() { Charset::UTF_8 } else { Charset::LATIN_1 })
}

async fn over_http(args: &Args, sender: &HttpSender, message: &[u8], control_id: &str) -> Told {
    let (status, body) = match sender.post(message, charset(message)).await {
        Ok(posted) => posted,
        Err(setback) => return Told { fault: Some(setback.summary), unsent: setback.retry == Retry::Transient, ..Told::default() },
    };
    let told = Told { status: Some(status), ..Told::default() };
    match Answer::read(body.as_bytes()) {
        None => Told { fault: Some(format!("the answer, HTTP {status}, is no acknowledgement: it has no MSA segment")), ..told },
        Some(answer) if answer.control_id.trim() != control_id.trim() => failed(Failure::OfAnother(Box::new(answer)), told),
        Some(answer) if answer.code == "CA" && awaits_application(args, message) => Told {
            answer: Some(answer),
            fault: Some("accepted; the application acknowledgement that MSH-16 asks for comes another way (--expect accept ends with this one)".to_owned()),
            ..told
        },
        Some(answer) => Told { answer: Some(answer), ..told },
    }
}

/// Prints what came; true if it is a positive acknowledgement of this message that ends it.
fn show(json: bool, name: &str, control_id: &str, told: &Told, took: u64) -> bool {
    let answer = told.answer.as_ref();
    let well = told.fault.is_none() && answer.is_some_and(Answer::is_positive);
    if json {
        let errors = answer.iter().flat_map(|a| &a.errors);
        let errors: Vec<_> = errors.map(|e| serde_json::json!({ "location": e.location, "code": e.code, "severity": e.severity, "text": e.text })).collect();
        let mut line = serde_json::json!({
            "file": name, "controlId": control_id, "accepted": well, "code": answer.map(|a| &a.code), "ackControlId": answer.map(|a| &a.control_id),
            "text": answer.map(|a| &a.text), "errors": errors, "fault": told.fault, "micros": took,
        });
        if let Some((accept, micros)) = &told.accept {
            line["accept"] = serde_json::json!({ "code": accept.code, "micros": micros });
        }
        if let Some(status) = told.status {
            line["status"] = status.into();
        }
        out!("{line}");
        return well;
    }
    if let Some((accept, took)) = &told.accept {
        line_of(&accept.code, GOOD, control_id, name, *took, told.status);
    }
    line_of(answer.map_or("--", |a| a.code.as_str()), if well { GOOD } else { BAD }, control_id, name, took, told.status);
    if let Some(a) = answer {
        if !a.text.is_empty() {
            out!("    {}", plain(&a.text));
        }
        for e in &a.errors {
            let style = if e.severity == "E" || e.severity == "F" { BAD } else { WARN };
            let place = if e.location.is_empty() { String::new() } else { format!(" at {}", plain(&e.location)) };
            out!("    {}{place}: {}", paint(style, &plain(&e.code)), plain(&e.text));
        }
    }
    if let Some(fault) = &told.fault {
        out!("    {}", paint(BAD, fault));
    }
    well
}

fn line_of(code: &str, style: anstyle::Style, control_id: &str, name: &str, took: u64, status: Option<u16>) {
    let status = status.map(|status| format!("  HTTP {status}")).unwrap_or_default();
    out!(
        "{}  {}  {}  {}",
        paint(style, &format!("{:<2}", plain(code))),
        paint(NAME, &plain(control_id)),
        name,
        paint(FAINT, &format!("{}{status}", micros(took)))
    );
}
