//! Every message that others wrote, of the types that Kiln ships routes for, is mapped by the shipped routes or says why not; `docs/corpus.md` lists the latter.
//! `UPDATE=1` writes the page; `BUNDLES=FOLDER` keeps what was made, for `tests/judges/run FOLDER`.

mod maps_shared;

use kiln::fhir::display_bundle;
use kiln::hl7v2::{Message, ParseOptions, split};
use kiln::route::Output;
use maps_shared::{Fate, messages_below, run, shipped};
use std::fmt::Write as _;
use std::path::Path;

/// The message codes that the shipped routes are about, as docs/corpus.md counts them.
const FAMILIES: [&[&str]; 6] = [&["ADT"], &["SIU"], &["ORU"], &["ORM", "OML", "OMG"], &["MDM"], &["VXU"]];

/// Of the messages that name a patient in PID-2, PID-3 or PID-4.
const DELIVERED_MIN: f64 = 0.95;

struct Row {
    file: String,
    kind: String,
    named: bool,
    delivered: bool,
    why: String,
}

#[test]
fn messages_of_others_map_or_say_why_not() {
    let set = shipped();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/messages");
    let mut rows = Vec::new();
    for path in messages_below("fixtures/messages") {
        let bytes = std::fs::read(&path).expect("the message can be read");
        let name = path.strip_prefix(&root).expect("a file below the folder").display().to_string();
        let parts = split(&bytes);
        for (n, range) in parts.iter().enumerate() {
            let part = &bytes[range.clone()];
            let (kind, fate) = run(&set, part, Some("TEST"));
            if !FAMILIES.iter().any(|family| is_of(&kind, family)) {
                continue;
            }
            let file = if parts.len() > 1 { format!("{name} ({})", n + 1) } else { name.clone() };
            let (delivered, why) = match fate {
                Fate::Made(output) if output.saves.entries.is_empty() => {
                    (false, if has(part, "PID") { "nothing was made" } else { "it has no PID" }.to_owned())
                }
                Fate::Made(output) => {
                    keep(&file, &output);
                    (true, String::new())
                }
                Fate::Stopped(stop) => (false, format!("{}: {} ({})", stop.kind, stop.text, stop.places.join(", "))),
                Fate::Unrouted => (false, "no shipped route takes this event".to_owned()),
                Fate::Unreadable(why) => (false, why),
            };
            rows.push(Row { file, kind, named: names_a_patient(part), delivered, why });
        }
    }
    let named = rows.iter().filter(|r| r.named).count();
    let delivered = rows.iter().filter(|r| r.named && r.delivered).count();
    let page = page(&rows, named, delivered);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/corpus.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("docs")).expect("docs can be made");
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let share = delivered as f64 / named.max(1) as f64;
    assert!(named > 150, "the messages that others wrote are there: {named}");
    assert!(share >= DELIVERED_MIN, "{delivered} of {named} are delivered\n{page}");
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "docs/corpus.md is not what was found: UPDATE=1 writes it");
}

fn is_of(kind: &str, family: &[&str]) -> bool {
    family.iter().any(|code| kind.starts_with(code))
}

/// Writes the Bundle where `BUNDLES` says.
fn keep(file: &str, output: &Output) {
    let Some(folder) = std::env::var_os("BUNDLES") else { return };
    let name: String = file.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = Path::new(&folder).join(name);
    std::fs::write(path.with_extension("json"), display_bundle(&output.saves).to_string()).expect("a Bundle can be written");
    let findings: String = output.findings.iter().map(|f| format!("{} {} {}: {}\n", f.kind, f.place, f.line, f.text)).collect();
    std::fs::write(path.with_extension("txt"), findings).expect("findings can be written");
}

fn has(bytes: &[u8], segment: &str) -> bool {
    Message::parse(bytes::Bytes::copy_from_slice(bytes), &ParseOptions::default()).is_ok_and(|m| m.segments_named(segment).next().is_some())
}

fn names_a_patient(bytes: &[u8]) -> bool {
    let Ok(message) = Message::parse(bytes::Bytes::copy_from_slice(bytes), &ParseOptions::default()) else { return false };
    message
        .segments_named("PID")
        .any(|pid| [2, 3, 4].into_iter().any(|n| message.repetitions(message.field(pid, n)).any(|r| message.is_valued(message.component(r, 1)))))
}

fn page(rows: &[Row], named: usize, delivered: usize) -> String {
    let mut page = String::from("# Messages of others, and the shipped routes\n\n");
    let all = rows.len();
    writeln!(page, "Made by `UPDATE=1 cargo test --test maps_corpus`; the same test fails when this page is no longer true.\n").expect("text takes text");
    let share = 100.0 * delivered as f64 / named.max(1) as f64;
    writeln!(page, "`fixtures/messages` holds {all} messages from public projects of the types that Kiln ships routes for. {named} name a patient in")
        .expect("text takes text");
    writeln!(page, "PID-2, PID-3 or PID-4; of these the shipped routes deliver {delivered} ({share:.1} %).\n").expect("text takes text");
    page.push_str("| type | messages | name a patient | of these delivered |\n| --- | --- | --- | --- |\n");
    for family in FAMILIES {
        let of: Vec<&Row> = rows.iter().filter(|r| is_of(&r.kind, family)).collect();
        let named = of.iter().filter(|r| r.named).count();
        let delivered = of.iter().filter(|r| r.named && r.delivered).count();
        writeln!(page, "| {} | {} | {named} | {delivered} |", family.join(", "), of.len()).expect("text takes text");
    }
    page.push_str("\nAll that are not delivered, named or not:\n\n");
    page.push_str("| message | type | names a patient | why it is not delivered |\n| --- | --- | --- | --- |\n");
    for row in rows.iter().filter(|r| !r.delivered) {
        let kind = row.kind.replace('|', "\\|");
        writeln!(page, "| {} | {} | {} | {} |", row.file, kind, if row.named { "yes" } else { "no" }, row.why).expect("text takes text");
    }
    page
}
