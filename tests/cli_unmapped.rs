//! `kiln unmapped`: what nobody knows is counted per sender, and becomes known by a row that is written, checked, live and used for what waited.

mod cli_support;
use cli_support::moody::{self, site};
use cli_support::{Daemon, exchange, run, wait_for};
use serde_json::Value;
use std::path::Path;

const SITE: &str = "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\n";
const ROUTE: &str = "\
route: odd
on: [ZZZ^Z01]
to: main
resources:
  who: { $map: PID -> Patient, $save: update by PID-3 }
---
extend: administrative-sex   # ours
codes:
  # from the old system
  Q: other
unmapped: refuse
";

fn odd(control_id: &str, patient: &str, sex: &str) -> String {
    moody::odd(control_id, patient, "Meier").replace("|F\r", &format!("|{sex}\r"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn unknown(folder: &Path, args: &[&str]) -> Vec<Value> {
    lines(&run(folder, &[&["unmapped", "--json"], args].concat()).out)
}

fn dead(folder: &Path) -> usize {
    lines(&run(folder, &["journal", "dead-letters", "--json"]).out).len()
}

#[test]
fn unknown_codes_are_counted_per_sender_and_a_row_lets_go_what_waited() {
    let folder = site(SITE, ROUTE);
    let daemon = Daemon::start(folder.path());
    let adt = daemon.address("adt on ");
    for (control, patient, sex) in [("C1", "1", "Z"), ("C2", "2", "Z"), ("C3", "3", "F"), ("C4", "4", "NN")] {
        exchange(adt, odd(control, patient, sex).as_bytes());
    }
    exchange(adt, odd("C5", "5", "Z").replace("|ADT1|", "|LAB|").as_bytes());
    let table = ["--table", "administrative-sex"];
    wait_for("the counts", || unknown(folder.path(), &table).len() == 3 && dead(folder.path()) == 4);
    let told: Vec<_> = unknown(folder.path(), &table)
        .iter()
        .map(|u| format!("{} {} {} {} {}", u["sendingApplication"], u["code"], u["count"], u["place"], u["example"]).replace('"', ""))
        .collect();
    assert_eq!(told, ["ADT1 Z 2 PID-8 2", "ADT1 NN 1 PID-8 4", "LAB Z 1 PID-8 5"]);
    assert_eq!(unknown(folder.path(), &["--table", "administrative-sex", "--sender", "LAB"]).len(), 1);
    let shown = run(folder.path(), &["unmapped"]).expect(0).out;
    assert!(shown.contains("ADT1/HOSP by adt") && shown.contains("administrative-sex") && shown.contains("message 2"), "{shown}");

    let add = |args: &[&str]| run(folder.path(), &[&["unmapped", "add"], args].concat());
    let wrong = add(&["administrative-sex", "Z=divers"]).expect(1);
    assert!(wrong.err.contains("divers") && wrong.err.contains("nothing was written"), "{}", wrong.err);
    assert!(add(&["no-such-table", "Z=other"]).expect(2).err.contains("there is no table no-such-table"));
    let dry = add(&["administrative-sex", "Z=other", "--dry-run"]).expect(0).out;
    assert!(dry.contains("+  Z: other"), "{dry}");
    let file = folder.path().join("routes/odd.yaml");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), ROUTE);

    let added = add(&["administrative-sex", "Z=other", "N/A=unknown"]).expect(0).out;
    assert!(added.contains("2 rows written to") && added.contains("4 deliveries will be tried again"), "{added}");
    let expected = ROUTE.replace("  Q: other\n", "  Q: other\n  Z: other\n  \"N/A\": unknown\n");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), expected, "what else is in the file stays as it is");
    wait_for("what waited", || dead(folder.path()) == 1);
    let patients = || folder.path().join("out/Patient").read_dir().map(|all| all.count()).unwrap_or_default();
    wait_for("the patients", || patients() == 4);
    let left: Vec<_> = unknown(folder.path(), &table).iter().map(|u| u["code"].to_string()).collect();
    wait_for("the count of the one that is tried again", || unknown(folder.path(), &table).iter().all(|u| u["code"] == "NN"));
    assert!(!left.contains(&"\"Z\"".to_owned()), "{left:?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_authority_that_no_naming_system_knows_gets_its_uri() {
    let folder = site(SITE, ROUTE);
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "1", "F").as_bytes());
    wait_for("the count", || !unknown(folder.path(), &["--table", "systems"]).is_empty());
    let found = unknown(folder.path(), &["--table", "systems"]);
    assert_eq!((found[0]["code"].as_str(), found[0]["count"].as_u64(), found[0]["place"].as_str()), (Some("HOSP"), Some(1), Some("PID-3")), "{found:?}");
    let added = run(folder.path(), &["unmapped", "add", "systems", "HOSP=urn:oid:1.2.3"]).expect(0).out;
    assert!(added.contains("nothing waited for it"), "{added}");
    let own = std::fs::read_to_string(folder.path().join("routes/own-codes.yaml")).expect("a file of its own");
    assert_eq!(own, "extend: naming-systems\nmatch+:\n  - { namespace: HOSP, system: \"urn:oid:1.2.3\" }\n");
    run(folder.path(), &["unmapped", "add", "systems", "1.2.3.4=urn:oid:1.2.3.4"]).expect(0);
    let own = std::fs::read_to_string(folder.path().join("routes/own-codes.yaml")).expect("a file of its own");
    assert!(own.ends_with("  - { oid: \"1.2.3.4\", system: \"urn:oid:1.2.3.4\" }\n"), "{own}");
    exchange(daemon.address("adt on "), odd("C2", "2", "F").as_bytes());
    wait_for("both", || folder.path().join("out/Patient").read_dir().is_ok_and(|all| all.count() == 2));
    let patients = folder.path().join("out/Patient").read_dir().expect("a folder").flatten();
    assert!(patients.map(|f| std::fs::read_to_string(f.path()).expect("a file")).any(|text| text.contains("urn:oid:1.2.3\"")));
    assert_eq!(daemon.stop(), 0);
    run(folder.path(), &["unmapped"]).expect(1);
}
