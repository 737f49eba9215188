//! Targets that take HL7 v2: `mllp:` and `http:` of `targets:`.

use crate::diagnostic::Diagnostic;
use crate::site::keys::TLS;
use crate::site::model::TargetKind;
use crate::site::reader::{Entry, Keys, Reader};
use crate::site::sections::Around;
use crate::site::target::{address, auth, headers, proxy, rate, tls, web_tls, without_password};
use crate::target::{Auth, Expect, HttpConfig, MllpConfig, RETRY_ON, Tls, V2Config, V2Way, is_host_and_port};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(30);

/// `mllp: HOST:PORT`.
pub(crate) fn mllp(r: &mut Reader<'_>, kind: &Entry<'_>, k: &Keys<'_>, around: &Around<'_>, listeners: &[String]) -> Option<TargetKind> {
    let address = r.parsed(kind, |t| is_host_and_port(t).then(|| t.to_owned()), "a host and a port", "write `hl7.example:2575`, or `10.0.0.5:2575`")?;
    let (tls_settings, tls_name) = peer_tls(r, k, around).map_or((None, None), |(tls, name)| (Some(tls), name));
    let way = MllpConfig {
        address,
        tls: tls_settings,
        tls_name,
        timeout: k.get("timeout").and_then(|e| r.duration(&e)).unwrap_or(TIMEOUT),
        connect_timeout: k.get("connect-timeout").and_then(|e| r.duration(&e)),
    };
    Some(receiver(r, V2Way::Mllp(way), k, listeners))
}

/// `tls:` of a receiver of MLLP, with the name that its certificate must have, if that is not the address's.
pub(crate) fn peer_tls(r: &mut Reader<'_>, k: &Keys<'_>, around: &Around<'_>) -> Option<(Tls, Option<String>)> {
    let e = k.get("tls")?;
    if matches!(e.scalar(), Some("true")) {
        return Some((Tls::default(), None));
    }
    let keys = r.keys(&e, TLS);
    let name = keys.get("name").and_then(|e| r.text(&e)).map(str::to_owned);
    Some((tls(r, &e, &keys, around), name))
}

/// `http: URL`.
pub(crate) fn http(r: &mut Reader<'_>, kind: &Entry<'_>, k: &Keys<'_>, around: &Around<'_>, listeners: &[String]) -> Option<TargetKind> {
    let url = address(r, kind, "the URL of a receiver of HL7 v2", "write `https://hl7.example/messages`")?;
    without_password(r, kind, &url);
    let way = HttpConfig {
        url: url.to_string(),
        auth: k.get("auth").map_or(Auth::None, |e| auth(r, &e, around)),
        headers: headers(r, k, around),
        tls: k.get("tls").map(|e| web_tls(r, &e, around)).unwrap_or_default(),
        proxy: k.get("proxy").map(|e| proxy(r, &e, around)).unwrap_or_default(),
        timeout: k.get("timeout").and_then(|e| r.duration(&e)).unwrap_or(TIMEOUT),
        connect_timeout: k.get("connect-timeout").and_then(|e| r.duration(&e)),
    };
    Some(receiver(r, V2Way::Http(way), k, listeners))
}

fn receiver(r: &mut Reader<'_>, way: V2Way, k: &Keys<'_>, listeners: &[String]) -> TargetKind {
    let words = [("as-asked", Expect::AsAsked), ("accept", Expect::Accept), ("application", Expect::Application)];
    let expect = k.get("expect").and_then(|e| r.word(&e, &words)).unwrap_or_default();
    let application_wait = k.get("application-wait").and_then(|e| r.duration(&e)).unwrap_or(V2Config::new(way.clone()).application_wait);
    let replies = k.get("replies").and_then(|e| {
        let words: Vec<_> = listeners.iter().map(|name| (name.as_str(), name)).collect();
        r.word(&e, &words).cloned()
    });
    let retry_on = match k.get("retry-on") {
        None => RETRY_ON.map(str::to_owned).to_vec(),
        Some(e) => {
            let is_code = |t: &str| matches!(t, "AE" | "AR" | "CE" | "CR") || (t.len() == 3 && t.bytes().all(|b| b.is_ascii_digit()));
            let help = "write AE, AR, CE or CR (MSA-1), or a code of HL7 table 0357 (ERR-3) such as 207";
            r.list(&e).iter().filter_map(|e| r.parsed(e, |t| is_code(t).then(|| t.to_owned()), "a code of an acknowledgement", help)).collect()
        }
    };
    if expect == Expect::Accept
        && let Some(e) = k.get("replies").or_else(|| k.get("application-wait"))
    {
        let fault = Diagnostic::error("K721", e.key, format!("`{}` has no meaning with `expect: accept`", e.name()));
        r.faults.push(fault.label("not known here").help("with `expect: accept` no application acknowledgement is waited for"));
    }
    let rate = k.get("rate").and_then(|e| r.parsed(&e, rate, "a number of messages in a time", "write `50/s` or `600/m`"));
    TargetKind::V2 { config: V2Config { way, expect, application_wait, retry_on, replies: replies.is_some(), rate }, replies }
}
