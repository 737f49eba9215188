//! `Patient/<id>.json`: each resource in its current state, replaced at once; `messages/<number>-<id>.hl7`: each message that a route wrote.
//!
//! The id comes from the identity, so that the next message finds the file; a resource with several identities has, for each further one, a note
//! in `.kiln-ids/Patient/` that says its id. A reader sees the old state or the new one, never half a file.

use crate::fhir::{Json, Save, SaveMode, merge, put_id, write_with_id};
use crate::target::folder::disk::{Broken, Disk, sync_folder};
use crate::target::folder::{Order, disk_setback, fsync_setback, message_file, new_id, refuse, saved};
use crate::target::{Receipt, Saved, Setback};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that write a batch. An fsync is waiting, and the file system answers many with one commit of its own: 4 threads reached 600 to
/// 6,000 files/s, 32 reached 4,500 to 9,000 (ext4, 2 busy cores).
const WRITERS: usize = 32;

/// Where messages go; no resource type is called that.
const MESSAGES: &str = "messages";

/// Resource type and id, or a message's file; the id that a further identity would give stands with a full stop before it: a note, not a resource.
type Name = (&'static str, String);
/// What becomes of a file: new content, or none when it is removed.
type Changes = HashMap<Name, Option<Json>>;

pub(crate) struct JsonStore {
    disk: Disk,
    secret: [u8; 32],
    folders: BTreeSet<PathBuf>,
    broken: bool,
}

impl JsonStore {
    pub(crate) fn open(disk: Disk, secret: [u8; 32]) -> std::io::Result<Self> {
        Ok(Self { disk, secret, folders: BTreeSet::new(), broken: false })
    }

    /// Writes a batch: each order wholly or, when it is refused, not at all.
    pub(crate) fn commit(&mut self, batch: &[Order]) -> Vec<Result<Receipt, Setback>> {
        if self.broken {
            return batch.iter().map(|_| Err(fsync_setback())).collect();
        }
        let mut changes = Changes::new();
        let results: Vec<Result<Receipt, Setback>> = batch.iter().map(|order| self.apply(order, &mut changes)).collect();
        match self.write(&changes) {
            Ok(()) => results,
            Err(broken) => {
                self.broken |= matches!(broken, Broken::Fsync);
                results.into_iter().map(|result| result.and_then(|_| Err(as_setback(&broken)))).collect()
            }
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        if name.0 == MESSAGES {
            return self.disk.root().join(MESSAGES).join(&name.1);
        }
        match name.1.strip_prefix('.') {
            Some(note) => self.disk.root().join(".kiln-ids").join(name.0).join(note),
            None => self.disk.root().join(name.0).join(format!("{}.json", name.1)),
        }
    }

    /// The id that a note says, if there is one.
    fn noted(&self, note: &Name, layers: &[&Changes]) -> Option<String> {
        let text = match layers.iter().find_map(|layer| layer.get(note)) {
            Some(content) => content.clone()?.into_vec(),
            None => std::fs::read(self.path(note)).ok()?,
        };
        String::from_utf8(text).ok().filter(|id| is_file_name(id))
    }

    /// Notes for the identities that do not give the resource's own id.
    fn note_identities(&self, save: &Save, name: &Name, layers: &[&Changes]) -> Changes {
        let mut notes = Changes::new();
        for identity in &save.identity {
            let id = put_id(&self.secret, save.resource_type, std::slice::from_ref(identity));
            let note = (save.resource_type, format!(".{id}"));
            if id != name.1 && self.noted(&note, layers).as_ref() != Some(&name.1) {
                notes.insert(note, Some(name.1.clone().into_bytes().into()));
            }
        }
        notes
    }

    fn exists(&self, name: &Name, layers: &[&Changes]) -> bool {
        match layers.iter().find_map(|layer| layer.get(name)) {
            Some(content) => content.is_some(),
            None => self.path(name).exists(),
        }
    }

    fn read(&self, name: &Name, layers: &[&Changes], save: &Save) -> Result<Value, Setback> {
        let unreadable = || refuse("file-unreadable", format!("'{}': its file is not JSON; somebody else has changed it", save.name));
        match layers.iter().find_map(|layer| layer.get(name)) {
            Some(Some(content)) => serde_json::from_slice(&content.clone().into_vec()).map_err(|_| unreadable()),
            Some(None) => Ok(Value::Null),
            None => {
                let content = std::fs::read(self.path(name)).map_err(|e| disk_setback(&e))?;
                serde_json::from_slice(&content).map_err(|_| unreadable())
            }
        }
    }

    /// The file of an entry, and whether it is there: by the id that an earlier receipt told, or by each of its identities.
    fn find(&self, order: &Order, n: usize, save: &Save, layers: &[&Changes]) -> Result<(Name, bool), Setback> {
        let fresh = (save.resource_type, new_id(&self.secret, order.delivery, n, save));
        if save.mode == SaveMode::Create || save.identity.is_empty() {
            let exists = self.exists(&fresh, layers);
            return Ok((fresh, exists));
        }
        let known = order.known.get(n).and_then(Option::as_ref).map(|k| k.id.clone()).filter(|id| is_file_name(id));
        let by_identity = save.identity.iter().flat_map(|i| {
            let id = put_id(&self.secret, save.resource_type, std::slice::from_ref(i));
            self.noted(&(save.resource_type, format!(".{id}")), layers).into_iter().chain([id])
        });
        let names: BTreeSet<String> = known.into_iter().chain(by_identity).filter(|id| self.exists(&(save.resource_type, id.clone()), layers)).collect();
        let mut names = names.into_iter();
        match (names.next(), names.next()) {
            (None, _) => Ok((fresh, false)),
            (Some(id), None) => Ok(((save.resource_type, id), true)),
            (Some(_), Some(_)) => {
                Err(refuse("several-matches", format!("'{}': several {} files have its identity; the folder must have one", save.name, save.resource_type)))
            }
        }
    }

    /// Works out what an order changes, on top of what the batch has changed so far.
    fn apply(&self, order: &Order, changes: &mut Changes) -> Result<Receipt, Setback> {
        let mut own = Changes::new();
        let mut names: Vec<Name> = Vec::new();
        for (n, save) in order.saves.entries.iter().enumerate() {
            names.push(self.find(order, n, save, &[changes])?.0);
        }
        let references: Vec<String> = names.iter().map(|(t, id)| format!("{t}/{id}")).collect();
        let link = |n: usize| references.get(n).cloned().unwrap_or_default();
        let mut receipt = Receipt::default();
        for (n, (save, name)) in order.saves.entries.iter().zip(&names).enumerate() {
            let exists = self.exists(name, &[&own, changes]);
            let mut content = Json::default();
            let mut status = if exists { 200 } else { 201 };
            match (save.mode, exists) {
                (SaveMode::Find, false) => return Err(refuse("no-match", format!("'{}': no {} file has its identity", save.name, save.resource_type))),
                (SaveMode::Find | SaveMode::CreateIfNone, true) => {}
                (SaveMode::Delete, _) => {
                    if exists {
                        own.insert(name.clone(), None);
                    }
                    // A deleted resource has no place any more: the engine forgets its id.
                    receipt.stale.push(n);
                    continue;
                }
                (SaveMode::Merge | SaveMode::Patch, true) => {
                    let current = self.read(name, &[&own, changes], save)?;
                    let merged = merge(&current, save, &link);
                    if merged != current {
                        serde_json::to_writer(content.text(), &merged).expect("writing JSON to memory cannot fail");
                    }
                }
                (SaveMode::Merge | SaveMode::Patch | SaveMode::CreateIfNone, false) => write_with_id(&save.creation(), &name.1, &link, &mut content),
                (SaveMode::Create | SaveMode::Update | SaveMode::Put, _) => write_with_id(&save.body, &name.1, &link, &mut content),
            }
            if content.is_empty() {
                status = 200;
            } else {
                content.text().push(b'\n');
                own.insert(name.clone(), Some(content));
            }
            if !matches!(save.mode, SaveMode::Find | SaveMode::Create) {
                let notes = self.note_identities(save, name, &[&own, changes]);
                own.extend(notes);
            }
            receipt.saved.push(saved(n, save, &name.1, status));
        }
        for draft in &order.drafts {
            let file = message_file(&self.secret, order.delivery, draft);
            receipt.messages.push(format!("{MESSAGES}/{file}"));
            own.insert((MESSAGES, file), Some(draft.bytes.clone().into()));
        }
        receipt.stale.retain(|n| order.known.get(*n).is_some_and(Option::is_some));
        note_stale(order, &mut receipt);
        changes.extend(own);
        Ok(receipt)
    }

    /// Writes all files of a batch, then makes their names durable, once per folder.
    fn write(&mut self, changes: &Changes) -> Result<(), Broken> {
        let folders: BTreeSet<PathBuf> = changes.keys().filter_map(|name| self.path(name).parent().map(Path::to_owned)).collect();
        let new: Vec<PathBuf> = folders.difference(&self.folders).cloned().collect();
        for folder in &new {
            std::fs::create_dir_all(folder).map_err(Broken::Write)?;
            sync_folder(folder.parent().unwrap_or(self.disk.root())).map_err(|_| Broken::Fsync)?;
        }
        if !new.is_empty() {
            sync_folder(self.disk.root()).map_err(|_| Broken::Fsync)?;
            self.folders.extend(new);
        }
        let all: Vec<(&Name, &Option<Json>)> = changes.iter().collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), Broken> {
            loop {
                // Each number is taken once, so it is also the name of a temporary file.
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((name, content)) = all.get(number) else { return Ok(()) };
                let path = self.path(name);
                match content {
                    Some(content) => self.disk.replace(number, &path, content)?,
                    None => match std::fs::remove_file(&path) {
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Broken::Write(e)),
                        _ => {}
                    },
                }
            }
        };
        let results: Vec<Result<(), Broken>> = std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..WRITERS.min(all.len())).map(|_| scope.spawn(work)).collect();
            let mine = work();
            helpers.into_iter().map(|h| h.join().expect("a writer does not panic")).chain([mine]).collect()
        });
        // A failed fsync weighs more than a failed write.
        let mut failed: Vec<Broken> = results.into_iter().filter_map(Result::err).collect();
        if let Some(fsync) = failed.iter().position(|b| matches!(b, Broken::Fsync)) {
            failed.swap(0, fsync);
        }
        if let Some(broken) = failed.into_iter().next() {
            return Err(broken);
        }
        for folder in folders {
            sync_folder(&folder).map_err(|_| Broken::Fsync)?;
        }
        Ok(())
    }
}

/// A known id whose file is gone was replaced by a new one.
fn note_stale(order: &Order, receipt: &mut Receipt) {
    for Saved { entry, id, .. } in &receipt.saved {
        if order.known.get(*entry).and_then(Option::as_ref).is_some_and(|k| k.id != *id) {
            receipt.stale.push(*entry);
        }
    }
}

/// A logical id and nothing else: a known id becomes part of a path.
fn is_file_name(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn as_setback(broken: &Broken) -> Setback {
    match broken {
        Broken::Write(error) => disk_setback(error),
        Broken::Fsync => fsync_setback(),
    }
}
