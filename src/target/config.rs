//! What a target must be told, as plain data. The site files are read elsewhere; what may change while Kiln runs (secrets, certificates) is
//! told by where it is kept.

use crate::exchange::Secret;
use crate::fhir::PatchFormat;
use crate::target::{SecretSource, TlsVersion};
use std::path::PathBuf;
use std::time::Duration;

/// Which target, and how to reach it.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetConfig {
    /// A FHIR R4 server.
    Fhir(FhirConfig),
    /// A receiver of HL7 v2 messages.
    V2(V2Config),
    /// A folder of files.
    Folder(FolderConfig),
    /// Takes everything and keeps nothing: for measuring.
    Null,
}

/// A FHIR server.
#[derive(Clone, Debug, PartialEq)]
pub struct FhirConfig {
    /// The service base URL, `https://fhir.example/r4`; a slash at its end is ignored.
    pub base: String,
    /// How Kiln says who it is.
    pub auth: Auth,
    /// Headers for every request to the FHIR server, such as an API key; the token server does not get them.
    pub headers: Vec<(String, SecretSource)>,
    /// Whom to trust, and Kiln's own certificate.
    pub tls: Tls,
    /// The way there.
    pub proxy: Proxy,
    /// How long one request may take, the answer's body included.
    pub timeout: Duration,
    /// How long connecting may take, TLS included; `None`: a third of `timeout`, at most 10 s.
    pub connect_timeout: Option<Duration>,
    /// At most so many requests in a time; `None` for no limit.
    pub rate: Option<Rate>,
    /// How the server takes patches; `None` if it takes none.
    pub patch: Option<PatchFormat>,
    /// Site secret: ids made by `put by` are keyed with it, so that they tell nothing about the patient.
    pub secret: Secret<[u8; 32]>,
}

impl FhirConfig {
    /// A server without credentials, with the defaults of a site file.
    pub fn new(base: impl Into<String>, secret: Secret<[u8; 32]>) -> Self {
        Self {
            base: base.into(),
            auth: Auth::None,
            headers: Vec::new(),
            tls: Tls::default(),
            proxy: Proxy::Environment,
            timeout: Duration::from_secs(30),
            connect_timeout: None,
            rate: None,
            patch: Some(PatchFormat::Json),
            secret,
        }
    }
}

/// A server that is reached by HTTP, whatever it speaks.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Where it is: `https://host/path`.
    pub url: String,
    /// How Kiln says who it is.
    pub auth: Auth,
    /// Headers for every request to the server; a token server does not get them.
    pub headers: Vec<(String, SecretSource)>,
    /// Whom to trust, and Kiln's own certificate.
    pub tls: Tls,
    /// The way there.
    pub proxy: Proxy,
    /// How long one request may take, the answer's body included.
    pub timeout: Duration,
    /// How long connecting may take, TLS included; `None`: a third of `timeout`, at most 10 s.
    pub connect_timeout: Option<Duration>,
}

impl HttpConfig {
    /// A server without credentials, with the defaults of a site file.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            auth: Auth::None,
            headers: Vec::new(),
            tls: Tls::default(),
            proxy: Proxy::Environment,
            timeout: Duration::from_secs(30),
            connect_timeout: None,
        }
    }
}

impl FhirConfig {
    /// How it is reached.
    pub(crate) fn http(&self) -> HttpConfig {
        HttpConfig {
            url: self.base.clone(),
            auth: self.auth.clone(),
            headers: self.headers.clone(),
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
        }
    }
}

/// A receiver of HL7 v2 messages.
#[derive(Clone, Debug, PartialEq)]
pub struct V2Config {
    /// How messages reach it.
    pub way: V2Way,
    /// Which acknowledgement ends a delivery.
    pub expect: Expect,
    /// How long the application acknowledgement may take, once the receiver has accepted the message.
    pub application_wait: Duration,
    /// Codes of HL7 table 0008 (MSA-1) and 0357 (ERR-3) after which a message is tried again; after all others it is given up.
    pub retry_on: Vec<String>,
    /// True if application acknowledgements come to a listener ([`Job::answers`](crate::target::Job)), not on the connection.
    pub replies: bool,
    /// At most so many messages in a time; `None` for no limit.
    pub rate: Option<Rate>,
}

/// What a message is tried again after, unless the site says otherwise: the receiver could not store it (CE), the record is in use (206),
/// or something is wrong inside of the receiver (207).
pub const RETRY_ON: [&str; 3] = ["CE", "206", "207"];

impl V2Config {
    /// The defaults of a site file.
    pub fn new(way: V2Way) -> Self {
        Self {
            way,
            expect: Expect::AsAsked,
            application_wait: Duration::from_secs(300),
            retry_on: RETRY_ON.map(str::to_owned).to_vec(),
            replies: false,
            rate: None,
        }
    }
}

