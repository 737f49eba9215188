//! `Patient.ndjson`: each save appended as a line (<https://hl7.org/fhir/uv/bulkdata/>), and no delivery appended twice.
//!
//! The folder keeps a log of its commits: after the lines are durable, one record says how long each file now is and which deliveries that
//! made. At the start, what lies beyond the last record is cut off; a delivery that the log names is answered without writing it again.
//! The journal cannot keep this alone: of several deliveries that share a commit it may have settled some and not others when it dies.

use crate::exchange::{DeliveryId, MessageId};
use crate::fhir::{Json, SaveMode, type_named, write_with_id};
use crate::target::folder::disk::{Broken, Disk, sync_folder};
use crate::target::folder::{Order, disk_setback, fsync_setback, new_id, saved};
use crate::target::outcome::takes_no_messages;
use crate::target::{Receipt, Setback};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

const LOG: &str = ".kiln-commits";
/// Deliveries that are remembered as done: far more than can be under way at once.
const DONE_MAX: usize = 65_536;
/// The log is written anew when it has grown to this.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Deletions, as FHIR's bulk data has them: a line is a Bundle with the DELETE.
const DELETED: &str = "deleted";

/// One file that is appended to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    /// How many full files were set aside: `Patient.1.ndjson`, ...
    aside: u64,
    /// The length of `Patient.ndjson` that the log vouches for.
    length: u64,
}

pub(crate) struct NdjsonStore {
    disk: Disk,
    secret: [u8; 32],
    max_file_bytes: u64,
    commit: u64,
    extents: BTreeMap<String, Extent>,
    files: BTreeMap<String, File>,
    done: HashSet<DeliveryId>,
    done_order: VecDeque<DeliveryId>,
    log: File,
    log_length: u64,
    broken: bool,
}

