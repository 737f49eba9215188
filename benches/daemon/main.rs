//! Measures the daemon from outside, with `kiln serve` and `kiln send` on this machine; figures are in docs/performance.md.
//!
//! ```text
//! cargo bench --bench daemon -- intake    [--messages 300000] [--rounds 3] [--connections 64]
//! cargo bench --bench daemon -- latency   [--rate 500] [--for 30s] [--connections 8] [--target paused|null|folder]
//! cargo bench --bench daemon -- connections [--idle 1000] [--busy 1000] [--for 20s]
//! cargo bench --bench daemon -- forward   [--messages 20000] [--parallel 1,8,64]
//! cargo bench --bench daemon -- sustained [--for 10m] [--stored 1000000] [--target paused|null|folder|all] [--rate N] [--connections 64]
//! cargo bench --bench daemon -- drain     [--messages 1000000] [--parallel 8] [--connections 64]
//! cargo bench --bench daemon -- reload    [--routes 650] [--rounds 11]
//! ```
//!
//! Each takes `--path FOLDER` (a folder for journals, on the disk that is to be measured) and `--message FILE`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

mod connections;
mod forward;
mod harness;
mod intake;
mod outage;
mod rate;
mod reload;

use harness::Asked;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let what = args.first().filter(|arg| !arg.starts_with("--")).map_or("", String::as_str).to_owned();
    let asked = Asked(args);
    match what.as_str() {
        "intake" => intake::intake(&asked),
        "latency" => rate::latency(&asked),
        "connections" => connections::connections(&asked),
        "forward" => forward::forward(&asked),
        "sustained" => rate::sustained(&asked),
        "drain" => outage::drain(&asked),
        "reload" => reload::reload(&asked),
        _ => println!("say intake, latency, connections, forward, sustained, drain or reload; the head of benches/daemon/main.rs has their options"),
    }
}
