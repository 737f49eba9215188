//! What a target sees: every message once, each patient in order, whatever the target does in between.

mod engine_site;

use engine_site::{Mood, Plan, adt, again, routes_text};
use kiln::exchange::{ControlId, Timestamp};
use kiln::journal::{DeliveryState, Query, Replay};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn each_patient_in_order_and_patients_in_parallel() {
    let site = Plan::new().start().await;
    site.server.delay(Duration::from_millis(2));
    let mut peer = site.connect().await;
    for n in 0..60 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{}", n % 6), &format!("N{n}"))).await;
    }
    site.until_delivered(60).await;
    for patient in 0..6 {
        let expected: Vec<String> = (0..60).filter(|n| n % 6 == patient).map(|n| format!("N{n}")).collect();
        assert_eq!(site.server.saved(&format!("P{patient}")), expected);
        assert_eq!(site.server.resources(&format!("P{patient}")), 1);
    }
    assert_eq!(site.server.overlaps(), 0);
    site.stop().await;
}

/// What a route says in `order-by` keeps the order: its values are never side by side, and what shares none of them is, also for one patient.
#[tokio::test]
async fn order_by_keeps_in_order_what_shares_its_value_and_nothing_else() {
    let mut plan = Plan::new();
    // The ward is what the route orders by; each message has a patient of its own, so that nothing else keeps two of them apart.
    plan.routes = routes_text("order-by: PV1-3.1\n");
    let site = plan.start().await;
    site.server.delay(Duration::from_millis(60));
    let mut peer = site.connect().await;
    let message = |n: usize, ward: &str| format!("{}PV1|1|I|{ward}^101^A\r", adt(&format!("C{n}"), &format!("P{n}"), &format!("N{n}")));
    let all: Vec<String> = (0..24).map(|n| message(n, &format!("W{}", n % 4))).collect();
    peer.all_accepted(&all).await;
    site.until_delivered(24).await;
    let arrived = site.server.arrived();
    for ward in 0..4 {
        let of_ward: Vec<usize> = arrived.iter().filter(|n| *n % 4 == ward).copied().collect();
        assert!(of_ward.is_sorted() && of_ward.len() == 6, "ward {ward}: {of_ward:?}");
    }
    // One of each ward at a time, and no two of one.
    assert!((2..=4).contains(&site.server.most_at_once()), "{} at once", site.server.most_at_once());
    site.stop().await;
}

/// What waits behind a dead letter is what shares a value of `order-by`, and a replay lets exactly that go on.
#[tokio::test]
async fn what_waits_behind_a_dead_letter_is_what_order_by_says() {
    let mut plan = Plan::new();
    plan.routes = routes_text("order-by: PV1-3.1\nafter-dead-letter: wait\n");
    let site = plan.start().await;
    site.server.mood(Mood::Picky);
    let mut peer = site.connect().await;
    for (n, patient, family, ward) in [(1, "1", "REFUSE", "W1"), (2, "2", "N2", "W1"), (3, "1", "N3", "W2")] {
        peer.accepted(&format!("{}PV1|1|I|{ward}^101\r", adt(&format!("C{n}"), patient, family))).await;
    }
    site.until("the ward waits, and the other one does not", |s| s.counts().parked == 1 && s.counts().delivered == 1).await;
    assert_eq!((site.server.saved("1"), site.server.saved("2")), (vec!["N3".to_owned()], Vec::new()));
    site.server.mood(Mood::Well);
    let stored = site.stored().await;
    site.engine.replay(&[stored[0].deliveries[0].id], &Replay::at(Timestamp(0))).await.expect("the journal takes it");
    site.until_delivered(3).await;
    assert_eq!(site.server.saved("2"), ["N2"]);
    site.stop().await;
}

#[tokio::test]
async fn without_a_value_for_order_by_the_identifiers_keep_the_order() {
    let mut plan = Plan::new();
    plan.routes = routes_text("order-by: PV1-3.1\n");
    let site = plan.start().await;
    site.server.delay(Duration::from_millis(5));
    let mut peer = site.connect().await;
    let all: Vec<String> = (0..30).map(|n| adt(&format!("C{n}"), &format!("P{}", n % 3), &format!("N{n}"))).collect();
    peer.all_accepted(&all).await;
    site.until_delivered(30).await;
    for patient in 0..3 {
        let expected: Vec<String> = (0..30).filter(|n| n % 3 == patient).map(|n| format!("N{n}")).collect();
        assert_eq!(site.server.saved(&format!("P{patient}")), expected);
    }
    site.stop().await;
}

