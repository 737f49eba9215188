//! Files, batches and rows of messages, whole and in portions.

use crate::hl7v2::wide::Wide;
use crate::hl7v2::{BatchItem, Splitter, Wrapper, batch_items, holds_several};
use proptest::prelude::*;

/// A word a piece: `F`, `B`, `m:TEXT`, `s:TEXT`, `/B 2 of 3` ...
fn told(items: &[BatchItem]) -> Vec<String> {
    let word = |w: Wrapper| w.header().get(..1).unwrap_or_default().to_owned();
    items
        .iter()
        .map(|piece| match piece {
            BatchItem::Opened(wrapper, header) => format!("{}{}", word(*wrapper), header.as_ref().map_or(String::new(), |h| h.text(11).into_owned())),
            BatchItem::Message(m) => format!("m:{}{}", m.bytes.escape_ascii(), if m.oversize { "..." } else { "" }),
            BatchItem::Stray(s) => format!("s:{}", s.bytes.escape_ascii()),
            BatchItem::Closed(c) => {
                format!("/{} {}{}", word(c.wrapper), c.counted, c.flaws.iter().map(|f| format!("; {}", f.fault(c.wrapper).sentence())).collect::<String>())
            }
        })
        .collect()
}

const HEAD: &str = r"|^~\&|A|B|C|D|2026||name|comment|";

#[test]
fn a_file_of_batches() {
    let file = format!("FHS{HEAD}F1\rBHS{HEAD}B1\rMSH|1\rPID|\rMSH|2\rBTS|2\rBHS{HEAD}B2\rMSH|3\rBTS|1\rFTS|2\r");
    let want = ["FF1", "BB1", r"m:MSH|1\rPID|\r", r"m:MSH|2\r", "/B 2", "BB2", r"m:MSH|3\r", "/B 1", "/F 2"];
    assert_eq!(told(&batch_items(file.as_bytes())), want);
    assert_eq!(told(&batch_items(file.replace('\r', "\r\n").as_bytes())), want.map(|w| w.replace(r"\rPID", r"\r\nPID")));
}

#[test]
fn what_is_wrong_with_wrappers_is_told_and_loses_nothing() {
    for (file, want) in [
        ("BHS|\rMSH|1\rBTS|2\r", vec!["B", r"m:MSH|1\r", "/B 1; BTS-1 says 2 messages, and 1 came"]),
        ("BHS|\rMSH|1\rBTS|two\r", vec!["B", r"m:MSH|1\r", "/B 1; BTS-1 is not the number of messages"]),
        ("BHS|\rMSH|1\rBTS\r", vec!["B", r"m:MSH|1\r", "/B 1"]),
        ("BHS|\rMSH|1\r", vec!["B", r"m:MSH|1\r", "/B 1; no BTS came; messages may be missing at the end"]),
        ("MSH|1\rBTS|1", vec![r"m:MSH|1\r", "/B 1; BTS came without BHS"]),
        ("FHS|\rMSH|1\rFTS|1", vec!["F", r"m:MSH|1\r", "/F 1"]),
        ("FHS|\rBHS|\rMSH|1\rFTS|1", vec!["F", "B", r"m:MSH|1\r", "/B 1; no BTS came; messages may be missing at the end", "/F 1"]),
        ("BHS|\rBTS|0\rFTS|1", vec!["B", "/B 0", "/F 0; FTS came without FHS; FTS-1 says 1 batch, and 0 came"]),
        ("BHS|\rEVN|1\rMSH|1\rBTS|1", vec!["B", r"s:EVN|1\r", r"m:MSH|1\r", "/B 1"]),
        ("bhs|\rmsh|1\rbts|1", vec!["B", r"m:msh|1\r", "/B 1"]),
    ] {
        assert_eq!(told(&batch_items(file.as_bytes())), want, "{file:?}");
    }
}

#[test]
fn a_message_over_the_limit_is_cut_and_the_next_one_is_whole() {
    let file = format!("MSH|1\rOBX|{}\rOBX|\rMSH|2\r{}", "x".repeat(200), "y".repeat(100));
    let mut splitter = Splitter::new(20);
    let mut found = Vec::new();
    for chunk in file.as_bytes().chunks(7) {
        splitter.push(chunk);
        found.extend(std::iter::from_fn(|| splitter.next_item()));
        assert!(splitter.buffer.len() < 40, "the limit holds for the memory too");
    }
    splitter.finish();
    found.extend(std::iter::from_fn(|| splitter.next_item()));
    assert_eq!(told(&found), [r"m:MSH|1\rOBX|xxxxxxxxxx...", r"m:MSH|2\ryyyyyyyyyyyyyy..."]);
}

