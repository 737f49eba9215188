//! Time of a delivery with few and with many waiting: the engine's own dispatch, a null target, all patients distinct.
//!
//! `cargo bench --bench picks -- [--many 1000000] [--path FOLDER]`; figures are in docs/performance.md.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use bytes::Bytes;
use kiln::diagnostic::Sources;
use kiln::engine::{Engine, EngineConfig, Routes, TargetSetup};
use kiln::exchange::{ControlId, Envelope, Format, OrderKey, Phi, Timestamp};
use kiln::journal::{Append, Disposition, Journal, NewDelivery, Options};
use kiln::metrics::Metrics;
use kiln::route::LoadOptions;
use kiln::target::{Target, TargetConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FEW: u64 = 1_000;
/// How many are delivered in each measurement.
const DELIVERED: u64 = 50_000;

const ROUTES: &str =
    "map: PID -> Patient\nbirthDate: PID-7\n---\nroute: adt\non: ADT^A08\nto: main\nresources:\n  patient: { $map: PID -> Patient, $save: create }\n";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|place| args.get(place + 1)).cloned();
    let many: u64 = option("--many").map_or(1_000_000, |text| text.parse().unwrap());
    let folder = option("--path").map_or_else(|| std::env::temp_dir().join("kiln-bench-picks"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut few, mut spent) = (Duration::ZERO, 0.0);
    let busy = processor();
    for _ in 0..DELIVERED / FEW {
        let journal = fill(&runtime, &folder, FEW);
        let (took, cost) = deliver(&runtime, journal, FEW);
        few += took;
        spent += cost;
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / DELIVERED as f64;
    println!("with {FEW:>9} waiting: {:.1} us a delivery, {:.1} us of processor ({} rounds)", each(few), spent * 1e6 / DELIVERED as f64, DELIVERED / FEW);
    let journal = fill(&runtime, &folder, many);
    let (took, cost) = deliver(&runtime, journal, DELIVERED);
    println!("with {many:>9} waiting: {:.1} us a delivery, {:.1} us of processor (the first {DELIVERED})", each(took), cost * 1e6 / DELIVERED as f64);
    println!(
        "many / few: {:.2} by the clock, {:.2} by processor time; goal 1.2 (all of it took {:.0} s of processor)",
        each(took) / each(few),
        cost / spent,
        processor() - busy
    );
    let _ = std::fs::remove_dir_all(&folder);
}

/// A fresh journal in which so many wait, each of another patient.
fn fill(runtime: &tokio::runtime::Runtime, folder: &Path, messages: u64) -> Journal {
    let _ = std::fs::remove_dir_all(folder);
    // The messages are dated; nothing of them may go before it is counted.
    let keep = Duration::from_secs(100 * 365 * 24 * 3600);
    let journal = Journal::open(Options { low_water: Some(0), keep, ..Options::at(folder) }).unwrap();
    runtime.block_on(async {
        for from in (0..messages).step_by(500) {
            let group = (from..(from + 500).min(messages)).map(|n| journal.append(message(n)));
            assert!(futures_util::future::join_all(group).await.iter().all(Result::is_ok));
        }
    });
    journal
}

fn message(n: u64) -> Append {
    let bytes = format!("MSH|^~\\&|ADT|HOSP|KILN|KILN|20260101||ADT^A08|{n}|P|2.5\rPID|1||{n}^^^HOSP^MR||DOE^JOHN||19700101|M\r");
    Append {
        envelope: Envelope {
            listener: "adt".into(),
            peer: "127.0.0.1:51123".into(),
            received: Timestamp(1_767_225_600_000),
            format: Format::V2,
            message_type: "ADT^A08".into(),
            sending_application: "ADT".into(),
            sending_facility: "HOSP".into(),
            message_time: "20260101".into(),
            control_id: ControlId(n.to_string()),
            order_keys: vec![OrderKey(n.wrapping_mul(0x9E37_79B9_7F4A_7C15))],
            bytes: Phi::new(Bytes::from(bytes)),
        },
        disposition: Disposition::Accepted,
        deliveries: vec![NewDelivery { route: "adt".into(), target: "main".into(), keys: None }],
        duplicate_window: None,
        awaited: Vec::new(),
        owed: None,
        program: None,
        row: None,
    }
}

/// Starts an engine and waits until so many are delivered. Gives the time and the processor's time.
fn deliver(runtime: &tokio::runtime::Runtime, journal: Journal, count: u64) -> (Duration, f64) {
    let mut sources = Sources::default();
    sources.add("routes/bench.yaml", ROUTES);
    let options = LoadOptions { listeners: vec!["adt".to_owned()], targets: vec!["main".to_owned()], overlays: Vec::new(), ..LoadOptions::default() };
    let routes = Routes::from_loaded(kiln::route::load(sources, &options), options).expect("the bench's route has no errors");
    let target = Arc::new(Target::open(TargetConfig::Null).unwrap());
    let target = TargetSetup { name: "main".into(), target, parallel: 8, settle: Duration::ZERO, send: None, replies: None };
    runtime.block_on(async {
        let (began, busy) = (Instant::now(), processor());
        let engine = Engine::start(EngineConfig::default(), journal.clone(), vec![target], Vec::new(), routes, Arc::new(Metrics::new())).await.unwrap();
        while journal.counts("main").delivered < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let delivered = journal.counts("main").delivered as f64 / count as f64;
        let measured = (began.elapsed().div_f64(delivered), (processor() - busy) / delivered);
        engine.shutdown(Duration::from_secs(20)).await;
        measured
    })
}

/// User and system time of this process, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / rustix::param::clock_ticks_per_second() as f64
}
