//! The reader against the specification's own examples, its traps, and mutations of both.

use crate::diagnostic::{Diagnostic, Sources};
use crate::route::read::read;
use crate::route::{Body, Document, Expr, Head, Item, Unmapped, Verb};

const EXAMPLES: &str = include_str!("../../../tests/language/examples.yaml");

fn tree(text: &str) -> (Sources, Vec<Document>, Vec<Diagnostic>) {
    let mut sources = Sources::default();
    let id = sources.add("a.yaml", text);
    let (documents, faults) = read(&sources, id);
    (sources, documents, faults)
}

fn good(text: &str) -> Vec<Document> {
    let (_, documents, faults) = tree(text);
    assert_eq!(faults, [], "{text}");
    documents
}

fn codes(text: &str) -> Vec<&'static str> {
    tree(text).2.iter().map(|f| f.code).collect()
}

fn expressions<'a>(body: &'a Body, found: &mut Vec<&'a Expr>) {
    fn item<'a>(i: &'a Item, found: &mut Vec<&'a Expr>) {
        match i {
            Item::Expr(e) => found.push(e),
            Item::Constant(_) => {}
            Item::Body(b) => expressions(b, found),
            Item::List(items, _) => items.iter().for_each(|i| item(i, found)),
        }
    }
    body.lines.iter().for_each(|l| item(&l.item, found));
    body.lets.iter().chain(&body.with).for_each(|(_, i)| item(i, found));
    body.each.iter().chain(&body.from).for_each(|e| {
        found.push(&e.values);
        found.extend(&e.by);
    });
    found.extend(&body.when);
    body.first.iter().flatten().for_each(|i| item(i, found));
    body.value.iter().for_each(|i| item(i, found));
    body.save.iter().for_each(|s| found.extend(&s.by));
    body.initial.iter().for_each(|b| expressions(b, found));
}

#[test]
fn every_example_of_the_specification_reads() {
    let (sources, documents, faults) = tree(EXAMPLES);
    let told: Vec<_> = faults.iter().map(|f| format!("{:?} {} {}", sources.line_column(f.span), f.code, f.message)).collect();
    assert_eq!(told, [""; 0]);
    assert_eq!(documents.len(), EXAMPLES.split("\n---\n").count());
    let mut found = Vec::new();
    for document in &documents {
        match &document.head {
            Head::Map { body, .. } => expressions(body, &mut found),
            Head::Route(route) => {
                route.resources.iter().chain(&route.ask).for_each(|(_, b)| expressions(b, &mut found));
                route.message.iter().for_each(|b| expressions(b, &mut found));
                found.extend(&route.when);
                route.shared.iter().for_each(|(_, s)| found.extend(&s.by));
            }
            _ => {}
        }
    }
    assert!(found.len() >= 173, "{}", found.len());
    // Each place holds the expression and nothing around it: read alone, it is the same.
    for expr in found {
        let written = &EXAMPLES[expr.span.start as usize..expr.span.end as usize];
        let places = crate::route::expression::Places::verbatim(expr.span.source, 0, written.len());
        let again = crate::route::expression::parse(written, &places).expect("the written text is an expression");
        assert_eq!(again.to_string(), expr.to_string());
    }
}