#[test]
fn frames_with_several_messages_are_told_from_others() {
    for (frame, several) in [
        ("MSH|1\rPID|\r", false),
        ("MSH|1\rNTE|1||MSH|\r", false),
        ("MSH|1\rNTE|1||\rMSH - a shift of teeth\r", false),
        ("MSH|1\rOBX|1|ED|||^^^Base64^JVBE\r\nMSH/Rw0KG\r\nMSH+goAAA\r", false),
        ("MSH|1\rPID|\rMSH+^~\\&+A\r", true),
        ("\u{feff}\r\nMSH|1\r", false),
        ("MSH|1\rPID|\rMSH|2\r", true),
        ("MSH|1\rPID|\n \u{feff}msh|2\r", true),
        ("MSH|1\rPID|\r\r\nMsh|2\r", true),
        ("MSH|1\rPID|\r\x1c\rmSh|2\r", true),
        ("BHS|\rMSH|1\r", true),
        ("BTS|1\r", true),
    ] {
        assert_eq!(holds_several(frame.as_bytes()), several, "{frame:?}");
    }
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "MSH|^~", "PID|1|", "BHS|", "BTS|1", "FHS|", "FTS|x", "", "stray", "\r", "\n", "\r\n", "\u{b}", "\u{1c}", "\u{1c}\r", "\u{feff}", " ", "msh|", "ü",
    ]);
    prop::collection::vec(line, 0..30).prop_map(|lines| lines.concat().into_bytes())
}

proptest! {
    #[test]
    fn portions_never_change_what_is_found(bytes in lines(), cuts in prop::collection::vec(1usize..9, 1..40)) {
        let whole = told(&batch_items(&bytes));
        let (mut splitter, mut found, mut rest) = (Splitter::default(), Vec::new(), &bytes[..]);
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            splitter.push(head);
            found.extend(std::iter::from_fn(|| splitter.next_item()));
            rest = tail;
        }
        splitter.push(rest);
        splitter.finish();
        found.extend(std::iter::from_fn(|| splitter.next_item()));
        prop_assert_eq!(told(&found), whole);
    }

    #[test]
    fn every_line_with_text_is_in_some_piece(bytes in lines()) {
        let (mut before, mut number) = (0, 0);
        let (mut left, all) = (bytes.clone(), batch_items(&bytes));
        for piece in &all {
            if let BatchItem::Message(e) | BatchItem::Stray(e) = piece {
                prop_assert!(before <= e.range.start && e.range.start < e.range.end && e.range.end <= bytes.len() as u64);
                let range = e.range.start as usize..e.range.end as usize;
                prop_assert_eq!(&bytes[range.clone()], &e.bytes[..]);
                left[range].fill(b' ');
                number += 1;
                prop_assert_eq!(e.number, number);
                before = e.range.end;
            }
        }
        let left = String::from_utf8_lossy(&left).to_ascii_uppercase();
        let left = left.replace("\u{feff}", " ").replace(|c: char| c.is_ascii_control(), "\n");
        let lost = left.lines().map(str::trim).filter(|l| !l.is_empty() && !["BHS", "FHS", "BTS", "FTS"].iter().any(|w| l.starts_with(w))).count();
        prop_assert_eq!(lost, 0, "{:?}", left);
    }

    #[test]
    fn a_wide_text_has_the_same_pieces(bytes in lines()) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // Without a letter to begin with, nothing tells the encoding.
        let text = format!("\u{feff}{text}");
        let narrow: Vec<String> = batch_items(text.as_bytes()).iter().filter_map(text_of).collect();
        for wide in [Wide::Utf16Le, Wide::Utf16Be, Wide::Utf32Le, Wide::Utf32Be] {
            let mut encoded = Vec::new();
            wide.encode(&text, &mut encoded);
            let found: Vec<String> = batch_items(&encoded).iter().filter_map(|piece| match piece {
                BatchItem::Message(e) | BatchItem::Stray(e) => Some(wide.decode(&e.bytes).expect("whole characters")),
                _ => None,
            }).collect();
            prop_assert_eq!(&found, &narrow);
        }
    }
}

fn text_of(piece: &BatchItem) -> Option<String> {
    match piece {
        BatchItem::Message(e) | BatchItem::Stray(e) => Some(String::from_utf8_lossy(&e.bytes).into_owned()),
        _ => None,
    }
}
