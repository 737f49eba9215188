//! Journals of earlier formats, kept as text in tests/journal_upgrade: each is read as it is, upgraded when it is opened, and goes on.

#![allow(clippy::unwrap_used, reason = "a test stops where it is surprised")]

mod journal_support;

use bytes::Bytes;
use journal_support::{NEW_YEAR, append, delivered, envelope, open, options};
use kiln::exchange::{DeliveryId, MessageId, OrderKey, Phi, Timestamp};
use kiln::journal::{
    Append, DeliveryState, Depends, Disposition, Edit, Gone, Journal, Kept, Options, Owed, OwedState, Query, Reader, Replay, ReplyRecord, Unknown, UnknownList,
    Wanted,
};
use std::path::Path;
use std::time::Duration;

const FILES: [(&str, &str); 3] = [("carried", "carried.db"), ("segment", "segment-00000000000000000001.db"), ("state", "state.db")];

/// Later than everything in them, by more than what is kept.
const YEARS_LATER: Timestamp = Timestamp(1_796_053_091_890 + 365 * 24 * 3_600_000);

fn tree() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journal_upgrade")
}

fn version(path: &Path) -> i64 {
    rusqlite::Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Tables and indexes of a file, as SQLite keeps them.
fn schema(path: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let mut query = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql").unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The journal of a format, in a folder of its own.
fn written_by(format: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (text, file) in FILES {
        let sql = std::fs::read_to_string(tree().join(format!("{format}/{text}.sql"))).unwrap();
        rusqlite::Connection::open(folder.path().join(file)).unwrap().execute_batch(&sql).unwrap();
    }
    std::fs::write(folder.path().join("secret"), [7; 32]).unwrap();
    folder
}

/// The format that this program writes.
fn newest(folder: &Path) -> i64 {
    drop(open(folder));
    version(&folder.join("state.db"))
}

fn id(message: u64, number: u16) -> DeliveryId {
    DeliveryId { message: MessageId(message), number }
}

#[tokio::test]
async fn each_earlier_format_is_kept_here_and_upgraded_whole() {
    let new = tempfile::tempdir().unwrap();
    let newest = newest(new.path());
    for format in 1..newest {
        let folder = written_by(format);
        FILES.iter().for_each(|(_, file)| assert_eq!(version(&folder.path().join(file)), format, "{file}"));
        let journal = open(folder.path());
        assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new(), "format {format}");
        for (_, file) in FILES {
            assert_eq!(version(&folder.path().join(file)), newest, "{file} of format {format}");
            assert_eq!(schema(&folder.path().join(file)), schema(&new.path().join(file)), "{file} of format {format} is not what a new one is");
        }
        what_was_there_is_there(&journal, format).await;
        what_is_new_works(&journal).await;
        assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new(), "format {format}");
        what_is_new_outlives_its_segment(journal, folder.path()).await;
        assert!(Reader::open(folder.path()).unwrap().verify().unwrap().faults.is_empty(), "format {format}");
    }
}

async fn what_was_there_is_there(journal: &Journal, format: i64) {
    let all = journal.search(Query::default()).await.unwrap();
    assert_eq!(all.iter().map(|found| found.control_id.0.as_str()).collect::<Vec<_>>(), ["C5", "C4", "C3", "C2", "C1"]);
    assert!(matches!(all[0].disposition, Disposition::Refused { code: 200, .. }));
    let counts = (journal.counts("main"), journal.counts("down"));
    assert_eq!((counts.0.delivered, counts.0.dead_letters, counts.0.parked, counts.1.backlog, counts.1.dead_letters), (4, 1, 1, 2, 1));
    let pending = journal.pending("down", None, 10).await.unwrap();
    assert_eq!(pending.iter().map(|p| (p.id, p.attempts)).collect::<Vec<_>>(), [(id(1, 2), 3), (id(3, 2), 2)]);
    assert_eq!(pending[1].awaited, (format >= 2).then_some(true), "who waits for an answer since format 2");
    let record = journal.show(MessageId(2)).await.unwrap();
    assert_eq!(record.deliveries[0].attempts[0].code, "no-identity");
    assert!(record.edits.is_empty());
    assert_eq!(journal.show(MessageId(1)).await.unwrap().duplicates, 1);
    assert_eq!(journal.last_program().await.unwrap().unwrap().bytes, b"{}");
    assert_eq!(journal.retired().await.unwrap().len(), usize::from(format >= 2));
}

