//! The reference of the site file as a page, from the same declarations as its reader (docs/site.md).

use crate::site::keys::{ROOT, SECRET, Takes};
use std::fmt::Write as _;

/// Every key of `kiln.yaml`, a table for each section, as Markdown.
pub fn reference() -> String {
    let mut page = "# The site file\n\n`kiln.yaml` says where messages come in, where resources go, and what the daemon may use. Every key can be left out unless it says otherwise,\n\
                    and every key can be set from the environment: `KILN__JOURNAL__PATH` for `journal: { path }`. Paths begin at the folder of the file.\n\
                    `kiln check` checks it; `kiln schema --site` gives the same to an editor. Defaults stand behind the semicolon.\n"
        .to_owned();
    let mut open = vec![(String::new(), ROOT)];
    let mut at = 0;
    while let Some((path, keys)) = open.get(at).cloned() {
        let heading = if path.is_empty() { "At the top".to_owned() } else { format!("`{path}`") };
        let _ = write!(page, "\n## {heading}\n\n| key | takes | means |\n|---|---|---|\n");
        let mut below = Vec::new();
        for key in keys {
            let _ = writeln!(page, "| `{}` | {} | {} |", key.name, takes(key.takes).replace('|', "\\|"), key.meaning.replace('|', "\\|"));
            let own = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.takes {
                Takes::Section(inside, _) | Takes::TextOr(inside) => below.push((own, inside)),
                Takes::Named(inside) => below.push((format!("{own}.NAME"), inside)),
                _ => {}
            }
        }
        // What belongs together stands together.
        open.splice(at + 1..at + 1, below);
        at += 1;
    }
    page += "\n## A secret\n\nWherever a key takes a secret, it says where the secret is kept. In the file itself a secret is refused (K726).\n\n| key | takes | means |\n|---|---|---|\n";
    for key in SECRET {
        let _ = writeln!(page, "| `{}` | {} | {} |", key.name, takes(key.takes), key.meaning);
    }
    page
}

fn takes(takes: Takes) -> String {
    let or = |what: &str, words: &[&str]| {
        let words: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
        if words.is_empty() { what.to_owned() } else { format!("{what}, or {}", words.join(", ")) }
    };
    match takes {
        Takes::Text => "a text".to_owned(),
        Takes::Texts => "a text or a list".to_owned(),
        Takes::Choice(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Takes::Duration(words) => or("a time: `300ms`, `30s`, `24h`, `30d`", words),
        Takes::Size => "a size: `16MiB`".to_owned(),
        Takes::Share => "a size or a share: `1GiB`, `5%`".to_owned(),
        Takes::Address => "an address: `127.0.0.1:2575`".to_owned(),
        Takes::Number(least, most) => format!("a number from {least} to {most}"),
        Takes::Url => "a URL".to_owned(),
        Takes::Rate => "a rate: `50/s`, `600/m`".to_owned(),
        Takes::TextOr(_) => "a text, or the keys below".to_owned(),
        Takes::Pairs => "names, each with a text".to_owned(),
        Takes::Secret(true) => "a text, or [a secret](#a-secret)".to_owned(),
        Takes::Secret(false) => "[a secret](#a-secret)".to_owned(),
        Takes::Secrets => "names, each with a text or [a secret](#a-secret)".to_owned(),
        Takes::Section(_, words) => or("the keys below", words),
        Takes::Named(_) => "names, each with the keys below".to_owned(),
    }
}
