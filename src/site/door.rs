//! What a listener is, and what it asks of whoever connects: `mllp:`, `http:` with `auth:`, and `tls:`.

use crate::diagnostic::Diagnostic;
use crate::exchange::Secret;
use crate::listener::{ClientName, Clients, Folder, Http, HttpAuth, HttpStatus, Kind, Password, ServerTls, User};
use crate::site::keys::{CLIENTS, LISTENER_AUTH, SERVER_TLS, USER};
use crate::site::reader::{Entry, Keys, Reader};
use crate::site::sections::Around;
use crate::site::target::{file, secret};
use crate::target::TlsVersion;
use std::path::PathBuf;
use std::time::Duration;

/// The keys that say what a listener is.
const KINDS: [&str; 3] = ["mllp", "http", "folder"];
/// Keys that only some kinds understand, and those kinds.
const ONLY: [(&str, &[&str]); 11] = [
    ("path", &["http"]),
    ("auth", &["http"]),
    ("status", &["http"]),
    ("files", &["folder"]),
    ("quiet", &["folder"]),
    ("done", &["folder"]),
    ("failed", &["folder"]),
    ("answers", &["folder"]),
    ("allow", &["mllp", "http"]),
    ("proxy-protocol", &["mllp", "http"]),
    ("tls", &["mllp", "http"]),
];

/// What a listener is, and the entry that says where.
pub(crate) fn kind<'v>(r: &mut Reader<'_>, entry: &Entry<'v>, k: &Keys<'v>, around: &Around<'_>) -> (Kind, Option<Entry<'v>>) {
    let kinds: Vec<_> = KINDS.iter().filter_map(|name| k.get(name)).collect();
    let Some(first) = kinds.first() else {
        let help = "add `mllp: 127.0.0.1:2575`, `http: 127.0.0.1:8080` or `folder: PATH`";
        r.missing(entry.key, &format!("listener `{}` says not where messages come in", entry.name()), help);
        return (Kind::Mllp, None);
    };
    if let Some(second) = kinds.get(1) {
        r.faults.push(Diagnostic::error("K728", second.key, "a listener is one thing").label("a second one").help("make two listeners of it"));
    }
    for e in ONLY.iter().filter(|(_, kinds)| !kinds.contains(&first.name())).filter_map(|(name, _)| k.get(name)) {
        let what = format!("`{}` has no meaning for a listener of kind `{}`", e.name(), first.name());
        r.faults.push(Diagnostic::error("K721", e.key, what).label("not known here"));
    }
    let kind = match first.name() {
        "http" => Kind::Http(http(r, k, around)),
        "folder" => Kind::Folder(folder(r, first, k, around)),
        _ => Kind::Mllp,
    };
    (kind, Some(first.clone()))
}

fn http(r: &mut Reader<'_>, k: &Keys<'_>, around: &Around<'_>) -> Http {
    let path = k.get("path").and_then(|e| {
        let read = |text: &str| (text.starts_with('/') && !text.contains(['?', '#', ' '])).then(|| text.to_owned());
        r.parsed(&e, read, "a path", "write `/hl7`")
    });
    let auth = k.get("auth").and_then(|e| auth(r, &e, around));
    let words = [("acknowledgement", HttpStatus::Acknowledgement), ("ok", HttpStatus::Ok)];
    let status = k.get("status").and_then(|e| r.word(&e, &words)).unwrap_or_default();
    Http { path, auth, status }
}

fn folder(r: &mut Reader<'_>, at: &Entry<'_>, k: &Keys<'_>, around: &Around<'_>) -> Folder {
    if let Some(e) = k.get("acknowledge").filter(|e| e.scalar() == Some("delivered")) {
        let fault = Diagnostic::error("K721", e.span, "`delivered` has no meaning for a listener of kind `folder`: nobody waits for its answers");
        r.faults.push(fault.label("not known here").help("write `stored` or `mapped`"));
    }
    let path = around.folder.join(r.text(at).unwrap_or_default());
    let mut beside = |name: &str| k.get(name).and_then(|e| r.text(&e)).map_or_else(|| path.join(name), |text| around.folder.join(text));
    let (done, failed) = (beside("done"), beside("failed"));
    let names = k.get("files").map(|e| r.list(&e)).unwrap_or_default();
    let names = names.iter().filter_map(|e| r.text(e)).map(str::to_owned).collect();
    let quiet = k.get("quiet").and_then(|e| r.duration(&e)).unwrap_or(Duration::from_secs(2));
    let answers = k.get("answers").and_then(|e| r.word(&e, &[("on", true), ("off", false)])).unwrap_or(true);
    Folder { path, done, failed, names, quiet, answers }
}

