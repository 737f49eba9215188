//! `targets:` of the site file.

use crate::diagnostic::{Diagnostic, Span};
use crate::site::files::words;
use crate::site::keys::{AUTH, BASIC, OAUTH, PROXY, SECRET, SMART, TARGET, TLS};
use crate::site::model::{TargetKind, TargetSite};
use crate::site::reader::{Entry, Keys, Reader};
use crate::site::receiver::{http, mllp};
use crate::site::sections::{Around, name};
use crate::site::unit;
use crate::target::{Auth, ClientProof, Layout, PatchFormat, Proxy, Rate, SecretSource, Sending, SigningKey, Tls, TlsVersion, TokenConfig};
use std::path::PathBuf;
use std::time::Duration;

/// Keys that not every kind of target understands, and the kinds that do.
const FITS: [(&[&str], &[&str]); 5] = [
    (&["auth", "headers", "proxy"], &["fhir", "http"]),
    (&["tls", "timeout", "connect-timeout", "rate"], &["fhir", "http", "mllp"]),
    (&["settle", "send", "patch"], &["fhir"]),
    (&["layout"], &["folder"]),
    (&["expect", "application-wait", "replies", "retry-on"], &["mllp", "http"]),
];

pub(crate) fn targets(r: &mut Reader<'_>, keys: &Keys<'_>, around: &Around<'_>) -> Vec<(TargetSite, Span)> {
    let mut all = Vec::new();
    let listeners: Vec<String> = keys.get("listeners").map(|e| r.entries(&e)).unwrap_or_default().iter().map(|e| e.name().to_owned()).collect();
    for entry in keys.get("targets").map(|e| r.entries(&e)).unwrap_or_default() {
        name(r, &entry);
        let k = r.keys(&entry, TARGET);
        let kinds: Vec<_> = ["fhir", "mllp", "http", "folder", "null"].iter().filter_map(|n| k.get(n)).collect();
        let [kind] = kinds.as_slice() else {
            match kinds.get(1) {
                None => r.missing(
                    entry.key,
                    &format!("target `{}` says not what it is", entry.name()),
                    "add `fhir: https://...`, `mllp: HOST:PORT`, `http: https://...`, `folder: PATH` or `null: true`",
                ),
                Some(second) => {
                    r.faults.push(Diagnostic::error("K728", second.key, "a target is one thing").label("a second one").help("make two targets of it"))
                }
            }
            continue;
        };
        let of = kind.name().to_owned();
        for (keys, kinds) in FITS.iter().filter(|(_, kinds)| !kinds.contains(&of.as_str())) {
            for e in keys.iter().filter_map(|key| k.get(key)) {
                let help = format!("it belongs to {}", kinds.iter().map(|kind| format!("`{kind}:`")).collect::<Vec<_>>().join(", "));
                let fault = Diagnostic::error("K721", e.key, format!("`{}` has no meaning for a target of kind `{of}`", e.name()));
                r.faults.push(fault.label("not known here").help(help));
            }
        }
        let kind = match of.as_str() {
            "fhir" => fhir(r, kind, &k, around),
            "mllp" => mllp(r, kind, &k, around, &listeners),
            "http" => http(r, kind, &k, around, &listeners),
            "folder" => r.text(kind).map(|path| TargetKind::Folder {
                path: around.folder.join(path),
                layout: k.get("layout").and_then(|e| r.word(&e, &[("json", Layout::Json), ("ndjson", Layout::Ndjson)])).unwrap_or(Layout::Json),
            }),
            _ => r.word(kind, &[("true", ())]).map(|()| TargetKind::Null),
        };
        let parallel = k.get("parallel").and_then(|e| r.number(&e, 1, 256)).unwrap_or(if matches!(of.as_str(), "mllp" | "http") { 1 } else { 8 });
        if let Some(kind) = kind {
            all.push((TargetSite { name: entry.name().to_owned(), kind, parallel }, entry.key));
        }
    }
    all
}