#[tokio::test]
async fn a_target_that_is_down_gets_probes_and_then_everything_in_order() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    for n in 0..100 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{}", n % 10), &format!("N{n}"))).await;
    }
    site.until("the breaker is open", |s| s.counted("kiln_breaker_open{target=\"main\"} 1")).await;
    site.until("the backlog is told", |s| s.counted("kiln_backlog{target=\"main\"} 100")).await;
    assert!(site.server.requests() < 30, "a storm of {} requests at a target that is down", site.server.requests());
    assert_eq!(site.counts().dead_letters, 0);
    site.server.mood(Mood::Well);
    site.until_delivered(100).await;
    for patient in 0..10 {
        let expected: Vec<String> = (0..100).filter(|n| n % 10 == patient).map(|n| format!("N{n}")).collect();
        assert_eq!(site.server.saved(&format!("P{patient}")), expected);
    }
    site.until("the breaker is closed", |s| s.counted("kiln_breaker_open{target=\"main\"} 0")).await;
    site.stop().await;
}

#[tokio::test]
async fn a_small_window_lets_everything_through_in_order() {
    let mut plan = Plan::new();
    plan.window = 5;
    let site = plan.start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    for n in 0..50 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{}", n % 3), &format!("N{n}"))).await;
    }
    site.server.mood(Mood::Well);
    site.until_delivered(50).await;
    for patient in 0..3 {
        let expected: Vec<String> = (0..50).filter(|n| n % 3 == patient).map(|n| format!("N{n}")).collect();
        assert_eq!(site.server.saved(&format!("P{patient}")), expected);
    }
    site.stop().await;
}

#[tokio::test]
async fn after_a_dead_letter_the_patient_goes_on_or_waits_as_the_route_says() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Picky);
    let mut peer = site.connect().await;
    for (n, patient, family) in [(1, "1", "REFUSE"), (2, "1", "DOE"), (3, "2", "ROE")] {
        peer.accepted(&adt(&format!("C{n}"), patient, family)).await;
    }
    site.until_delivered(2).await;
    assert_eq!(site.counts().dead_letters, 1);
    let first = &site.stored().await[0].deliveries[0];
    assert_eq!((first.state, first.attempts.last().map(|a| a.code.as_str())), (DeliveryState::DeadLetter, Some("http-422")));
    assert_eq!(site.server.saved("1"), ["DOE"]);
    site.stop().await;

    let mut plan = Plan::new();
    plan.routes = routes_text("after-dead-letter: wait\n");
    let site = plan.start().await;
    site.server.mood(Mood::Picky);
    let mut peer = site.connect().await;
    for (n, patient, family) in [(1, "1", "REFUSE"), (2, "1", "DOE"), (3, "2", "ROE"), (4, "1", "POE")] {
        peer.accepted(&adt(&format!("C{n}"), patient, family)).await;
    }
    site.until("two are parked", |s| s.counts().parked == 2 && s.counts().delivered == 1).await;
    peer.accepted(&adt("C5", "1", "LOE")).await;
    site.until("the third is parked", |s| s.counts().parked == 3).await;
    site.until("the metric says so", |s| s.counted("kiln_parked{target=\"main\"} 3")).await;
    assert_eq!(site.server.saved("1"), [] as [&str; 0]);
    // The server's fault is mended; an operator replays the dead letter, and what waits goes on behind it.
    site.server.mood(Mood::Well);
    let stored = site.stored().await;
    site.engine.replay(&[stored[0].deliveries[0].id], &Replay::at(Timestamp(0))).await.expect("the journal takes it");
    site.until_delivered(5).await;
    assert_eq!(site.server.saved("1"), ["REFUSE", "DOE", "POE", "LOE"]);
    site.stop().await;
}

