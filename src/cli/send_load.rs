//! The load generator of `kiln send`: many connections, each with one message in flight, copies rendered from a template.

use crate::cli::Exit;
use crate::cli::paint::{BAD, FAINT, GOOD, STRONG, count, err, micros, out, paint};
use crate::cli::send::Args;
use crate::cli::send_client::Client;
use crate::hl7v2::answered;
use crate::site::words;
use crate::target::MllpPeer;
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How many different patients the copies name.
const PATIENTS: u64 = 10_000;
/// Letters of a generated control ID; MSH-10 holds 20 in all versions before 2.7.
const CONTROL_ID_LEN: usize = 16;

/// Width of a generated identifier.
const IDENTIFIER_LEN: usize = 8;

/// What an identifier names: it is the same in all copies of one patient, or another in each copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Patient,
    Visit,
    Copy,
}

/// Fields with identifiers, by segment: patients and visits, and what each copy makes anew (orders, appointments).
const IDENTIFIERS: [(&[u8], &[(usize, Names)]); 6] = [
    (b"PID", &[(2, Names::Patient), (3, Names::Patient), (4, Names::Patient), (18, Names::Visit)]),
    (b"MRG", &[(1, Names::Patient), (2, Names::Patient), (3, Names::Visit), (4, Names::Patient), (5, Names::Visit), (6, Names::Visit)]),
    (b"PV1", &[(19, Names::Visit)]),
    (b"ORC", &[(2, Names::Copy), (3, Names::Copy)]),
    (b"OBR", &[(2, Names::Copy), (3, Names::Copy)]),
    (b"SCH", &[(1, Names::Copy), (2, Names::Copy)]),
];

/// An identifier of the message: where it stands, and its first letter, by which different ones of one message stay different.
struct Slot {
    names: Names,
    letter: u8,
    place: std::ops::Range<usize>,
}

/// A message cut at the places that differ between copies.
pub(crate) struct Template {
    frame: Vec<u8>,
    control_id: Option<std::ops::Range<usize>>,
    time: Option<std::ops::Range<usize>>,
    identifiers: Vec<Slot>,
    /// Different identifiers seen so far.
    known: Vec<(Names, Vec<u8>)>,
}

impl Template {
    /// Makes room for MSH-7, MSH-10 and identifiers, all of fixed widths, and wraps the rest in a frame. What a message doesn't have it goes without.
    pub(crate) fn new(message: &[u8]) -> Self {
        Self::cut(message, true)
    }

    fn cut(message: &[u8], identifiers: bool) -> Self {
        let mut this = Self { frame: vec![0x0b], control_id: None, time: None, identifiers: Vec::new(), known: Vec::new() };
        let separator = message.get(3).copied().unwrap_or(b'|');
        for segment in message.split(|b| *b == b'\r' || *b == b'\n').filter(|s| !s.is_empty()) {
            let name = segment.get(..3).unwrap_or(segment);
            for (n, field) in segment.split(|b| *b == separator).enumerate() {
                if n > 0 {
                    this.frame.push(separator);
                }
                match (name, n) {
                    (b"MSH", 6) => this.time = Some(this.slot(14)),
                    (b"MSH", 9) => this.control_id = Some(this.slot(CONTROL_ID_LEN)),
                    _ => match IDENTIFIERS.iter().find(|(segment, _)| *segment == name).and_then(|(_, f)| f.iter().find(|(at, _)| *at == n)) {
                        Some((_, names)) if identifiers => this.identifiers_of(field, *names, message),
                        _ => this.frame.extend_from_slice(field),
                    },
                }
            }
            this.frame.push(b'\r');
        }
        this.frame.extend_from_slice(&[0x1c, 0x0d]);
        this
    }

    /// A field of identifiers: the value of each repetition becomes a slot, its authority and type stay.
    fn identifiers_of(&mut self, field: &[u8], names: Names, message: &[u8]) {
        let delimiter = |at: usize, usual: u8| message.get(at).copied().unwrap_or(usual);
        let (component, repetition, subcomponent) = (delimiter(4, b'^'), delimiter(5, b'~'), delimiter(7, b'&'));
        for (n, each) in field.split(|b| *b == repetition).enumerate() {
            if n > 0 {
                self.frame.push(repetition);
            }
            let end = each.iter().position(|b| *b == component || *b == subcomponent).unwrap_or(each.len());
            let (value, rest) = each.split_at(end);
            // Neither nothing nor the null of HL7 names anybody.
            if value.is_empty() || value == b"\"\"" {
                self.frame.extend_from_slice(each);
                continue;
            }
            let known = self.known.iter().filter(|(of, _)| *of == names).position(|(_, known)| known == value);
            let number = known.unwrap_or_else(|| {
                self.known.push((names, value.to_vec()));
                self.known.iter().filter(|(of, _)| *of == names).count() - 1
            });
            let first = match names {
                Names::Patient => b'P',
                Names::Visit => b'V',
                Names::Copy => b'C',
            };
            let letter = b'A' + (first - b'A' + u8::try_from(number % 26).unwrap_or(0)) % 26;
            let place = self.slot(IDENTIFIER_LEN);
            self.identifiers.push(Slot { names, letter, place });
            self.frame.extend_from_slice(rest);
        }
    }

