//! `kiln map` on the shipped fixtures, and on what it cannot map.

mod cli_support;
use cli_support::{Ran, admit, kiln, run};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/try");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "hl7")).collect();
    files.sort();
    files
}

fn resources(bundle: &str) -> Vec<String> {
    let bundle: serde_json::Value = serde_json::from_str(bundle).unwrap_or_else(|e| panic!("{e}: {bundle}"));
    assert_eq!(bundle["resourceType"], "Bundle");
    let entries = bundle["entry"].as_array().expect("entries");
    entries.iter().map(|e| e["resource"]["resourceType"].as_str().expect("a type").to_owned()).collect()
}

#[test]
fn every_message_of_the_tour_becomes_a_bundle_with_its_patient() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(fixtures().len() >= 6);
    for file in fixtures() {
        let ran = run(folder.path(), &["map", file.to_str().expect("UTF-8")]).expect(0);
        assert!(resources(&ran.out).contains(&"Patient".to_owned()), "{}: {}", file.display(), ran.out);
    }
}

#[test]
fn any_shape_of_file_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = admit("C1", "7");
    let shapes = [
        ("lf", plain.replace('\r', "\n"), 1),
        ("crlf", plain.replace('\r', "\r\n"), 1),
        ("mllp", format!("\u{b}{plain}\u{1c}\r\u{b}{plain}\u{1c}\r"), 2),
        ("batch", format!("FHS|^~\\&\rBHS|^~\\&\r{plain}{plain}BTS|2\rFTS|1\r"), 2),
    ];
    let mut first = None;
    for (name, text, messages) in shapes {
        std::fs::write(folder.path().join(name), text).expect("a file");
        let ran = run(folder.path(), &["map", name, "--json"]).expect(0);
        let lines: Vec<serde_json::Value> = ran.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), messages, "{name}: {}", ran.out);
        let bundle = lines[0]["bundle"].clone();
        assert_eq!(*first.get_or_insert(bundle.clone()), bundle, "{name}");
    }
    let mut child =
        kiln(folder.path()).args(["map", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    child.stdin.take().expect("piped").write_all(plain.as_bytes()).expect("a reader");
    let ran = Ran::of(child.wait_with_output().expect("its end")).expect(0);
    assert!(resources(&ran.out).contains(&"Patient".to_owned()));
}

#[test]
fn what_cannot_be_mapped_says_why_and_exits_1() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text, told) in [
        ("unrouted", admit("C1", "7").replace("ADT^A01^ADT_A01", "ZZZ^Z99"), "no route takes this ZZZ^Z99: no route names its type"),
        ("unreadable", "this is not HL7".to_owned(), "cannot be read"),
        ("empty", String::new(), "there is no message in it"),
        ("nobody", admit("C1", "").replace("^^^HOSP^MR", ""), "PID-3"),
    ] {
        std::fs::write(folder.path().join(name), text).expect("a file");
        let ran = run(folder.path(), &["map", name]).expect(1);
        assert!(ran.err.contains(told) && ran.err.contains(name), "{name}: {}", ran.err);
        assert_eq!(ran.out, "", "{name}");
        let json: serde_json::Value = serde_json::from_str(&run(folder.path(), &["map", name, "--json"]).expect(1).out).expect("JSON");
        assert!(json["fault"].is_string() || json["stop"].is_object(), "{name}: {json}");
    }
}

/// A real sender's batch gone wrong, or somebody's attack: it must end soon, and as a dead letter.
#[test]
fn a_message_that_asks_for_too_much_is_given_up_and_not_worked_on_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let began = std::time::Instant::now();
    for (name, segment) in [("patients", "PID|1||{}^^^HOSP^MR"), ("visits", "PV1|1|I|WARD^{}|||||||||||||||||{}^^^HOSP")] {
        let segments: String = (0..12_000).map(|n| format!("{}\r", segment.replace("{}", &n.to_string()))).collect();
        std::fs::write(folder.path().join(name), format!("{}{segments}", admit("C1", "7"))).expect("a file");
        let ran = run(folder.path(), &["map", name]).expect(1);
        assert!(ran.err.contains("too large for route adt"), "{name}: {}", ran.err);
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "it took {:?}", began.elapsed());
}