/// One patient's messages wait behind a dead letter: more of them than the window holds, and all older than the others'.
/// `KILN_WAITING=100000 cargo test --release --test engine_delivery behind` for the whole number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_patient_that_waits_behind_a_dead_letter_holds_up_nobody() {
    let waiting: usize = std::env::var("KILN_WAITING").map_or(3_000, |n| n.parse().expect("KILN_WAITING is a number"));
    let others = waiting / 10;
    let mut plan = Plan::new();
    plan.routes = routes_text("after-dead-letter: wait\n");
    plan.window = 2_000;
    let site = plan.start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    peer.accepted(&adt("DEAD", "1", "REFUSE")).await;
    peer.all_accepted(&(0..waiting).map(|n| adt(&format!("W{n}"), "1", &format!("W{n}"))).collect::<Vec<_>>()).await;
    peer.all_accepted(&(0..others).map(|n| adt(&format!("O{n}"), &format!("P{n}"), "DOE")).collect::<Vec<_>>()).await;
    let before = site.server.requests();
    site.server.mood(Mood::Picky);
    site.until("the others are delivered", |s| s.counts().delivered as usize == others).await;
    site.until("the patient's are parked", |s| s.counts().parked as usize == waiting && s.counts().backlog == 0).await;
    // Nobody asked the server about what waits: each of the others is one save, the refused one at most a few, since it is probed.
    let asked = site.server.requests() - before;
    assert!(asked <= 2 * others + 50, "{asked} requests for {others} deliveries");
    // Who is parked has left the window for good: it was written down once, and is not read with what comes later.
    assert_eq!(site.journal.pending("main", None, 10).await.expect("the journal can be read"), []);
    let last = site.journal.search(Query { control_id: Some(ControlId(format!("W{}", waiting - 1))), ..Query::default() }).await.expect("a search");
    let record = site.journal.show(last[0].id).await.expect("it is there");
    assert_eq!(record.deliveries[0].attempts.iter().map(|a| a.outcome).collect::<Vec<_>>(), ["parked"]);
    let reads = site.journal.reads();
    for n in 0..100 {
        peer.accepted(&adt(&format!("L{n}"), &format!("L{n}"), "DOE")).await;
    }
    site.until_delivered((others + 100) as u64).await;
    // A page, a payload, what is known of the identity (twice): the same few looks into the journal as if nobody were parked.
    let reads = site.journal.reads() - reads;
    assert!(reads <= 100 * 12, "{reads} reads for 100 deliveries");
    // An operator replays the dead letter; what waited comes behind it, in order.
    site.server.mood(Mood::Well);
    let dead = site.journal.newest_dead_letter("main").await.expect("the journal can be read").expect("there is one");
    let dead = site.journal.show(dead).await.expect("it is there").deliveries[0].id;
    site.engine.replay(&[dead], &Replay::at(Timestamp(0))).await.expect("the journal takes it");
    site.until_delivered((waiting + 1 + others + 100) as u64).await;
    let saved = site.server.saved("1");
    assert_eq!(saved.len(), waiting + 1);
    assert!(saved[0] == "REFUSE" && saved[1..].iter().enumerate().all(|(n, family)| *family == format!("W{n}")), "the order was lost");
    site.stop().await;
}

#[tokio::test]
async fn a_target_that_says_when_to_come_again_is_left_alone_until_then() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Busy);
    let mut peer = site.connect().await;
    for n in 0..50 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{n}"), "DOE")).await;
    }
    site.until("the breaker is open", |s| s.counted("kiln_breaker_open{target=\"main\"} 1")).await;
    site.until("it was asked again", |s| s.server.pauses().iter().any(|pause| *pause >= Duration::from_secs(1))).await;
    // What was under way when the first answer came is no storm; after it there is one probe, and not before its time.
    let pauses = site.server.pauses();
    let asked_again = pauses.iter().position(|pause| *pause >= Duration::from_secs(1)).expect("there is one");
    assert!(pauses[asked_again] >= Duration::from_millis(1_900), "{:?}", pauses[asked_again]);
    assert!(asked_again < 30, "{asked_again} requests before the target was left alone");
    assert_eq!(site.counts().dead_letters, 0);
    site.server.mood(Mood::Well);
    site.until_delivered(50).await;
    site.stop().await;
}

