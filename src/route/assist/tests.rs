//! How unfinished files are read.

use crate::route::assist::outline::{Outline, Where};

fn shown(text: &str) -> String {
    let outline = Outline::read(text);
    let mut out = String::new();
    for section in &outline.sections {
        let mut open: Vec<(usize, usize)> = section.roots.iter().rev().map(|n| (*n, 0)).collect();
        while let Some((n, depth)) = open.pop() {
            let e = &outline.entries[n];
            let key = if e.list { "-" } else { &text[e.key.clone()] };
            let value = if e.inner.is_some() || !e.children.is_empty() { "" } else { &text[e.value.clone()] };
            out += &format!("{}{key}{}{value}|", " ".repeat(depth), if e.bare { "?" } else { "=" });
            open.extend(e.children.iter().rev().map(|c| (*c, depth + 1)));
        }
        out.push('/');
    }
    out
}

#[test]
fn what_is_whole_is_read_as_yaml_has_it() {
    assert_eq!(
        shown("map: A -> B\nx: { y: first(P, 2), z: [A, \"b\"] }\nl:\n  - $name: n\n    k: v # c\n  - w\n"),
        "map=A -> B|x=| y=first(P, 2)| z=|  -=A|  -=b|l=| -=|  $name=n|  k=v| -=w|/"
    );
    assert_eq!(shown("a: >\n  one\n  two\nb: 1\n---\nc: x\n  y\n"), "a=one\n  two|b=1|/c=x\n  y|/");
}

#[test]
fn what_is_not_finished_is_read_as_far_as_it_goes() {
    assert_eq!(shown("map: A -> B\nx: { y: \nz: 1\n"), "map=A -> B|x=| y=|z=1|/");
    assert_eq!(shown("map: A -> B\nfoo:\n  ba\n  c: \n"), "map=A -> B|foo=| ba?| c=|/");
    assert_eq!(shown("a: [x, {y: 1, z"), "a=| -=x| -=|  y=1|  z?|/");
    assert_eq!(shown("a: \"open\nb: 1\n"), "a=open|b=1|/");
}

#[test]
fn a_place_is_a_key_a_value_or_between() {
    let at = |marked: &str| {
        let at = marked.find('^').expect("a mark");
        let text = marked.replace('^', "");
        let outline = Outline::read(&text);
        outline.locate(&text, at).map(|w| match w {
            Where::Key(n) => format!("key {}", &text[outline.entries[n].key.clone()]),
            Where::Value(n) => format!("value of {}", &text[outline.entries[n].key.clone()]),
            Where::Inside(n) => format!("inside {}", n.map_or("", |n| &text[outline.entries[n].key.clone()])),
        })
    };
    assert_eq!(at("map: A -> B\nge^nder: x\n").as_deref(), Some("key gender"));
    assert_eq!(at("map: A -> B\ngender: ^\n").as_deref(), Some("value of gender"));
    assert_eq!(at("map: A -> B\nname: { ^ }\n").as_deref(), Some("inside name"));
    assert_eq!(at("map: A -> B\nname:\n  ^\nx: 1\n").as_deref(), Some("inside name"));
    assert_eq!(at("map: A -> B\nname:\n  use: x\n  ^\n").as_deref(), Some("inside name"));
    assert_eq!(at("map: A -> B\n^\n").as_deref(), Some("inside "));
    assert_eq!(at("---\n^").as_deref(), Some("inside "));
}
