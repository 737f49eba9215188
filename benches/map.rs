//! An ADT, a SIU and ORU messages to Bundle JSON with the shipped routes, parse included; alone, and beside many routes and maps that are not theirs.

mod site;

use bytes::Bytes;
use kiln::exchange::{MessageId, Timestamp};
use kiln::fhir::Json;
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

/// A report with so many numeric results, each with code, value, unit, reference range and observer (HL7 chapter 7, sections 7.3.1 and 7.4.2).
#[divan::bench(args = [20, 200, 2000])]
fn report(bencher: divan::Bencher, results: usize) {
    let mut text = "MSH|^~\\&|LAB|HAFENKLINIK|KILN|KILN|20260302081500+0100||ORU^R01^ORU_R01|NL-200|P|2.5.1|||AL|NE|DEU|UNICODE UTF-8\r\
         PID|1||70012^^^HAFENKLINIK^MR||Kiesel^Petronella||19610412|F\r\
         PV1|1|I|CHIR^12^A^HAFENKLINIK||||||||||||||||V-2026-0815^^^HAFENKLINIK^VN\r\
         ORC|RE|P1^KIS|F1^LAB\r\
         OBR|1|P1^KIS|F1^LAB|24323-8^Comprehensive metabolic panel^LN|||20260302080000+0100|||||||||||||||20260302081500+0100||CH|F\r"
        .to_owned();
    for n in 1..=results {
        let flag = if n % 7 == 0 { "H" } else { "N" };
        text += &format!(
            "OBX|{n}|NM|{}-{}^Analyte {n}^LN||{}.{}|mmol/L^millimole per liter^UCUM|3.5-5.1|{flag}|||F|||20260302081500+0100||\
             9001^Lampe^Ferdinand^^^^^^HAFENKLINIK\r",
            2000 + n,
            n % 10,
            n % 90,
            n % 10
        );
    }
    run_bytes(bencher, Bytes::from(text), (0, 0));
}

fn run(bencher: divan::Bencher, path: &str, others: (usize, usize)) {
    run_bytes(bencher, Bytes::from(std::fs::read(path).expect("the fixture is here")), others);
}

fn run_bytes(bencher: divan::Bencher, bytes: Bytes, (routes, maps): (usize, usize)) {
    let set = load(site::sources(routes, maps), &LoadOptions::default()).set.expect("the routes have no errors");
    let context = Context { received: Timestamp(0), zone: None, authority: None, message: MessageId(1), listener: "bench", answers: kiln::fhir::Answers::NONE };
    bencher.bench(|| {
        let message = Message::parse(bytes.clone(), &ParseOptions::default()).expect("the fixture parses");
        let route = set.matching("bench", &message).taken[0];
        let output = set.run(route, &message, &context).unwrap_or_else(|_| panic!("the fixture maps"));
        let mut json = Json::with_capacity(16 * 1024);
        for save in &output.saves.entries {
            save.body.write(&mut json, &|n| format!("urn:uuid:{n}"));
        }
        json.len()
    });
}
