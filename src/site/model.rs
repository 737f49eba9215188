//! What a site file says, typed. Plain data; the engine makes listeners and targets of it.

use crate::diagnostic::Span;
use crate::exchange::Secret;
use crate::hl7v2::{Charset, Condition, Conditions, ParseOptions, Tolerate, Validation};
use crate::listener::ListenerConfig;
use crate::target::{Auth, FhirConfig, FolderConfig, Layout, PatchFormat, Proxy, Rate, SecretSource, Sending, TargetConfig, Tls, V2Config, V2Way};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A checked site file with its defaults filled in. Relative paths have been resolved against the file's folder.
#[derive(Clone, Debug)]
pub struct Site {
    /// `language:`, the version of the route language.
    pub language: u32,
    /// `journal:`.
    pub journal: Journal,
    /// `console:`.
    pub console: Console,
    /// `metrics: { listen }`; `None`: only on the console's port.
    pub metrics: Option<SocketAddr>,
    /// `reload:`.
    pub reload: Reload,
    /// `on-removal:`.
    pub on_removal: OnRemoval,
    /// `use:`, overlays that every route uses.
    pub overlays: Vec<String>,
    /// `routes:` and `tables:`, folders that are read with everything below them.
    pub folders: Vec<PathBuf>,
    /// `listeners:`, in the order written.
    pub listeners: Vec<ListenerSite>,
    /// `targets:`, in the order written.
    pub targets: Vec<TargetSite>,
    /// `log:`.
    pub log: Log,
    /// Where the name of each target stands in the site file.
    pub target_places: Vec<Span>,
    /// Files that were read besides the site file itself, and whose change is a change of the site: secrets and certificates.
    pub files: Vec<PathBuf>,
}

/// `journal:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// The folder.
    pub path: PathBuf,
    /// How long settled messages are kept.
    pub keep: Duration,
    /// How many bytes the journal may have before the oldest settled messages go, whatever their age; `None`: no limit.
    pub keep_bytes: Option<u64>,
    /// Below this much free space nothing is accepted.
    pub low_water: LowWater,
    /// From this much free space on messages are accepted again; `None`: a tenth more than `low_water`.
    pub high_water: Option<LowWater>,
    /// With so many waiting deliveries nothing more is accepted; `None`: no limit but the disk.
    pub backlog_max: Option<u64>,
    /// With so many left messages are accepted again; `None`: nine tenths of that.
    pub backlog_resume: Option<u64>,
}

/// `low-water:`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LowWater {
    /// So many bytes free.
    Bytes(u64),
    /// So many percent of the disk free.
    Percent(u8),
    /// 5 % or 1 GiB, whichever is more.
    Default,
}

/// `console:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// Where; `None` for `console: off`.
    pub listen: Option<SocketAddr>,
}

/// `reload:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// When files changed and then stayed quiet for 300 ms, and on SIGHUP.
    Watch,
    /// On SIGHUP only.
    Signal,
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSite {
    /// The socket: name, `mllp:`, `allow:` and `limits:`.
    pub socket: ListenerConfig,
    /// `acknowledge:`.
    pub acknowledge: Acknowledge,
    /// `mode:` and `enhanced:`.
    pub enhanced: Enhanced,
    /// `unrouted:`.
    pub unrouted: Unrouted,
    /// `duplicates:`, for how long a repeated message is known; `None` for `off`.
    pub duplicates: Option<Duration>,
    /// `when-full:`.
    pub when_full: WhenFull,
    /// `charset:`, an HL7 table 0211 code or a name such as `UTF-8`, for messages with an empty or unknown MSH-18.
    pub charset: Option<String>,
    /// `charset: { force }`, the same for all messages, whatever MSH-18 says.
    pub force_charset: Option<String>,
    /// `zone:`, the IANA name for times without an offset.
    pub zone: Option<String>,
    /// `authority:`, an HD in v2 form for identifiers without CX.4.
    pub authority: Option<String>,
    /// `batch:`.
    pub batch: BatchAnswer,
    /// `tolerate:`, what of it a message says; what its framing says is in the socket's.
    pub tolerate: Tolerate,
    /// `validate:`; `None` where messages are not held to anything.
    pub validate: Option<Validation>,
}

impl ListenerSite {
    /// What the file says with an address alone.
    pub fn new(socket: ListenerConfig) -> Self {
        Self {
            socket,
            acknowledge: Acknowledge::Stored,
            enhanced: Enhanced::default(),
            unrouted: Unrouted::Accept,
            duplicates: Some(Duration::from_secs(86_400)),
            when_full: WhenFull::Close,
            charset: None,
            force_charset: None,
            zone: None,
            authority: None,
            batch: BatchAnswer::All,
            tolerate: Tolerate::default(),
            validate: None,
        }
    }

    /// How bytes that come by it are read.
    pub fn parse_options(&self) -> ParseOptions {
        let named = |name: &Option<String>| name.as_deref().and_then(Charset::named);
        let (charset, charset_otherwise) = (named(&self.force_charset), named(&self.charset));
        ParseOptions { charset, charset_otherwise, header: self.tolerate.header, unescaped: self.tolerate.unescaped }
    }
}