fn fhir(r: &mut Reader<'_>, kind: &Entry<'_>, k: &Keys<'_>, around: &Around<'_>) -> Option<TargetKind> {
    let url = address(r, kind, "the base URL of a FHIR server", "write `https://fhir.example/r4`")?;
    without_password(r, kind, &url);
    let words = [("transaction", Sending::Transaction), ("batch", Sending::Batch), ("single", Sending::Single)];
    let patches = [("json", Some(PatchFormat::Json)), ("fhirpath", Some(PatchFormat::FhirPath)), ("none", None)];
    let timeout = k.get("timeout").and_then(|e| r.duration(&e)).unwrap_or(Duration::from_secs(30));
    let headers = headers(r, k, around);
    Some(TargetKind::Fhir {
        url: url.as_str().trim_end_matches('/').to_owned(),
        auth: k.get("auth").map_or(Auth::None, |e| auth(r, &e, around)),
        headers,
        tls: k.get("tls").map(|e| web_tls(r, &e, around)).unwrap_or_default(),
        proxy: k.get("proxy").map(|e| proxy(r, &e, around)).unwrap_or_default(),
        timeout,
        connect_timeout: k.get("connect-timeout").and_then(|e| r.duration(&e)),
        rate: k.get("rate").and_then(|e| r.parsed(&e, rate, "a number of requests in a time", "write `50/s` or `600/m`")),
        settle: k.get("settle").and_then(|e| r.duration(&e)).unwrap_or(timeout),
        patch: k.get("patch").and_then(|e| r.word(&e, &patches)).unwrap_or(Some(PatchFormat::Json)),
        send: k.get("send").and_then(|e| r.word(&e, &words)),
    })
}

pub(crate) fn without_password(r: &mut Reader<'_>, kind: &Entry<'_>, url: &reqwest::Url) {
    if !url.username().is_empty() || url.password().is_some() {
        r.faults.push(
            Diagnostic::error("K726", kind.span, "a password does not belong into a URL")
                .help("use `auth: { basic: { user: kiln, password: { file: /run/secrets/fhir } } }`"),
        );
    }
}

/// `headers:`.
pub(crate) fn headers(r: &mut Reader<'_>, k: &Keys<'_>, around: &Around<'_>) -> Vec<(String, SecretSource)> {
    let mut headers = Vec::new();
    for e in k.get("headers").map(|e| r.entries(&e)).unwrap_or_default() {
        if reqwest::header::HeaderName::from_bytes(e.name().as_bytes()).is_err() {
            r.faults.push(Diagnostic::error("K725", e.key, format!("`{}` is not a header's name", e.name())));
        }
        let plain_allowed = !e.name().eq_ignore_ascii_case("authorization");
        if let Some(value) = secret(r, &e, around, plain_allowed) {
            headers.push((e.name().to_owned(), value));
        }
    }
    headers
}

pub(crate) fn address(r: &mut Reader<'_>, e: &Entry<'_>, what: &str, help: &str) -> Option<reqwest::Url> {
    let read = |t: &str| (reqwest::Url::parse(t).ok()).filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host() && u.query().is_none());
    r.parsed(e, read, what, help)
}

/// `50/s`: requests, and the time that they are spread over.
pub(crate) fn rate(text: &str) -> Option<Rate> {
    let (requests, per) = text.split_once('/')?;
    let requests = requests.trim().parse().ok().filter(|n| (1..=1_000_000).contains(n))?;
    let per = unit::duration(&format!("1{}", per.trim())).filter(|d| matches!(d.as_secs(), 1 | 60 | 3600))?;
    Some(Rate { requests, per })
}

pub(crate) fn auth(r: &mut Reader<'_>, entry: &Entry<'_>, around: &Around<'_>) -> Auth {
    let k = r.keys(entry, AUTH);
    let kinds: Vec<_> = AUTH.iter().filter_map(|key| k.get(key.name)).collect();
    match kinds.as_slice() {
        [] => {
            r.missing(entry.key, "`auth` says not how", "write `basic: {...}`, `bearer: {...}`, `oauth: {...}` or `smart: {...}`");
            Auth::None
        }
        [_, second, ..] => {
            r.faults.push(Diagnostic::error("K728", second.key, "`auth` is one thing").label("a second one"));
            Auth::None
        }
        [e] => match e.name() {
            "basic" => basic(r, e, around),
            "bearer" => secret(r, e, around, false).map_or(Auth::None, Auth::Bearer),
            "oauth" => oauth(r, e, around),
            _ => smart(r, e, around),
        },
    }
}