#[test]
fn a_route_says_all_its_keys() {
    let documents = good(
        "route: adt\non: [ADT^A01, ADT^*]\nfrom: lab\nto: [main, disk]\nwhen: PV1-2 = \"I\"\norder-by: [PID-3, MRG-1]\nuse: us-core\n\
         shared: { Practitioner: create by identifier, Organization: logical, Location: contained }\ntypes: { QPD-3: QIP }\ninvalid: refuse\n\
         send: batch\nretry: { for: 7d }\nafter-dead-letter: go-on\nresources:\n  patient:\n    $map: [PID -> Patient, PD1 -> Patient]\n    \
         $save: update by [SCH-2, SCH-1]\n    $missing: skip\n    $merge: { identifier: union, location: by location }\n    $initial: { status: PV1-2 }\n    \
         identifier+: PID-3\n    _birthDate: { extension: { x: \"y\" } }\n",
    );
    let Head::Route(route) = &documents[0].head else { panic!("no route") };
    assert_eq!(route.on.iter().map(|k| k.text.as_str()).collect::<Vec<_>>(), ["ADT^A01", "ADT^*"]);
    assert_eq!(route.order_by.len(), 2);
    assert_eq!(route.shared.iter().map(|(_, s)| s.verb).collect::<Vec<_>>(), [Verb::Create, Verb::Logical, Verb::Contained]);
    let body = &route.resources[0].1;
    assert_eq!(body.maps.iter().map(|(s, t)| format!("{} -> {t}", s.text)).collect::<Vec<_>>(), ["PID -> Patient", "PD1 -> Patient"]);
    assert_eq!(body.save.as_ref().map(|s| (s.verb, s.by.len())), Some((Verb::Update, 2)));
    assert!(body.lines[0].append && body.lines[0].element.text == "identifier");
    assert_eq!(body.lines[1].element.text, "_birthDate");
}

#[test]
fn a_table_is_data() {
    let documents = good(
        "table: sex\nfrom: [\"0001\"]\nto: administrative-gender\ncodes: { M: male, N: no, X: { code: other, display: Other, system: urn:x } }\nunmapped: absent\n\
         senders:\n  - { when: MSH-3 = \"LAB7\", codes: { \"1\": male } }\n---\ntable: g\ncolumns: { unit: ucum, factor: decimal }\ncodes: { mg/dL: { unit: mmol/L, factor: 0.0555 } }\n",
    );
    let Head::Table(table) = &documents[0].head else { panic!("no table") };
    assert_eq!(table.codes[1].to.as_ref().map(|k| k.text.as_str()), Some("no"));
    assert_eq!(table.codes[2].display.as_ref().map(|k| k.text.as_str()), Some("Other"));
    assert!(matches!(table.unmapped, Some(Unmapped::Absent(_))));
    assert_eq!(table.senders[0].codes.len(), 1);
    let Head::Table(table) = &documents[1].head else { panic!("no table") };
    assert_eq!(table.codes[0].columns[1].1.text, "0.0555");
}

#[test]
fn the_traps_have_codes() {
    for (code, text) in [
        ("K100", "map: PID -> Patient\nname: PID-5\n   gender: PID-8\nbirthDate\n"),
        ("K101", "map: PID -> Patient\nname: \"a\" ?? PID-5\n"),
        ("K101", "map: PID -> Patient\nname: { use: \"a\" ?? PID-5 }\n"),
        ("K102", "map: PID -> Patient\nidentifier: [PID-3[1], PID-2]\n"),
        ("K102", "map: PID -> Patient\nname: { use: join(\",\", PID-3), text: PID-2 }\n"),
        ("K102", "map: PID -> Patient\nname: { use: join(PID-3, PID-4), text: PID-2 }\n"),
        ("K102", "map: PID -> Patient\nname: [first(PID-3, PID-2), PID-5]\n"),
        ("K102", "map: PID -> Patient\nname: { $when: PID-3 in (\"A\", \"B\"), text: PID-2 }\n"),
        ("K103", "map: PID -> Patient\ngender: \"male\nname: PID-5\n"),
        ("K104", "maps: PID -> Patient\n"),
        ("K105", "map: PID -> Patient\nname: { $form: PID-5 }\n"),
        ("K106", "map: PID -> Patient\nname: join(\": \", PID-5)\n"),
        ("K106", "map: PID -> Patient\nname: join(\" # \", PID-5)\n"),
        ("K107", "map: PID -> Patient\nname: PID-5\nname: PID-9\n"),
        ("K108", "map: PID -> Patient\nname: &n PID-5\n"),
        ("K108", "map: PID -> Patient\nname: *n\n"),
        ("K108", "map: PID -> Patient\nname: !x PID-5\n"),
        ("K108", "map: PID -> Patient\n<<: { name: PID-5 }\n"),
        ("K108", "%YAML 1.2\n---\nmap: PID -> Patient\n"),
        ("K109", "map: PID -> Patient\nname:\n\tuse: PID-5\n"),
        ("K110", "map: PID -> Patient\nname: PID-5 ??\n"),
        ("K118", "map: PID -> Patient\nidentifier: [PID-3, PID-2\nname: PID-5\n"),
        ("K112", "map: PID -> Patient\nname:\n"),
        ("K113", "route: a\non: ADT^A01\nto: main\nresorces: { p: { $map: PID -> Patient } }\nmessage: { $copy: all }\n"),
        ("K114", "route: a\non: ADT^A01\nto: main\ninvalid: maybe\nmessage: { $copy: all }\n"),
        ("K115", "table: a\nfrom: \"0001\"\n"),
        ("K117", "map: PID to Patient\n"),
    ] {
        assert_eq!(codes(text), [code], "{text}");
    }
}

