//! Journals that earlier versions wrote, one folder for each format in tests/journal_formats: they are read as they are, and upgraded when they
//! are opened for writing.

mod journal_support;

use journal_support::{append, envelope, open, options};
use kiln::exchange::{MessageId, Timestamp};
use kiln::journal::{DeliveryState, Depends, Disposition, Journal, Owed, OwedState, Reader, Wanted};
use std::path::Path;

/// What each of them holds: a message that was delivered and came twice, a dead letter, and one whose sender was still waiting.
const STATES: [DeliveryState; 3] = [DeliveryState::Delivered, DeliveryState::DeadLetter, DeliveryState::Pending];

fn copy(format: u32, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/journal_formats/{format}"));
    for entry in std::fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("it can be read");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
    }
}

/// Format 1 had two tables less than format 2.
fn make_format_1(folder: &Path) {
    for (file, table) in [("carried.db", "awaited"), (&*format!("segment-{:020}.db", 1), "awaited"), ("state.db", "retired")] {
        let connection = rusqlite::Connection::open(folder.join(file)).expect("a database");
        connection.execute_batch(&format!("DROP TABLE {table}; PRAGMA user_version = 1;")).expect("it is there");
    }
}

fn user_version(folder: &Path, file: &str) -> i64 {
    let connection = rusqlite::Connection::open(folder.join(file)).expect("a database");
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a number")
}

fn read_as_it_is(folder: &Path) {
    let reader = Reader::open(folder).expect("it is readable");
    for (n, state) in (1..).zip(STATES) {
        let record = reader.show(MessageId(n)).expect("it is there");
        assert_eq!((record.envelope.control_id.0, record.deliveries[0].state), (format!("OLD{n}"), state));
        assert!(record.disposition == Disposition::Accepted && record.owed.is_none());
    }
    assert_eq!(reader.show(MessageId(1)).expect("it is there").duplicates, 1);
    assert_eq!(reader.verify().expect("it can be read").faults, Vec::<String>::new());
}

async fn write_on(folder: &Path) {
    let journal = Journal::open(options(folder)).expect("it is upgraded");
    assert_eq!(journal.pending("gone", None, 10).await.expect("it can be read").len(), 1);
    let owed = Owed { accept: Some("CA"), wanted: Wanted::Always, depends: Depends::Done, line: None };
    let mut new = append(envelope("NEW", 1), &[]);
    new.envelope.received = Timestamp(journal_support::NEW_YEAR + 400 * 24 * 3_600_000);
    let stored = journal.append(kiln::journal::Append { owed: Some(owed), ..new }).await.expect("it is stored");
    assert_eq!(stored.id(), MessageId(4));
    assert_eq!(journal.owed(stored.id()).await.expect("it can be read").map(|owed| owed.state), Some(OwedState::Due));
    assert!(journal.last_program().await.expect("it can be read").is_some());
    assert_eq!(journal.verify().await.expect("it can be read").faults, Vec::<String>::new());
    journal.close().await;
}

#[tokio::test]
async fn every_earlier_format_is_read_and_upgraded() {
    // Formats 1 to 4 are in tests/journal_upgrade too, as text, with more in them. Should this be another number, format 5 belongs there.
    let now = tempfile::tempdir().expect("a folder");
    open(now.path()).close().await;
    assert_eq!(user_version(now.path(), "state.db"), 5);
    for format in [1, 2] {
        let folder = tempfile::tempdir().expect("a folder");
        copy(2, folder.path());
        if format == 1 {
            make_format_1(folder.path());
        }
        assert_eq!(user_version(folder.path(), "state.db"), format);
        read_as_it_is(folder.path());
        assert_eq!(user_version(folder.path(), "state.db"), format, "reading changes nothing");
        write_on(folder.path()).await;
        for file in ["state.db", "carried.db", &format!("segment-{:020}.db", 1)] {
            assert_eq!(user_version(folder.path(), file), 5, "{file}");
        }
        read_as_it_is(folder.path());
    }
}
