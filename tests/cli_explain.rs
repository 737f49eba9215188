//! `kiln explain` and `kiln coverage`: expected output beside the messages, in tests/lineage. `UPDATE=1` rewrites it.

mod cli_support;
use cli_support::{Daemon, exchange, run, wait_for};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lineage")
}

/// Name of the expectation, exit code, arguments after `kiln`. Routes named `ward` have each kind of step once.
const CASES: &[(&str, i32, &[&str])] = &[
    ("rest.txt", 0, &["explain", "admit.hl7", "--routes", "ward.yaml", "--route", "ward"]),
    ("rest.json", 0, &["explain", "admit.hl7", "--routes", "ward.yaml", "--route", "ward", "--json"]),
    ("birthdate.txt", 0, &["explain", "admit.hl7", "Patient.birthDate", "--routes", "ward.yaml", "--route", "ward"]),
    ("birthdate.json", 0, &["explain", "admit.hl7", "Patient.birthDate", "--routes", "ward.yaml", "--route", "ward", "--json"]),
    ("patient.txt", 0, &["explain", "admit.hl7", "patient", "--routes", "ward.yaml", "--route", "ward"]),
    ("encounter.txt", 0, &["explain", "admit.hl7", "Encounter", "--routes", "ward.yaml", "--route", "ward"]),
    ("practitioner-name.txt", 0, &["explain", "admit.hl7", "Practitioner.name", "--routes", "ward.yaml", "--route", "ward"]),
    ("deceased.txt", 0, &["explain", "admit.hl7", "Patient.deceased", "--routes", "ward.yaml", "--route", "ward"]),
    ("contact.txt", 1, &["explain", "admit.hl7", "Patient.contact.name", "--routes", "ward.yaml", "--route", "ward"]),
    ("pid.txt", 1, &["explain", "admit.hl7", "PID", "--routes", "ward.yaml", "--route", "ward"]),
    ("pid-7.json", 0, &["explain", "admit.hl7", "PID-7", "--routes", "ward.yaml", "--route", "ward", "--json"]),
    ("pid-30.txt", 1, &["explain", "admit.hl7", "PID-30", "--routes", "ward.yaml", "--route", "ward"]),
    ("pid-29.txt", 0, &["explain", "admit.hl7", "PID-29", "--routes", "ward.yaml", "--route", "ward"]),
    ("pid-3-2.txt", 1, &["explain", "admit.hl7", "PID-3[2].1", "--routes", "ward.yaml", "--route", "ward"]),
    ("pv1.txt", 1, &["explain", "admit.hl7", "PV1", "--routes", "ward.yaml", "--route", "ward"]),
    ("pv2-3.json", 1, &["explain", "admit.hl7", "PV2-3", "--routes", "ward.yaml", "--route", "ward", "--json"]),
    ("pid-12.txt", 1, &["explain", "admit.hl7", "PID-12", "--routes", "ward.yaml", "--route", "ward"]),
    ("onward.txt", 0, &["explain", "oru.hl7", "message[1]", "--routes", "onward.yaml", "--route", "onward"]),
    ("onward-pid.json", 0, &["explain", "oru.hl7", "message[2].PID-3", "--routes", "onward.yaml", "--route", "onward", "--json"]),
    ("onward-nte.txt", 1, &["explain", "oru.hl7", "message.NTE-3", "--routes", "onward.yaml", "--route", "onward"]),
    ("onward-pid-19.txt", 1, &["explain", "oru.hl7", "message.PID-19", "--routes", "onward.yaml", "--route", "onward"]),
    ("onward-from-pid.txt", 1, &["explain", "oru.hl7", "PID", "--routes", "onward.yaml", "--route", "onward"]),
    ("onward-from-obx.json", 1, &["explain", "oru.hl7", "OBX-3", "--routes", "onward.yaml", "--route", "onward", "--json"]),
    ("onward-rest.txt", 0, &["explain", "oru.hl7", "--routes", "onward.yaml", "--route", "onward"]),
    ("onward-coverage.txt", 0, &["coverage", "oru.hl7", "--routes", "onward.yaml", "--route", "onward", "--top", "0"]),
    ("order-orc.txt", 0, &["explain", "oru.hl7", "message.ORC", "--routes", "onward.yaml", "--route", "order"]),
    ("order-header.txt", 0, &["explain", "oru.hl7", "message.MSH-10", "--routes", "onward.yaml", "--route", "order"]),
    ("order-pid.json", 0, &["explain", "oru.hl7", "message[1].PID-3.5", "--routes", "onward.yaml", "--route", "order", "--json"]),
    ("order-rest.txt", 0, &["explain", "oru.hl7", "--routes", "onward.yaml", "--route", "order"]),
    ("shipped-name.txt", 0, &["explain", "admit.hl7", "Patient.name[0].family"]),
    ("coverage.txt", 0, &["coverage", "admit.hl7", "--routes", "ward.yaml", "--route", "ward", "--top", "0"]),
    ("coverage.json", 0, &["coverage", "admit.hl7", "--routes", "ward.yaml", "--route", "ward", "--json"]),
];