#[test]
fn a_fault_stands_where_the_text_is() {
    for (text, blamed) in [
        ("map: PID -> Patient\nä: { use: \"ü\" }\nname: >\n  if PID-5 valued\n    then PID-5 els PID-9\n", "els"),
        ("map: PID -> Patient\nname: PID-5\n  == PID-9\n", "=="),
        ("map: PID -> Patient\nname: 'a' ?? PID-9 # why\n", "'a' ?? PID-9"),
        ("map: PID -> Patient\nidentifier: [PID-3, PID-2[1], PID-5]\n", "PID-2[1]"),
        ("map: PID -> Patient\n$form: PID-5\n", "$form"),
        ("map: PID -> Patient\nidentifier: [first(PID-3, PID-2), PID-5]\n", "first(PID-3, PID-2)"),
        ("map: PID -> Patient\nname: PID-5 = 'Q'\n", "'Q'"),
    ] {
        let (_, _, faults) = tree(text);
        assert_eq!(faults.len(), 1, "{text} {faults:?}");
        let span = faults[0].span;
        assert_eq!(&text[span.start as usize..span.end as usize], blamed, "{text} {faults:?}");
    }
}

#[test]
fn a_forgotten_quote_is_a_name_for_the_checker() {
    let documents = good("map: PID -> Patient\nstatus: accepted\n");
    let Head::Map { body, .. } = &documents[0].head else { panic!("no map") };
    assert!(matches!(&body.lines[0].item, Item::Expr(e) if e.kind == crate::route::ExprKind::Name("accepted".to_owned(), false)));
}

#[test]
fn what_is_extended_shows_in_its_keys() {
    let documents = good(
        "extend: PID -> Patient\n$in: us-core\nmaritalStatus: nothing\n---\nextend: siu\non+: SIU^S17\nresources: { appointment: nothing }\n---\n\
         extend: sex\ncodes: { A: nothing, B: other }\n---\nextend: authorities\nmatch+: [{ namespace: B, system: urn:b }]\n---\nextend: ZPI\nfields: { 3: CX }\n",
    );
    let kinds: Vec<_> = documents
        .iter()
        .map(|d| match d.head {
            Head::Map { .. } => "map",
            Head::Route(_) => "route",
            Head::Table(_) => "table",
            Head::Systems(_) => "systems",
            Head::Segment(_) => "segment",
            Head::Datatype(_) => "datatype",
        })
        .collect();
    assert_eq!(kinds, ["map", "route", "table", "systems", "segment"]);
    assert!(documents.iter().all(|d| d.extends));
    assert_eq!(documents[0].overlay.as_ref().map(|k| k.text.as_str()), Some("us-core"));
    assert_eq!(documents[1].appends, ["on"]);
}
