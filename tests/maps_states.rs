//! The messages of `kiln try`, one after the other: what each patient, visit and appointment is in the end stands in `fixtures/try/after.json`.
//! `UPDATE=1` writes it: review the diff.

mod maps_shared;

use kiln::fhir::{Identity, Save, SaveMode, merge, put_id};
use maps_shared::{Fate, messages_below, run, shipped};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A target that knows only memory: conditional creates, and merges as `fhir::merge` has them.
#[derive(Default)]
struct Memory {
    resources: BTreeMap<String, Value>,
    known: Vec<(&'static str, Identity, String)>,
}

impl Memory {
    fn id(&self, save: &Save) -> Option<String> {
        let same = |(kind, identity, _): &&(&'static str, Identity, String)| *kind == save.resource_type && save.identity.contains(identity);
        self.known.iter().find(same).map(|(.., id)| id.clone())
    }

    fn take(&mut self, saves: &[Save]) {
        let ids: Vec<String> =
            saves.iter().map(|s| self.id(s).unwrap_or_else(|| format!("{}/{}", s.resource_type, put_id(&[0; 32], s.resource_type, &s.identity)))).collect();
        let link = |n: usize| ids.get(n).cloned().unwrap_or_default();
        for (save, id) in saves.iter().zip(&ids) {
            let stored = self.resources.get(id);
            let next = match (save.mode, stored) {
                (SaveMode::CreateIfNone, Some(stored)) => stored.clone(),
                (SaveMode::Merge, Some(stored)) => merge(stored, save, &link),
                _ => save.creation().to_value(&link),
            };
            self.resources.insert(id.clone(), next);
            self.known.extend(save.identity.iter().map(|i| (save.resource_type, i.clone(), id.clone())));
        }
    }
}

#[test]
fn later_messages_change_only_what_they_say() {
    let set = shipped();
    let mut memory = Memory::default();
    for path in messages_below("fixtures/try") {
        let bytes = std::fs::read(&path).expect("the message can be read");
        let (kind, fate) = run(&set, &bytes, None);
        let Fate::Made(output) = fate else { panic!("{} ({kind}) makes nothing", path.display()) };
        memory.take(&output.saves.entries);
    }
    let made = serde_json::to_string_pretty(&memory.resources).expect("resources are JSON") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/try/after.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).expect("the expectation can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("fixtures/try/after.json: UPDATE=1 writes it");
    assert!(expected == made, "the messages of kiln try no longer end in fixtures/try/after.json: UPDATE=1 writes it, and git shows the difference");
}