/// `batch:`, how a file or batch in a frame is answered (chapter 2, section 2.10.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchAnswer {
    /// A batch with the acknowledgement of each message.
    All,
    /// A batch with the acknowledgements of those that are not accepted; an empty one if all are.
    Errors,
    /// Acknowledgements alone, as if each message had come alone.
    Single,
    /// It is not taken.
    Refuse,
}

/// `acknowledge:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// AA when the message is on disk.
    Stored,
    /// AA when it is on disk and every route that takes it can make something of it; else AE, and it is kept as refused.
    Mapped,
    /// AA when the targets have it; AE when one of them cannot take it, and then it is kept as refused.
    Delivered {
        /// `delivered-to:`, the targets that count; empty for all.
        to: Vec<String>,
        /// `reply-wait:`, the longest that a sender waits. Then its connection is closed without an answer, and delivery goes on.
        wait: Duration,
    },
}

/// `mode:` and `enhanced:`, how messages are acknowledged whose senders want two acknowledgements (HL7 chapter 2, section 2.9.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enhanced {
    /// `mode:`.
    pub mode: Mode,
    /// `accept:`, in the place of MSH-15.
    pub accept: Option<Condition>,
    /// `application:`, in the place of MSH-16.
    pub application: Option<Condition>,
    /// What the application acknowledgement waits for: `acknowledge:` where it is written, else the targets.
    pub outcome: Acknowledge,
    /// `to:`.
    pub to: ReturnTo,
    /// `tls:` of that address, with the name that its certificate must have, if that is another.
    pub tls: Option<(Tls, Option<String>)>,
    /// `own:`, MSH-15 of Kiln's application acknowledgements: AL or NE.
    pub own: Condition,
    /// `accept-wait:`, after how long an application acknowledgement that was not accepted is sent again.
    pub accept_wait: Duration,
    /// `retry-for:`, after how long it is given up.
    pub retry_for: Duration,
}

impl Default for Enhanced {
    fn default() -> Self {
        Self {
            mode: Mode::AsSent,
            accept: None,
            application: None,
            outcome: Acknowledge::Delivered { to: Vec::new(), wait: Duration::ZERO },
            to: ReturnTo::Connection,
            tls: None,
            own: Condition::Never,
            accept_wait: Duration::from_secs(30),
            retry_for: Duration::from_secs(24 * 3_600),
        }
    }
}

impl Enhanced {
    /// What a message asks for, but for what the site says instead.
    pub fn forced(&self, sent: Conditions) -> Conditions {
        Conditions { accept: self.accept.unwrap_or(sent.accept), application: self.application.unwrap_or(sent.application) }
    }
}

/// `mode:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// MSH-15 and MSH-16 decide; with both empty it is original mode.
    AsSent,
    /// One acknowledgement, whatever they say.
    Original,
    /// Enhanced mode, also with both empty.
    Enhanced,
}

/// `to:`, how the application acknowledgement reaches the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnTo {
    /// By the connection that the message came by; if that is closed, by the next one of the same sender.
    Connection,
    /// By a connection to `host:port`.
    Address(String),
    /// As the answer when the sender sends the message again.
    Poll,
}

/// `on-removal:`, what becomes of deliveries that wait for a route or target which a reload takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRemoval {
    /// The reload is refused, with their number.
    Refuse,
    /// They are made as if it were still there; then it is gone.
    Drain,
    /// They become dead letters.
    DeadLetter,
}

/// `unrouted:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// AA, kept as `unrouted`.
    Accept,
    /// AR 200 or 201, kept as refused.
    Reject,
}

/// `when-full:`, what a sender sees while nothing can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// No answer and a closed connection: the sender keeps the message and sends it again.
    Close,
    /// AR with 207.
    Nak,
}

/// One target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetSite {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// `parallel:`, deliveries at once.
    pub parallel: usize,
}

/// What a target is.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetKind {
    /// `fhir:`, a FHIR server.
    Fhir {
        /// The base URL, without a slash at the end.
        url: String,
        /// `auth:`.
        auth: Auth,
        /// `headers:`, sent with every request.
        headers: Vec<(String, SecretSource)>,
        /// `tls:`.
        tls: Tls,
        /// `proxy:`.
        proxy: Proxy,
        /// `timeout:` of a request.
        timeout: Duration,
        /// `connect-timeout:`; `None` for a third of `timeout`, at most 10 s.
        connect_timeout: Option<Duration>,
        /// `rate:`.
        rate: Option<Rate>,
        /// `settle:`, how long an identity waits after an ambiguous outcome.
        settle: Duration,
        /// `patch:`, how the server takes patches; `None` if it takes none.
        patch: Option<PatchFormat>,
        /// `send:`; `None` leaves it to the route.
        send: Option<Sending>,
    },
    /// `mllp:` or `http:`, a receiver of HL7 v2.
    V2 {
        /// What it is opened with.
        config: V2Config,
        /// `replies:`, the listener to which its application acknowledgements come.
        replies: Option<String>,
    },
    /// `folder:`, files.
    Folder {
        /// The folder.
        path: PathBuf,
        /// `layout:`.
        layout: Layout,
    },
    /// `null: true`, forgets everything: for measuring.
    Null,
}