    fn slot(&mut self, width: usize) -> std::ops::Range<usize> {
        let start = self.frame.len();
        self.frame.resize(start + width, b'0');
        start..start + width
    }

    /// One copy, framed, in place. Returns nothing: [`Template::frame`] is it.
    fn render(&mut self, control_id: u64, patient: u64, time: &[u8]) {
        if let Some(slot) = self.control_id.clone().and_then(|r| self.frame.get_mut(r)) {
            write_hex(control_id, slot);
        }
        for Slot { names, letter, place } in &self.identifiers {
            let Some(slot) = self.frame.get_mut(place.clone()) else { continue };
            match names {
                Names::Patient | Names::Visit => write_decimal(patient, slot),
                Names::Copy => write_hex(control_id, slot),
            }
            if let Some(first) = slot.first_mut() {
                *first = *letter;
            }
        }
        if let Some(slot) = self.time.clone().and_then(|r| self.frame.get_mut(r))
            && slot.len() == time.len()
        {
            slot.copy_from_slice(time);
        }
    }

    /// The message without a frame, with a control ID and time of its own; patients and all else stay as they are.
    pub(crate) fn fresh(message: &[u8]) -> Vec<u8> {
        let mut this = Self::cut(message, false);
        this.render(Random::new().next(), 0, &now_as_dtm());
        let len = this.frame.len();
        this.frame.get(1..len.saturating_sub(2)).unwrap_or(&[]).to_vec()
    }
}

fn write_hex(mut n: u64, slot: &mut [u8]) {
    for b in slot.iter_mut().rev() {
        *b = *b"0123456789ABCDEF".get((n & 15) as usize).unwrap_or(&b'0');
        n >>= 4;
    }
}

fn write_decimal(mut n: u64, slot: &mut [u8]) {
    for b in slot.iter_mut().rev() {
        *b = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
    }
}

fn now_as_dtm() -> Vec<u8> {
    jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string().into_bytes()
}

/// xorshift64*, seeded by the system: fast, and good enough to make control IDs that differ.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(getrandom::u64().unwrap_or(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Times in microseconds, in buckets no wider than 1.6 % of their value.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    total: u64,
    max: u64,
}

const SUB: u32 = 6;

impl Histogram {
    fn new() -> Self {
        Self { buckets: vec![0; 64 << SUB], total: 0, max: 0 }
    }

    fn add(&mut self, us: u64) {
        if let Some(b) = self.buckets.get_mut(Self::index(us)) {
            *b += 1;
        }
        self.total += 1;
        self.max = self.max.max(us);
    }

    fn add_duration(&mut self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The usual shares, for --json; nothing if there is nothing to say.
    fn json(&self) -> serde_json::Value {
        if self.total == 0 {
            return serde_json::Value::Null;
        }
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| self.quantile(share));
        serde_json::json!({ "p50": p50, "p90": p90, "p99": p99, "p999": p999, "max": self.max })
    }

    fn words(&self) -> String {
        let q = |share| micros(self.quantile(share));
        format!("p50 {}   p90 {}   p99 {}   p99.9 {}   max {}", q(0.5), q(0.9), q(0.99), q(0.999), micros(self.max))
    }

    fn index(us: u64) -> usize {
        let top = u64::BITS - us.leading_zeros();
        if top <= SUB {
            return usize::try_from(us).unwrap_or(0);
        }
        let shift = top - SUB - 1;
        let within = (us >> shift) & ((1 << SUB) - 1);
        usize::try_from((u64::from(shift + 1) << SUB) | within).unwrap_or(0)
    }

    fn lower(index: usize) -> u64 {
        let (octave, within) = ((index >> SUB) as u64, (index & ((1 << SUB) - 1)) as u64);
        if octave == 0 { within } else { (within | 1 << SUB) << (octave - 1) }
    }