#[tokio::test]
async fn a_route_that_says_for_how_long_gives_up_after_that() {
    let mut plan = Plan::new();
    plan.routes = routes_text("retry: { for: 1s }\n");
    let site = plan.start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    peer.accepted(&adt("C1", "1", "DOE")).await;
    site.until("it is given up", |s| s.counts().dead_letters == 1).await;
    let stored = site.stored().await;
    let attempts = &stored[0].deliveries[0].attempts;
    let last = attempts.last().expect("there was an attempt");
    assert_eq!((last.outcome, last.code.as_str()), ("dead-letter", "http-503"));
    assert!(last.summary.starts_with(&format!("given up after {} attempts in 1 s", attempts.len())), "{}", last.summary);
    assert!(attempts.len() > 1, "it was tried again before that");
    site.stop().await;
}

#[tokio::test]
async fn a_stored_message_that_is_damaged_is_given_up_and_the_rest_goes_on() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    for (n, patient) in [(1, "1"), (2, "1"), (3, "2")] {
        peer.accepted(&adt(&format!("C{n}"), patient, &format!("N{n}"))).await;
    }
    let (_, folder, server) = site.stop().await;
    let segment = folder.path().join(format!("journal/segment-{:020}.db", 1));
    let database = rusqlite::Connection::open(segment).expect("it is a database");
    assert_eq!(database.execute("UPDATE message SET payload = x'FF00' WHERE control_id = 'C1'", []).expect("a change"), 1);
    drop(database);
    server.mood(Mood::Well);
    let site = again(&folder, &server).start().await;
    site.until_delivered(2).await;
    assert_eq!((site.counts().dead_letters, server.saved("1"), server.saved("2")), (1, vec!["N2".to_owned()], vec!["N3".to_owned()]));
    let dead = site.journal.newest_dead_letter("main").await.expect("the journal can be read");
    assert!(dead.is_some());
    site.stop().await;
}

#[tokio::test]
async fn what_names_too_many_patients_to_be_ordered_is_given_up() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    let many: String = (0..1_500).map(|n| format!("PID|1||M{n}^^^HOSP\r")).collect();
    peer.accepted(&format!("{}{many}", adt("C1", "1", "DOE"))).await;
    peer.accepted(&adt("C2", "1", "ROE")).await;
    site.until_delivered(1).await;
    assert_eq!(site.counts().dead_letters, 1);
    let stored = site.stored().await;
    let last = stored[0].deliveries[0].attempts.last().expect("there was an attempt");
    assert!(last.code == "too-large" && last.summary.contains("1000 patients"), "{last:?}");
    site.stop().await;
}

#[tokio::test]
async fn a_message_that_makes_nothing_says_nothing_about_the_target() {
    let mut plan = Plan::new();
    plan.routes = routes_text("").replace("$map: PID -> Patient,", "$map: PID -> Patient, $missing: skip,");
    let site = plan.start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    for n in 0..3 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{n}"), "DOE")).await;
    }
    site.until("the breaker is open", |s| s.counted("kiln_breaker_open{target=\"main\"} 1")).await;
    peer.accepted("MSH|^~\\&|A|B|C|D|2026||ADT^A08|C3|P|2.5\rPID|1||||DOE^JOHN\r").await;
    site.until("the empty one is settled", |s| s.counts().delivered == 1).await;
    assert!(site.counted("kiln_breaker_open{target=\"main\"} 1"), "the breaker closed although nobody asked the target");
    site.server.mood(Mood::Well);
    site.until_delivered(4).await;
    site.stop().await;
}

#[tokio::test]
async fn what_a_route_cannot_fill_is_a_dead_letter_that_names_the_field() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    peer.accepted("MSH|^~\\&|A|B|C|D|2026||ADT^A08|C1|P|2.5\rPID|1||||DOE^JOHN\r").await;
    site.until("it is given up", |s| s.counts().dead_letters == 1).await;
    let stored = site.stored().await;
    let attempt = stored[0].deliveries[0].attempts.last().expect("there was an attempt");
    assert!(attempt.summary.contains("PID-3") && !attempt.summary.contains("DOE"), "{}", attempt.summary);
    site.stop().await;
}

