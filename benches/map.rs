//! An ADT and a SIU message to Bundle JSON with the shipped routes, parse included; alone, and beside many routes and maps that are not theirs.

mod site;

use bytes::Bytes;
use kiln::exchange::{MessageId, Timestamp};
use kiln::hl7v2::{Message, ParseOptions};
use kiln::route::{Context, LoadOptions, load};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

#[divan::bench(args = ["fixtures/try/01-admit.hl7", "fixtures/try/06-book.hl7"])]
fn to_bundle_json(bencher: divan::Bencher, path: &str) {
    run(bencher, path, (0, 0));
}

/// The same, where a site has 650 routes for other messages and 2,000 maps.
#[divan::bench(args = ["fixtures/try/01-admit.hl7", "fixtures/try/06-book.hl7"])]
fn among_others(bencher: divan::Bencher, path: &str) {
    run(bencher, path, (650, 2000));
}

fn run(bencher: divan::Bencher, path: &str, (routes, maps): (usize, usize)) {
    let set = load(site::sources(routes, maps), &LoadOptions::default()).set.expect("the routes have no errors");
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
