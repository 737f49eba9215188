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

/// Some systems count the charges of one message from 1 (FT1-2), and send neither an account nor a visit.
#[test]
fn charges_of_two_patients_are_two() {
    let set = shipped();
    let charge = |patient: &str, control: &str| {
        format!(
            "MSH|^~\\&|ABR|FELSENHOF|KILN|KILN|20260308093000+0100||DFT^P03^DFT_P03|{control}|P|2.5.1\rEVN|P03|20260308093000+0100\r\
             PID|1||{patient}^^^FELSENHOF^MR||Habicht^Leo\rFT1|1|1||20260302080000+0100||CG|99291^Critical care^C4\r"
        )
    };
    let mut memory = Memory::default();
    for (patient, control) in [("7801", "C1"), ("7802", "C2"), ("7801", "C3")] {
        let Fate::Made(output) = run(&set, charge(patient, control).as_bytes(), None).1 else { panic!("a charge is taken") };
        memory.take(&output.saves.entries);
    }
    let charges: Vec<&Value> = memory.resources.values().filter(|r| r["resourceType"] == "ChargeItem").collect();
    let mut of: Vec<&str> = charges.iter().filter_map(|c| c["subject"]["reference"].as_str()).collect();
    of.sort_unstable();
    of.dedup();
    assert_eq!((charges.len(), of.len()), (2, 2), "one charge for each patient, however often it is sent");
}