#[tokio::test]
async fn one_refusal_of_all_messages_is_the_targets_fault() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Against);
    let mut peer = site.connect().await;
    for n in 0..40 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{n}"), "DOE")).await;
    }
    site.until("the breaker opens", |s| s.counted("kiln_breaker_open{target=\"main\"} 1")).await;
    assert_eq!(site.counts().dead_letters, 19, "the twentieth opened the breaker");
    site.server.mood(Mood::Well);
    site.until_delivered(21).await;
    site.stop().await;
}

#[tokio::test]
async fn an_answer_that_never_came_makes_no_second_resource() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Mute);
    let mut peer = site.connect().await;
    peer.accepted(&adt("C1", "1", "DOE")).await;
    peer.accepted(&adt("C2", "1", "ROE")).await;
    site.until_delivered(2).await;
    assert_eq!(site.server.resources("1"), 1);
    assert_eq!(site.server.saved("1").last().map(String::as_str), Some("ROE"));
    let stored = site.stored().await;
    assert!(stored[0].deliveries[0].attempts.len() > 1, "the first attempt had no answer");
    site.stop().await;
}

#[tokio::test]
async fn a_restart_resumes_what_was_pending_and_keeps_its_order() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    for n in 0..20 {
        peer.accepted(&adt(&format!("C{n}"), &format!("P{}", n % 2), &format!("N{n}"))).await;
    }
    let (stopped, folder, server) = site.stop().await;
    assert!(stopped.answered && stopped.delivered);
    server.mood(Mood::Well);
    let site = again(&folder, &server).start().await;
    site.until_delivered(20).await;
    for patient in 0..2 {
        let expected: Vec<String> = (0..20).filter(|n| n % 2 == patient).map(|n| format!("N{n}")).collect();
        assert_eq!(server.saved(&format!("P{patient}")), expected);
    }
    site.stop().await;
}

#[tokio::test]
async fn one_identity_is_never_in_two_open_requests_even_where_no_order_key_is_common() {
    let site = Plan::new().start().await;
    site.server.delay(Duration::from_millis(20));
    let mut peer = site.connect().await;
    // The test's map gives all authorities one system: other keys, the same identity.
    for n in 0..24 {
        peer.accepted(&adt(&format!("C{n}"), "1", &format!("N{n}")).replace("1^^^HOSP", &format!("1^^^A{n}"))).await;
    }
    site.until_delivered(24).await;
    assert_eq!((site.server.overlaps(), site.server.resources("1")), (0, 1));
    site.stop().await;
}

#[tokio::test]
async fn a_route_set_is_swapped_whole_unless_it_would_orphan_what_waits() {
    let site = Plan::new().start().await;
    site.server.mood(Mood::Down);
    let mut peer = site.connect().await;
    // With the breaker open from the first message on, the second was never tried and has no route set yet.
    for n in 0..20 {
        peer.accepted(&adt(&format!("C{n}"), "1", &format!("N{n}"))).await;
    }
    let other = routes_text("").replace("route: adt", "route: other");
    let refused = site.engine.apply(engine_site::load(&other)).await.expect_err("deliveries of the route wait");
    assert!(refused.to_string().starts_with("route adt is gone, but 1") && refused.to_string().contains(" of its deliveries to main wait"), "{refused}");
    let changed = routes_text("").replace("name: PID-5", "name: { family: \"NEW\" }");
    site.engine.apply(engine_site::load(&changed)).await.expect("the set is good");
    site.server.mood(Mood::Well);
    site.until_delivered(20).await;
    // The first was tried with the old set and keeps it; the others take the new one.
    let saved = site.server.saved("1");
    assert_eq!((saved.first().map(String::as_str), saved.get(1).map(String::as_str), saved.len()), (Some("N0"), Some("NEW"), 20));
    site.engine.apply(engine_site::load(&other)).await.expect("nothing waits any more");
    assert!(site.counted("kiln_route_set_reloads_total{result=\"refused\"} 1"), "{}", site.metrics.encode());
    site.stop().await;
}

