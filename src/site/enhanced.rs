//! `mode:` and `enhanced:` of a listener.

use crate::diagnostic::Diagnostic;
use crate::hl7v2::Condition;
use crate::site::keys::ENHANCED;
use crate::site::model::{Acknowledge, Enhanced, Mode, ReturnTo};
use crate::site::reader::{Keys, Reader};
use crate::site::receiver::peer_tls;
use crate::site::sections::Around;
use crate::target::is_host_and_port;

/// Reads both. `acknowledge`: what the listener says, if it says it.
pub(crate) fn enhanced(r: &mut Reader<'_>, listener: &Keys<'_>, acknowledge: Option<&Acknowledge>, around: &Around<'_>) -> Enhanced {
    let mut enhanced = Enhanced::default();
    let words = [("as-sent", Mode::AsSent), ("original", Mode::Original), ("enhanced", Mode::Enhanced)];
    enhanced.mode = listener.get("mode").and_then(|e| r.word(&e, &words)).unwrap_or(Mode::AsSent);
    if let Some(acknowledge) = acknowledge {
        enhanced.outcome = acknowledge.clone();
    }
    let Some(entry) = listener.get("enhanced") else { return enhanced };
    if enhanced.mode == Mode::Original {
        r.faults.push(Diagnostic::error("K721", entry.key, "`enhanced` has no meaning with `mode: original`").label("not known here"));
    }
    let k = r.keys(&entry, ENHANCED);
    let conditions = Condition::ALL.map(|condition| (condition.name(), condition));
    enhanced.accept = k.get("accept").and_then(|e| r.word(&e, &conditions));
    enhanced.application = k.get("application").and_then(|e| r.word(&e, &conditions));
    if let Some(e) = k.get("to")
        && let Some(to) = r.parsed(&e, return_to, "a way to the sender", "write `connection`, `poll`, or the sender's host and port: `10.0.0.7:2576`")
    {
        enhanced.to = to;
        if enhanced.to == ReturnTo::Poll
            && let Some(duplicates) = listener.get("duplicates").filter(|d| matches!(d.scalar(), Some("off" | "0")))
        {
            let fault = Diagnostic::error("K721", e.span, "`to: poll` has no meaning with `duplicates: off`").label("nobody could ask");
            r.faults
                .push(fault.related(duplicates.span, "here").help("a sender asks by sending its message again, and Kiln must know it: leave `duplicates` out"));
        }
    }
    enhanced.tls = peer_tls(r, &k, around);
    if !matches!(enhanced.to, ReturnTo::Address(_))
        && let Some(e) = k.get("tls")
    {
        let fault = Diagnostic::error("K721", e.key, "`tls` has no meaning without an address in `to`").label("not known here");
        r.faults.push(fault.help("by the sender's own connection it is the listener's TLS"));
    }
    enhanced.own = k.get("own").and_then(|e| r.word(&e, &[("NE", Condition::Never), ("AL", Condition::Always)])).unwrap_or(Condition::Never);
    enhanced.accept_wait = k.get("accept-wait").and_then(|e| r.duration(&e)).unwrap_or(enhanced.accept_wait);
    enhanced.retry_for = k.get("retry-for").and_then(|e| r.duration(&e)).unwrap_or(enhanced.retry_for);
    enhanced
}

fn return_to(text: &str) -> Option<ReturnTo> {
    match text {
        "connection" => Some(ReturnTo::Connection),
        "poll" => Some(ReturnTo::Poll),
        address => is_host_and_port(address).then(|| ReturnTo::Address(address.to_owned())),
    }
}