async fn what_is_new_works(journal: &Journal) {
    journal.append(append(envelope("C6", 4711), &["main"])).await.unwrap();
    journal.settle(delivered(id(6, 0))).await.unwrap();
    let edit = Edit { at: Timestamp(NEW_YEAR), by: "ann".into(), bytes: Phi::new(Bytes::from_static(b"MSH|")), keys: vec![(0, vec![OrderKey(4711)])] };
    journal.edit(MessageId(2), edit).await.unwrap();
    assert_eq!(journal.show(MessageId(2)).await.unwrap().content().expose(), "MSH|");
    assert_eq!(journal.later_delivered(vec![id(2, 0).into()]).await.unwrap()[0].newest, Some(id(6, 0)));
    assert_eq!(journal.replay(&[id(2, 0)], &Replay::at(Timestamp(NEW_YEAR))).await.unwrap(), 1);
    let unknown = Unknown {
        listener: "adt".into(),
        application: "ADT".into(),
        facility: "HOSP".into(),
        list: UnknownList::Table("administrative-sex".into()),
        code: Phi::new("W".into()),
        place: "PID-8".into(),
        count: 3,
        at: Timestamp(NEW_YEAR),
        example: MessageId(2),
    };
    journal.keep_unknown(vec![unknown.clone(), unknown]).await.unwrap();
    journal.put_site("listeners: {}".into(), Gone { left: vec![("down".into(), "targets: {}".into())], back: vec![] }).await.unwrap();
    assert_eq!(journal.site(Some("down")).await.unwrap().as_deref(), Some("targets: {}"));
    assert_eq!(journal.site(None).await.unwrap().as_deref(), Some("listeners: {}"));
}

/// What the newest format added is there when the journal is opened again, and when its segment has gone.
async fn what_is_new_outlives_its_segment(journal: Journal, folder: &Path) {
    let answers = || Phi::new("[\"found\"]".to_owned());
    let reply = ReplyRecord {
        at: Timestamp(NEW_YEAR),
        program: "p".into(),
        route: "pdq".into(),
        answers: answers(),
        bytes: Phi::new(Bytes::from_static(b"MSH|^~\\&|KILN\rMSA|AA|Q\r")),
    };
    let wanted = |depends| Owed { accept: Some("CA"), wanted: Wanted::Always, depends, line: None };
    // One whose outcome is to be told, and one that waits for its delivery, for which a question was asked and answered.
    let told = Append { owed: Some(wanted(Depends::Done)), ..append(envelope("C7", 4712), &[]) };
    let told = journal.append(told).await.unwrap().id();
    let waits = Append { owed: Some(wanted(Depends::Deliveries(vec![0]))), ..append(envelope("C8", 4713), &["down"]) };
    let waits = journal.append(waits).await.unwrap().id();
    journal.keep(Kept::Answers { delivery: DeliveryId { message: waits, number: 0 }, answers: answers() }).await.unwrap();
    journal.keep(Kept::Reply { message: waits, reply: reply.clone() }).await.unwrap();
    let is_there = async |journal: &Journal| {
        assert_eq!(journal.owed(told).await.unwrap().map(|owed| (owed.state, owed.accept)), Some((OwedState::Due, Some("CA".to_owned()))));
        assert_eq!(journal.owed(waits).await.unwrap().map(|owed| owed.state), Some(OwedState::Open));
        assert_eq!(journal.answers(DeliveryId { message: waits, number: 0 }).await.unwrap().map(Phi::into_exposed), Some(answers().into_exposed()));
        let kept = journal.reply(waits).await.unwrap().unwrap();
        assert_eq!((kept.at, kept.program, kept.route), (reply.at, reply.program.clone(), reply.route.clone()));
        assert_eq!((kept.answers.expose(), kept.bytes.expose()), (reply.answers.expose(), reply.bytes.expose()));
        assert_eq!(journal.show(MessageId(2)).await.unwrap().edits.len(), 1);
    };
    is_there(&journal).await;
    journal.close().await;
    let journal = Journal::open(Options { keep: Duration::from_secs(3600), ..options(folder) }).unwrap();
    is_there(&journal).await;
    let pruned = journal.prune(YEARS_LATER).await.unwrap();
    assert_eq!(pruned.segments, 1);
    is_there(&journal).await;
    journal.settle(delivered(DeliveryId { message: waits, number: 0 })).await.unwrap();
    assert_eq!(journal.owed(waits).await.unwrap().map(|owed| (owed.state, owed.positive)), Some((OwedState::Due, Some(true))));
    assert_eq!(journal.verify().await.unwrap().faults, Vec::<String>::new());
    journal.close().await;
}

#[test]
fn a_reader_reads_each_earlier_format_and_changes_nothing() {
    let new = tempfile::tempdir().unwrap();
    for format in 1..newest(new.path()) {
        let folder = written_by(format);
        let reader = Reader::open(folder.path()).unwrap();
        assert_eq!(reader.search(&Query { state: Some(DeliveryState::DeadLetter), ..Query::default() }).unwrap().len(), 1);
        assert_eq!(reader.show(MessageId(3)).unwrap().deliveries.len(), 3);
        assert!(reader.unknown().unwrap().is_empty());
        assert!(reader.verify().unwrap().faults.is_empty());
        FILES.iter().for_each(|(_, file)| assert_eq!(version(&folder.path().join(file)), format, "{file}"));
    }
}

#[tokio::test]
async fn retention_carries_over_what_an_earlier_format_left() {
    let new = tempfile::tempdir().unwrap();
    for format in 1..newest(new.path()) {
        let folder = written_by(format);
        let journal = Journal::open(Options { keep: Duration::from_secs(3600), ..options(folder.path()) }).unwrap();
        let pruned = journal.prune(YEARS_LATER).await.unwrap();
        assert_eq!((pruned.segments, pruned.carried), (1, 3), "format {format}");
        assert_eq!(journal.counts("main").dead_letters, 1);
        assert!(journal.verify().await.unwrap().faults.is_empty());
    }
}
