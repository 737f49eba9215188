//! The load generator of `kiln send`: many connections, each with one message in flight, copies rendered from a template.

mod copies;
mod histogram;

use crate::cli::Exit;
use crate::cli::paint::{BAD, FAINT, GOOD, STRONG, count, err, out, paint};
use crate::cli::send::Args;
use crate::cli::send_client::Client;
use crate::hl7v2::answered;
use crate::site::words;
use crate::target::MllpPeer;
pub(crate) use copies::Template;
use copies::{CONTROL_ID_LEN, PATIENTS, Random, now_as_dtm, write_hex};
pub(crate) use histogram::Histogram;
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

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
