//! Files, batches and rows of messages in one frame, over a real socket: each message alone in the journal, and the answer that the listener chose.

mod engine_site;

use engine_site::{Plan, Site, adt};
use kiln::journal::Disposition;
use kiln::site::BatchAnswer;

const HEAD: &str = "|^~\\&|ADT1|HOSP|KILN|HERE|20260309||name||";

async fn site(manner: BatchAnswer) -> Site {
    let mut plan = Plan::new();
    plan.site.batch = manner;
    plan.start().await
}

/// An answer by its lines, without Kiln's own times and control IDs.
fn shape(answer: &str) -> Vec<String> {
    let own = |line: &str| {
        let mut fields: Vec<&str> = line.split('|').collect();
        let places: &[usize] = match fields[0] {
            "MSH" => &[6, 9],
            "BHS" | "FHS" => &[6, 10],
            _ => &[],
        };
        for n in places {
            if let Some(field) = fields.get_mut(*n) {
                assert!(!field.is_empty(), "{line}");
                *field = "*";
            }
        }
        fields.join("|")
    };
    answer.split_terminator('\r').map(own).collect()
}

/// Control IDs in the order of storing.
async fn stored(site: &Site) -> Vec<String> {
    site.stored().await.into_iter().map(|m| m.envelope.control_id.0).collect()
}

#[tokio::test]
async fn a_batch_is_answered_by_a_batch_and_each_message_is_one_of_its_own() {
    let site = site(BatchAnswer::All).await;
    let mut peer = site.connect().await;
    let bad = "MSH|^~\\&|ADT1|HOSP|KILN|HERE|2026|||C2|P|2.5.1\r";
    let batch = format!("BHS{HEAD}B1\r{}{bad}{}BTS|3\r", adt("C1", "1", "DOE"), adt("C3", "2", "ROE"));
    let expected = [
        r"BHS|^~\&|KILN|HERE|ADT1|HOSP|*||||*|B1",
        r"MSH|^~\&|KILN|HERE|ADT1|HOSP|*||ACK^A08^ACK|*|P|2.5.1",
        "MSA|AA|C1",
        r"MSH|^~\&|KILN|HERE|ADT1|HOSP|*||ACK|*|P|2.5.1",
        "MSA|AR|C2",
        "ERR||MSH^1^9|200^Unsupported message type^HL70357|E||||MSH-9 (message type) is empty",
        r"MSH|^~\&|KILN|HERE|ADT1|HOSP|*||ACK^A08^ACK|*|P|2.5.1",
        "MSA|AA|C3",
        "BTS|3",
    ];
    assert_eq!(shape(&peer.ask(&batch).await), expected);
    let messages = site.stored().await;
    assert_eq!(messages.iter().map(|m| m.envelope.control_id.0.as_str()).collect::<Vec<_>>(), ["C1", "C2", "C3"]);
    assert_eq!(messages[0].envelope.bytes.expose().as_ref(), adt("C1", "1", "DOE").as_bytes(), "byte for byte, without the batch around it");
    assert!(matches!(messages[1].disposition, Disposition::Refused { code: 200, .. }));
    site.until_delivered(2).await;
    // Sent again, each message is a duplicate that gets its acknowledgement again.
    assert_eq!(shape(&peer.ask(&batch).await)[2], "MSA|AA|C1");
    assert!(site.counted("kiln_duplicates_total{listener=\"adt\"} 2"), "{}", site.metrics.encode());
    site.stop().await;
}

#[tokio::test]
async fn a_file_of_batches_is_answered_by_a_file_and_wrong_counts_are_told() {
    let site = site(BatchAnswer::All).await;
    let mut peer = site.connect().await;
    let file =
        format!("FHS{HEAD}F1\rBHS{HEAD}B1\r{}BTS|2\rBHS{HEAD}B2\r{}{}BTS|2\rFTS|3\r", adt("C1", "1", "DOE"), adt("C2", "1", "DOE"), adt("C3", "2", "ROE"));
    let lines: Vec<String> = shape(&peer.ask(&file).await).into_iter().filter(|l| !l.starts_with("MSH")).collect();
    let expected = [
        r"FHS|^~\&|KILN|HERE|ADT1|HOSP|*|||FTS-1 says 3 batches, and 2 came|*|F1",
        r"BHS|^~\&|KILN|HERE|ADT1|HOSP|*|||BTS-1 says 2 messages, and 1 came|*|B1",
        "MSA|AA|C1",
        "BTS|1|BTS-1 says 2 messages, and 1 came",
        r"BHS|^~\&|KILN|HERE|ADT1|HOSP|*||||*|B2",
        "MSA|AA|C2",
        "MSA|AA|C3",
        "BTS|2",
        "FTS|2|FTS-1 says 3 batches, and 2 came",
    ];
    assert_eq!(lines, expected);
    assert!(site.counted("kiln_findings_total{kind=\"batch-count\"} 2"), "{}", site.metrics.encode());
    site.stop().await;
}