#[tokio::test]
async fn dead_letters_and_what_is_parked_behind_them_hold_up_no_change_and_are_made_by_the_last_set_that_had_their_route() {
    let mut plan = Plan::new();
    plan.routes = routes_text("after-dead-letter: wait\n");
    let site = plan.start().await;
    site.server.mood(Mood::Picky);
    let mut peer = site.connect().await;
    for (n, family) in [(1, "REFUSE"), (2, "DOE"), (3, "ROE")] {
        peer.accepted(&adt(&format!("C{n}"), "1", family)).await;
    }
    site.until("two are parked", |s| s.counts().parked == 2).await;
    let other = routes_text("").replace("route: adt", "route: other");
    site.engine.apply(engine_site::load(&other)).await.expect("nothing is under way");
    assert_eq!((site.counts().parked, site.counts().dead_letters), (2, 1), "they wait for an operator, as before");
    // The journal knows after a restart, too, which set had the route.
    let (_, folder, server) = site.stop().await;
    let site = Plan { routes: other, ..engine_site::again(&folder, &server) }.start().await;
    site.server.mood(Mood::Well);
    let dead = site.stored().await[0].deliveries[0].id;
    site.engine.replay(&[dead], &Replay::at(Timestamp(0))).await.expect("the journal takes it");
    site.until_delivered(3).await;
    assert_eq!(site.server.saved("1"), ["REFUSE", "DOE", "ROE"]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_never_goes_between_the_look_at_it_and_the_storing() {
    let site = Plan::new().start().await;
    let (adt_route, other) = (routes_text(""), routes_text("").replace("route: adt", "route: other"));
    let mut peer = site.connect().await;
    let messages: Vec<String> = (0..2_000).map(|n| adt(&format!("C{n}"), &format!("P{n}"), "DOE")).collect();
    let (swaps, sent) = (AtomicUsize::new(0), AtomicBool::new(false));
    // One route takes the place of the other again and again, as soon as nothing waits for it, and so also while the next message is judged.
    let change = async {
        while !sent.load(Ordering::Relaxed) {
            let next = if swaps.load(Ordering::Relaxed) % 2 == 0 { &other } else { &adt_route };
            let applied = site.engine.apply(engine_site::load(next)).await;
            swaps.fetch_add(usize::from(applied.is_ok()), Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let send = async {
        for some in messages.chunks(20) {
            let before = swaps.load(Ordering::Relaxed);
            peer.all_accepted(some).await;
            site.until("a swap", |_| swaps.load(Ordering::Relaxed) > before).await;
        }
        sent.store(true, Ordering::Relaxed);
    };
    tokio::join!(send, change);
    site.until_delivered(2_000).await;
    assert_eq!(site.counts().dead_letters, 0, "a delivery found its route gone");
    site.stop().await;
}

#[tokio::test]
async fn what_has_been_kept_for_long_enough_goes_by_itself_and_what_waits_stays() {
    let mut plan = Plan::new();
    (plan.keep, plan.prune_every) = (Duration::from_millis(300), Duration::from_millis(50));
    let site = plan.start().await;
    let mut peer = site.connect().await;
    site.server.mood(Mood::Picky);
    for (n, patient, family) in [(1, "1", "DOE"), (2, "2", "REFUSE"), (3, "3", "ROE")] {
        peer.accepted(&adt(&format!("C{n}"), patient, family)).await;
    }
    site.until("what is settled has gone", |s| s.counts().delivered == 0 && s.counts().dead_letters == 1).await;
    let left = site.stored().await;
    assert_eq!(left.iter().map(|m| m.envelope.control_id.0.as_str()).collect::<Vec<_>>(), ["C2"]);
    // New ones are taken as before, and what was carried over can be replayed.
    site.server.mood(Mood::Well);
    peer.accepted(&adt("C4", "4", "POE")).await;
    site.engine.replay(&[left[0].deliveries[0].id], &Replay::at(Timestamp(0))).await.expect("the journal takes it");
    site.until("the replayed one is saved", |s| s.server.saved("2").contains(&"REFUSE".to_owned())).await;
    site.stop().await;
}