    /// The value that this share of all times does not exceed, within the width of a bucket.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (n, b) in self.buckets.iter().enumerate() {
            seen += b;
            if seen >= wanted {
                return Self::lower(n + 1).saturating_sub(1).min(self.max);
            }
        }
        self.max
    }
}

/// What all connections count together. One thread: no locks.
struct Tally {
    sent: Cell<u64>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
    wrong: Cell<u64>,
    lost: Cell<u64>,
    no_connection: Cell<u64>,
    bytes: Cell<u64>,
    /// From a message's hand-over to the socket to its acknowledgement.
    times: RefCell<Histogram>,
    /// From when a message was due, where a rate says when.
    since_due: RefCell<Histogram>,
    /// How long after it was due a message was handed over.
    late: RefCell<Histogram>,
    time: RefCell<Vec<u8>>,
    acked: RefCell<Option<std::io::BufWriter<std::fs::File>>>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Runs the load and prints what came of it.
pub(crate) async fn run(args: &Args, peer: &Arc<MllpPeer>, messages: Vec<Vec<u8>>) -> Exit {
    let acked = match &args.acked {
        None => None,
        Some(path) => match std::fs::OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Some(std::io::BufWriter::new(file)),
            Err(e) => {
                err!("kiln: {}: {}", path.display(), words(&e));
                return Exit::CouldNot;
            }
        },
    };
    let tally = Rc::new(Tally {
        sent: Cell::new(0),
        accepted: Cell::new(0),
        refused: Cell::new(0),
        wrong: Cell::new(0),
        lost: Cell::new(0),
        no_connection: Cell::new(0),
        bytes: Cell::new(0),
        times: RefCell::new(Histogram::new()),
        since_due: RefCell::new(Histogram::new()),
        late: RefCell::new(Histogram::new()),
        time: RefCell::new(now_as_dtm()),
        acked: RefCell::new(acked),
    });
    let total = args.repeat.map(|n| n.saturating_mul(messages.len() as u64));
    let began = Instant::now();
    let until = args.duration.map(|d| began + d);
    let local = tokio::task::LocalSet::new();
    let messages = Rc::new(messages);
    let mut tasks = tokio::task::JoinSet::new();
    let pace = Pace { total, until, began };
    let turns = match args.rate.map(|rate| metronome(pace, f64::from(rate))) {
        None => Turns::AtOnce(pace),
        Some(Ok(beats)) => Turns::Beaten(Rc::new(tokio::sync::Mutex::new(beats))),
        Some(Err(e)) => {
            err!("kiln: {}", words(&e));
            return Exit::CouldNot;
        }
    };
    for _ in 0..args.connections {
        let client = Client::new(Arc::clone(peer), args.timeout);
        tasks.spawn_local_on(connection(client, Rc::clone(&messages), Rc::clone(&tally), turns.clone(), args.timeout), &local);
    }
    drop(turns);
    let bar = (std::io::stderr().is_terminal() && !args.json).then(|| match total {
        Some(total) => indicatif::ProgressBar::new(total).with_style(style("{bar:40} {pos}/{len}  {per_sec}  {eta} left")),
        None => indicatif::ProgressBar::new_spinner().with_style(style("{spinner} {pos}  {per_sec}  {elapsed}")),
    });
    local
        .run_until(async {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            loop {
                tokio::select! {
                    done = tasks.join_next() => if done.is_none() { break },
                    _ = tick.tick() => {
                        *tally.time.borrow_mut() = now_as_dtm();
                        if let Some(bar) = &bar { bar.set_position(tally.sent.get()) }
                        if let Some(acked) = tally.acked.borrow_mut().as_mut() { let _ = acked.flush(); }
                    }
                }
            }
        })
        .await;
    let took = began.elapsed();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(mut acked) = tally.acked.borrow_mut().take()
        && acked.flush().is_err()
    {
        err!("kiln: the file of accepted control IDs could not be written");
        return Exit::CouldNot;
    }
    report(args, &tally, took);
    if tally.sent.get() == 0 {
        Exit::CouldNot
    } else if tally.accepted.get() == tally.sent.get() {
        Exit::Done
    } else {
        Exit::Found
    }
}

fn style(template: &str) -> indicatif::ProgressStyle {
    indicatif::ProgressStyle::with_template(template).unwrap_or_else(|_| indicatif::ProgressStyle::default_bar())
}

#[derive(Clone, Copy)]
struct Pace {
    total: Option<u64>,
    until: Option<Instant>,
    began: Instant,
}

