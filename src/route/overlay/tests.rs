//! What a site's and an overlay's documents change, and that no mutation of a file breaks reading or merging.

use crate::diagnostic::Sources;
use crate::route::overlay::merge;
use crate::route::read::read;
use crate::route::{Body, Document, Head, Item, RouteDoc};

/// Merges shipped and site files; the result as short lines, and the codes.
fn merged(shipped: &str, site: &str, overlays: &[&str]) -> (Vec<Document>, Vec<&'static str>) {
    let mut sources = Sources::default();
    let ids = [sources.add_shipped("shipped.yaml", shipped), sources.add("site.yaml", site)];
    let mut documents = Vec::new();
    for id in ids {
        let (mut read, faults) = read(&sources, id);
        assert_eq!(faults, []);
        documents.append(&mut read);
    }
    let overlays: Vec<String> = overlays.iter().map(|o| (*o).to_owned()).collect();
    let (documents, faults) = merge(&sources, documents, &overlays);
    assert!(documents.iter().all(|d| !d.extends && d.overlay.is_none()));
    (documents, faults.iter().map(|f| f.code).collect())
}

fn shown(item: &Item) -> String {
    match item {
        Item::Expr(e) => e.to_string(),
        Item::Constant(k) => format!("{:?}", k.text),
        Item::Body(b) => format!("{{{}}}", lines(b)),
        Item::List(items, _) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}

fn lines(body: &Body) -> String {
    body.lines.iter().map(|l| format!("{}{}: {}", l.element.text, if l.append { "+" } else { "" }, shown(&l.item))).collect::<Vec<_>>().join(", ")
}

fn map(document: &Document) -> String {
    match &document.head {
        Head::Map { body, .. } => lines(body),
        _ => panic!("no map"),
    }
}

fn route<'a>(documents: &'a [Document], name: &str) -> &'a RouteDoc {
    let found = documents.iter().find_map(|d| if let Head::Route(r) = &d.head { Some(r).filter(|r| r.name.text == name) } else { None });
    found.expect("the route is there")
}

const PID: &str = "map: PID -> Patient\nidentifier: [PID-3, PID-2]\nname: { family: PID-5.1, use: \"official\" }\ngender: PID-8\nmaritalStatus: PID-16\ntelecom:\n  \
                   - { $name: home, $from: PID-13, use: \"home\" }\n  - { $name: work, $from: PID-14, use: \"work\" }\n";

#[test]
fn lines_are_replaced_removed_appended_and_merged() {
    let site = "extend: PID -> Patient\nmaritalStatus: nothing\ngender: PID-9\nname: { use: \"usual\", given: PID-5.2 }\nidentifier+: ZPI-3\n\
                telecom: [{ $name: work, use: \"mobile\" }]\nbirthDate: PID-7\n";
    let (documents, codes) = merged(PID, site, &[]);
    assert_eq!(codes, [""; 0]);
    assert_eq!(
        map(&documents[0]),
        "identifier: [PID-3, PID-2, ZPI-3], name: {family: PID-5.1, use: \"usual\", given: PID-5.2}, gender: PID-9, \
         telecom: [{use: \"home\"}, {use: \"mobile\"}], birthDate: PID-7"
    );
}

#[test]
fn a_list_without_names_replaces() {
    let (documents, codes) = merged(PID, "extend: PID -> Patient\nidentifier: [PID-4]\ntelecom: [PID-40]\n", &[]);
    assert_eq!(codes, [""; 0]);
    assert!(map(&documents[0]).starts_with("identifier: [PID-4], "));
    assert!(map(&documents[0]).ends_with("telecom: [PID-40]"));
}

#[test]
fn a_sites_document_replaces_a_shipped_one_and_twice_is_a_fault() {
    let (documents, codes) = merged(PID, "map: PID -> Patient\nname: PID-5\n", &[]);
    assert_eq!((documents.len(), map(&documents[0]).as_str(), codes.as_slice()), (1, "name: PID-5", [""; 0].as_slice()));
    let (_, codes) = merged("", "map: PID -> Patient\nname: PID-5\n---\nmap: PID -> Patient\nname: PID-5\n", &[]);
    assert_eq!(codes, ["K705"]);
}

