//! What every process of Kiln promises about itself: no patient data in panics, core dumps, or files that others may read.

use crate::site::Log;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A panic's message may quote what it choked on, so only its place is told.
pub(crate) fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        match info.location() {
            Some(place) => {
                crate::cli::paint::err!("kiln: panic in thread {thread} at {}:{}:{}; please report this", place.file(), place.line(), place.column())
            }
            None => crate::cli::paint::err!("kiln: panic in thread {thread}; please report this"),
        }
    }));
}

/// Files that this process makes are its user's only; its memory is not written to disk or read by others. It may open as many
/// files as its user may: each connection is one.
pub(crate) fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, none).is_err() || set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        tracing::warn!("core dumps could not be switched off; they may hold patient data");
    }
    let files = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).is_err() {
        tracing::warn!(most = ?files.current, "the limit of open files could not be raised; it limits connections");
    }
}

/// Kiln's own lines as `log.level` says, everybody else's at WARN at most whatever RUST_LOG says, unless `log.unsafe` lifts that.
/// Lines go to standard error.
pub(crate) fn start_log(log: &Log) {
    let level: LevelFilter = log.level.parse().unwrap_or(LevelFilter::INFO);
    let others = if log.unsafe_ { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_default(others).with_target("kiln", level);
    let registry = tracing_subscriber::registry().with(filter);
    // A second call (tests in one process) keeps the first.
    let _ = if log.json {
        registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        let colour = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        registry.with(tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr)).try_init()
    };
    if log.unsafe_ {
        tracing::warn!("log.unsafe is on: lines of libraries may hold patient data");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test of its own: what the next one runs in a process of its own.
    #[test]
    fn panics_when_told_to() {
        if std::env::var_os("KILN_TEST_PANICS").is_none() {
            return;
        }
        quiet_panics();
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("kiln").build().expect("a runtime");
        let task = runtime.spawn(async {
            panic!("cannot map {}", std::hint::black_box("Vondrakova"));
        });
        assert!(runtime.block_on(task).is_err_and(|e| e.is_panic()));
    }

    #[test]
    fn a_panic_tells_its_place_and_not_what_it_choked_on() {
        let this = std::env::current_exe().expect("this binary");
        let ran = std::process::Command::new(this)
            .args(["--exact", "cli::process::tests::panics_when_told_to", "--nocapture"])
            .env("KILN_TEST_PANICS", "1")
            .env("RUST_BACKTRACE", "full")
            .output()
            .expect("it starts");
        let told = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(told.contains("panic in thread kiln at src/cli/process.rs:"), "{told}");
        assert!(!told.contains("Vondrakova"), "{told}");
    }
}
