//! An ADT and a SIU message to Bundle JSON with the shipped routes, parse included.

use bytes::Bytes;
use kiln::diagnostic::Sources;
use kiln::exchange::{MessageId, Timestamp};
use kiln::hl7v2::{Message, ParseOptions};
use kiln::route::{Context, LoadOptions, RouteSet, load};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn shipped() -> Arc<RouteSet> {
    let mut sources = Sources::default();
    add(&mut sources, std::path::Path::new("routes"));
    load(sources, &LoadOptions::default()).set.expect("the shipped routes have no errors")
}

fn add(sources: &mut Sources, folder: &std::path::Path) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).expect("routes are here").filter_map(Result::ok).map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            add(sources, &path);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            sources.add_shipped(path.to_string_lossy(), std::fs::read_to_string(&path).expect("a route file is text"));
        }
    }
}

/// The message of 1.2 KB that the parser's benchmark uses, too.
#[divan::bench(args = ["fixtures/try/01-admit.hl7", "fixtures/try/06-book.hl7"])]
fn to_bundle_json(bencher: divan::Bencher, path: &str) {
    let set = shipped();
    let bytes = Bytes::from(std::fs::read(path).expect("the fixture is here"));
    let context = Context { received: Timestamp(0), zone: None, authority: None, message: MessageId(1), listener: "bench" };
    bencher.bench(|| {
        let message = Message::parse(bytes.clone(), &ParseOptions::default()).expect("the fixture parses");
        let route = set.matching("bench", &message).taken[0];
        let output = set.run(route, &message, &context).unwrap_or_else(|_| panic!("the fixture maps"));
        let mut json = Vec::with_capacity(16 * 1024);
        for save in &output.saves.entries {
            save.body.write(&mut json, &|n| format!("urn:uuid:{n}"));
        }
        json.len()
    });
}