impl NdjsonStore {
    /// Reads the log and brings the files back to its last record.
    pub(crate) fn open(disk: Disk, secret: [u8; 32], max_file_bytes: u64) -> io::Result<Self> {
        let path = disk.root().join(LOG);
        let fresh = !path.exists();
        let mut log = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        let mut store = Self {
            disk,
            secret,
            max_file_bytes: max_file_bytes.max(1),
            commit: 0,
            extents: BTreeMap::new(),
            files: BTreeMap::new(),
            done: HashSet::new(),
            done_order: VecDeque::new(),
            log: log.try_clone()?,
            log_length: 0,
            broken: false,
        };
        if fresh {
            if let Some(name) = store.listed()?.into_iter().next() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("it holds {name}, which Kiln did not write")));
            }
            log.sync_all()?;
            sync_folder(store.disk.root())?;
            return Ok(store);
        }
        let text = fs::read(&path)?;
        store.log_length = store.replay(&text);
        log.set_len(store.log_length)?;
        log.flush()?;
        store.recover()?;
        log.sync_all()?;
        Ok(store)
    }

    /// The last commit.
    pub(crate) fn commit(&self) -> u64 {
        self.commit
    }

    /// Takes all whole records and gives the length of the log that they fill; a torn one at the end was never answered.
    fn replay(&mut self, text: &[u8]) -> u64 {
        let mut length = 0;
        for line in text.split_inclusive(|b| *b == b'\n') {
            let Some(record) = line.strip_suffix(b"\n").and_then(|l| serde_json::from_slice::<Value>(l).ok()) else { break };
            let (Some(commit), Some(files)) = (record.get("commit").and_then(Value::as_u64), record.get("files").and_then(Value::as_object)) else { break };
            self.commit = commit;
            self.extents =
                files.iter().filter_map(|(name, e)| Some((name.clone(), Extent { aside: e.get(0)?.as_u64()?, length: e.get(1)?.as_u64()? }))).collect();
            for id in record.get("done").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
                if let Some((message, number)) = id.split_once('.').and_then(|(m, n)| Some((m.parse().ok()?, n.parse().ok()?))) {
                    self.remember(DeliveryId { message: MessageId(message), number });
                }
            }
            length += line.len() as u64;
        }
        length
    }

    /// Undoes what no record covers: a rotation that was begun, lines that were appended.
    fn recover(&mut self) -> io::Result<()> {
        let mut names: Vec<String> = self.extents.keys().cloned().collect();
        names.extend(self.listed()?.into_iter().filter(|n| !self.extents.contains_key(n)));
        for name in names {
            let extent = self.extents.get(&name).copied().unwrap_or_default();
            let begun = self.aside(&name, extent.aside + 1);
            if begun.exists() {
                fs::rename(begun, self.path(&name))?;
            }
            let file = OpenOptions::new().create(true).append(true).open(self.path(&name))?;
            let length = file.metadata()?.len();
            if length < extent.length {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name}.ndjson is shorter than what was delivered into it")));
            }
            file.set_len(extent.length)?;
            file.sync_all()?;
            self.files.insert(name, file);
        }
        sync_folder(self.disk.root())
    }

    /// The files of the folder that are named after a resource type.
    fn listed(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.disk.root())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(".ndjson").filter(|s| *s == DELETED || type_named(s).is_some()) {
                names.push(stem.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.root().join(format!("{name}.ndjson"))
    }

    fn aside(&self, name: &str, number: u64) -> PathBuf {
        self.disk.root().join(format!("{name}.{number}.ndjson"))
    }

    fn remember(&mut self, delivery: DeliveryId) {
        if self.done.insert(delivery) {
            self.done_order.push_back(delivery);
        }
        while self.done_order.len() > DONE_MAX {
            let Some(old) = self.done_order.pop_front() else { break };
            self.done.remove(&old);
        }
    }

    /// Appends a batch and answers it after the log's record is durable.
    pub(crate) fn commit_batch(&mut self, batch: &[Order]) -> Vec<Result<Receipt, Setback>> {
        if self.broken {
            return batch.iter().map(|_| Err(fsync_setback())).collect();
        }
        let mut lines: BTreeMap<String, Json> = BTreeMap::new();
        let mut new: Vec<DeliveryId> = Vec::new();
        let mut receipts = Vec::new();
        for order in batch {
            let again = self.done.contains(&order.delivery) || new.contains(&order.delivery);
            if !order.drafts.is_empty() {
                receipts.push(Err(takes_no_messages("a folder of NDJSON")));
                continue;
            }
            receipts.push(Ok(self.apply(order, (!again).then_some(&mut lines))));
            if !again {
                new.push(order.delivery);
            }
        }
        let before = self.extents.clone();
        match self.append(&lines, &new) {
            Ok(()) => {
                self.tidy(lines.keys());
                let state = Some(self.commit.to_string());
                receipts.into_iter().map(|receipt| Ok(Receipt { state: state.clone(), ..receipt? })).collect()
            }
            Err(broken) => {
                match broken {
                    Broken::Write(_) => self.undo(before),
                    Broken::Fsync => self.broken = true,
                }
                let setback = || match &broken {
                    Broken::Write(error) if !self.broken => disk_setback(error),
                    _ => fsync_setback(),
                };
                receipts.iter().map(|_| Err(setback())).collect()
            }
        }
    }

    /// The lines of one order. Without `lines`, it only says what it wrote before.
    fn apply(&self, order: &Order, mut lines: Option<&mut BTreeMap<String, Json>>) -> Receipt {
        let known = |n: usize| order.known.get(n).and_then(Option::as_ref);
        let ids: Vec<String> = order
            .saves
            .entries
            .iter()
            .enumerate()
            .map(|(n, save)| known(n).map_or_else(|| new_id(&self.secret, order.delivery, n, save), |k| k.id.clone()))
            .collect();
        let link = |n: usize| order.saves.entries.get(n).zip(ids.get(n)).map_or(String::new(), |(save, id)| format!("{}/{id}", save.resource_type));
        let mut receipt = Receipt::default();
        for (n, (save, id)) in order.saves.entries.iter().zip(&ids).enumerate() {
            let skip = save.mode == SaveMode::Find || (save.mode == SaveMode::CreateIfNone && known(n).is_some());
            let name = if save.mode == SaveMode::Delete { DELETED } else { save.resource_type };
            if let Some(lines) = lines.as_deref_mut().filter(|_| !skip) {
                let out = lines.entry(name.to_owned()).or_default();
                match save.mode {
                    SaveMode::Delete => {
                        let request = json!({"method": "DELETE", "url": link(n)});
                        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"request": request}]});
                        serde_json::to_writer(out.text(), &bundle).expect("writing JSON to memory cannot fail");
                    }
                    SaveMode::Merge | SaveMode::Patch | SaveMode::CreateIfNone => write_with_id(&save.creation(), id, &link, out),
                    _ => write_with_id(&save.body, id, &link, out),
                }
                out.text().push(b'\n');
            }
            if save.mode == SaveMode::Delete {
                receipt.stale.extend(known(n).map(|_| n));
            } else {
                receipt.saved.push(saved(n, save, id, if skip { 200 } else { 201 }));
            }
        }
        receipt
    }

    fn append(&mut self, lines: &BTreeMap<String, Json>, new: &[DeliveryId]) -> Result<(), Broken> {
        if new.is_empty() {
            return Ok(());
        }
        let mut new_file = false;
        for (name, text) in lines {
            let path = self.path(name);
            if !self.files.contains_key(name) {
                let file = OpenOptions::new().create(true).append(true).open(path).map_err(Broken::Write)?;
                self.files.insert(name.clone(), file);
                new_file = true;
            }
            let file = self.files.get_mut(name).expect("it was just opened");
            text.write_to(file).map_err(Broken::Write)?;
            self.extents.entry(name.clone()).or_default().length += text.len() as u64;
        }
        for name in lines.keys() {
            self.files.get(name).expect("it was written to").sync_data().map_err(|_| Broken::Fsync)?;
        }
        if new_file {
            sync_folder(self.disk.root()).map_err(|_| Broken::Fsync)?;
        }
        self.record(new)?;
        for delivery in new {
            self.remember(*delivery);
        }
        Ok(())
    }

    /// What may be done only once a commit counts. If it fails, the commit stands, and the folder takes nothing more until it is opened anew.
    fn tidy<'n>(&mut self, names: impl Iterator<Item = &'n String>) {
        let done = self.rotate(names).and_then(|()| if self.log_length > LOG_BYTES_MAX { self.shorten_log() } else { Ok(()) });
        self.broken |= done.is_err();
    }

    /// Appends a record to the log: from here on the commit counts.
    fn record(&mut self, new: &[DeliveryId]) -> Result<(), Broken> {
        let commit = self.commit + 1;
        let mut line = record_line(commit, &self.extents, new.iter());
        line.push(b'\n');
        self.log.write_all(&line).map_err(Broken::Write)?;
        self.log.sync_data().map_err(|_| Broken::Fsync)?;
        self.commit = commit;
        self.log_length += line.len() as u64;
        Ok(())
    }

    /// Writes the log anew with one record.
    fn shorten_log(&mut self) -> Result<(), Broken> {
        let mut line = record_line(self.commit, &self.extents, self.done_order.iter());
        line.push(b'\n');
        let path = self.disk.root().join(LOG);
        let length = line.len() as u64;
        self.disk.replace(0, &path, &line.into())?;
        sync_folder(self.disk.root()).map_err(|_| Broken::Fsync)?;
        self.log = OpenOptions::new().append(true).open(path).map_err(Broken::Write)?;
        self.log_length = length;
        Ok(())
    }

    /// Sets full files aside. A crash between rename and record is undone at the start.
    fn rotate<'n>(&mut self, names: impl Iterator<Item = &'n String>) -> Result<(), Broken> {
        let full: Vec<String> = names.filter(|n| self.extents.get(*n).is_some_and(|e| e.length >= self.max_file_bytes)).cloned().collect();
        for name in &full {
            let extent = self.extents.entry(name.clone()).or_default();
            extent.aside += 1;
            extent.length = 0;
            let number = extent.aside;
            self.files.remove(name);
            fs::rename(self.path(name), self.aside(name, number)).map_err(|_| Broken::Fsync)?;
        }
        if full.is_empty() {
            return Ok(());
        }
        sync_folder(self.disk.root()).map_err(|_| Broken::Fsync)?;
        self.record(&[])
    }

    /// Cuts off what a failed batch appended. If even that fails, the folder is opened anew first.
    fn undo(&mut self, before: BTreeMap<String, Extent>) {
        self.extents = before;
        let names: Vec<String> = self.files.keys().cloned().collect();
        for name in names {
            let length = self.extents.get(&name).map_or(0, |e| e.length);
            let cut = self.files.get(&name).map_or(Ok(()), |file| file.set_len(length));
            self.broken |= cut.is_err();
        }
        self.broken |= self.log.set_len(self.log_length).is_err();
    }
}

fn record_line<'d>(commit: u64, extents: &BTreeMap<String, Extent>, done: impl Iterator<Item = &'d DeliveryId>) -> Vec<u8> {
    let files: Map<String, Value> = extents.iter().map(|(name, e)| (name.clone(), json!([e.aside, e.length]))).collect();
    let done: Vec<String> = done.map(|d| format!("{}.{}", d.message.0, d.number)).collect();
    serde_json::to_vec(&json!({"commit": commit, "files": files, "done": done})).expect("writing JSON to memory cannot fail")
}
