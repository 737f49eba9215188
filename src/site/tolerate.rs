//! `tolerate:` of a listener: which broken rules are taken.

use crate::diagnostic::Diagnostic;
use crate::hl7v2::Tolerate;
use crate::listener::{Framing, ListenerConfig};
use crate::site::keys::TOLERATE;
use crate::site::reader::{Keys, Reader};

/// Reads the switches: those of framing into `socket`, those of messages are given back.
pub(crate) fn tolerate(r: &mut Reader<'_>, k: &Keys<'_>, socket: &mut ListenerConfig) -> Tolerate {
    let mut switches = Tolerate::default();
    let Some(entry) = k.get("tolerate") else { return switches };
    if let Some(all @ ("all" | "none")) = entry.scalar() {
        let on = all == "all";
        (socket.noise, socket.tolerance.no_end, socket.tolerance.unframed) = (on, on, on);
        return Tolerate::all(on);
    }
    let k = r.keys(&entry, TOLERATE);
    let mut switch = |name: &str, place: &mut bool| {
        *place = k.get(name).and_then(|e| r.word(&e, &[("on", true), ("off", false)])).unwrap_or(*place);
    };
    switch("noise", &mut socket.noise);
    switch("no-end", &mut socket.tolerance.no_end);
    switch("unframed", &mut socket.tolerance.unframed);
    switch("leading", &mut switches.leading);
    switch("line-feeds", &mut switches.line_feeds);
    switch("segment-case", &mut switches.segment_case);
    switch("broken-lines", &mut switches.broken_lines);
    switch("concatenated", &mut switches.concatenated);
    switch("header", &mut switches.header);
    switch("unescaped", &mut switches.unescaped);
    if let Some(e) = k.get("framing") {
        let help = "write the bytes before a message, a slash, and those after it, in hexadecimal: `02 / 03 0D`; the first byte of each is a control character that no message holds";
        socket.tolerance.other = r.parsed(&e, Framing::read, "a framing", help);
    }
    switches
}

/// `quiet:` of `limits:`, which means something only where a pause ends a message.
pub(crate) fn quiet(r: &mut Reader<'_>, limits: &Keys<'_>, socket: &mut ListenerConfig) {
    let Some(entry) = limits.get("quiet") else { return };
    if !socket.tolerance.waits_for_pauses() {
        let fault = Diagnostic::error("K721", entry.key, "`quiet` has no meaning without `tolerate: { unframed: on }` or `no-end: on`").label("not known here");
        r.faults.push(fault);
    }
    socket.quiet = r.duration(&entry).unwrap_or(socket.quiet);
}
