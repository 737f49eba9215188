//! The registry and its names, which are part of Kiln's interface (docs/limits.md lists them).

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;
use std::fmt::{self, Write};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What can be wrong with a frame or a connection; the value of label `fault`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameFault {
    /// A frame over the size limit.
    Oversize,
    /// A frame that was begun and not finished in time.
    SlowFrame,
    /// A frame that the connection's end cut off.
    Truncated,
    /// A frame that was begun anew before it had ended.
    Restarted,
    /// A connection on which nothing came for the idle time.
    Idle,
    /// A peer that did not take its acknowledgements in time.
    SlowReader,
    /// A peer that the allow-list does not name.
    NotAllowed,
    /// A load balancer that began with no PROXY header.
    ProxyHeader,
    /// A handshake of TLS that failed or took too long.
    Handshake,
    /// A client whose certificate is good, and names nobody who may come in.
    ClientName,
    /// A request over HTTP that is none that a listener takes.
    BadRequest,
    /// A request over HTTP without the right credentials.
    Unauthorized,
    /// A peer that sent messages without any framing.
    Unframed,
    /// A peer that sent messages in other framing bytes.
    OtherFraming,
    /// A frame that came whole but for its end block.
    NoEnd,
    /// A peer that spoke TLS where none is.
    Tls,
    /// A peer that spoke HTTP.
    Http,
    /// Bytes outside of frames, on a listener that takes none.
    Noise,
    /// A folder that cannot be read or written.
    Folder,
    /// A file that counts its messages wrongly.
    Batch,
}

/// How an attempt at a delivery ended; the value of label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The target promises to have it.
    Delivered,
    /// Nothing happened; it will be tried again.
    Transient,
    /// It may have happened; it will be tried again with care.
    Ambiguous,
    /// Somebody else was faster; it will be tried again.
    Race,
    /// A receiver has taken the message; its application acknowledgement is to come.
    Accepted,
    /// Given up.
    DeadLetter,
    /// Its sender was told that the message is refused.
    Refused,
}

/// What became of an application acknowledgement that is told later (enhanced mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApplicationAck {
    /// It was sent.
    Sent,
    /// The sender said that it has it.
    Accepted,
    /// It could not be sent, or was not accepted; it is tried again.
    Failed,
    /// Nobody took it for too long.
    GivenUp,
}

/// What a dispatcher says about its target's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Queue {
    /// Deliveries that are neither settled nor parked.
    pub backlog: u64,
    /// Deliveries that wait behind a dead letter.
    pub parked: u64,
    /// Deliveries that were given up and not yet replayed or skipped.
    pub dead_letters: u64,
    /// The age of the oldest unsettled delivery.
    pub oldest_waiting: Duration,
}

macro_rules! closed_list {
    ($name:ident { $($case:ident => $word:literal),+ $(,)? }) => {
        impl $name {
            /// The label value.
            pub fn word(self) -> &'static str {
                match self { $(Self::$case => $word),+ }
            }

            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$case),+];
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.word())
            }
        }
    };
}

