//! The daemon on a disk that fails: no acknowledgement without the disk, exit code 74 for a failed fsync, and patience with a full one.

mod cli_support;
mod powerloss;

use cli_support::{Daemon, admit, exchange, get, kiln, wait_for};
use powerloss::Disk;
use std::path::Path;

fn start(disk: &Disk) -> Daemon {
    let site = disk.beside("site");
    std::fs::create_dir_all(&site).expect("a folder");
    let text = format!(
        "console: {{ listen: 127.0.0.1:0 }}\njournal: {{ path: {}, low-water: 1KiB }}\nlog: {{ level: trace }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ 'null': true }} }}\n",
        disk.path().join("journal").display()
    );
    std::fs::write(site.join("kiln.yaml"), text).expect("a file");
    let mut command = kiln(&site);
    disk.under(command.arg("serve"), 0, 1);
    Daemon::start_with(&mut command)
}

/// Nothing that the daemon said holds the patient.
fn expect_discretion(daemon: &Daemon) {
    for text in [daemon.out(), daemon.err()] {
        assert!(!text.contains("Meier") && !text.contains("4711"), "{text}");
    }
}

#[test]
fn a_failed_fsync_ends_the_daemon_with_74_and_without_an_acknowledgement() {
    let disk = Disk::new();
    let mut daemon = start(&disk);
    let mllp = daemon.address("adt on ");
    assert!(exchange(mllp, admit("C1", "4711").as_bytes()).contains("MSA|AA|C1"));
    std::fs::write(disk.beside("fault"), "fsync").expect("a file");
    // The fault may hit the settlement of the first message or a search file just before; then the second may be promised, and kept. It ends the
    // daemon whichever file it hits.
    let answer = exchange(mllp, admit("C2", "4711").as_bytes());
    assert_eq!(daemon.code(), 74, "{}", daemon.err());
    assert!(daemon.err().contains("disk"), "{}", daemon.err());
    expect_discretion(&daemon);

    // The shim's fault happens once and is gone.
    let daemon = start(&disk);
    assert!(found(&disk, "C1"), "what was acknowledged is there");
    assert!(answer.is_empty() || (answer.contains("MSA|AA|C2") && found(&disk, "C2")), "nothing is promised that is not on the disk: {answer}");
    assert!(exchange(daemon.address("adt on "), admit("C3", "4711").as_bytes()).contains("MSA|AA|C3"));
    assert_eq!(daemon.stop(), 0);
}

/// Search is worth no acknowledgement, but the disk that failed under it is the one that acknowledgements stand on.
#[test]
fn a_failed_fsync_of_a_search_file_ends_the_daemon_too() {
    let disk = Disk::new();
    let mut daemon = start(&disk);
    std::fs::write(disk.beside("fault"), "search-fsync").expect("a file");
    assert!(exchange(daemon.address("adt on "), admit("C1", "4711").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(daemon.code(), 74, "{}", daemon.err());
    expect_discretion(&daemon);
    let daemon = start(&disk);
    assert!(found(&disk, "C1"), "what was acknowledged is there");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_full_disk_gets_no_answer_and_goes_on_by_itself() {
    let disk = Disk::new();
    let daemon = start(&disk);
    let (mllp, console) = (daemon.address("adt on "), daemon.address("console http://"));
    std::fs::write(disk.beside("fault"), "enospc").expect("a file");
    assert_eq!(exchange(mllp, admit("C1", "4711").as_bytes()), "", "nothing can be promised");
    assert_eq!(get(console, "/healthz").0, 200, "the process is well");
    std::fs::remove_file(disk.beside("fault")).expect("the fault");
    wait_for("room", || exchange(mllp, admit("C1", "4711").as_bytes()).contains("MSA|AA|C1"));
    expect_discretion(&daemon);
    assert_eq!(daemon.stop(), 0);
    assert!(found(&disk, "C1"));
}

#[test]
fn below_the_low_water_mark_nothing_is_accepted_and_readiness_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "console: { listen: 127.0.0.1:0 }\nlog: { level: trace }\nlisteners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { 'null': true } }\n";
    std::fs::write(folder.path().join("kiln.yaml"), text).expect("a file");
    let daemon = Daemon::start_with(kiln(folder.path()).arg("serve").env("KILN__JOURNAL__LOW_WATER", "1000TiB"));
    let (status, body) = get(daemon.address("console http://"), "/readyz");
    assert!(status == 503 && body.contains("low-water"), "{status} {body}");
    expect_discretion(&daemon);
    assert_eq!(daemon.stop(), 0);
}

fn found(disk: &Disk, control_id: &str) -> bool {
    let journal = disk.path().join("journal");
    let journal = journal.to_str().expect("UTF-8");
    cli_support::run(Path::new("."), &["journal", "search", "--journal", journal, "--control-id", control_id]).code == 0
}