#[test]
fn each_case_says_what_stands_beside_it() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for (file, code, args) in CASES {
        let ran = run(&folder(), args).expect(*code);
        // A page of its own per line break, so that a change shows where it is.
        let told = if file.ends_with(".json") {
            let value: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON object");
            serde_json::to_string_pretty(&value).expect("JSON") + "\n"
        } else {
            format!("$ kiln {}\n{}{}", args.join(" "), ran.out, ran.err)
        };
        let path = folder().join("expected").join(file);
        if update {
            std::fs::create_dir_all(folder().join("expected")).expect("a folder");
            std::fs::write(&path, &told).expect("a file");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != told {
            wrong.push(format!("--- {file}\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ (UPDATE=1 rewrites them):\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_does_not_exist_is_told_with_what_was_meant() {
    for (place, told) in [
        ("Patient.birthdate", "Patient has no element birthdate; did you mean birthDate?"),
        ("Patiant.name", "did you mean Patient?"),
        ("XID-3", "there is no segment XID; did you mean PID, QID or SID?"),
        ("PID-99", "PID has no field 99"),
        ("PID.5", "PID is a segment, and its fields are written with a hyphen: PID-5"),
        ("Patient.name[first]", "an index is a number"),
    ] {
        let ran = run(&folder(), &["explain", "admit.hl7", place]);
        assert_eq!(ran.code, 2, "{place}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(told), "{place}: {}", ran.err);
    }
    for (place, told) in [
        ("message.PDI-3", "there is no segment PDI; did you mean P"),
        ("message[3].PID-3", "there is no message[3]: this one becomes 2 messages"),
        ("message[0]", "messages are counted from 1"),
        ("message.Patient", "Patient is no place in a message"),
    ] {
        let ran = run(&folder(), &["explain", "oru.hl7", place, "--routes", "onward.yaml", "--route", "onward"]).expect(2);
        assert!(ran.err.contains(told), "{place}: {}", ran.err);
    }
    let ran = run(&folder(), &["explain", "admit.hl7", "message.PID-3", "--routes", "ward.yaml", "--route", "ward"]).expect(2);
    assert!(ran.err.contains("route ward makes resources and no messages"), "{}", ran.err);
    assert!(run(&folder(), &["explain", "none.hl7"]).expect(2).err.contains("there is no file none.hl7"));
    assert!(run(&folder(), &["explain", "K999"]).expect(2).err.contains("there is no code K999"));
    assert!(run(&folder(), &["explain", "K203"]).expect(0).out.contains("K203"));
    assert!(run(&folder(), &["coverage", "none"]).expect(2).err.contains("there is no file or folder none"));
}

#[test]
fn any_shape_of_file_is_explained_and_counted() {
    let place = tempfile::tempdir().expect("a folder");
    let plain = std::fs::read_to_string(folder().join("admit.hl7")).expect("a message");
    std::fs::write(place.path().join("mllp.hl7"), format!("\u{b}{plain}\u{1c}\r\u{b}{plain}\u{1c}\r")).expect("a file");
    std::fs::write(place.path().join("lf.hl7"), plain.replace('\r', "\n")).expect("a file");
    std::fs::write(place.path().join("notes.txt"), "nothing of the kind").expect("a file");
    let ran = run(place.path(), &["explain", "mllp.hl7", "Patient.birthDate", "--json"]).expect(0);
    assert_eq!(ran.out.lines().count(), 2);
    let ran = run(place.path(), &["coverage", ".", "--json"]).expect(0);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((told["messages"].as_u64(), told["unreadable"].as_u64()), (Some(3), Some(0)), "{told}");
    assert_eq!(told["senders"][0]["messages"], 3);
    assert!(run(place.path(), &["coverage", ".", "--sender", "OTHER"]).expect(2).err.contains("no message to count of sender OTHER"));
    assert_eq!(run(place.path(), &["coverage", ".", "--sender", "BED7/WARD", "--json"]).expect(0).out, ran.out);
}

/// Coverage is for reports that are passed on: what patients are called must not be in them.
#[test]
fn coverage_prints_no_content() {
    let text = std::fs::read_to_string(folder().join("admit.hl7")).expect("a message");
    for json in [&["coverage", "admit.hl7", "--top", "0"][..], &["coverage", "admit.hl7", "--json"]] {
        let ran = run(&folder(), json).expect(0);
        for word in ["Ebner", "Ilse", "4711", "1978", "Gasse", "Steyr", "5550", "Horn", "Cough"] {
            assert!(text.contains(word) && !ran.out.contains(word) && !ran.err.contains(word), "{word}");
        }
    }
}

/// The figures of the guide are those of the page that a test writes, and exit 1 says that rows are missing.
#[test]
fn coverage_of_the_guide_is_what_the_page_says() {
    let ran = run(&folder(), &["coverage", "--guide", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let figure = |name: &str| told["total"][name].as_u64().expect("a figure");
    assert_eq!(figure("rows"), figure("done") + figure("reasons") + figure("missing"));
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide-coverage.md")).expect("the page");
    let row = format!("| in all | {} | {} | {} | {} |", figure("rows"), figure("done"), figure("reasons"), figure("missing"));
    assert!(page.contains(&row), "{row}");
    assert_eq!(ran.code, i32::from(figure("missing") > 0), "{}", ran.err);
    let text = run(&folder(), &["coverage", "--guide"]).out;
    for kind in ["messages", "segments", "datatypes", "codes", "in all"] {
        assert!(text.contains(kind), "{text}");
    }
}

/// A journaled message is explained by the routes that it was delivered by, also when the files have changed since.
#[test]
fn a_message_of_the_journal_is_explained_by_its_own_routes() {
    let place = tempfile::tempdir().expect("a folder");
    let site = "language: 1\njournal: { path: journal, low-water: 1MiB }\nconsole: { listen: 127.0.0.1:0 }\nlisteners:\n  adt: { mllp: 127.0.0.1:0 }\ntargets:\n  main: { folder: out }\n";
    std::fs::write(place.path().join("kiln.yaml"), site).expect("a file");
    std::fs::create_dir(place.path().join("routes")).expect("a folder");
    let ward = std::fs::read_to_string(folder().join("ward.yaml")).expect("routes");
    std::fs::write(place.path().join("routes/ward.yaml"), &ward).expect("a file");
    let message = std::fs::read_to_string(folder().join("admit.hl7")).expect("a message");
    let daemon = Daemon::start(place.path());
    let answer = exchange(daemon.address("adt on "), message.as_bytes());
    assert!(answer.contains("MSA|AA"), "{answer}");
    // Both routes that take it: a delivery has its route set from its first attempt on.
    wait_for("the deliveries", || run(place.path(), &["journal", "show", "1", "--json"]).out.matches("\"state\":\"delivered\"").count() == 2);
    drop(daemon);
    let changed = ward.replace("birthDate: PID-7\n", "");
    assert_ne!(changed, ward);
    std::fs::write(place.path().join("routes/ward.yaml"), changed).expect("a file");
    let ran = run(place.path(), &["explain", "1", "Patient.birthDate"]).expect(0);
    assert!(ran.out.contains("routes/ward.yaml:21:1") && ran.out.contains("birthDate: PID-7"), "{}", ran.out);
    let ran = run(place.path(), &["explain", "1", "Patient.birthDate", "--route", "ward"]).expect(1);
    assert!(ran.out.contains("no line of route ward makes it"), "{}", ran.out);
    assert!(run(place.path(), &["explain", "99", "PID-7"]).expect(1).err.contains("no message 99"));
    let told: serde_json::Value = serde_json::from_str(&run(place.path(), &["coverage", "--json"]).expect(0).out).expect("JSON");
    assert_eq!(told["messages"], 1);
}
