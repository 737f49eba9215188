//! A folder of files as a target: a JSON file per resource, or NDJSON per resource type; a file per message.
//!
//! One thread writes; deliveries that wait for it share its fsyncs, and are answered only after them.

mod disk;
mod json;
mod ndjson;

use crate::exchange::DeliveryId;
use crate::fhir::{KnownId, Save, SaveMode, Saves, delivery_id, put_id};
use crate::hl7v2::Draft;
use crate::target::{Fault, FolderConfig, Job, Layout, Receipt, Retry, Saved, Setback, TargetError};
use disk::Disk;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

/// Deliveries that may wait for the writer; further ones wait to be taken.
const QUEUE: usize = 1024;
/// Resources that share an fsync at most: a batch is written whole before any of it is answered.
const BATCH_RESOURCES: usize = 1024;

/// A folder.
pub struct FolderTarget {
    queue: Option<mpsc::Sender<Order>>,
    writer: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
    /// The commit that the folder was opened with (NDJSON).
    commit: u64,
}

/// A delivery on its way to the writer.
struct Order {
    delivery: DeliveryId,
    saves: Saves,
    drafts: Vec<Draft>,
    known: Vec<Option<KnownId>>,
    reply: oneshot::Sender<Result<Receipt, Setback>>,
}

impl Order {
    fn files(&self) -> usize {
        self.saves.entries.len() + self.drafts.len()
    }
}

/// How a layout writes a batch: one result for each order, in order.
enum Store {
    Json(json::JsonStore),
    Ndjson(ndjson::NdjsonStore),
}

impl FolderTarget {
    /// Makes the folder if need be, takes its lock, and removes what a crash left half-written.
    pub fn open(config: FolderConfig) -> Result<Self, TargetError> {
        let failed = |source| TargetError::Folder { path: config.path.display().to_string(), source };
        let disk = Disk::open(&config.path).map_err(failed)?;
        let secret = *config.secret.expose();
        let (store, commit) = match config.layout {
            Layout::Json => (Store::Json(json::JsonStore::open(disk, secret).map_err(failed)?), 0),
            Layout::Ndjson => {
                let store = ndjson::NdjsonStore::open(disk, secret, config.max_file_bytes).map_err(failed)?;
                let commit = store.commit();
                (Store::Ndjson(store), commit)
            }
        };
        let (queue, orders) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new().name("kiln-folder".to_owned()).spawn(move || run(store, orders)).map_err(failed)?;
        Ok(Self { queue: Some(queue), writer: Some(writer), path: config.path, commit })
    }

    /// Compares with what the journal remembers: a folder that is behind it has lost what was delivered.
    pub fn resume(&self, state: &str) -> Result<(), TargetError> {
        let journal = state.parse().unwrap_or(0);
        if self.commit < journal { Err(TargetError::Behind { folder: self.commit, journal }) } else { Ok(()) }
    }

    /// One attempt at a delivery.
    pub async fn deliver(&self, job: Job<'_>) -> Result<Receipt, Setback> {
        let (reply, answer) = oneshot::channel();
        let order = Order { delivery: job.delivery, saves: job.saves.clone(), drafts: job.drafts.to_vec(), known: job.known.to_vec(), reply };
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(order).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Is the folder there?
    pub fn probe(&self) -> Result<(), Setback> {
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.is_dir() && self.queue.as_ref().is_some_and(|q| !q.is_closed()) => Ok(()),
            Ok(_) => Err(stopped()),
            Err(error) => Err(disk_setback(&error)),
        }
    }
}

impl Drop for FolderTarget {
    /// Waits for the writer, so that whoever opens the folder next finds it at rest.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so already.
            let _ = writer.join();
        }
    }
}

fn run(mut store: Store, mut orders: mpsc::Receiver<Order>) {
    while let Some(first) = orders.blocking_recv() {
        let mut resources = first.files();
        let mut batch = vec![first];
        while resources < BATCH_RESOURCES {
            let Ok(next) = orders.try_recv() else { break };
            resources += next.files();
            batch.push(next);
        }
        let results = match &mut store {
            Store::Json(store) => store.commit(&batch),
            Store::Ndjson(store) => store.commit_batch(&batch),
        };
        for (order, result) in batch.into_iter().zip(results) {
            // Nobody waits any more if the delivery was given up.
            let _ = order.reply.send(result);
        }
    }
}

/// The id for an entry that is new to the folder.
fn new_id(secret: &[u8; 32], delivery: DeliveryId, n: usize, save: &Save) -> String {
    if save.mode == SaveMode::Create || save.identity.is_empty() {
        delivery_id(secret, delivery, n)
    } else {
        put_id(secret, save.resource_type, &save.identity)
    }
}

fn saved(entry: usize, save: &Save, id: &str, status: u16) -> Saved {
    Saved { entry, resource_type: save.resource_type, id: id.to_owned(), etag: None, status }
}

/// The file of a message: it sorts by the message that it was made from, and comes out the same whenever that is delivered again.
fn message_file(secret: &[u8; 32], delivery: DeliveryId, draft: &Draft) -> String {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    hasher.update(b"kiln message file");
    hasher.update(&delivery.message.0.to_le_bytes());
    hasher.update(draft.place.as_bytes());
    let id = hasher.finalize().to_hex();
    format!("{:012}-{}.hl7", delivery.message.0, id.get(..20).unwrap_or_default())
}

fn refuse(code: &'static str, summary: String) -> Setback {
    setback(Retry::Permanent, Fault::Message, code, summary)
}

fn stopped() -> Setback {
    setback(Retry::Transient, Fault::Target, "folder-stopped", "the folder's writer has stopped".to_owned())
}

/// A failed write. Every save into a folder may be repeated, so nothing is ambiguous.
fn disk_setback(error: &std::io::Error) -> Setback {
    let (code, what) = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ("disk-full", "the disk is full"),
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ("disk-permission", "the folder may not be written"),
        std::io::ErrorKind::NotFound => ("disk-gone", "the folder is gone"),
        _ => ("disk-error", "the folder cannot be written"),
    };
    setback(Retry::Transient, Fault::Target, code, format!("{what} ({})", error.kind()))
}

/// After a failed fsync nobody knows what is on the disk: this target takes nothing more until it is opened anew.
fn fsync_setback() -> Setback {
    setback(Retry::Ambiguous, Fault::Target, "fsync-failed", "an fsync of the folder failed; what is on the disk is unknown until Kiln starts again".to_owned())
}

fn setback(retry: Retry, fault: Fault, code: &'static str, summary: String) -> Setback {
    Setback {
        retry,
        fault,
        retry_after: None,
        status: None,
        code,
        summary,
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}