/// How messages reach a receiver.
#[derive(Clone, Debug, PartialEq)]
pub enum V2Way {
    /// MLLP, on connections that stay open.
    Mllp(MllpConfig),
    /// POST of `application/hl7-v2`; the answer's body is the acknowledgement.
    Http(HttpConfig),
}

/// A receiver of MLLP.
#[derive(Clone, Debug, PartialEq)]
pub struct MllpConfig {
    /// `HOST:PORT`.
    pub address: String,
    /// TLS; `None` without.
    pub tls: Option<Tls>,
    /// The name that the receiver's certificate must have, where it is not the address's.
    pub tls_name: Option<String>,
    /// How long the (first) acknowledgement may take, from the first byte that is sent.
    pub timeout: Duration,
    /// How long connecting may take, TLS included; `None`: a third of `timeout`, at most 10 s.
    pub connect_timeout: Option<Duration>,
}

impl MllpConfig {
    /// A receiver without TLS, with the defaults of a site file.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), tls: None, tls_name: None, timeout: Duration::from_secs(30), connect_timeout: None }
    }
}

/// Which acknowledgement ends a delivery (HL7 chapter 2, section 2.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// What MSH-15 and MSH-16 of the message ask for; the first positive one where both are empty.
    #[default]
    AsAsked,
    /// The first positive one, CA or AA.
    Accept,
    /// AA; a CA says only that it is to come.
    Application,
}

/// Credentials for a FHIR server.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// None, or a client certificate alone.
    None,
    /// HTTP Basic.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: SecretSource,
    },
    /// A bearer token that somebody else renews, or that never ends.
    Bearer(SecretSource),
    /// An access token that Kiln gets from a token server, with the grant `client_credentials` (RFC 6749, section 4.4).
    Token(TokenConfig),
}

/// How Kiln gets access tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenConfig {
    /// The token endpoint; `None`: what the FHIR server's `.well-known/smart-configuration` says.
    pub url: Option<String>,
    /// The client ID.
    pub client: String,
    /// How the client proves who it is.
    pub proof: ClientProof,
    /// The scope that is asked for, `system/*.cruds`; `None` leaves it to the server.
    pub scope: Option<String>,
    /// Further parameters of the request, such as `audience` or `resource`.
    pub parameters: Vec<(String, String)>,
}

/// How a client proves to a token server who it is.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientProof {
    /// `client_secret_basic`: in the Authorization header (RFC 6749, section 2.3.1).
    Basic(SecretSource),
    /// `client_secret_post`: in the form.
    Post(SecretSource),
    /// `private_key_jwt`: SMART Backend Services (<https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html>).
    Key {
        /// The private key: PEM, a JWK or a JWKS.
        key: SecretSource,
        /// The `kid` under which the server knows it; `None`: the key file's, else its thumbprint.
        id: Option<String>,
        /// The assertion's `aud`; `None`: the token URL.
        audience: Option<String>,
    },
}

/// TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// A file of PEM certificates: these authorities are trusted, and no others. `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Files with Kiln's own certificate (and its chain), and its private key, both PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The oldest version that is spoken.
    pub minimum: TlsVersion,
}

/// The way to a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Proxy {
    /// As `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// Directly, whatever the environment says.
    None,
    /// Through this proxy.
    Url {
        /// `http://proxy.example:3128`.
        url: String,
        /// User and password, if it wants any.
        login: Option<(String, SecretSource)>,
    },
}

/// So many requests in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; never 0.
    pub requests: u32,
    /// In how long.
    pub per: Duration,
}

/// A folder of files.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderConfig {
    /// The folder; it is made if it does not exist.
    pub path: PathBuf,
    /// How the files are laid out.
    pub layout: Layout,
    /// Site secret: file names are keyed with it, so that they tell nothing about the patient.
    pub secret: Secret<[u8; 32]>,
    /// NDJSON: a file that has reached this size is set aside and a new one begun.
    pub max_file_bytes: u64,
}

/// How a folder is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `Patient/<id>.json`: each resource in its current state.
    Json,
    /// `Patient.ndjson`: each save appended as a line, as FHIR's bulk data has it.
    Ndjson,
}

/// How the entries of one message reach a FHIR server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sending {
    /// All in one transaction Bundle: all or nothing.
    #[default]
    Transaction,
    /// In batch Bundles, judged by entry; entries that refer to others follow in a Bundle of their own.
    Batch,
    /// One request per resource, in reference order.
    Single,
}

/// Why a target could not be opened. No patient data.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A setting that cannot work.
    #[error("{0}")]
    Setting(String),
    /// The folder cannot be used.
    #[error("the folder {path} cannot be used: {source}")]
    Folder {
        /// The folder as configured.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder holds less than the journal remembers: files were taken away or came from a backup.
    #[error("the folder holds commit {folder}, but the journal remembers commit {journal}; it was emptied or restored from a backup")]
    Behind {
        /// The folder's last commit.
        folder: u64,
        /// The journal's.
        journal: u64,
    },
}