fn basic(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Auth {
    let b = r.keys(e, BASIC);
    let user = b.get("user").and_then(|e| r.text(&e));
    let password = b.get("password").and_then(|e| secret(r, &e, around, false));
    if b.get("user").is_none() || b.get("password").is_none() {
        r.missing(b.key, "`basic` needs a user and a password", "write `basic: { user: kiln, password: { file: /run/secrets/fhir } }`");
    }
    match (user, password) {
        (Some(user), Some(password)) => Auth::Basic { user: user.to_owned(), password },
        _ => Auth::None,
    }
}

fn oauth(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Auth {
    let k = r.keys(e, OAUTH);
    if k.get("client").is_none() || k.get("secret").is_none() {
        r.missing(k.key, "`oauth` needs a client and a secret", "write `oauth: { client: kiln, secret: { file: /run/secrets/fhir }, scope: system/*.cruds }`");
    }
    let method = k.get("method").and_then(|e| r.word(&e, &[("basic", true), ("post", false)])).unwrap_or(true);
    let proof = k.get("secret").and_then(|e| secret(r, &e, around, false)).map(|s| if method { ClientProof::Basic(s) } else { ClientProof::Post(s) });
    token(r, &k, proof)
}

fn smart(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Auth {
    let k = r.keys(e, SMART);
    if k.get("client").is_none() || k.get("key").is_none() || k.get("scope").is_none() {
        let help = "write `smart: { client: kiln, key: { file: /run/secrets/smart.pem }, scope: system/*.cruds }`";
        r.missing(k.key, "`smart` needs a client, a key and a scope", help);
    }
    let id = k.get("kid").and_then(|e| r.text(&e)).map(str::to_owned);
    let audience = k.get("audience").and_then(|e| r.text(&e)).map(str::to_owned);
    let key = k.get("key").and_then(|e| Some((secret(r, &e, around, false)?, e)));
    if let Some((source @ (SecretSource::Text(_) | SecretSource::File(_)), e)) = &key {
        // One that is not there has been told.
        let fault = source.read().ok().filter(|s| !s.expose().is_empty()).and_then(|text| SigningKey::read(text.expose(), id.as_deref()).err());
        if let Some(what) = fault {
            r.faults.push(Diagnostic::error("K732", e.key, what).help("docs/guides/targets.md shows how a key is made"));
        }
    }
    let proof = key.map(|(key, _)| ClientProof::Key { key, id, audience });
    token(r, &k, proof)
}

/// What both kinds of asking for tokens share.
fn token(r: &mut Reader<'_>, k: &Keys<'_>, proof: Option<ClientProof>) -> Auth {
    let url = k.get("token-url").and_then(|e| {
        let read = |t: &str| reqwest::Url::parse(t).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host() && u.password().is_none());
        r.parsed(&e, read, "the URL of a token endpoint", "write `https://login.example/oauth2/token`")
    });
    let client = k.get("client").and_then(|e| r.text(&e)).map(str::to_owned);
    let scope = k.get("scope").and_then(|e| r.text(&e)).map(str::to_owned);
    let mut parameters = Vec::new();
    for e in k.get("parameters").map(|e| r.entries(&e)).unwrap_or_default() {
        if matches!(e.name(), "grant_type" | "client_id" | "client_secret" | "client_assertion" | "client_assertion_type" | "scope") {
            r.faults.push(Diagnostic::error("K721", e.key, format!("`{}` is no further parameter: Kiln sets it itself", e.name())).label("not known here"));
        } else if let Some(value) = r.text(&e) {
            parameters.push((e.name().to_owned(), value.to_owned()));
        }
    }
    match (client, proof) {
        (Some(client), Some(proof)) => Auth::Token(TokenConfig { url: url.map(|u| u.to_string()), client, proof, scope, parameters }),
        _ => Auth::None,
    }
}

/// `tls:` of what is reached by HTTP: the URL has the name.
pub(crate) fn web_tls(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Tls {
    let k = r.keys(e, TLS);
    if let Some(name) = k.get("name") {
        r.faults.push(Diagnostic::error("K721", name.key, "`name` has no meaning where a URL says the server's name").label("not known here"));
    }
    tls(r, e, &k, around)
}

/// `tls:` with its keys.
pub(crate) fn tls(r: &mut Reader<'_>, e: &Entry<'_>, k: &Keys<'_>, around: &Around<'_>) -> Tls {
    let minimum = k.get("minimum").and_then(|e| r.word(&e, &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)])).unwrap_or_default();
    let file = |r: &mut Reader<'_>, key: &str| k.get(key).and_then(|e| file(r, &e, around));
    let (ca, certificate, key) = (file(r, "ca"), file(r, "certificate"), file(r, "key"));
    let written = k.get("certificate").is_some();
    if written != k.get("key").is_some() {
        let help = if written { "add `key: FILE`" } else { "add `certificate: FILE`" };
        r.missing(k.key, "a client's certificate and its key go together", help);
    }
    let tls = Tls { ca, identity: certificate.zip(key), minimum };
    if let Err(what) = tls.check() {
        r.faults.push(Diagnostic::error("K732", e.key, what));
    }
    tls
}

/// A file that is read when the site starts, and looked at while it runs; `None` if it is not there, which is told.
pub(crate) fn file(r: &mut Reader<'_>, e: &Entry<'_>, around: &Around<'_>) -> Option<PathBuf> {
    let path = around.folder.join(r.text(e)?);
    r.files.push(path.clone());
    match std::fs::File::open(&path) {
        Ok(_) => Some(path),
        Err(fault) => {
            let what = format!("the file `{}` cannot be read: {}", path.display(), words(&fault));
            r.faults.push(absent(around, e.span, what));
            None
        }
    }
}

pub(crate) fn proxy(r: &mut Reader<'_>, entry: &Entry<'_>, around: &Around<'_>) -> Proxy {
    const WHAT: (&str, &str) = ("`none` or the URL of a proxy", "write `none`, `http://proxy.example:3128`, or `{ url, user, password }`");
    let url = |r: &mut Reader<'_>, e: &Entry<'_>| {
        let url = address(r, e, WHAT.0, WHAT.1)?;
        if !url.username().is_empty() || url.password().is_some() {
            let fault = Diagnostic::error("K726", e.span, "a password does not belong into a URL");
            r.faults.push(fault.help("write `proxy: { url: ..., user: ..., password: { file: /run/secrets/proxy } }`"));
        }
        Some(url.to_string())
    };
    match entry.scalar() {
        Some("none" | "off" | "direct") => Proxy::None,
        Some(_) => url(r, entry).map_or(Proxy::Environment, |url| Proxy::Url { url, login: None }),
        None => {
            let k = r.keys(entry, PROXY);
            let Some(e) = k.get("url") else {
                r.missing(k.key, "`proxy` says not where it is", WHAT.1);
                return Proxy::Environment;
            };
            let user = k.get("user").and_then(|e| r.text(&e)).map(str::to_owned);
            let password = k.get("password").and_then(|e| secret(r, &e, around, false));
            if k.get("user").is_some() != k.get("password").is_some() {
                r.missing(k.key, "a proxy's user and password go together", WHAT.1);
            }
            url(r, &e).map_or(Proxy::Environment, |url| Proxy::Url { url, login: user.zip(password) })
        }
    }
}

/// `{ file: PATH }`, `{ env: NAME }`, `{ command: [...] }`, or a text that came from a variable rather than from the file.
pub(crate) fn secret(r: &mut Reader<'_>, entry: &Entry<'_>, around: &Around<'_>, plain_allowed: bool) -> Option<SecretSource> {
    const HELP: &str = "write `{ file: /run/secrets/NAME }`, `{ env: NAME }` or `{ command: [PROGRAM, ARGUMENT] }`";
    if let Some(text) = entry.scalar() {
        if plain_allowed || entry.span.source != r.beginning.source {
            return Some(SecretSource::text(text));
        }
        let fault = Diagnostic::error("K726", entry.span, format!("`{}` is a secret and does not belong into this file", entry.name()))
            .label("readable by all who read the file");
        r.faults.push(fault.help(HELP));
        return None;
    }
    let k = r.keys(entry, SECRET);
    let kinds: Vec<_> = SECRET.iter().filter_map(|key| k.get(key.name)).collect();
    let [e] = kinds.as_slice() else {
        r.missing(entry.key, &format!("`{}` says not where it is kept, or says it twice", entry.name()), HELP);
        return None;
    };
    let (source, text) = match e.name() {
        "file" => {
            let path = around.folder.join(r.text(e)?);
            r.files.push(path.clone());
            let text = std::fs::read_to_string(&path).map_err(|fault| format!("the secret's file `{}` cannot be read: {}", path.display(), words(&fault)));
            (SecretSource::File(path), text)
        }
        "env" => {
            let name = r.text(e)?;
            let text = (around.variable)(name).ok_or_else(|| format!("the environment has no variable `{name}`"));
            (SecretSource::text(text.clone().unwrap_or_default()), text)
        }
        // It is run when the target is opened: a check runs nothing.
        _ => {
            let words: Vec<_> = r.list(e).iter().filter_map(|e| r.text(e)).map(str::to_owned).collect();
            return Some(SecretSource::Command(words));
        }
    };
    match text {
        Ok(text) if !text.trim_end_matches(['\n', '\r']).is_empty() => Some(source),
        Ok(_) => {
            r.faults.push(Diagnostic::error("K727", e.span, "this secret is empty"));
            None
        }
        Err(what) => {
            let fault = absent(around, e.span, what);
            let needed = around.secrets_needed;
            r.faults.push(fault);
            (!needed).then_some(source)
        }
    }
}

/// A file or a variable that is not there: on the machine of whoever checks a site, that is no fault of the site.
fn absent(around: &Around<'_>, at: Span, what: String) -> Diagnostic {
    if around.secrets_needed { Diagnostic::error("K727", at, what) } else { Diagnostic::warning("K727", at, what).help("the daemon will not start without it") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let per = |requests, seconds| Some(Rate { requests, per: Duration::from_secs(seconds) });
        for (text, expected) in [("50/s", per(50, 1)), ("600 / m", per(600, 60)), ("10/min", per(10, 60)), ("1/h", per(1, 3600))] {
            assert_eq!(rate(text), expected, "{text}");
        }
        for text in ["50", "0/s", "/s", "50/d", "50/", "-1/s", "5.5/s"] {
            assert_eq!(rate(text), None, "{text}");
        }
    }
}
