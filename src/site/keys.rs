//! The keys of the site file, declared once: the reader and the JSON Schema come from these tables.

/// A key of a section.
pub(crate) struct SiteKey {
    /// As written.
    pub(crate) name: &'static str,
    /// What stands behind the colon.
    pub(crate) takes: Takes,
    /// A sentence without a full stop, with the default where there is one.
    pub(crate) meaning: &'static str,
}

/// The shapes of values.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// Any text.
    Text,
    /// A text, or a list of them.
    Texts,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `30s`, `24h`; with the words that stand beside.
    Duration(&'static [&'static str]),
    /// `16MiB`.
    Size,
    /// `1GiB` or `5%`.
    Share,
    /// `127.0.0.1:2575`.
    Address,
    /// A whole number from and to.
    Number(usize, usize),
    /// The base URL of a server.
    Url,
    /// `50/s`.
    Rate,
    /// A text, one of these words among them, or a section with these keys.
    TextOr(&'static [SiteKey]),
    /// A mapping of names to texts.
    Pairs,
    /// `{ file: PATH }`, `{ env: NAME }` or `{ command: [...] }`; true if a text is allowed as well.
    Secret(bool),
    /// A mapping of names to secrets.
    Secrets,
    /// A section with these keys; with the words that stand in its place.
    Section(&'static [SiteKey], &'static [&'static str]),
    /// Names, each with a section of these keys.
    Named(&'static [SiteKey]),
}

const fn key(name: &'static str, takes: Takes, meaning: &'static str) -> SiteKey {
    SiteKey { name, takes, meaning }
}

/// The file itself.
pub(crate) const ROOT: &[SiteKey] = &[
    key("language", Takes::Choice(&["1"]), "the version of the route language; 1"),
    key("journal", Takes::Section(JOURNAL, &[]), "where messages are kept, and for how long"),
    key("console", Takes::Section(LISTEN, &["off", "false", "none"]), "the status page; 127.0.0.1:8575, or `off`"),
    key("metrics", Takes::Section(LISTEN, &[]), "/metrics, /healthz and /readyz on an address of their own; else on the console's"),
    key(
        "reload",
        Takes::Choice(&["watch", "signal"]),
        "when changed files become live: 300 ms after the last change, or on SIGHUP and `kiln reload` alone; watch",
    ),
    key(
        "on-removal",
        Takes::Choice(&["refuse", "drain", "dead-letter"]),
        "deliveries that wait for a route or target which a change takes away: the change is refused, they are still made, or given up; refuse",
    ),
    key("use", Takes::Texts, "overlays that count for all routes: documents with `$in: NAME`"),
    key("routes", Takes::Texts, "folders of route files, from the folder of this file; routes"),
    key("tables", Takes::Texts, "further folders of route files, such as tables"),
    key("listeners", Takes::Named(LISTENER), "where messages come in; the name is what routes call it in `from`"),
    key("targets", Takes::Named(TARGET), "where resources go; the name is what routes call it in `to`"),
    key("log", Takes::Section(LOG, &[]), "what the daemon says on standard error"),
];

/// `journal:`.
pub(crate) const JOURNAL: &[SiteKey] = &[
    key("path", Takes::Text, "the folder; journal"),
    key("keep", Takes::Duration(&[]), "how long settled messages are kept; 30d"),
    key("keep-bytes", Takes::Size, "how large the journal may be before the oldest settled messages go, although they are younger than `keep`; no limit"),
    key("low-water", Takes::Share, "below this much free space nothing is accepted; 5 % or 1 GiB, whichever is more"),
    key("high-water", Takes::Share, "from this much free space on messages are accepted again after that; a tenth more than `low-water`"),
    key("backlog-max", Takes::Number(1, 1_000_000_000), "with more deliveries waiting than this, nothing is accepted; no limit but the disk"),
    key("backlog-resume", Takes::Number(0, 1_000_000_000), "with so many deliveries left messages are accepted again after that; nine tenths of `backlog-max`"),
];

/// `console:` and `metrics:`.
pub(crate) const LISTEN: &[SiteKey] = &[key("listen", Takes::Address, "address and port")];

/// One listener.
pub(crate) const LISTENER: &[SiteKey] = &[
    key("mllp", Takes::Address, "messages come over MLLP: address and port; this, `http` or `folder` is needed"),
    key("http", Takes::Address, "messages come by POST over HTTP, and the answer has the acknowledgement: address and port"),
    key("path", Takes::Text, "with `http`, the path at which messages are taken: `/hl7`; left out, every path"),
    key("auth", Takes::Section(LISTENER_AUTH, &[]), "with `http`, what a request must show; left out, nothing"),
    key(
        "status",
        Takes::Choice(&["acknowledgement", "ok"]),
        "with `http`, the status of an answer: 200, 400 or 500 by the acknowledgement's code, or 200 for all; acknowledgement",
    ),
    key("folder", Takes::Text, "messages come in files, which somebody puts into this folder"),
    key(
        "files",
        Takes::Texts,
        "with `folder`, the names that are taken, `*` for any letters: `*.hl7`; left out, all but hidden ones and `.tmp`, `.part` and the like",
    ),
    key("quiet", Takes::Duration(&[]), "with `folder`, a file is read once it has not changed for so long; 2s"),
    key("done", Takes::Text, "with `folder`, where files go of which every message was accepted; `done` in the folder"),
    key("failed", Takes::Text, "with `folder`, where the others go; `failed` in the folder"),
    key("answers", Takes::Choice(&["on", "off"]), "with `folder`, whether the acknowledgements are written beside a file that was read, as `NAME.ack`; on"),
    key(
        "acknowledge",
        Takes::Choice(&["stored", "mapped", "delivered"]),
        "when AA is answered: on disk, and mapped, and with the targets; stored, or where CA is answered first, delivered",
    ),
    key(
        "mode",
        Takes::Choice(&["as-sent", "original", "enhanced"]),
        "one acknowledgement or two: as MSH-15 and MSH-16 say (none where both are empty: original mode), one whatever they say, two also where they are empty; as-sent",
    ),
    key("enhanced", Takes::Section(ENHANCED, &[]), "how messages are acknowledged whose senders want two acknowledgements"),
    key("delivered-to", Takes::Texts, "with `acknowledge: delivered`, the targets that count; left out, all"),
    key("reply-wait", Takes::Duration(&[]), "with `acknowledge: delivered`, after how long a sender gets no answer and a closed connection; 20s"),
    key("unrouted", Takes::Choice(&["accept", "reject"]), "what a message that no route takes is answered; accept"),
    key("duplicates", Takes::Duration(&["off", "0"]), "for how long a repeated message is known; 24h"),
    key("when-full", Takes::Choice(&["close", "nak"]), "what a sender sees while nothing can be stored; close"),
    key(
        "batch",
        Takes::Choice(&["all", "errors", "single", "refuse"]),
        "how a file or batch (FHS, BHS) in a frame is answered: by a batch with an acknowledgement for each message, with one for each that is refused, by acknowledgements alone, or not taken; all",
    ),
    key(
        "validate",
        Takes::Section(VALIDATE, &["dictionary", "none"]),
        "what messages are held to; one that does not conform is answered AE with an ERR for each fault, and kept as refused: `dictionary`, that of MSH-12; none",
    ),
    key("tolerate", Takes::Section(TOLERATE, &["all", "none"]), "which broken rules are taken: each a switch"),
    key(
        "charset",
        Takes::TextOr(CHARSET),
        "the character set of messages whose MSH-18 says none, or none that is known: `UTF-8`, `8859/1`, or another code of table 0211; UTF-8 if the bytes are, else 8859/1",
    ),
    key("zone", Takes::Text, "the zone of times without an offset, an IANA name: `Europe/Berlin`; UTC"),
    key("authority", Takes::Text, "the assigning authority of identifiers without CX.4: `HOSP` or `HOSP&1.2.3&ISO`"),
    key("allow", Takes::Texts, "addresses and ranges that may connect; left out, all"),
    key("proxy-protocol", Takes::Texts, "load balancers, addresses and ranges, that say in a PROXY header for whom they connect; `allow` is about those then"),
    key("tls", Takes::Section(SERVER_TLS, &[]), "TLS, and which clients may come in; left out, plain connections"),
    key("limits", Takes::Section(LIMITS, &[]), "limits on connections and frames"),
];

/// `enhanced:` of a listener.
pub(crate) const ENHANCED: &[SiteKey] = &[
    key("accept", Takes::Choice(CONDITIONS), "when CA, CE or CR is answered, whatever MSH-15 says: always, never, on errors, on success; as MSH-15 says"),
    key("application", Takes::Choice(CONDITIONS), "when AA, AE or AR is told later, whatever MSH-16 says; as MSH-16 says"),
    key(
        "to",
        Takes::Text,
        "how AA, AE or AR reaches the sender: `connection` (its own, or its next one), its address (`10.0.0.7:2576`), or `poll` (when it sends the message again); connection",
    ),
    key("tls", Takes::Section(TLS, &["true"]), "with an address: it is reached with TLS; `true`, or whom to trust, and Kiln's own certificate"),
    key("own", Takes::Choice(&["NE", "AL"]), "whether the sender is to say that it has it: MSH-15 of Kiln's own AA, AE or AR; NE"),
    key("accept-wait", Takes::Duration(&[]), "with `own: AL`, after how long without CA it is sent again; 30s"),
    key("retry-for", Takes::Duration(&[]), "for how long it is tried; 24h"),
];

/// HL7 table 0155.
const CONDITIONS: &[&str] = &["AL", "NE", "ER", "SU"];

/// `limits:` of a listener.
pub(crate) const LIMITS: &[SiteKey] = &[
    key("frame", Takes::Size, "the largest message; 16MiB"),
    key("connections", Takes::Number(1, 100_000), "how many connections at once"),
    key("in-flight", Takes::Number(1, 10_000), "how many messages of a connection may wait for their answer"),
    key("idle", Takes::Duration(&["off"]), "a connection that is silent for so long is closed"),
    key("frame-time", Takes::Duration(&[]), "a frame that takes longer closes its connection"),
    key("keep-alive", Takes::Duration(&[]), "how often TCP asks whether a silent peer is there"),
    key("handshake", Takes::Duration(&[]), "a connection whose PROXY header and TLS handshake take longer is closed; 10s"),
    key("quiet", Takes::Duration(&[]), "with `tolerate: { unframed: on }` or `no-end: on`, after how long without a byte a message is whole; 500ms"),
];

/// `auth:` of a listener.
pub(crate) const LISTENER_AUTH: &[SiteKey] = &[
    key("users", Takes::Named(USER), "names and passwords (HTTP Basic)"),
    key("bearer", Takes::Secret(false), "a token; a file may hold several, a line each"),
];

/// One of `users:`.
pub(crate) const USER: &[SiteKey] = &[
    key("password", Takes::Secret(false), "`{ file: PATH }`, `{ env: NAME }` or `{ command: [...] }`"),
    key("hash", Takes::Text, "instead of the password, its Argon2 hash: `$argon2id$v=19$m=19456,t=2,p=1$...`"),
];

/// `tls:` of a listener.
pub(crate) const SERVER_TLS: &[SiteKey] = &[
    key("certificate", Takes::Texts, "the listener's certificate with its chain, PEM; several for clients that ask for different hosts (SNI); needed"),
    key("key", Takes::Texts, "the private key of that certificate, PEM; as many, in the same order; needed"),
    key("minimum", Takes::Choice(&["1.2", "1.3"]), "the oldest version of TLS that is spoken; 1.2"),
    key("clients", Takes::Section(CLIENTS, &[]), "clients must have a certificate (mutual TLS); left out, nobody is asked for one"),
];

/// `clients:` of a listener's `tls:`.
pub(crate) const CLIENTS: &[SiteKey] = &[
    key("ca", Takes::Text, "a file of PEM certificates: the authorities that sign certificates of clients; needed"),
    key(
        "names",
        Takes::Texts,
        "names of certificates (host, common name, e-mail, URI, address) that may come in: `lab.example`, `*.ward.example`; left out, all",
    ),
    key("revoked", Takes::Text, "a file of PEM revocation lists, one of each authority"),
];

/// `charset:` of a listener, for senders whose MSH-18 is wrong.
pub(crate) const CHARSET: &[SiteKey] = &[key("force", Takes::Text, "the character set of all messages, whatever MSH-18 says; needed")];

/// `validate:` of a listener.
pub(crate) const VALIDATE: &[SiteKey] = &[
    key("dictionary", SWITCH, "structure, required fields, repetitions, data types, codes of HL7's tables and lengths of the release that MSH-12 names; off"),
    key("profile", Takes::Texts, "files of conformance profiles, from the folder of this file"),
];

/// A conformance profile, in a file of its own.
pub(crate) const PROFILE: &[SiteKey] = &[
    key("profile", Takes::Text, "its name; needed"),
    key("messages", Takes::Texts, "the types that it is for: `ADT^A01`, or `ADT` for all of them; left out, all messages"),
    key("rules", Takes::Named(RULE), "places, each with its usage (R, RE, O, C, X) or with the keys below"),
];

/// One place of a profile.
pub(crate) const RULE: &[SiteKey] = &[
    key("usage", Takes::Choice(&["R", "RE", "O", "C", "X"]), "required, required or empty, optional, conditional, not supported (chapter 2.B); O"),
    key("when", Takes::Text, "the place that must be valued for the usage to count; with C, and else it must be empty"),
    key("in", Takes::Texts, "the codes that the place of `when` must hold one of"),
    key("min", Takes::Number(0, 1_000_000), "at least so many segments or repetitions, if there are any; 0"),
    key("max", Takes::Number(0, 1_000_000), "at most so many; left out, no limit"),
    key("length", Takes::Number(0, 1_000_000), "the longest value, in characters"),
    key("codes", Takes::Texts, "the codes that are allowed; left out, all"),
    key("table", Takes::Text, "an HL7 table that has the codes: `\"0001\"`"),
];

const SWITCH: Takes = Takes::Choice(&["on", "off"]);

/// `tolerate:` of a listener.
pub(crate) const TOLERATE: &[SiteKey] = &[
    key("noise", SWITCH, "bytes between frames are skipped; off: they end the connection; on"),
    key("leading", SWITCH, "a byte order mark, blanks or blank lines before MSH; on"),
    key("line-feeds", SWITCH, "segments that end with LF or CRLF, not with CR; on"),
    key("segment-case", SWITCH, "names of segments in small letters; on"),
    key("broken-lines", SWITCH, "line breaks within a value: a line that begins like no segment belongs to the segment before it; on"),
    key("concatenated", SWITCH, "several messages in one frame: each is stored and answered for itself; on"),
    key("no-end", SWITCH, "frames without 1C: the next frame, or a pause after a segment's end, ends one; off"),
    key("unframed", SWITCH, "messages without any framing, answered without any; off"),
    key("framing", Takes::Text, "other framing bytes besides MLLP's, in hexadecimal: `02 / 03 0D`; none"),
    key("header", SWITCH, "MSH-2 is taken as `^~\\&` where it is empty, and the event from EVN-1 where MSH-9 has none; off"),
    key("unescaped", SWITCH, "delimiters in OBX-5 of type ST, TX or FT that are not escaped, where OBX-11 tells how many; off"),
];

/// One target.
pub(crate) const TARGET: &[SiteKey] = &[
    key("fhir", Takes::Url, "a FHIR R4 server's base URL"),
    key("mllp", Takes::Text, "a receiver of HL7 v2 over MLLP: `HOST:PORT`"),
    key("http", Takes::Url, "a receiver of HL7 v2 over HTTP: the URL to which messages are posted"),
    key("folder", Takes::Text, "a folder, from the folder of this file"),
    key("null", Takes::Choice(&["true"]), "nowhere: mapped and settled, and thrown away"),
    key("auth", Takes::Section(AUTH, &[]), "how Kiln proves to the server who it is"),
    key("headers", Takes::Secrets, "further headers of each request"),
    key(
        "tls",
        Takes::Section(TLS, &["true"]),
        "whom to trust, and Kiln's own certificate; `true` alone turns it on for `mllp:`, with the authorities of the system",
    ),
    key("proxy", Takes::TextOr(PROXY), "the way there: `none`, or the URL of a proxy; left out, as HTTPS_PROXY and NO_PROXY of the environment say"),
    key("timeout", Takes::Duration(&[]), "how long an answer, or the first acknowledgement, may take; 30s"),
    key("connect-timeout", Takes::Duration(&[]), "how long connecting may take; a third of `timeout`, at most 10s"),
    key("rate", Takes::Rate, "at most so many requests or messages in a time: `50/s`, `600/m`; left out, no limit"),
    key("settle", Takes::Duration(&[]), "after how long a server finds what it has saved; as timeout"),
    key("parallel", Takes::Number(1, 256), "how many deliveries at once; 8, and 1 for `mllp:` and `http:`"),
    key(
        "expect",
        Takes::Choice(&["as-asked", "accept", "application"]),
        "which acknowledgement ends a delivery: what MSH-15 and MSH-16 ask for, the first positive one (CA, AA), or the application's (AA); as-asked",
    ),
    key("application-wait", Takes::Duration(&[]), "how long an application acknowledgement may take after the accept acknowledgement; 5m"),
    key("replies", Takes::Text, "the listener to which the receiver sends its application acknowledgements; left out, they come on the connection"),
    key(
        "retry-on",
        Takes::Texts,
        "codes of MSA-1 (AE, AR, CE, CR) and of ERR-3 after which a message is sent again; after all others it is given up; [CE, 206, 207]",
    ),
    key("send", Takes::Choice(&["transaction", "batch", "single"]), "how resources are written; as the route says, else transaction"),
    key("patch", Takes::Choice(&["json", "fhirpath", "none"]), "how the server takes patches; json"),
    key("layout", Takes::Choice(&["json", "ndjson"]), "a file per resource, or one per type with a line for each; json"),
];

/// `auth:` of a target.
pub(crate) const AUTH: &[SiteKey] = &[
    key("basic", Takes::Section(BASIC, &[]), "user and password"),
    key("bearer", Takes::Secret(false), "a token that somebody else renews: `{ file: PATH }`, `{ env: NAME }` or `{ command: [...] }`"),
    key("oauth", Takes::Section(OAUTH, &[]), "OAuth 2 client credentials: a client ID and a secret, for which a token server gives tokens"),
    key("smart", Takes::Section(SMART, &[]), "SMART Backend Services: a client ID and a private key, for which a token server gives tokens"),
];

/// `oauth:` of `auth:`.
pub(crate) const OAUTH: &[SiteKey] = &[
    key("token-url", Takes::Url, "the token endpoint; left out, what the server's .well-known/smart-configuration says"),
    key("client", Takes::Text, "the client ID; needed"),
    key("secret", Takes::Secret(false), "the client's secret; needed"),
    key("method", Takes::Choice(&["basic", "post"]), "where the secret is sent: in a header (client_secret_basic), or in the form (client_secret_post); basic"),
    key("scope", Takes::Text, "what is asked for: `system/*.cruds`"),
    key("parameters", Takes::Pairs, "further parameters of the request, such as `audience` or `resource`"),
];

/// `smart:` of `auth:`.
pub(crate) const SMART: &[SiteKey] = &[
    key("token-url", Takes::Url, "the token endpoint; left out, what the server's .well-known/smart-configuration says"),
    key("client", Takes::Text, "the client ID; needed"),
    key("key", Takes::Secret(false), "the private key, RSA (RS384) or EC P-384 (ES384), as PEM, JWK or JWKS; needed"),
    key("kid", Takes::Text, "the key's ID at the server; the key file's own, else its thumbprint"),
    key("scope", Takes::Text, "what is asked for: `system/*.cruds`; needed"),
    key("audience", Takes::Text, "`aud` of the assertion; the token URL"),
    key("parameters", Takes::Pairs, "further parameters of the request"),
];

/// `tls:` of a target.
pub(crate) const TLS: &[SiteKey] = &[
    key("ca", Takes::Text, "a file of PEM certificates: these authorities are trusted, and no others; those of the system"),
    key("certificate", Takes::Text, "Kiln's own certificate with its chain, PEM"),
    key("key", Takes::Text, "the private key of that certificate, PEM"),
    key("minimum", Takes::Choice(&["1.2", "1.3"]), "the oldest version of TLS that is spoken; 1.2"),
    key("name", Takes::Text, "with `mllp:`, the name in the receiver's certificate, where it is not that of the address"),
];

/// `proxy:` of a target.
pub(crate) const PROXY: &[SiteKey] = &[
    key("url", Takes::Url, "the proxy: `http://proxy.example:3128`"),
    key("user", Takes::Text, "the user's name, if it wants one"),
    key("password", Takes::Secret(false), "`{ file: PATH }`, `{ env: NAME }` or `{ command: [...] }`"),
];

/// `basic:` of `auth:`.
pub(crate) const BASIC: &[SiteKey] =
    &[key("user", Takes::Text, "the user's name"), key("password", Takes::Secret(false), "`{ file: PATH }`, `{ env: NAME }` or `{ command: [...] }`")];

/// A secret.
pub(crate) const SECRET: &[SiteKey] = &[
    key("file", Takes::Text, "the file that holds the secret; read again when it changes"),
    key("env", Takes::Text, "the environment's variable that holds the secret"),
    key("command", Takes::Texts, "a program and its arguments, run without a shell; it prints the secret"),
];

/// `log:`.
pub(crate) const LOG: &[SiteKey] = &[
    key("level", Takes::Choice(&["error", "warn", "info", "debug", "trace"]), "how much; info"),
    key("json", Takes::Choice(&["true", "false", "1", "0"]), "a JSON object per line; false"),
    key("unsafe", Takes::Choice(&["true", "false", "1", "0"]), "let other parts of the program log what may hold patient data; false"),
];