/// `None` if something is wrong with it, which is told.
fn auth(r: &mut Reader<'_>, entry: &Entry<'_>, around: &Around<'_>) -> Option<HttpAuth> {
    let k = r.keys(entry, LISTENER_AUTH);
    match (k.get("users"), k.get("bearer")) {
        (Some(_), Some(second)) => {
            r.faults.push(Diagnostic::error("K728", second.key, "`auth` is one thing").label("a second one").help("make two listeners of it"));
            None
        }
        (None, Some(e)) => secret(r, &e, around, false).map(HttpAuth::Bearer),
        (Some(e), None) => {
            let users: Vec<_> = r.entries(&e).iter().filter_map(|e| user(r, e, around)).collect();
            if users.is_empty() {
                r.missing(e.key, "`users` names nobody", "write `users: { lab: { password: { file: /run/secrets/lab } } }`");
                return None;
            }
            Some(HttpAuth::Basic(users))
        }
        (None, None) => {
            r.missing(entry.key, "`auth` says not how", "write `users: { lab: { password: { file: FILE } } }` or `bearer: { file: FILE }`");
            None
        }
    }
}

fn user(r: &mut Reader<'_>, entry: &Entry<'_>, around: &Around<'_>) -> Option<User> {
    let k = r.keys(entry, USER);
    let password = match (k.get("password"), k.get("hash")) {
        (Some(e), None) => Password::Secret(secret(r, &e, around, false)?),
        (None, Some(e)) => {
            let read = |text: &str| Password::is_hash(text).then(|| Secret::new(text.to_owned()));
            Password::Hash(r.parsed(&e, read, "an Argon2 hash", "write what `argon2` or another tool prints: `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`")?)
        }
        _ => {
            r.missing(entry.key, &format!("user `{}` needs a password or its hash, and not both", entry.name()), "write `password: { file: FILE }`");
            return None;
        }
    };
    Some(User { name: entry.name().to_owned(), password })
}

/// `None` if something is wrong with it, which is told; or if a file is not there, and need not be.
pub(crate) fn server_tls(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Option<ServerTls> {
    let k = r.keys(e, SERVER_TLS);
    let minimum = k.get("minimum").and_then(|e| r.word(&e, &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)])).unwrap_or_default();
    let (certificates, keys) = (files(r, &k, "certificate", around), files(r, &k, "key", around));
    if certificates.len() != keys.len() || certificates.is_empty() {
        r.missing(e.key, "a listener's certificates and their keys go together", "write `tls: { certificate: FILE, key: FILE }`; of several, as many of each");
        return None;
    }
    let clients = match k.get("clients") {
        None => None,
        Some(e) => Some(clients(r, &e, around)?),
    };
    let identities: Option<Vec<_>> = certificates.into_iter().zip(keys).map(|(certificate, key)| certificate.zip(key)).collect();
    let tls = ServerTls { identities: identities?, minimum, clients };
    if let Err(what) = tls.check() {
        r.faults.push(Diagnostic::error("K732", e.key, what));
        return None;
    }
    Some(tls)
}

/// A file or a list of them; those that are not there stand as `None`.
fn files(r: &mut Reader<'_>, k: &Keys<'_>, key: &str, around: &Around<'_>) -> Vec<Option<PathBuf>> {
    let entries = k.get(key).map(|e| r.list(&e)).unwrap_or_default();
    entries.iter().map(|e| file(r, e, around)).collect()
}

fn clients(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Option<Clients> {
    let k = r.keys(e, CLIENTS);
    let ca = k.get("ca");
    if ca.is_none() {
        r.missing(e.key, "`clients` says not who signs their certificates", "add `ca: FILE`");
    }
    let named = k.get("names").map(|e| r.list(&e)).unwrap_or_default();
    let name = |text: &str| text.parse::<ClientName>().ok();
    let help = "write `lab.example`, `Lab System 1`, `10.0.0.5`, or `*.lab.example` for any one label";
    let names: Vec<_> = named.iter().filter_map(|e| r.parsed(e, name, "a name of a certificate", help)).collect();
    if k.get("names").is_some() && named.is_empty() {
        r.missing(e.key, "`names` names nobody", help);
    }
    // A list of which something fell out must not let everybody in.
    if names.len() != named.len() || (k.get("names").is_some() && names.is_empty()) {
        return None;
    }
    let revoked = match k.get("revoked") {
        None => None,
        Some(e) => Some(file(r, &e, around)?),
    };
    Some(Clients { ca: ca.and_then(|e| file(r, &e, around))?, revoked, names })
}
