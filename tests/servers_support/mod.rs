//! The FHIR servers that the tests deliver to: the Medplum-based one of tests/servers/fhir-server and HAPI FHIR JPA of tests/servers/hapi.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod proxy;

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, OnceLock};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Medplum's router, repository and validator.
    Medplum,
    /// HAPI FHIR JPA.
    Hapi,
}

/// A server that holds nothing yet. It ends at the latest with the test program, when its standard input closes.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
    child: Option<Child>,
    /// There is one HAPI a test program, since it takes a quarter of a minute and 700 MB to start: tests take turns.
    _turn: Option<OwnedMutexGuard<()>>,
}

impl Server {
    /// All servers that can be started here; which cannot is said on standard error. `KILN_SERVER=hapi` (or `medplum`) leaves only that one.
    pub(crate) async fn each() -> impl Iterator<Item = Self> {
        let only = std::env::var("KILN_SERVER").ok();
        let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
        let medplum = if wanted("medplum") { Self::start(Kind::Medplum).await } else { None };
        let hapi = if wanted("hapi") { Self::start(Kind::Hapi).await } else { None };
        medplum.into_iter().chain(hapi)
    }

    /// Those that are wanted: `[Kind::Medplum]` where a test needs that server's faults.
    pub(crate) async fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Medplum => {
                let folder = folder("fhir-server");
                if !folder.join("node_modules").exists() {
                    return missing("tests/servers/fhir-server has no node_modules: run `npm ci` there", true);
                }
                let (child, base) = begin(Command::new("node").args(["server.mjs", "--port", "0"]).current_dir(folder));
                Some(Self { kind, base, client: reqwest::Client::new(), child: Some(child), _turn: None })
            }
            Kind::Hapi => {
                let base = hapi()?;
                let turn = Arc::clone(&TURN).lock_owned().await;
                let server = Self { kind, base, client: reqwest::Client::new(), child: None, _turn: Some(turn) };
                server.reset().await;
                Some(server)
            }
        }
    }

    /// Forgets everything.
    pub(crate) async fn reset(&self) {
        self.control("reset", json!({})).await;
    }

    /// Asks the server's own door for tests.
    pub(crate) async fn control(&self, what: &str, body: Value) -> Value {
        let url = format!("{}/__{what}", self.base.trim_end_matches("/fhir"));
        let answer = self.client.post(url).body(body.to_string()).send().await.expect("the server is there");
        assert!(answer.status().is_success(), "{what}: {}", answer.status());
        serde_json::from_str(&answer.text().await.expect("a text")).expect("JSON")
    }

    /// All resources of a type, as they are now.
    pub(crate) async fn all(&self, resource_type: &str) -> Vec<Value> {
        if self.kind == Kind::Medplum {
            let dump = self.control("dump", json!({})).await;
            return dump.as_array().expect("a list").iter().filter(|r| r["resourceType"] == json!(resource_type)).cloned().collect();
        }
        let mut all = Vec::new();
        let mut next = Some(format!("{}/{resource_type}?_count=200", self.base));
        while let Some(url) = next {
            // HAPI gives a result of the last minute again unless it is told not to.
            let answer = self.client.get(url).header("Cache-Control", "no-cache").send().await.expect("the server is there");
            let page: Value = serde_json::from_str(&answer.text().await.expect("a text")).expect("JSON");
            let entries = page["entry"].as_array().cloned().unwrap_or_default();
            all.extend(entries.into_iter().map(|mut entry| entry["resource"].take()));
            let links = page["link"].as_array().cloned().unwrap_or_default();
            next = links.iter().find(|l| l["relation"] == json!("next")).and_then(|l| l["url"].as_str()).map(str::to_owned);
        }
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// The base URL of the one HAPI of this test program. `KILN_HAPI=http://…/fhir` names one that runs already.
fn hapi() -> Option<String> {
    static RUNNING: OnceLock<Option<(Child, String)>> = OnceLock::new();
    if let Ok(base) = std::env::var("KILN_HAPI") {
        return Some(base);
    }
    let running = RUNNING.get_or_init(|| {
        let jar = folder("hapi").join("target/hapi.jar");
        if !wanted() {
            return missing("HAPI is started only with KILN_E2E=1", false);
        }
        if !jar.exists() {
            return missing("tests/servers/hapi is not built: run `mvn package` there", false);
        }
        // The first compiler alone: a test is over before the second pays. Its code cache would be full after some minutes, and all then interpreted.
        let mut java = Command::new("java");
        java.args(["-Xmx1500m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=256m", "-jar"]).arg(jar).stderr(Stdio::null());
        Some(begin(&mut java))
    });
    running.as_ref().map(|(_, base)| base.clone())
}

/// Starts a server and waits until it says where it is. Its standard input stays open as long as the child is held.
fn begin(command: &mut Command) -> (Child, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("what runs the server is installed where its packages are");
    let mut base = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut base).expect("the server says where it is");
    assert!(base.starts_with("http"), "the server did not start");
    (child, base.trim().to_owned())
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name)
}

fn wanted() -> bool {
    std::env::var("KILN_E2E").is_ok_and(|set| !matches!(set.as_str(), "" | "0"))
}

/// Says why a server is not there; where it must be, that is a failure.
#[allow(clippy::print_stderr, reason = "a test that was skipped says so")]
fn missing<T>(reason: &str, must_be_there: bool) -> Option<T> {
    assert!(!must_be_there || !wanted(), "{reason}");
    eprintln!("skipped: {reason}");
    None
}