#[tokio::test]
async fn errors_alone_or_single_acknowledgements_where_the_listener_says_so() {
    let bad = "MSH|^~\\&|ADT1|HOSP|KILN|HERE|2026|||C2|P|2.5.1\r";
    let errors = site(BatchAnswer::Errors).await;
    let mut peer = errors.connect().await;
    let batch = |inner: &str| format!("BHS{HEAD}B1\r{inner}BTS|\r");
    let answer = shape(&peer.ask(batch(&(adt("C1", "1", "DOE") + bad))).await);
    assert_eq!(answer.iter().filter(|l| l.starts_with("MSA")).collect::<Vec<_>>(), ["MSA|AR|C2"]);
    assert_eq!(answer.last().map(String::as_str), Some("BTS|1"));
    let answer = shape(&peer.ask(batch(&adt("C3", "1", "DOE"))).await);
    assert_eq!(answer, [r"BHS|^~\&|KILN|HERE|ADT1|HOSP|*||||*|B1", "BTS|0"], "an empty batch says that all are accepted");
    errors.stop().await;

    let single = site(BatchAnswer::Single).await;
    let mut peer = single.connect().await;
    assert_eq!(shape(&peer.ask(batch(&(adt("C1", "1", "DOE") + bad))).await)[1], "MSA|AA|C1");
    assert_eq!(shape(&peer.receive().await.expect("a second answer comes"))[1], "MSA|AR|C2");
    assert_eq!(stored(&single).await, ["C1", "C2"]);
    single.stop().await;
}

#[tokio::test]
async fn messages_in_a_row_in_one_frame_are_messages_of_their_own() {
    let site = site(BatchAnswer::All).await;
    let mut peer = site.connect().await;
    assert_eq!(shape(&peer.ask(adt("C1", "1", "DOE") + "\r\n" + &adt("C2", "2", "ROE")).await)[1], "MSA|AA|C1");
    assert_eq!(shape(&peer.receive().await.expect("a second answer comes"))[1], "MSA|AA|C2");
    site.until_delivered(2).await;
    assert_eq!((site.server.saved("1"), site.server.saved("2")), (vec!["DOE".to_owned()], vec!["ROE".to_owned()]), "no patient got another's data");
    assert!(site.counted("kiln_tolerated_total{listener=\"adt\",switch=\"concatenated\"} 1"), "{}", site.metrics.encode());
    site.stop().await;

    let mut plan = Plan::new();
    plan.site.tolerate.concatenated = false;
    let strict = plan.start().await;
    let mut peer = strict.connect().await;
    let ack = peer.ask(adt("C1", "1", "DOE") + &adt("C2", "2", "ROE")).await;
    assert!(ack.contains("MSA|AR|C1") && ack.contains("MSH^2") && ack.contains("tolerate: concatenated"), "{}", ack.escape_debug());
    assert_eq!(strict.stored().await.len(), 1);
    strict.stop().await;
}

#[tokio::test]
async fn a_batch_of_acknowledgements_gets_none() {
    let site = site(BatchAnswer::All).await;
    let mut peer = site.connect().await;
    peer.send(format!("BHS{HEAD}B1\rMSH|^~\\&|A|B|C|D|2026||ACK|1|P|2.5\rMSA|AA|77\rBTS|1\r").as_bytes()).await;
    peer.accepted(&adt("C1", "1", "DOE")).await;
    assert_eq!(site.stored().await.len(), 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_a_connection_keep_the_order_of_their_messages_and_of_the_next_frame() {
    let site = site(BatchAnswer::All).await;
    let mut peer = site.connect().await;
    let mut expected = Vec::new();
    for round in 0..3 {
        // A short frame, of which all messages are under way at once, and a long one.
        for size in [300, 2_000] {
            let ids: Vec<String> = (0..size).map(|n| format!("R{round}S{size}N{n}")).collect();
            let messages: String = ids.iter().map(|id| adt(id, "1", "DOE")).collect();
            peer.send(format!("BHS{HEAD}B\r{messages}BTS|{size}\r").as_bytes()).await;
            peer.send(adt(&format!("R{round}S{size}"), "1", "DOE").as_bytes()).await;
            expected.extend(ids);
            expected.push(format!("R{round}S{size}"));
        }
    }
    for n in 0..12 {
        let answer = peer.receive().await.expect("the connection is open");
        assert_eq!(answer.matches("MSA|AA|").count(), [300, 1, 2_000, 1][n % 4]);
    }
    assert_eq!(stored(&site).await, expected);
    site.stop().await;
}
