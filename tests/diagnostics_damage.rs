//! Damaged route files through the whole of `load`: faults in plenty, but no panic, and every place inside its file.

use kiln::diagnostic::{Severity, Sources, Style, render};
use kiln::route::{LoadOptions, load};
use kiln::site::route_sources;

#[test]
fn no_damage_to_a_route_file_breaks_the_checker() {
    let shipped = route_sources(&[]).expect("the shipped routes");
    let examples = include_str!("language/examples.yaml");
    let documents: Vec<String> = shipped.ids().map(|id| shipped.text(id)).chain([examples]).flat_map(|text| text.split("\n---\n")).map(str::to_owned).collect();
    // Damage that stays readable reaches the checker more often than noise does: words and numbers change places.
    let words = [
        "PID-3",
        "PID",
        "OBX-5",
        "CX.4",
        "XPN.1.1",
        "Patient",
        "Patient.contact",
        "Identifier",
        "nothing",
        "null",
        "$x",
        "$let: { x: $x }",
        "\"code\"",
        "\"\"",
        "first(",
        ")",
        "[",
        "]",
        "{",
        "}",
        " as Organization",
        " via sex",
        " where ",
        " ?? ",
        " if ",
        " then ",
        "+",
        " - 1",
        "[last]",
        "[9]",
        "-99",
        ".99",
        "[x]",
        "_",
        "$each: ",
        "$from: ",
        "$when: ",
        "$value: ",
        "$with: { a: PID }",
        "$takes: { a: HD }",
        "$first: []",
        "extension: ",
        "\n",
        "\n  ",
        ", ",
        ": ",
        "all ",
        "count(PID-3)",
        "event()",
        "in (\"A\")",
        "in systems",
        "1.5",
        "true",
        "ZZZ-1",
        "\u{e4}",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).expect("31 bits") % below.max(1)
    };
    for _ in 0..10_000 {
        let mut sources = Sources::default();
        for _ in 0..=random(4) {
            let mut text = documents[random(documents.len())].clone();
            for _ in 0..random(4) {
                let edge = |text: &str, n: usize| (0..=n).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
                let at = edge(&text, random(text.len() + 1));
                // Mostly at the beginning of a word.
                let at = text.get(at..).and_then(|rest| rest.find(' ')).map_or(at, |n| at + n + 1);
                let end = text.get(at..).and_then(|rest| rest.find([' ', '\n', ','])).map_or(at, |n| at + n);
                let word = words[random(words.len())];
                match random(3) {
                    0 => text.insert_str(at, word),
                    1 => text.replace_range(at..end, word),
                    _ => text.replace_range(at..end, ""),
                }
            }
            sources.add("damaged.yaml", text);
        }
        let loaded = load(sources, &LoadOptions::default());
        for fault in &loaded.diagnostics {
            for span in fault.related.iter().map(|(span, _)| *span).chain([fault.span]) {
                let text = loaded.sources.text(span.source);
                assert!(span.start <= span.end && text.get(span.start as usize..span.end as usize).is_some(), "{fault:?} lies outside:\n{text}");
            }
        }
        assert_eq!(loaded.set.is_none(), loaded.diagnostics.iter().any(|d| d.severity == Severity::Error));
        render(&loaded.sources, &loaded.diagnostics, Style::Human { color: false });
    }
}
