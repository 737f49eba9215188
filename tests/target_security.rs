//! How a FHIR target proves who it is and whom it trusts: tokens of a real token server, checked by a FHIR server; TLS before a plain one.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod security_support;
mod target_support;

use kiln::exchange::Secret;
use kiln::fhir::SaveMode;
use kiln::target::{
    Auth, ClientProof, Fault, FhirConfig, Proxy, Rate, Retry, SecretSource, Setback, SigningKey, Target, TargetConfig, Tls, TlsVersion, TokenConfig,
};
use security_support::{Authority, Front, Node, Pem, file};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use target_support::{Delivery, SECRET, save};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// What the token server knows.
const CLIENT_SECRET: &str = "hunter2 & co:%";

fn config(base: &str, auth: Auth) -> FhirConfig {
    FhirConfig { auth, timeout: Duration::from_secs(10), ..FhirConfig::new(base, Secret::new(SECRET)) }
}

fn open(config: FhirConfig) -> Target {
    Target::open(TargetConfig::Fhir(config)).expect("the target opens")
}

fn token(url: Option<String>, client: &str, proof: ClientProof) -> Auth {
    Auth::Token(TokenConfig { url, client: client.to_owned(), proof, scope: Some("system/*.cruds".to_owned()), parameters: Vec::new() })
}

fn patient(n: u64) -> Delivery {
    Delivery::new(n, vec![save(SaveMode::Update, "Patient", &[&format!("urn:m|{n}")], json!({"name": [{"family": "Meier"}]}))])
}

/// A token server and a FHIR server that takes its tokens.
fn pair(arguments: &[&str]) -> Option<(Node, Node)> {
    let oauth = Node::start("oauth-server", arguments)?;
    let fhir = Node::start("fhir-server", &["--jwks", &format!("{}/jwks", oauth.url), "--smart", &format!("{}/token", oauth.url)])?;
    Some((oauth, fhir))
}

