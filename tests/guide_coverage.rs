//! docs/guide-coverage.md is made of the guide's rows and of the compiled maps, so it says what is; `UPDATE=1` writes it.

mod maps_shared;

use kiln::route::{GUIDE_OVERLAYS, GuideCoverage, GuideRow, Sheets, Verdict};
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "\
# The guide's rows and the lines that do them

<!-- written by `UPDATE=1 cargo test --test guide_coverage` -->

Each row of [HL7's v2-to-FHIR guide](https://build.fhir.org/ig/HL7/v2-to-fhir/) that names a FHIR target, and the line of a shipped route that does it; or why none does
([guide-reasons.yaml](guide-reasons.yaml)); or that it is missing. The overlays `provenance`, `encounter-history`, `immunization-orders`, `person-vip` and `business-event` count too;
a site switches them on, `use: [provenance]`. `kiln coverage --guide` prints the figures, and for a site's own files, too.

A row counts as done if a compiled line writes that element from that field, followed through all maps that it calls; a row with a constant, if that constant is written where
the field decides; a row of a message's sheet, if a route of such messages makes that resource from that segment; a row of codes, if a table of that v2 table says so or the code
is kept with its table's URI. The guide's conditions are text, and are not compared by this test: [guide.md](guide.md) tells where they are read differently.
";

#[test]
fn the_page_says_what_the_maps_do() {
    let coverage = maps_shared::shipped_with(&GUIDE_OVERLAYS).guide_coverage();
    assert!(coverage.unused.is_empty(), "no row needs these reasons, so they are not true any more:\n{}", coverage.unused.join("\n"));
    let made = page(&coverage);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide-coverage.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, made).expect("the page can be written");
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = known.lines().zip(made.lines()).find(|(a, b)| a != b);
    assert!(known == made, "docs/guide-coverage.md is not what the maps do; UPDATE=1 writes it. First difference: {differs:?}");
}

fn page(coverage: &GuideCoverage) -> String {
    let mut text = format!("{HEAD}\n| sheets | rows | done | with a reason | missing | done |\n|---|---|---|---|---|---|\n");
    for kind in Sheets::ALL {
        let _ = writeln!(text, "{}", totals(kind.name(), coverage, |r| r.kind == kind));
    }
    let _ = writeln!(text, "{}", totals("in all", coverage, |_| true));
    let beside = coverage.rows.iter().filter(|(_, v)| *v == Verdict::NoSource).count();
    let _ = writeln!(text, "\n{beside} more rows name a code of FHIR and none of v2; there is nothing to map, and they are not counted.");
    for kind in Sheets::ALL {
        let _ = writeln!(text, "\n## {}", kind.name());
        let mut sheet = "";
        for (row, _) in coverage.rows.iter().filter(|(r, v)| r.kind == kind && *v != Verdict::NoSource) {
            if row.sheet != sheet {
                sheet = row.sheet;
                let rows = coverage.rows.iter().filter(|(r, v)| r.kind == kind && r.sheet == sheet && *v != Verdict::NoSource);
                let _ = writeln!(text, "\n### {sheet}\n\n| row | v2 | FHIR | by |\n|---|---|---|---|");
                match kind {
                    Sheets::Codes => codes(&mut text, rows),
                    _ => rows.for_each(|(r, v)| {
                        let source = if r.source.is_empty() { "-" } else { r.source };
                        let _ = writeln!(text, "| {} | {} | {} | {} |", r.number, cell(source), cell(r.target), by(v));
                    }),
                }
            }
        }
    }
    text
}

/// Codes that the same line does share a row.
fn codes<'r>(text: &mut String, rows: impl Iterator<Item = &'r (GuideRow, Verdict)>) {
    let mut groups: Vec<(String, Vec<&GuideRow>)> = Vec::new();
    for (row, verdict) in rows {
        let by = by(verdict);
        match groups.last_mut() {
            Some((known, list)) if *known == by => list.push(row),
            _ => groups.push((by, vec![row])),
        }
    }
    for (by, list) in groups {
        let (Some(first), Some(last)) = (list.first(), list.last()) else { continue };
        let range = |of: fn(&GuideRow) -> &str| if list.len() == 1 { cell(of(first)) } else { format!("{} ... {}", cell(of(first)), cell(of(last))) };
        let numbers = if list.len() == 1 { first.number.to_string() } else { format!("{}-{}", first.number, last.number) };
        let _ = writeln!(text, "| {numbers} | {} | {} | {by} |", range(|r| r.source), range(|r| r.target));
    }
}

fn by(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Done(proof) if proof.how.is_empty() => proof.line.trim_start_matches("shipped/").to_owned(),
        Verdict::Done(proof) => format!("{}, {}", proof.line.trim_start_matches("shipped/"), proof.how),
        Verdict::Reason(text) => format!("not: {}", cell(text)),
        Verdict::Missing => "**missing**".to_owned(),
        Verdict::NoSource => String::new(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;").replace("](", "] (")
}

fn totals(name: &str, coverage: &GuideCoverage, of: impl Fn(&GuideRow) -> bool) -> String {
    let (mut done, mut reasons, mut missing) = (0, 0, 0);
    for (_, verdict) in coverage.rows.iter().filter(|(r, _)| of(r)) {
        match verdict {
            Verdict::Done(_) => done += 1,
            Verdict::Reason(_) => reasons += 1,
            Verdict::Missing => missing += 1,
            Verdict::NoSource => {}
        }
    }
    let rows = done + reasons + missing;
    let percent = f64::from((done * 1000_i32).checked_div(rows).unwrap_or(1000)) / 10.0;
    format!("| {name} | {rows} | {done} | {reasons} | {missing} | {percent:.1} % |")
}