impl Pace {
    /// Whether a message that is the `number`th, from 0, and due then, is still to be sent.
    fn takes(&self, number: u64, due: Instant) -> bool {
        self.total.is_none_or(|total| number < total) && self.until.is_none_or(|until| due < until)
    }
}

/// When each connection's next message is due.
#[derive(Clone)]
enum Turns {
    /// As soon as the one before is answered.
    AtOnce(Pace),
    /// When the metronome says so; whichever connection is free takes the turn.
    Beaten(Rc<tokio::sync::Mutex<mpsc::Receiver<Instant>>>),
}

impl Turns {
    /// `None` when there is no more to send.
    async fn next(&self, tally: &Tally) -> Option<Instant> {
        let due = match self {
            Self::AtOnce(pace) => Some(Instant::now()).filter(|now| pace.takes(tally.sent.get(), *now)),
            Self::Beaten(beats) => beats.lock().await.recv().await,
        }?;
        add(&tally.sent);
        Some(due)
    }
}

/// Turns that were due and that no connection has taken yet. While all connections wait for answers, the rest waits in the metronome, and is
/// late as it would be here.
const TURNS_MAX: usize = 1_024;

/// Beats at a rate from a thread of its own: the runtime's timers have a resolution of a millisecond, a thread's sleep one of some 60 us.
/// Ends when all has been sent, or when nobody listens any more.
fn metronome(pace: Pace, rate: f64) -> std::io::Result<mpsc::Receiver<Instant>> {
    let (beat, beats) = mpsc::channel(TURNS_MAX);
    let run = move || {
        let due = |number: u64| pace.began + Duration::from_secs_f64(number as f64 / rate);
        for (number, due) in (0..).map(|number| (number, due(number))) {
            if !pace.takes(number, due) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if beat.blocking_send(due).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("metronome".to_owned()).spawn(run)?;
    Ok(beats)
}

async fn connection(mut client: Client, messages: Rc<Vec<Vec<u8>>>, tally: Rc<Tally>, turns: Turns, timeout: Duration) {
    let mut templates: Vec<Template> = messages.iter().map(|m| Template::new(m)).collect();
    let mut random = Random::new();
    let mut expected = [b'0'; CONTROL_ID_LEN];
    let mut turn = 0;
    while let Some(due) = turns.next(&tally).await {
        let number = templates.len();
        let Some(template) = templates.get_mut(turn % number) else { return };
        turn += 1;
        let control_id = random.next();
        write_hex(control_id, &mut expected);
        template.render(control_id, random.next() % PATIENTS, &tally.time.borrow());
        if !connected(&mut client, timeout).await {
            add(&tally.no_connection);
            return;
        }
        let began = Instant::now();
        let late = began.saturating_duration_since(due);
        let answer = client.exchange_frame(&template.frame).await;
        match answer {
            Ok(ack) => {
                tally.bytes.set(tally.bytes.get() + template.frame.len() as u64);
                match answered(&ack) {
                    Some((code, id)) if template.control_id.is_none() || id == expected => {
                        if matches!(code, b"AA" | b"CA") {
                            add(&tally.accepted);
                            let took = began.elapsed();
                            tally.times.borrow_mut().add_duration(took);
                            if matches!(turns, Turns::Beaten(_)) {
                                tally.late.borrow_mut().add_duration(late);
                                tally.since_due.borrow_mut().add_duration(late + took);
                            }
                            if let Some(acked) = tally.acked.borrow_mut().as_mut() {
                                let _ = acked.write_all(&expected).and_then(|()| acked.write_all(b"\n"));
                            }
                        } else {
                            add(&tally.refused);
                        }
                    }
                    _ => add(&tally.wrong),
                }
            }
            Err(_) => add(&tally.lost),
        }
    }
}

/// Tries for as long as the time-out, so that a receiver that restarts is waited for.
async fn connected(client: &mut Client, timeout: Duration) -> bool {
    let give_up = Instant::now() + timeout;
    loop {
        match client.connect().await {
            Ok(()) => return true,
            Err(_) if Instant::now() >= give_up => return false,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn report(args: &Args, t: &Tally, took: Duration) {
    let (sent, accepted, times) = (t.sent.get(), t.accepted.get(), t.times.borrow());
    let rate = accepted as f64 / took.as_secs_f64().max(1e-9);
    let unanswered = t.lost.get() + t.no_connection.get();
    let cpu = sender_cpu();
    if args.json {
        out!(
            "{}",
            serde_json::json!({
                "sent": sent, "accepted": accepted, "refused": t.refused.get(), "wrongAnswer": t.wrong.get(), "noAnswer": unanswered,
                "seconds": took.as_secs_f64(), "perSecond": rate, "connections": args.connections, "bytes": t.bytes.get(), "senderCpuSeconds": cpu,
                "micros": times.json(), "microsSinceDue": t.since_due.borrow().json(), "microsLate": t.late.borrow().json(),
            })
        );
        return;
    }
    let connections = if args.connections == 1 { "1 connection".to_owned() } else { format!("{} connections", args.connections) };
    out!("{}", paint(STRONG, &format!("{} messages over {connections} in {:.2} s", count(sent), took.as_secs_f64())));
    let line = |style, name: &str, n: u64, more: String| out!("  {name:<13} {}  {}", paint(style, &format!("{:>12}", count(n))), paint(FAINT, &more));
    line(if accepted == sent { GOOD } else { FAINT }, "accepted", accepted, format!("{} per second", count(rate as u64)));
    for (name, n, more) in [
        ("refused", t.refused.get(), "a negative acknowledgement"),
        ("wrong answer", t.wrong.get(), "no MSA, or MSA-2 of another message"),
        ("no answer", unanswered, "closed, timed out or never connected: not accepted as far as is known"),
    ] {
        if n > 0 {
            line(BAD, name, n, more.to_owned());
        }
    }
    if times.total > 0 {
        out!("  ACK time      {}", times.words());
    }
    if t.late.borrow().total > 0 {
        out!("  since due     {}", t.since_due.borrow().words());
        out!("  {}", paint(FAINT, &format!("sent late by  {}", t.late.borrow().words())));
    }
    if let Some(cpu) = cpu {
        out!("  {}", paint(FAINT, &format!("this sender used {cpu:.2} s of processor time")));
    }
}

/// User and system time of this process in seconds; `None` where /proc does not tell.
fn sender_cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_has_a_control_id_a_time_and_a_patient_of_its_own() {
        let mut template = Template::new(b"MSH|^~\\&|A|B|C|D|20200101||ADT^A01|X|P|2.5\rEVN|A01\rPID|1||77^^^H^MR~8||Doe\r");
        template.render(0xABC, 42, b"20260101000000");
        let text = String::from_utf8_lossy(&template.frame).into_owned();
        assert_eq!(text, "\u{b}MSH|^~\\&|A|B|C|D|20260101000000||ADT^A01|0000000000000ABC|P|2.5\rEVN|A01\rPID|1||P0000042^^^H^MR~Q0000042||Doe\r\u{1c}\r");
        let fresh = Template::fresh(b"MSH|^~\\&|A|B|C|D|20200101||ADT^A01|X|P|2.5\nPID|1||77");
        assert!(fresh.ends_with(b"|P|2.5\rPID|1||77\r") && fresh.starts_with(b"MSH|") && !fresh.windows(3).any(|w| w == b"|X|"));
        assert_eq!(Template::new(b"").frame, [0x0b, 0x1c, 0x0d]);
    }

    #[test]
    fn visits_follow_the_patient_orders_and_appointments_the_copy_and_equal_ones_stay_equal() {
        let mut template =
            Template::new(b"MSH|^~\\&|A\rPID|||\"\"~~7|7||||||||||||||9^^^H\rPV1|1||||||||||||||||||9\rORC|NW|O1^X|O2\rOBR|1|O1^X|O2&Y\rSCH|S1\r");
        template.render(0xABC, 42, b"");
        let text = String::from_utf8_lossy(&template.frame).into_owned();
        let expected = "MSH|^~\\&|A\rPID|||\"\"~~P0000042|P0000042||||||||||||||V0000042^^^H\rPV1|1||||||||||||||||||V0000042\r\
            ORC|NW|C0000ABC^X|D0000ABC\rOBR|1|C0000ABC^X|D0000ABC&Y\rSCH|E0000ABC\r";
        assert_eq!(text.trim_matches(['\u{b}', '\u{1c}']).trim_end_matches("\u{1c}\r"), expected);
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut h = Histogram::new();
        (1..=100_000).for_each(|n| h.add(n));
        for (share, exact) in [(0.5, 50_000_f64), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let got = h.quantile(share) as f64;
            assert!((got - exact).abs() / exact < 0.02, "{share}: {got}");
        }
        for us in [0, 1, 63, 64, 65, 1000, 123_456_789] {
            let n = Histogram::index(us);
            assert!(Histogram::lower(n) <= us && us < Histogram::lower(n + 1), "{us}");
        }
    }
}