closed_list!(FrameFault {
    Oversize => "oversize", SlowFrame => "slow-frame", Truncated => "truncated", Restarted => "restarted",
    Idle => "idle", SlowReader => "slow-reader", NotAllowed => "not-allowed",
    ProxyHeader => "proxy-header", Handshake => "handshake", ClientName => "client-name",
    BadRequest => "bad-request", Unauthorized => "unauthorized",
    Unframed => "unframed", OtherFraming => "other-framing", NoEnd => "no-end", Tls => "tls", Http => "http", Noise => "noise",
    Folder => "folder", Batch => "batch",
});
closed_list!(ApplicationAck { Sent => "sent", Accepted => "accepted", Failed => "failed", GivenUp => "given-up" });
closed_list!(Outcome { Delivered => "delivered", Transient => "transient", Ambiguous => "ambiguous", Race => "race", Accepted => "accepted", DeadLetter => "dead-letter", Refused => "refused" });

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListener {
    listener: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListenerAndType {
    listener: String,
    r#type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListenerAndCode {
    listener: String,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListenerAndFault {
    listener: String,
    fault: FrameFault,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListenerAndSwitch {
    listener: String,
    switch: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListenerAndResult {
    listener: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTarget {
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTargetAndOutcome {
    target: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListenerAndOutcome {
    listener: String,
    outcome: ApplicationAck,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// The bounds of the time histograms in seconds: 0.1 ms (half of a commit on a good disk) to 100 s (over any time-out).
const SECONDS: [f64; 19] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// The bounds for what takes about as long as a commit: steps of 50 us to 1 ms, and of a fourth or less to 5 ms, so that a p99 of an
/// acknowledgement can be compared with a p99 of a commit.
const FINE_SECONDS: [f64; 46] = [
    0.000_05, 0.000_1, 0.000_15, 0.000_2, 0.000_25, 0.000_3, 0.000_35, 0.000_4, 0.000_45, 0.000_5, 0.000_55, 0.000_6, 0.000_65, 0.000_7, 0.000_75, 0.000_8,
    0.000_85, 0.000_9, 0.000_95, 0.001, 0.001_25, 0.001_5, 0.001_75, 0.002, 0.002_5, 0.003, 0.003_5, 0.004, 0.005, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0,
];

fn fine_seconds() -> Histogram {
    Histogram::new(FINE_SECONDS)
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// All of Kiln's metrics. Cheap to update from any thread.
pub struct Metrics {
    registry: Registry,
    messages_received: Family<ByListenerAndType, Counter>,
    acks: Family<ByListenerAndCode, Counter>,
    application_acks: Family<ByListenerAndOutcome, Counter>,
    duplicates: Family<ByListener, Counter>,
    last_message: Family<ByListener, FloatGauge>,
    connections: Family<ByListener, Gauge>,
    noise_bytes: Family<ByListener, Counter>,
    frame_faults: Family<ByListenerAndFault, Counter>,
    tolerated: Family<ByListenerAndSwitch, Counter>,
    files: Family<ByListenerAndResult, Counter>,
    ack_seconds: Histogram,
    deliveries: Family<ByTargetAndOutcome, Counter>,
    delivery_seconds: Family<ByTarget, Histogram, fn() -> Histogram>,
    backlog: Family<ByTarget, Gauge>,
    parked: Family<ByTarget, Gauge>,
    dead_letters: Family<ByTarget, Gauge>,
    oldest_waiting: Family<ByTarget, FloatGauge>,
    breaker_open: Family<ByTarget, Gauge>,
    findings: Family<ByKind, Counter>,
    reloads: Family<ByResult, Counter>,
    last_reload_ok: Gauge,
    last_reload: FloatGauge,
    commit_seconds: Histogram,
    journal_bytes: Gauge,
    wal_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry of its own, so that tests can run several engines in one process.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kiln");
        macro_rules! add {
            ($metric:expr, $name:literal, $help:literal) => {{
                let metric = $metric;
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        Self {
            messages_received: add!(Family::default(), "messages_received", "Frames received, by listener and message type"),
            acks: add!(Family::default(), "acks", "Acknowledgements sent, by listener and code; 'none' where the connection was closed instead"),
            application_acks: add!(Family::default(), "application_acks", "What became of application acknowledgements that are told later (enhanced mode)"),
            duplicates: add!(Family::default(), "duplicates", "Messages that had been accepted before and got the stored acknowledgement again"),
            last_message: add!(Family::default(), "last_message_timestamp_seconds", "When the listener's last message was read, in seconds since 1970"),
            connections: add!(Family::default(), "connections", "Open connections"),
            noise_bytes: add!(Family::default(), "noise_bytes", "Bytes outside of MLLP frames that were skipped"),
            frame_faults: add!(Family::default(), "frame_faults", "Frames and connections that were given up, by reason"),
            tolerated: add!(Family::default(), "tolerated", "Messages that break a rule and were taken all the same, by the switch of `tolerate`"),
            files: add!(Family::default(), "files", "Files that a folder's listener has read, by where they went"),
            ack_seconds: add!(fine_seconds(), "ack_seconds", "From the last byte of a frame to its acknowledgement's hand-over to the socket"),
            deliveries: add!(Family::default(), "deliveries", "Attempts at deliveries, by target and outcome"),
            delivery_seconds: add!(
                Family::new_with_constructor(seconds as fn() -> Histogram),
                "delivery_seconds",
                "From the start of an attempt to its settled outcome"
            ),
            backlog: add!(Family::default(), "backlog", "Deliveries that are neither settled nor parked"),
            parked: add!(Family::default(), "parked", "Deliveries that wait behind a dead letter"),
            dead_letters: add!(Family::default(), "dead_letters", "Deliveries that were given up and not yet replayed or skipped"),
            oldest_waiting: add!(Family::default(), "oldest_waiting_seconds", "The age of the oldest unsettled delivery"),
            breaker_open: add!(Family::default(), "breaker_open", "1 while the target's breaker is open"),
            findings: add!(Family::default(), "findings", "What runs of routes noticed, by kind"),
            reloads: add!(Family::default(), "route_set_reloads", "Route sets that were applied or refused"),
            last_reload_ok: add!(Gauge::default(), "last_reload_successful", "1 if the site as it lies on the disk is the one that runs, 0 if it was refused"),
            last_reload: add!(FloatGauge::default(), "last_reload_success_timestamp_seconds", "When a site was applied last, in seconds since 1970"),
            commit_seconds: add!(
                fine_seconds(),
                "commit_seconds",
                "The time of one commit of the journal, from the begin of its transaction to the end of its fsync"
            ),
            journal_bytes: add!(Gauge::default(), "journal_bytes", "Bytes of the journal's files"),
            wal_bytes: add!(Gauge::default(), "wal_bytes", "Bytes of the journal's write-ahead logs"),
            registry,
        }
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a String cannot fail");
        out
    }

    /// A message was read. `message_type` is `ADT^A01` if the dictionary knows it, else `other`; the caller has looked it up.
    pub fn received(&self, listener: &str, message_type: &str, at_seconds: f64) {
        self.messages_received.get_or_create(&ByListenerAndType { listener: listener.to_owned(), r#type: message_type.to_owned() }).inc();
        self.last_message.get_or_create(&ByListener { listener: listener.to_owned() }).set(at_seconds);
    }

    /// An acknowledgement left, or `none` when the connection was closed instead.
    pub fn acknowledged(&self, listener: &str, code: &'static str, after: Duration) {
        self.acks.get_or_create(&ByListenerAndCode { listener: listener.to_owned(), code }).inc();
        self.ack_seconds.observe(after.as_secs_f64());
    }

    /// An application acknowledgement was told later than the message was answered, or could not be.
    pub fn told(&self, listener: &str, outcome: ApplicationAck) {
        self.application_acks.get_or_create(&ByListenerAndOutcome { listener: listener.to_owned(), outcome }).inc();
    }

    /// An acknowledgement with this code left, long after its message had come.
    pub fn acknowledged_later(&self, listener: &str, code: &'static str) {
        self.acks.get_or_create(&ByListenerAndCode { listener: listener.to_owned(), code }).inc();
    }

    /// A message was a duplicate.
    pub fn duplicate(&self, listener: &str) {
        self.duplicates.get_or_create(&ByListener { listener: listener.to_owned() }).inc();
    }

    /// A connection was opened (+1) or closed (-1).
    pub fn connections(&self, listener: &str, change: i64) {
        self.connections.get_or_create(&ByListener { listener: listener.to_owned() }).inc_by(change);
    }

    /// Bytes outside of frames were skipped.
    pub fn noise(&self, listener: &str, bytes: u64) {
        self.noise_bytes.get_or_create(&ByListener { listener: listener.to_owned() }).inc_by(bytes);
    }

    /// A frame or connection was given up.
    pub fn frame_fault(&self, listener: &str, fault: FrameFault) {
        self.frame_faults.get_or_create(&ByListenerAndFault { listener: listener.to_owned(), fault }).inc();
    }

    /// How often each fault of frames and connections was counted for a listener; those that never were are left out.
    pub fn frame_faults(&self, listener: &str) -> Vec<(&'static str, u64)> {
        let count = |fault: &FrameFault| self.frame_faults.get(&ByListenerAndFault { listener: listener.to_owned(), fault: *fault }).map(|n| n.get());
        FrameFault::ALL.iter().filter_map(|fault| Some((fault.word(), count(fault)?))).collect()
    }

    /// A message broke a rule and was taken all the same, as this switch of the listener's `tolerate` says.
    pub fn tolerated(&self, listener: &str, switch: &'static str) {
        self.tolerated.get_or_create(&ByListenerAndSwitch { listener: listener.to_owned(), switch }).inc();
    }

    /// A file was read, and everything in it accepted or not.
    pub fn file(&self, listener: &str, good: bool) {
        self.files.get_or_create(&ByListenerAndResult { listener: listener.to_owned(), result: if good { "done" } else { "failed" } }).inc();
    }

    /// An attempt at a delivery ended.
    pub fn delivery(&self, target: &str, outcome: Outcome, took: Duration) {
        self.deliveries.get_or_create(&ByTargetAndOutcome { target: target.to_owned(), outcome }).inc();
        self.delivery_seconds.get_or_create(&ByTarget { target: target.to_owned() }).observe(took.as_secs_f64());
    }

    /// The state of a target's queue.
    pub fn queue(&self, target: &str, queue: Queue) {
        let label = ByTarget { target: target.to_owned() };
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.backlog.get_or_create(&label).set(count(queue.backlog));
        self.parked.get_or_create(&label).set(count(queue.parked));
        self.dead_letters.get_or_create(&label).set(count(queue.dead_letters));
        self.oldest_waiting.get_or_create(&label).set(queue.oldest_waiting.as_secs_f64());
    }

    /// The target's breaker opened or closed.
    pub fn breaker(&self, target: &str, open: bool) {
        self.breaker_open.get_or_create(&ByTarget { target: target.to_owned() }).set(i64::from(open));
    }

    /// A run noticed something of this kind.
    pub fn finding(&self, kind: &'static str) {
        self.findings.get_or_create(&ByKind { kind }).inc();
    }

    /// A route set was applied, or refused.
    pub fn reload(&self, applied: bool) {
        self.reloads.get_or_create(&ByResult { result: if applied { "applied" } else { "refused" } }).inc();
    }

    /// The files as they are now are in force since `at`, or were refused.
    pub fn reloaded(&self, in_force_since: Option<f64>) {
        self.last_reload_ok.set(i64::from(in_force_since.is_some()));
        if let Some(at) = in_force_since {
            self.last_reload.set(at);
        }
    }

    /// A commit of the journal took this long, fsync included.
    pub fn commit(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// The size of the journal's files and of their write-ahead logs, in bytes.
    pub fn journal_size(&self, bytes: u64, wal_bytes: u64) {
        self.journal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.wal_bytes.set(i64::try_from(wal_bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_and_commits_are_told_apart_below_a_millisecond() {
        let metrics = Metrics::new();
        metrics.acknowledged("adt", "AA", Duration::from_micros(420));
        metrics.commit(Duration::from_micros(360));
        let text = metrics.encode();
        for (line, n) in [("ack_seconds_bucket{le=\"0.0004\"}", 0), ("ack_seconds_bucket{le=\"0.00045\"}", 1), ("commit_seconds_bucket{le=\"0.0004\"}", 1)] {
            assert!(text.contains(&format!("kiln_{line} {n}")), "{line} is not {n} in:\n{text}");
        }
        assert!(FINE_SECONDS.is_sorted());
    }

    #[test]
    fn the_fixed_names_are_in_the_text() {
        let metrics = Metrics::new();
        metrics.received("adt", "ADT^A01", 1.5);
        metrics.acknowledged("adt", "AA", Duration::from_millis(1));
        metrics.delivery("main", Outcome::Delivered, Duration::from_millis(1));
        metrics.queue("main", Queue { backlog: 3, parked: 2, dead_letters: 1, oldest_waiting: Duration::from_secs(4) });
        metrics.commit(Duration::from_micros(300));
        metrics.journal_size(10, 5);
        let text = metrics.encode();
        for line in [
            "kiln_messages_received_total{listener=\"adt\",type=\"ADT^A01\"} 1",
            "kiln_acks_total{listener=\"adt\",code=\"AA\"} 1",
            "kiln_deliveries_total{target=\"main\",outcome=\"delivered\"} 1",
            "kiln_backlog{target=\"main\"} 3",
            "kiln_parked{target=\"main\"} 2",
            "kiln_oldest_waiting_seconds{target=\"main\"} 4.0",
            "kiln_dead_letters{target=\"main\"} 1",
            "kiln_ack_seconds_count 1",
            "kiln_delivery_seconds_count{target=\"main\"} 1",
            "kiln_commit_seconds_count 1",
            "kiln_journal_bytes 10",
            "kiln_wal_bytes 5",
            "kiln_last_message_timestamp_seconds{listener=\"adt\"} 1.5",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
