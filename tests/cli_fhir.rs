//! `kiln fhir`, `kiln jwks` and `kiln check --online` against servers that page, refuse, and cannot do what routes want.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod cli_support;
mod security_support;

use cli_support::{Daemon, Ran, get, kiln, run, wait_for};
use security_support::{Authority, Front, Node, file};
use serde_json::{Value, json};
use std::path::Path;
use wiremock::matchers::{body_string_contains, header, method, path, query_param};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

fn fhir(status: u16, body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body.to_string(), "application/fhir+json")
}

fn patients(ids: std::ops::Range<u32>) -> Vec<Value> {
    ids.map(|n| json!({"resource": {"resourceType": "Patient", "id": format!("p{n}")}, "search": {"mode": "match"}})).collect()
}

/// Runs kiln beside the runtime that has the mock servers.
async fn kiln_in(folder: &Path, args: &[&str]) -> Ran {
    let mut command = kiln(folder);
    command.args(args);
    tokio::task::spawn_blocking(move || Ran::of(command.output().expect("the binary starts"))).await.expect("no panic")
}

fn ids(out: &str) -> Vec<String> {
    out.lines().map(|l| serde_json::from_str::<Value>(l).expect("a line of JSON")["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_follows_next_links_with_the_targets_credentials() {
    let server = MockServer::start().await;
    let base = format!("{}/r4", server.uri());
    let bundle = |entries: Vec<Value>, next: Option<&str>| {
        let link: Vec<Value> = next.iter().map(|url| json!({"relation": "next", "url": url})).collect();
        fhir(200, &json!({"resourceType": "Bundle", "type": "searchset", "total": 5, "link": link, "entry": entries}))
    };
    let included = json!({"resource": {"resourceType": "Organization", "id": "o1"}, "search": {"mode": "include"}});
    let first = [patients(0..2), vec![included]].concat();
    // The server thinks that it is called otherwise; its links are followed all the same.
    Mock::given(method("POST"))
        .and(path("/r4/Patient/_search"))
        .and(body_string_contains("name=Meier&_sort=birthdate&_count=200"))
        .and(header("authorization", "Bearer t-PLANTED"))
        .respond_with(bundle(first, Some("http://inside.example:8080/r4?_getpages=a&n=2")))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/r4"))
        .and(query_param("n", "2"))
        .and(header("authorization", "Bearer t-PLANTED"))
        .respond_with(bundle(patients(2..4), Some(&format!("{base}?_getpages=a&n=4"))))
        .mount(&server)
        .await;
    Mock::given(method("GET")).and(query_param("n", "4")).respond_with(bundle(patients(4..5), None)).mount(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    file(folder.path(), "token", "t-PLANTED\n");
    file(folder.path(), "kiln.yaml", &format!("targets:\n  main: {{ fhir: {base}, auth: {{ bearer: {{ file: token }} }} }}\n  disk: {{ folder: out }}\n"));
    let query = ["fhir", "search", "main", "Patient?name=Meier", "_sort=birthdate"];
    let all = kiln_in(folder.path(), &[&query[..], &["--all", "--ndjson"]].concat()).await.expect(0);
    assert_eq!(ids(&all.out), ["p0", "p1", "o1", "p2", "p3", "p4"]);
    assert_eq!(all.err, "");
    // One Bundle, cut where it was asked to be; what was included does not count.
    let four = kiln_in(folder.path(), &[&query[..], &["--limit", "4", "--page", "200"]].concat()).await.expect(2);
    assert!(four.err.contains("404") && four.out.is_empty(), "with `_count=4` this server has no answer: {}", four.err);
    let cut = kiln_in(folder.path(), &["fhir", "search", "main", "Patient?name=Meier&_sort=birthdate&_count=200", "--limit", "3"]).await.expect(0);
    let cut: Value = serde_json::from_str(&cut.out).expect("a Bundle");
    assert_eq!((cut["total"].clone(), cut["entry"].as_array().map(Vec::len)), (json!(5), Some(4)));
    // What is no FHIR server, and what is no target.
    let disk = kiln_in(folder.path(), &["fhir", "search", "disk", "Patient"]).await.expect(2);
    assert!(disk.err.contains("`disk` is no FHIR server; FHIR servers here: main"), "{}", disk.err);
    kiln_in(folder.path(), &["fhir", "get", "nowhere", "Patient/1"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_next_links_is_paged_by_offset_and_one_that_ignores_it_is_told() {
    let server = MockServer::start().await;
    let answer = |request: &Request| {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let number = |key: &str| form.split('&').find_map(|p| p.strip_prefix(key)).and_then(|n| n.parse::<u32>().ok());
        let knows = request.url.path().starts_with("/good");
        let from = if knows { number("_offset=").unwrap_or(0) } else { 0 };
        let to = (from + number("_count=").expect("a count")).min(7);
        fhir(200, &json!({"resourceType": "Bundle", "type": "searchset", "entry": patients(from..to)}))
    };
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (good, bad) = (format!("{}/good", server.uri()), format!("{}/bad", server.uri()));
    let all = kiln_in(folder.path(), &["fhir", "search", &good, "Patient", "--all", "--page", "3", "--ndjson"]).await.expect(0);
    assert_eq!(ids(&all.out).len(), 7, "{}", all.out);
    let exact = kiln_in(folder.path(), &["fhir", "search", &good, "Patient", "--all", "--page", "7", "--ndjson"]).await.expect(0);
    assert_eq!(ids(&exact.out).len(), 7, "{}", exact.out);
    let cut = kiln_in(folder.path(), &["fhir", "search", &bad, "Patient", "--all", "--page", "3", "--ndjson"]).await.expect(1);
    assert_eq!(ids(&cut.out).len(), 3);
    assert!(cut.err.contains("only the first 3 could be read") && cut.err.contains("no `_offset`"), "{}", cut.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_link_to_another_server() {
    let server = MockServer::start().await;
    let page = json!({"resourceType": "Bundle", "type": "searchset", "link": [{"relation": "next", "url": "http://elsewhere.example/steal"}], "entry": patients(0..1)});
    Mock::given(method("POST")).respond_with(fhir(200, &page)).mount(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ran = kiln_in(folder.path(), &["fhir", "search", &format!("{}/r4", server.uri()), "Patient", "--all"]).await.expect(1);
    assert!(ran.err.contains("leads to another server"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_exits_1_and_who_is_not_there_exits_2() {
    let Some(server) = Node::start("fhir-server", &[]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let client = reqwest::Client::new();
    let put = client.put(format!("{}/Patient/abc", server.url)).header("content-type", "application/fhir+json");
    let made = put.body(json!({"resourceType": "Patient", "id": "abc", "gender": "female"}).to_string()).send().await.expect("an answer");
    assert!(made.status().is_success());
    let id = made.json_id().await;
    let reference = format!("Patient/{id}");
    let got = kiln_in(folder.path(), &["fhir", "get", &server.url, &reference]).await.expect(0);
    assert!(got.out.contains("\n  \"gender\": \"female\""), "{}", got.out);
    let line = kiln_in(folder.path(), &["fhir", "get", &server.url, &reference, "metadata", "--ndjson"]).await.expect(0);
    assert_eq!(line.out.lines().count(), 2, "{}", line.out);
    let missing = kiln_in(folder.path(), &["fhir", "get", &server.url, "Patient/11111111-1111-4111-8111-111111111111", &reference]).await.expect(1);
    assert!(missing.err.contains("404") && missing.out.contains("female"), "{}\n{}", missing.err, missing.out);
    let url = server.url.clone();
    drop(server);
    let gone = kiln_in(folder.path(), &["fhir", "get", &url, &reference]).await.expect(2);
    assert!(gone.err.contains("could not be reached"), "{}", gone.err);
}

/// The id in a resource that a server sent back.
trait Id {
    async fn json_id(self) -> String;
}

impl Id for reqwest::Response {
    async fn json_id(self) -> String {
        let text = self.text().await.expect("a text");
        serde_json::from_str::<Value>(&text).expect("JSON")["id"].as_str().expect("an id").to_owned()
    }
}

#[test]
fn a_public_key_set_is_printed_and_nothing_of_the_private_half() {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").serialize_pem();
    file(folder.path(), "smart.pem", &pem);
    let site = "targets:\n  main: { fhir: https://h.example/r4, auth: { smart: { client: kiln, key: { file: smart.pem }, kid: k-1, scope: system/*.cruds } } }\n  open: { fhir: https://h.example/r4 }\n";
    file(folder.path(), "kiln.yaml", site);
    let of_target: Value = serde_json::from_str(&run(folder.path(), &["jwks", "main"]).expect(0).out).expect("JSON");
    let of_file: Value = serde_json::from_str(&run(folder.path(), &["jwks", "--key", "smart.pem", "--kid", "k-1", "--json"]).expect(0).out).expect("JSON");
    assert_eq!(of_target, of_file);
    let key = &of_target["keys"][0];
    assert_eq!(
        (&key["kty"], &key["crv"], &key["alg"], &key["kid"], &key["use"]),
        (&json!("EC"), &json!("P-384"), &json!("ES384"), &json!("k-1"), &json!("sig"))
    );
    assert!(key.get("d").is_none(), "{of_target}");
    for (args, told) in [
        (&["jwks", "open"][..], "has no `auth: { smart: ... }`"),
        (&["jwks", "--key", "kiln.yaml"], "no private key"),
        (&["jwks", "--key", "none"], "cannot be read"),
    ] {
        let ran = run(folder.path(), args).expect(2);
        assert!(ran.err.contains(told), "{}", ran.err);
    }
    run(folder.path(), &["jwks"]).expect(2);
}

const ROUTE: &str = "route: adt\non: [ADT^A01]\nto: main\nresources:\n  patient: { $map: PID -> Patient, $save: update by PID-3 }\n";

fn statement(version: &str, interactions: &[&str], patient: &Value) -> Value {
    let interactions: Vec<Value> = interactions.iter().map(|i| json!({"code": i})).collect();
    let mut resources = vec![patient.clone()];
    // Every type that a route could name: what ships may grow.
    for name in kiln::fhir::types().map(|t| t.name()).filter(|name| *name != "Patient" && kiln::fhir::has_identifier(name)) {
        resources.push(json!({"type": name, "interaction": [{"code": "create"}, {"code": "update"}, {"code": "search-type"}], "conditionalCreate": true, "conditionalUpdate": true,
            "searchParam": [{"name": "identifier", "type": "token"}]}));
    }
    json!({"resourceType": "CapabilityStatement", "fhirVersion": version, "rest": [{"mode": "server", "interaction": interactions, "resource": resources}]})
}

/// A site whose only route of its own saves patients at this server.
fn site(folder: &Path, base: &str) {
    std::fs::create_dir_all(folder.join("routes")).expect("a folder");
    file(folder, "routes/adt.yaml", ROUTE);
    let listener = "listeners: { adt: { mllp: 127.0.0.1:0 } }\nconsole: { listen: 127.0.0.1:0 }\njournal: { low-water: 1MiB }\n";
    file(folder, "kiln.yaml", &format!("{listener}targets:\n  main: {{ fhir: {base}, headers: {{ X-Key: {{ file: secret }} }} }}\n"));
    file(folder, "secret", "k-PLANTED\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_online_says_what_a_server_cannot_do() {
    let server = MockServer::start().await;
    let able = json!({"type": "Patient", "interaction": [{"code": "create"}, {"code": "update"}], "conditionalCreate": true, "conditionalUpdate": true, "searchParam": [{"name": "identifier", "type": "token"}]});
    Mock::given(method("POST"))
        .and(body_string_contains("identifier=urn%3Akiln%3Anothing"))
        .respond_with(fhir(200, &json!({"resourceType": "Bundle", "type": "searchset"})))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/good/metadata"))
        .and(header("x-key", "k-PLANTED"))
        .respond_with(fhir(200, &statement("4.0.1", &["transaction"], &able)))
        .mount(&server)
        .await;
    let unable = json!({"type": "Patient", "interaction": [{"code": "update"}], "conditionalUpdate": false});
    Mock::given(method("GET")).and(path("/few/metadata")).respond_with(fhir(200, &statement("4.3.0", &["batch"], &unable))).mount(&server).await;
    let folder = tempfile::tempdir().expect("a folder");

    site(folder.path(), &format!("{}/good", server.uri()));
    let good = kiln_in(folder.path(), &["check", "--online", "--format", "short"]).await.expect(0);
    assert!(!good.out.contains("K74"), "{}", good.out);

    site(folder.path(), &format!("{}/few", server.uri()));
    let few = kiln_in(folder.path(), &["check", "--online"]).await.expect(1);
    for told in ["error[K741]", "it speaks 4.3.0", "transactions", "conditional update of Patient", "send: single", "kiln.yaml:5:3"] {
        assert!(few.out.contains(told), "{told}: {}", few.out);
    }
    let json = kiln_in(folder.path(), &["check", "--online", "--format", "json"]).await.expect(1);
    let lines: Vec<Value> = json.out.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert!(lines.iter().any(|l| l["code"] == json!("K741")), "{}", json.out);

    site(folder.path(), &format!("{}/nothing", server.uri()));
    let none = kiln_in(folder.path(), &["check", "--online", "--format", "short"]).await.expect(1);
    assert!(none.out.contains("error[K740]") && none.out.contains("[http-404]") || none.out.contains("[not-fhir]"), "{}", none.out);
    // Without --online nobody is asked.
    kiln_in(folder.path(), &["check"]).await.expect(0);
    for out in [good.out, few.out, few.err, json.out, none.out, none.err] {
        assert!(!out.contains("PLANTED"), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_reads_the_statement_when_the_server_is_first_reached() {
    let down = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = down.local_addr().expect("an address");
    drop(down);
    let folder = tempfile::tempdir().expect("a folder");
    site(folder.path(), &format!("http://{address}/few"));
    let path_of = folder.path().to_owned();
    let daemon = tokio::task::spawn_blocking(move || Daemon::start(&path_of)).await.expect("no panic");
    let console = daemon.address("console http://");
    let ready = move || serde_json::from_str::<Value>(&get(console, "/readyz").1).expect("JSON");
    let answer = cli_support::exchange(daemon.address("adt on "), cli_support::admit("C1", "4711").as_bytes());
    assert!(answer.contains("MSA|AA|C1"), "{answer}");
    assert_eq!(ready()["servers"], json!([]), "nobody has answered yet, and the daemon runs");
    let server = MockServer::builder().listener(std::net::TcpListener::bind(address).expect("the port is free again")).start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(503)).mount(&server).await;
    let unable = json!({"type": "Patient", "interaction": [{"code": "update"}], "conditionalUpdate": false});
    Mock::given(method("GET")).and(path("/few/metadata")).respond_with(fhir(200, &statement("4.0.1", &["transaction"], &unable))).mount(&server).await;
    tokio::task::spawn_blocking(move || {
        wait_for("the statement", || ready()["servers"][0]["cannot"].as_array().is_some_and(|c| !c.is_empty()));
        let ready = ready();
        assert!(ready["servers"][0]["cannot"].to_string().contains("conditional update of Patient (adt"), "{ready}");
        assert_eq!(ready["ready"], json!(true), "what a server cannot do does not make Kiln unready");
        wait_for("the log's line", || daemon.err().contains("the server cannot do what routes want"));
        // A reload with a route that wants less is held against it anew.
        let text = std::fs::read_to_string(folder.path().join("kiln.yaml")).expect("readable").replace("headers:", "send: single, headers:");
        file(folder.path(), "kiln.yaml", &text);
        wait_for("the new comparison", || !get(console, "/readyz").1.contains("conditional update of Patient"));
        let (_, stats) = get(console, "/api/stats");
        assert!(!daemon.err().contains("PLANTED") && !stats.contains("PLANTED") && !get(console, "/metrics").1.contains("PLANTED"));
        assert_eq!(daemon.stop(), 0);
    })
    .await
    .expect("no panic");
}

/// Everything at once, as a site would have it: kiln.yaml, a token server, mutual TLS with an authority of one's own, and `kiln fhir` through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_with_smart_and_mutual_tls_is_used_by_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().to_str().expect("UTF-8");
    let Some(oauth) = Node::start("oauth-server", &["--alg", "RS384", "--keys", keys]) else { return };
    let Some(fhir) = Node::start("fhir-server", &["--jwks", &format!("{}/jwks", oauth.url)]) else { return };
    let authority = Authority::new();
    let (server, client) = (authority.server("localhost", 4000), authority.client());
    file(folder.path(), "ca.pem", &authority.pem());
    file(folder.path(), "kiln.pem", &client.certificate);
    file(folder.path(), "kiln-key.pem", &client.key);
    let front = Front { identity: &server, clients: &[&authority], old: false };
    let base = format!("https://localhost:{}/fhir", front.before(fhir.address()).await);
    let text = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0, authority: HOSP }} }}\nconsole: {{ listen: 127.0.0.1:0 }}\njournal: {{ low-water: 1MiB }}\nlog: {{ level: trace }}\ntargets:\n  main:\n    fhir: {base}\n    \
         tls: {{ ca: ca.pem, certificate: kiln.pem, key: kiln-key.pem, minimum: 1.3 }}\n    proxy: none\n    rate: 200/s\n    \
         auth: {{ smart: {{ token-url: '{}/token', client: kiln-backend, key: {{ file: backend.jwks }}, kid: backend-1, scope: 'system/*.cruds' }} }}\n",
        oauth.url
    );
    file(folder.path(), "kiln.yaml", &text);
    kiln_in(folder.path(), &["check"]).await.expect(0);
    let path_of = folder.path().to_owned();
    let daemon = tokio::task::spawn_blocking(move || {
        let daemon = Daemon::start(&path_of);
        let answer = cli_support::exchange(daemon.address("adt on "), cli_support::admit("C1", "4711").as_bytes());
        assert!(answer.contains("MSA|AA|C1"), "{answer}");
        let console = daemon.address("console http://");
        wait_for("the delivery", || {
            get(console, "/metrics").1.lines().any(|l| l.starts_with("kiln_deliveries_total") && l.contains("delivered") && l.ends_with(" 1"))
        });
        daemon
    })
    .await
    .expect("no panic");
    let found = kiln_in(folder.path(), &["fhir", "search", "main", "Patient?identifier=4711", "--ndjson"]).await.expect(0);
    assert!(found.out.contains("4711"), "{}", found.out);
    // Neither the key nor a token is anywhere in what was said.
    let secret: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("backend.jwks")).expect("readable")).expect("JSON");
    let private = secret["keys"][1]["d"].as_str().expect("a private part").to_owned();
    let err = daemon.err();
    for text in [&found.out, &found.err, &err] {
        assert!(!text.contains(&private) && !text.contains("Bearer ey") && !text.contains("client_assertion="), "{text}");
    }
}