#[test]
fn overlays_count_only_where_used_and_before_the_site() {
    let site = "extend: PID -> Patient\n$in: us-core\ngender: PID-10\nname: PID-9\n---\nextend: PID -> Patient\nname: PID-5\n";
    let (documents, codes) = merged(PID, site, &["us-core"]);
    assert_eq!(codes, [""; 0]);
    assert!(map(&documents[0]).contains("name: PID-5, gender: PID-10"));
    let (documents, codes) = merged(PID, site, &[]);
    assert_eq!(codes, ["K703"]);
    assert!(map(&documents[0]).contains("gender: PID-8"));
}

#[test]
fn an_overlay_may_change_what_only_the_site_has() {
    let (documents, codes) = merged("", "map: ZPI -> Patient\ngender: ZPI-1\n---\nextend: ZPI -> Patient\n$in: o\ngender: ZPI-2\n", &["o"]);
    assert_eq!((map(&documents[0]).as_str(), codes.as_slice()), ("gender: ZPI-2", [""; 0].as_slice()));
}

#[test]
fn what_is_gone_or_was_never_there_is_told() {
    for (site, code) in [
        ("extend: PID -> Pateint\nname: PID-5\n", "K704"),
        ("extend: PID -> Patient\nmultipleBirth: nothing\n", "K706"),
        ("extend: PID -> Patient\ntelecom: [{ $name: mobile, use: \"mobile\" }]\n", "K706"),
        ("route: a\nlike: b\nto: main\n", "K704"),
        ("route: a\nlike: b\nto: main\n---\nroute: b\nlike: a\nto: main\n", "K707"),
        ("route: a\non: ADT^A01\nto: main\nuse: [us-cor]\nmessage: { $copy: all }\n", "K708"),
    ] {
        let (_, codes) = merged(PID, site, &[]);
        assert_eq!(codes.first(), Some(&code), "{site} {codes:?}");
    }
}

const ADT: &str = "route: adt\non: [ADT^A01, ADT^A08]\nto: main\nresources:\n  patient: { $map: PID -> Patient, $save: merge by PID-3, active: PID-30 }\n  \
                   encounter: { $map: PV1 -> Encounter, $save: merge by PV1-19 }\n";

#[test]
fn a_route_is_extended_by_name() {
    let site = "extend: adt\non+: ADT^A31\nresources: { patient: { identifier+: ZPI-3, active: nothing }, encounter: nothing }\n";
    let (documents, codes) = merged(ADT, site, &[]);
    assert_eq!(codes, [""; 0]);
    let adt = route(&documents, "adt");
    assert_eq!(adt.on.iter().map(|k| k.text.as_str()).collect::<Vec<_>>(), ["ADT^A01", "ADT^A08", "ADT^A31"]);
    assert_eq!(adt.resources.iter().map(|(k, b)| format!("{} {}", k.text, lines(b))).collect::<Vec<_>>(), ["patient active: nothing, identifier+: ZPI-3"]);
}

#[test]
fn like_copies_the_route_as_the_site_has_it_and_can_be_extended_too() {
    let site = "route: lake\nlike: adt\nto: lake\nresources: { patient: { language: PID-15 } }\n---\nextend: adt\nresources: { encounter: nothing }\n---\n\
                extend: lake\nresources: { patient: { language: PID-16 } }\n";
    let (documents, codes) = merged(ADT, site, &[]);
    assert_eq!(codes, [""; 0]);
    let lake = route(&documents, "lake");
    assert_eq!(lake.like, None);
    assert_eq!(lake.to.iter().map(|k| k.text.as_str()).collect::<Vec<_>>(), ["lake"]);
    assert_eq!(lake.on.len(), 2);
    assert_eq!(lake.resources.iter().map(|(k, b)| format!("{} {}", k.text, lines(b))).collect::<Vec<_>>(), ["patient active: PID-30, language: PID-16"]);
}

