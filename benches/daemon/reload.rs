//! From a changed route to the answer that it is live.

use crate::harness::{Asked, Daemon, KILN, load};
use std::process::Command;
use std::time::{Duration, Instant};

/// From `kiln reload` to its answer, with one route of so many changed each time.
pub(super) fn reload(asked: &Asked) {
    let (routes, rounds) = (asked.number("--routes", 650), asked.number("--rounds", 11));
    let folder = asked.folder();
    std::fs::create_dir(folder.join("routes")).unwrap();
    let route = |n: u64, round: u64| {
        let text = format!("route: r{n}\non: [ZZZ^Z{n:03}]\nto: main\nresources:\n  who: {{ $map: PID -> Patient, $save: update by PID-3 }} # {round}\n");
        std::fs::write(folder.join(format!("routes/r{n}.yaml")), text).unwrap();
    };
    (0..routes).for_each(|n| route(n, 0));
    let daemon = Daemon::start(&folder, "null");
    let mut times: Vec<Duration> = (1..=rounds)
        .map(|round| {
            route(0, round);
            let began = Instant::now();
            let out = Command::new(KILN).arg("reload").current_dir(&folder).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            began.elapsed()
        })
        .collect();
    times.sort();
    let (median, longest) = (times[times.len() / 2].as_millis(), times.last().unwrap().as_millis());
    println!(
        "{routes} routes of the site beside the shipped ones: `kiln reload` takes {median} ms (median of {rounds}), {longest} ms at most; load {}",
        load()
    );
    daemon.stop();
    let _ = std::fs::remove_dir_all(&folder);
}