#[test]
fn a_sites_own_routes_stand_above_the_shipped_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("mine")).expect("a folder");
    let route = "route: only\non: ADT^A01\nto: main\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";
    std::fs::write(folder.path().join("mine/only.yaml"), route).expect("a file");
    std::fs::write(folder.path().join("m.hl7"), admit("C1", "7")).expect("a file");
    let ran = run(folder.path(), &["map", "m.hl7", "--routes", "mine", "--route", "only"]).expect(0);
    assert_eq!(resources(&ran.out), ["Patient"]);
    let unknown = run(folder.path(), &["map", "m.hl7", "--route", "nothing"]).expect(2);
    assert!(unknown.err.contains("there is no route nothing"), "{}", unknown.err);

    std::fs::write(folder.path().join("mine/only.yaml"), route.replace("PID-3", "PID-3333")).expect("a file");
    let faulty = run(folder.path(), &["map", "m.hl7", "--routes", "mine"]).expect(2);
    assert!(faulty.err.contains("K203") && faulty.err.contains("only.yaml:5"), "{}", faulty.err);
}

#[test]
fn a_route_that_asks_is_answered_by_a_file_beside_the_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let route = "route: visit\non: ADT^A01\nto: main\nask: { doctor: { $search: Practitioner, $at: main, $several: refuse, name: PID-5.2 } }\n\
                 resources:\n  who: { $map: PID -> Patient, $save: update by PID-3, generalPractitioner: doctor }\n";
    write("visit.yaml", route);
    write("m.hl7", &admit("C1", "7"));
    let map = |more: &[&str]| run(folder.path(), &[&["map", "m.hl7", "--routes", "visit.yaml", "--route", "visit"], more].concat());

    let nobody = map(&[]).expect(1);
    assert!(nobody.err.contains("not-asked") && nobody.err.contains("--ask asks the site's targets"), "{}", nobody.err);

    write("m.answers.json", r#"{ "doctor": [{ "resourceType": "Practitioner", "id": "d1" }] }"#);
    let referred = |ran: &Ran| serde_json::from_str::<serde_json::Value>(&ran.out).expect("a Bundle")["entry"][0]["resource"]["generalPractitioner"].clone();
    assert_eq!(referred(&map(&[]).expect(0)), serde_json::json!([{ "reference": "Practitioner/d1" }]));

    // A searchset as a server gives it; what came along is no match.
    let entry = |mode: &str, id: &str| format!(r#"{{ "search": {{ "mode": "{mode}" }}, "resource": {{ "resourceType": "Practitioner", "id": "{id}" }} }}"#);
    write("other.json", &format!(r#"{{ "doctor": {{ "resourceType": "Bundle", "entry": [{}, {}] }} }}"#, entry("match", "d2"), entry("include", "d3")));
    assert_eq!(referred(&map(&["--answers", "other.json"]).expect(0)), serde_json::json!([{ "reference": "Practitioner/d2" }]));

    write("other.json", r#"{ "doctor": [{ "resourceType": "Practitioner", "id": "d1" }, { "resourceType": "Practitioner", "id": "d2" }] }"#);
    let several = map(&["--answers", "other.json"]).expect(1);
    assert!(several.err.contains("several-found") && several.err.contains("found 2 Practitioner at main"), "{}", several.err);
    let wrong = {
        write("other.json", r#"{ "doctor": "d1" }"#);
        map(&["--answers", "other.json"]).expect(2)
    };
    assert!(wrong.err.contains("other.json: doctor: an answer is a list of resources"), "{}", wrong.err);

    // The same in fixtures, with what is asked.
    write("m.expected.json", r#"{ "given": { "routes": ["visit"] }, "routes": { "visit": { "asked": ["doctor: Practitioner?name=Eva"] } } }"#);
    let test = |code| run(folder.path(), &["test", "m.hl7", "--routes", "visit.yaml"]).expect(code);
    drop(test(0));
    write("m.expected.json", r#"{ "given": { "routes": ["visit"] }, "routes": { "visit": { "asked": ["doctor: Practitioner?name=Ida"] } } }"#);
    let told = test(1);
    assert!(told.out.contains("question doctor: Practitioner?name=Eva"), "{}", told.out);
}