/// `log:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `level:` of Kiln's own lines: error, warn, info, debug or trace.
    pub level: String,
    /// `json:`, one JSON object per line.
    pub json: bool,
    /// `unsafe:`, lifts the cap on third-party crates, whose lines may hold patient data.
    pub unsafe_: bool,
}

/// NDJSON files are set aside at this size.
const NDJSON_BYTES_MAX: u64 = 256 << 20;

impl TargetSite {
    /// What the target is opened with. `secret` is the journal's: ids and file names are keyed with it.
    pub fn config(&self, secret: &[u8; 32]) -> TargetConfig {
        let secret = Secret::new(*secret);
        match &self.kind {
            TargetKind::Fhir { url, auth, headers, tls, proxy, timeout, connect_timeout, rate, patch, .. } => TargetConfig::Fhir(FhirConfig {
                base: url.clone(),
                auth: auth.clone(),
                headers: headers.clone(),
                tls: tls.clone(),
                proxy: proxy.clone(),
                timeout: *timeout,
                connect_timeout: *connect_timeout,
                rate: *rate,
                patch: *patch,
                secret,
            }),
            TargetKind::V2 { config, .. } => TargetConfig::V2(config.clone()),
            TargetKind::Folder { path, layout } => {
                TargetConfig::Folder(FolderConfig { path: path.clone(), layout: *layout, secret, max_file_bytes: NDJSON_BYTES_MAX })
            }
            TargetKind::Null => TargetConfig::Null,
        }
    }

    /// How long an identity waits after an attempt that may have happened.
    pub fn settle(&self) -> Duration {
        match &self.kind {
            TargetKind::Fhir { settle, .. } => *settle,
            TargetKind::V2 { .. } | TargetKind::Folder { .. } | TargetKind::Null => Duration::ZERO,
        }
    }

    /// `send:`, whatever the route says.
    pub fn send(&self) -> Option<Sending> {
        match &self.kind {
            TargetKind::Fhir { send, .. } => *send,
            TargetKind::V2 { .. } | TargetKind::Folder { .. } | TargetKind::Null => None,
        }
    }

    /// `replies:`, the listener to which its application acknowledgements come.
    pub fn replies(&self) -> Option<std::sync::Arc<str>> {
        match &self.kind {
            TargetKind::V2 { replies, .. } => replies.as_deref().map(Into::into),
            TargetKind::Fhir { .. } | TargetKind::Folder { .. } | TargetKind::Null => None,
        }
    }

    /// Where it leads, for people: a URL or a folder, without credentials.
    pub fn place(&self) -> String {
        match &self.kind {
            TargetKind::Fhir { url, .. } => url.clone(),
            TargetKind::V2 { config, .. } => match &config.way {
                V2Way::Mllp(mllp) => format!("mllp://{}", mllp.address),
                V2Way::Http(http) => http.url.clone(),
            },
            TargetKind::Folder { path, .. } => path.display().to_string(),
            TargetKind::Null => "nowhere".to_owned(),
        }
    }
}

impl Site {
    /// The names that routes may say in `from`.
    pub fn listener_names(&self) -> Vec<String> {
        self.listeners.iter().map(|l| l.socket.name.to_string()).collect()
    }

    /// The names that routes may say in `to`.
    pub fn target_names(&self) -> Vec<String> {
        self.targets.iter().map(|t| t.name.clone()).collect()
    }

    /// Servers that take no patches, in order.
    pub fn unpatched_target_names(&self) -> Vec<String> {
        self.targets.iter().filter(|t| matches!(t.kind, TargetKind::Fhir { patch: None, .. })).map(|t| t.name.clone()).collect()
    }

    /// Targets that take HL7 v2 messages and no resources, in order.
    pub fn message_target_names(&self) -> Vec<String> {
        self.targets.iter().filter(|t| matches!(t.kind, TargetKind::V2 { .. })).map(|t| t.name.clone()).collect()
    }

    /// Targets that routes cannot ask, in order: all but FHIR servers.
    pub fn unsearchable_target_names(&self) -> Vec<String> {
        self.targets.iter().filter(|t| !matches!(t.kind, TargetKind::Fhir { .. })).map(|t| t.name.clone()).collect()
    }

    /// Targets that take FHIR resources and no messages, in order: servers, and folders of NDJSON.
    pub fn resource_target_names(&self) -> Vec<String> {
        let takes_no_messages = |t: &&TargetSite| matches!(t.kind, TargetKind::Fhir { .. } | TargetKind::Folder { layout: Layout::Ndjson, .. });
        self.targets.iter().filter(takes_no_messages).map(|t| t.name.clone()).collect()
    }
}