#[tokio::test]
async fn tokens_for_a_client_secret_are_kept_and_shared() {
    let Some((oauth, fhir)) = pair(&[]) else { return };
    let url = Some(format!("{}/token", oauth.url));
    let refused = open(config(&fhir.url, Auth::None)).probe().await.expect_err("no token");
    assert_eq!((refused.code, refused.fault, refused.retry), ("http-401", Fault::Target, Retry::Transient));

    let secret = || SecretSource::text(CLIENT_SECRET);
    for (n, (client, proof)) in [("kiln", ClientProof::Basic(secret())), ("kiln-post", ClientProof::Post(secret()))].into_iter().enumerate() {
        let target = open(config(&fhir.url, token(url.clone(), client, proof)));
        // Many at once ask for one token.
        let deliveries: Vec<Delivery> = (0..8).map(patient).collect();
        for result in futures_util::future::join_all(deliveries.iter().map(|d| d.to(&target))).await {
            result.unwrap_or_else(|s| panic!("{client}: {s:?}"));
        }
        assert_eq!(oauth.count("stats", "issued").await, n as u64 + 1, "{client}");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_the_targets_fault_and_is_never_shown() {
    let Some((oauth, fhir)) = pair(&[]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(folder.path(), "secret", "wrong-PLANTED\n");
    let proof = ClientProof::Basic(SecretSource::File(path.clone()));
    let target = open(config(&fhir.url, token(Some(format!("{}/token", oauth.url)), "kiln", proof)));
    let refused = patient(1).to(&target).await.expect_err("a wrong secret");
    assert_eq!((refused.code, refused.fault, refused.retry), ("token-refused", Fault::Target, Retry::Transient));
    assert!(refused.summary.contains("invalid_client"), "{}", refused.summary);
    assert!(!format!("{refused:?}{:?}", refused.detail.as_ref().map(|d| d.expose().clone())).contains("PLANTED"));
    // The right one is put into the file: no restart.
    file(folder.path(), "secret", CLIENT_SECRET);
    patient(1).to(&target).await.expect("the new secret");

    oauth.control("fault", json!({"status": 503})).await;
    let target = open(config(&fhir.url, token(Some(format!("{}/token", oauth.url)), "kiln", ClientProof::Basic(SecretSource::text(CLIENT_SECRET)))));
    let busy = patient(1).to(&target).await.expect_err("the token server is busy");
    assert_eq!((busy.code, busy.retry_after, busy.retry), ("token-unavailable", Some(Duration::from_secs(3)), Retry::Transient));
    drop(oauth);
    let gone = patient(1).to(&target).await.expect_err("the token server is gone");
    assert!(matches!(gone.code, "connect" | "connection-lost") && gone.fault == Fault::Target, "{gone:?}");
    assert!(gone.summary.starts_with("the token server: "), "{}", gone.summary);
}

#[tokio::test]
async fn a_token_that_was_refused_is_renewed_once() {
    let Some((oauth, fhir)) = pair(&[]) else { return };
    let target = open(config(&fhir.url, token(Some(format!("{}/token", oauth.url)), "kiln", ClientProof::Basic(SecretSource::text(CLIENT_SECRET)))));
    patient(1).to(&target).await.expect("delivered");
    assert_eq!(oauth.count("stats", "issued").await, 1);
    fhir.control("fault", json!({"refuse": 1})).await;
    patient(2).to(&target).await.expect("delivered with a fresh token");
    assert_eq!(oauth.count("stats", "issued").await, 2);
    // Refused again with the fresh one: that is the target's fault.
    fhir.control("fault", json!({"refuse": 100})).await;
    let refused = patient(3).to(&target).await.expect_err("refused");
    assert_eq!((refused.code, refused.fault, refused.retry), ("http-401", Fault::Target, Retry::Transient));
    assert_eq!(oauth.count("stats", "issued").await, 3, "one fresh token, not more");
    assert_eq!(fhir.control("fault", json!({})).await["refuse"], json!(98), "the request and its one repetition");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let Some((oauth, fhir)) = pair(&["--ttl", "3"]) else { return };
    let target = open(config(&fhir.url, token(Some(format!("{}/token", oauth.url)), "kiln", ClientProof::Basic(SecretSource::text(CLIENT_SECRET)))));
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while oauth.count("stats", "issued").await < 3 {
        assert!(Instant::now() < deadline, "no renewal");
        n += 1;
        patient(n % 5).to(&target).await.expect("delivered");
    }
    let stats = fhir.control("stats", json!({})).await;
    assert_eq!(stats["status"].get("401"), None, "no token was used after its end: {stats}");
}

#[tokio::test]
async fn smart_backend_services_sign_with_both_algorithms_and_all_kinds_of_key_files() {
    for algorithm in ["RS384", "ES384"] {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = folder.path().to_str().expect("UTF-8");
        let Some((oauth, fhir)) = pair(&["--alg", algorithm, "--keys", keys]) else { return };
        for (name, id) in [("backend.pem", Some("backend-1")), ("backend.jwks", Some("backend-1"))] {
            let key = SecretSource::File(folder.path().join(name));
            let proof = ClientProof::Key { key, id: id.map(str::to_owned), audience: None };
            // The token URL comes from the FHIR server.
            let target = open(config(&fhir.url, token(None, "kiln-backend", proof)));
            patient(1).to(&target).await.unwrap_or_else(|s| panic!("{algorithm} {name}: {s:?} {:?}", s.detail.as_ref().map(|d| d.expose().clone())));
            // A second token needs an assertion of its own: the server takes none twice.
            fhir.control("fault", json!({"refuse": 1})).await;
            patient(2).to(&target).await.unwrap_or_else(|s| panic!("{algorithm} {name}: {s:?}"));
        }
        assert_eq!(oauth.count("stats", "issued").await, 4, "{algorithm}");

        // What the server does with an assertion that it has seen, and what an assertion says.
        let form = oauth.control("last", json!({})).await.as_str().expect("a form").to_owned();
        let claims = claims(&form);
        assert_eq!((&claims["iss"], &claims["sub"], &claims["aud"]), (&json!("kiln-backend"), &json!("kiln-backend"), &json!(format!("{}/token", oauth.url))));
        let lifetime = claims["exp"].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time");
        assert!((1..=300).contains(&lifetime), "{lifetime}");
        let client = reqwest::Client::new();
        let request = client.post(format!("{}/token", oauth.url)).header("content-type", "application/x-www-form-urlencoded").body(form);
        assert_eq!(request.send().await.expect("an answer").status(), 401, "the server takes no assertion twice");

        // Another key, and another audience, are refused.
        let wrong = ClientProof::Key { key: SecretSource::File(folder.path().join("backend.jwks")), id: Some("other".to_owned()), audience: None };
        let refused = patient(1).to(&open(config(&fhir.url, token(None, "kiln-backend", wrong)))).await.expect_err("another key");
        assert_eq!((refused.code, refused.fault), ("token-refused", Fault::Target), "{algorithm}");
        let key = SecretSource::File(folder.path().join("backend.pem"));
        let wrong = ClientProof::Key { key, id: Some("backend-1".to_owned()), audience: Some("https://elsewhere.example".to_owned()) };
        let refused = patient(1).to(&open(config(&fhir.url, token(None, "kiln-backend", wrong)))).await.expect_err("another audience");
        assert_eq!(refused.code, "token-refused", "{algorithm}");
    }
}

/// The claims of the assertion in a form.
fn claims(form: &str) -> serde_json::Value {
    use base64::Engine as _;
    let assertion = form.split('&').find_map(|p| p.strip_prefix("client_assertion=")).expect("an assertion");
    let claims = assertion.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

#[tokio::test]
async fn the_public_set_of_a_key_is_all_that_a_server_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key").serialize_pem();
    let public = SigningKey::read(&key, None).expect("a key").public_set();
    assert!(public["keys"][0].get("d").is_none() && public["keys"][0]["alg"] == json!("ES384"), "{public}");
    let set = file(folder.path(), "public.jwks", &public.to_string());
    let Some((_oauth, fhir)) = pair(&["--jwks", set.to_str().expect("UTF-8")]) else { return };
    // The `kid` is the key's thumbprint on both sides.
    let proof = ClientProof::Key { key: SecretSource::text(key), id: None, audience: None };
    patient(1).to(&open(config(&fhir.url, token(None, "kiln-backend", proof)))).await.expect("delivered");
}

#[tokio::test]
async fn a_bearer_token_that_changes_on_the_disk_is_read_again() {
    let server = MockServer::start().await;
    let statement = ResponseTemplate::new(200).set_body_raw(json!({"resourceType": "CapabilityStatement"}).to_string(), "application/fhir+json");
    Mock::given(method("GET")).and(path("/metadata")).and(header("authorization", "Bearer second")).respond_with(statement).mount(&server).await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(401)).with_priority(9).mount(&server).await;
    let folder = tempfile::tempdir().expect("a folder");
    let target = open(config(&server.uri(), Auth::Bearer(SecretSource::File(file(folder.path(), "token", "first\n")))));
    assert_eq!(target.probe().await.expect_err("the first token").code, "http-401");
    assert_eq!(server.received_requests().await.expect("recording").len(), 1, "there was nothing else to try");
    file(folder.path(), "token", "second\n");
    target.probe().await.expect("the second token");

    // The same by a command, which is run again after a 401.
    let script = format!("cat {}", folder.path().join("token").display());
    file(folder.path(), "token", "first\n");
    let target = open(config(&server.uri(), Auth::Bearer(SecretSource::Command(vec!["sh".to_owned(), "-c".to_owned(), script]))));
    file(folder.path(), "token", "second\n");
    target.probe().await.expect("the second token");
}

/// The FHIR server behind TLS, as `https://localhost:PORT/fhir`.
async fn behind(fhir: &Node, front: Front<'_>) -> String {
    format!("https://localhost:{}/fhir", front.before(fhir.address()).await)
}

async fn probe(base: &str, tls: Tls) -> Result<(), Setback> {
    open(FhirConfig { tls, proxy: Proxy::None, ..config(base, Auth::None) }).probe().await
}

fn identity(folder: &Path, pem: &Pem) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    Some((file(folder, "kiln.pem", &pem.certificate), file(folder, "kiln-key.pem", &pem.key)))
}

#[tokio::test]
async fn each_fault_of_tls_says_what_to_do() {
    let Some(fhir) = Node::start("fhir-server", &[]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca = Some(file(folder.path(), "ca.pem", &ours.pem()));
    let trusting = || Tls { ca: ca.clone(), ..Tls::default() };
    let good = ours.server("localhost", 4000);
    let plain = |identity| Front { identity, clients: &[], old: false };

    let base = behind(&fhir, plain(&good)).await;
    probe(&base, trusting()).await.expect("our own authority");
    let several = file(folder.path(), "bundle.pem", &format!("{}{}", theirs.pem(), ours.pem()));
    probe(&base, Tls { ca: Some(several), ..Tls::default() }).await.expect("one of several");

    let expired = ours.server("localhost", 2020);
    let other_name = ours.server("elsewhere.example", 4000);
    let old = behind(&fhir, Front { identity: &good, clients: &[], old: true }).await;
    let newest = Tls { minimum: TlsVersion::V13, ..trusting() };
    let mutual = behind(&fhir, Front { identity: &good, clients: &[&ours], old: false }).await;
    let stranger = Tls { identity: identity(folder.path(), &theirs.client()), ..trusting() };
    let no_tls = fhir.url.replace("http://127.0.0.1", "https://localhost");
    for (base, tls, code, advice) in [
        (base.clone(), Tls::default(), "tls-issuer", "tls: { ca: FILE }"),
        (behind(&fhir, plain(&expired)).await, trusting(), "tls-expired", "must renew it"),
        (behind(&fhir, plain(&other_name)).await, trusting(), "tls-name", "use the name that is in the certificate"),
        (old.clone(), newest, "tls-version", "minimum"),
        (mutual.clone(), trusting(), "tls-client-certificate", "tls: { certificate: FILE, key: FILE }"),
        (mutual.clone(), stranger, "tls-client-certificate", "an authority that the server does not know"),
        (no_tls, trusting(), "tls-none", "http://"),
        ("https://no-such-host.invalid/fhir".to_owned(), trusting(), "dns", "check the target's URL"),
    ] {
        let setback = probe(&base, tls).await.expect_err(code);
        assert_eq!(
            (setback.code, setback.fault, setback.retry),
            (code, Fault::Target, Retry::Transient),
            "{setback:?} {:?}",
            setback.detail.as_ref().map(|d| d.expose().clone())
        );
        assert!(setback.summary.contains(advice), "{code}: {}", setback.summary);
    }
    probe(&old, trusting()).await.expect("TLS 1.2 is allowed unless the site says otherwise");
    let client = Tls { identity: identity(folder.path(), &ours.client()), ..trusting() };
    probe(&mutual, client).await.expect("a client certificate");
}

/// A write that is refused for its client certificate was not done, also where TLS 1.3 tells it late.
#[tokio::test]
async fn a_client_certificate_is_exchanged_on_the_disk_without_a_restart() {
    let Some(fhir) = Node::start("fhir-server", &[]) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.server("localhost", 4000);
    let base = behind(&fhir, Front { identity: &server, clients: &[&ours], old: false }).await;
    let tls = Tls { ca: Some(file(folder.path(), "ca.pem", &theirs.pem())), identity: identity(folder.path(), &theirs.client()), minimum: TlsVersion::V12 };
    let target = open(FhirConfig { tls, proxy: Proxy::None, ..config(&base, Auth::None) });
    assert_eq!(patient(1).to(&target).await.expect_err("another authority").code, "tls-issuer");
    file(folder.path(), "ca.pem", &ours.pem());
    let refused = until(&target, |s| s.code != "tls-issuer").await.expect_err("a certificate that the server does not know");
    assert_eq!((refused.code, refused.retry), ("tls-client-certificate", Retry::Transient));
    // Half of the exchange is no certificate and key that belong together: the old ones stay in use.
    let fresh = ours.client();
    file(folder.path(), "kiln.pem", &fresh.certificate);
    assert_eq!(patient(1).to(&target).await.expect_err("half of it").code, "tls-client-certificate");
    file(folder.path(), "kiln-key.pem", &fresh.key);
    until(&target, |_| false).await.expect("the new certificate");
}

/// Delivers again until it works, or fails in the way that the test waits for.
async fn until(target: &Target, enough: impl Fn(&Setback) -> bool) -> Result<(), Setback> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match patient(1).to(target).await {
            Ok(_) => return Ok(()),
            Err(setback) if enough(&setback) || Instant::now() > deadline => return Err(setback),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_proxy_is_used_or_left_out_and_the_token_server_gets_no_headers_of_the_target() {
    let proxy = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_raw(json!({"resourceType": "CapabilityStatement"}).to_string(), "application/fhir+json");
    let token_answer = ResponseTemplate::new(200).set_body_json(json!({"access_token": "t-1", "token_type": "Bearer", "expires_in": 300}));
    Mock::given(method("POST")).and(path("/token")).respond_with(token_answer).mount(&proxy).await;
    let letting_in = Mock::given(header("proxy-authorization", "Basic cDpodW50ZXIy")).and(header("authorization", "Bearer t-1")).and(header("x-api-key", "k"));
    letting_in.respond_with(answer).mount(&proxy).await;
    let through = FhirConfig {
        proxy: Proxy::Url { url: proxy.uri(), login: Some(("p".to_owned(), SecretSource::text("hunter2"))) },
        headers: vec![("X-Api-Key".to_owned(), SecretSource::text("k"))],
        ..config("http://fhir.invalid/r4", token(Some("http://login.invalid/token".to_owned()), "kiln", ClientProof::Post(SecretSource::text("s"))))
    };
    open(through.clone()).probe().await.expect("by way of the proxy");
    let requests = proxy.received_requests().await.expect("recording");
    let asked = requests.iter().find(|r| r.url.path() == "/token").expect("a token was asked for");
    assert!(!asked.headers.contains_key("x-api-key") && !asked.headers.contains_key("authorization"), "{:?}", asked.headers);
    let direct = open(FhirConfig { proxy: Proxy::None, ..through }).probe().await.expect_err("no such host");
    assert_eq!(direct.code, "dns");
    assert_eq!(proxy.received_requests().await.expect("recording").len(), requests.len());
}

#[tokio::test]
async fn requests_keep_to_the_rate() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_raw(json!({"resourceType": "CapabilityStatement"}).to_string(), "application/fhir+json");
    Mock::given(method("GET")).respond_with(answer).mount(&server).await;
    let target = open(FhirConfig { rate: Some(Rate { requests: 50, per: Duration::from_secs(1) }), ..config(&server.uri(), Auth::None) });
    let began = Instant::now();
    for result in futures_util::future::join_all((0..26).map(|_| target.probe())).await {
        result.expect("answered");
    }
    assert!(began.elapsed() >= Duration::from_millis(390), "25 pauses of 20 ms, less the room to catch up: {:?}", began.elapsed());
}

#[test]
fn nothing_of_a_configuration_shows_a_secret() {
    let planted = || SecretSource::text("PLANTED");
    let key = ClientProof::Key { key: planted(), id: None, audience: None };
    let all = [
        Auth::Bearer(planted()),
        token(None, "kiln", key),
        token(None, "kiln", ClientProof::Post(planted())),
        Auth::Basic { user: "u".into(), password: planted() },
    ];
    for auth in all {
        let config = FhirConfig {
            headers: vec![("X-Key".to_owned(), planted())],
            proxy: Proxy::Url { url: "http://p".to_owned(), login: Some(("u".to_owned(), planted())) },
            ..config("https://h.example/r4", auth)
        };
        assert!(!format!("{config:?}").contains("PLANTED"));
        if let Err(what) = Target::open(TargetConfig::Fhir(config)) {
            assert!(!format!("{what} {what:?}").contains("PLANTED"), "{what}");
        }
    }
}
