//! Any bytes, cut anywhere: the messages of a file are in order, not empty, and inside it, and the cuts never change what is found.
#![no_main]

use kiln::hl7v2::{BatchItem, Splitter, batch_items, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let mut before = 0;
    for range in split(&bytes) {
        assert!(before <= range.start && range.start < range.end && range.end <= bytes.len());
        before = range.end;
    }
    let (mut splitter, mut found, mut rest) = (Splitter::default(), Vec::new(), &bytes[..]);
    for cut in cuts {
        let (head, tail) = rest.split_at(usize::from(cut).min(rest.len()));
        splitter.push(head);
        found.extend(std::iter::from_fn(|| splitter.next_item()));
        rest = tail;
    }
    splitter.push(rest);
    splitter.finish();
    found.extend(std::iter::from_fn(|| splitter.next_item()));
    assert_eq!(found.iter().map(shape).collect::<Vec<_>>(), batch_items(&bytes).iter().map(shape).collect::<Vec<_>>());
});

fn shape(item: &BatchItem) -> String {
    match item {
        BatchItem::Opened(wrapper, header) => format!("{wrapper:?} {}", header.is_some()),
        BatchItem::Message(extract) => format!("message {:?}", extract.range),
        BatchItem::Stray(extract) => format!("stray {:?}", extract.range),
        BatchItem::Closed(closed) => format!("{:?} {:?} {} {:?}", closed.wrapper, closed.stated, closed.counted, closed.flaws),
    }
}