#[test]
fn a_shipped_route_is_like_the_shipped_one_whatever_a_site_makes_of_that() {
    let shipped = format!("{ADT}---\nroute: billing\nlike: adt\non: BAR^P01\nresources: {{ encounter: nothing, patient: {{ language: PID-15 }} }}\n");
    let resources = |documents: &[Document], name: &str| -> Vec<String> {
        route(documents, name).resources.iter().map(|(k, b)| format!("{} {}", k.text, lines(b))).collect()
    };
    let own = "route: adt\non: ADT^A01\nto: main\nresources: { person: { $map: PID -> Patient, $save: create by PID-3, gender: PID-8 } }\n";
    for site in [own, "extend: adt\nresources: { encounter: nothing }\n", "extend: billing\nfrom: accounts\n"] {
        let (documents, codes) = merged(&shipped, site, &[]);
        assert_eq!(codes, [""; 0], "{site}");
        assert_eq!(resources(&documents, "billing"), ["patient active: PID-30, language: PID-15"], "{site}");
        let billing = route(&documents, "billing");
        assert_eq!(billing.on.iter().map(|k| k.text.as_str()).collect::<Vec<_>>(), ["BAR^P01"], "{site}");
        assert_eq!(billing.from.len(), usize::from(site.starts_with("extend: billing")), "{site}");
    }
    let (documents, _) = merged(&shipped, own, &[]);
    assert_eq!(resources(&documents, "adt"), ["person gender: PID-8"]);
}

#[test]
fn a_table_changes_row_by_row() {
    let shipped = "table: sex\nfrom: [\"0001\"]\nto: administrative-gender\ncodes: { F: female, M: male, A: other }\nunmapped: unknown\n";
    let (documents, codes) = merged(shipped, "extend: sex\ncodes: { A: nothing, F: other, X: other }\nunmapped: refuse\n", &[]);
    assert_eq!(codes, [""; 0]);
    let Head::Table(table) = &documents[0].head else { panic!("no table") };
    let rows: Vec<_> = table.codes.iter().map(|r| format!("{} {}", r.code.text, r.to.as_ref().map_or("", |k| &k.text))).collect();
    assert_eq!(rows, ["F other", "M male", "X other"]);
}

/// 20,000 damaged files. A seeded generator, so that a failure repeats.
#[test]
fn no_damage_to_a_file_panics_or_hangs() {
    let examples = include_str!("../../../tests/language/examples.yaml");
    let whole: Vec<&str> = examples.split("\n---\n").chain([PID, ADT]).collect();
    let pieces = [
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ": ",
        " #",
        ", ",
        "\t",
        "\n",
        "\n---\n",
        "---",
        "- ",
        "&a ",
        "*a",
        "!x",
        "|",
        ">",
        "??",
        " if ",
        " then ",
        " else ",
        "$",
        "(",
        ")",
        "-",
        ".",
        " as ",
        " via ",
        " by ",
        " where ",
        "%",
        "\\",
        "\u{e4}",
        "\u{1f525}",
        "\r\n",
        "\u{0}",
        "nothing",
        "extend",
        "+",
        "  ",
        "<<",
        "? ",
        "\u{feff}",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).expect("31 bits") % below.max(1)
    };
    let begun = std::time::Instant::now();
    for _ in 0..20_000 {
        let mut text = whole[random(whole.len())].to_owned();
        for _ in 0..=random(3) {
            let cut = |text: &str, n: usize| (0..=n).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
            let at = cut(&text, random(text.len() + 1));
            match random(4) {
                0 => text.insert_str(at, pieces[random(pieces.len())]),
                1 => text.truncate(at),
                2 => drop(text.drain(at..cut(&text, (at + random(12)).min(text.len())).max(at))),
                _ => {
                    let from = cut(&text, random(text.len() + 1));
                    let part = text[from..cut(&text, (from + random(60)).min(text.len())).max(from)].to_owned();
                    text.insert_str(at, &part);
                }
            }
        }
        let mut sources = Sources::default();
        let ids = [sources.add_shipped("shipped.yaml", PID), sources.add("damaged.yaml", text.as_str())];
        let mut documents = Vec::new();
        for id in ids {
            let (mut read, faults) = read(&sources, id);
            documents.append(&mut read);
            for fault in faults {
                let inside = fault.span.start <= fault.span.end && text.get(fault.span.start as usize..fault.span.end as usize).is_some();
                assert!(inside, "{:?} lies outside: {text:?}", fault);
            }
        }
        merge(&sources, documents, &["us-core".to_owned()]);
    }
    assert!(begun.elapsed().as_secs() < 120, "{:?}", begun.elapsed());
}
