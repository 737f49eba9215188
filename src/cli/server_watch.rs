//! Reads each FHIR server's CapabilityStatement when it is first reached, and says what the routes want and it cannot do. Never stops the daemon.

use crate::cli::servers::{short, wanted};
use crate::console::{ServerFacts, Watch};
use crate::engine::{Engine, TargetSetup};
use crate::fhir::{Capabilities, Wanted};
use crate::target::{FhirTarget, Target};
use futures_util::future::join_all;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

/// A server is asked again after so long: it may have been updated.
const ASK_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// After a statement that could not be read, although the server answers.
const ASK_AGAIN_AFTER_FAULT: Duration = Duration::from_secs(300);
/// A server that has just come back is not asked at once.
const PAUSE_AFTER_ANSWER: Duration = Duration::from_secs(1);

/// Watches the servers of the targets that are open, until `closing`; anew whenever the site has changed.
pub(crate) async fn watch(mut open: Receiver<Vec<Arc<TargetSetup>>>, engine: Weak<Engine>, console: Arc<Watch>, closing: CancellationToken) {
    loop {
        let targets = open.borrow_and_update().clone();
        let servers: Vec<(&TargetSetup, &FhirTarget)> = targets.iter().filter_map(|setup| Some((&**setup, server(setup)?))).collect();
        let names: Vec<&str> = servers.iter().map(|(setup, _)| &*setup.name).collect();
        console.keep_servers(&names);
        let all = join_all(servers.iter().map(|(setup, server)| follow(setup, server, &engine, &console)));
        tokio::select! {
            () = closing.cancelled() => return,
            changed = open.changed() => if changed.is_err() { return },
            _ = async { all.await; std::future::pending::<()>().await } => {}
        }
    }
}

fn server(setup: &TargetSetup) -> Option<&FhirTarget> {
    match &*setup.target {
        Target::Fhir(server) => Some(server),
        Target::V2(_) | Target::Folder(_) | Target::Null => None,
    }
}

/// One server, for ever.
async fn follow(setup: &TargetSetup, server: &FhirTarget, engine: &Weak<Engine>, console: &Watch) {
    loop {
        if let Ok(capabilities) = server.capabilities().await {
            let Some(routes) = engine.upgrade().map(|engine| engine.routes()) else { return };
            let facts = facts(setup, &capabilities, &wanted(&routes.set, &setup.name, setup.send));
            tell(&facts);
            console.server(facts);
            tokio::time::sleep(ASK_AGAIN).await;
            continue;
        }
        // It is down, or lets nobody in: the deliveries notice when that changes.
        server.reached().await;
        tokio::time::sleep(PAUSE_AFTER_ANSWER).await;
        if let Err(setback) = server.capabilities().await {
            tracing::warn!(target_name = %setup.name, code = setback.code, "the server answers, but its CapabilityStatement cannot be read");
            tokio::time::sleep(ASK_AGAIN_AFTER_FAULT).await;
        }
    }
}

fn facts(setup: &TargetSetup, capabilities: &Capabilities, wanted: &[Wanted]) -> ServerFacts {
    let shortfalls = capabilities.shortfalls(wanted);
    ServerFacts {
        target: setup.name.to_string(),
        fhir_version: capabilities.fhir_version.clone(),
        software: capabilities.software.clone(),
        cannot: shortfalls.iter().filter(|s| s.denied).map(short).collect(),
        unsaid: shortfalls.iter().filter(|s| !s.denied).map(short).collect(),
    }
}

fn tell(facts: &ServerFacts) {
    let version = facts.fhir_version.as_deref().unwrap_or("an unsaid version");
    if facts.cannot.is_empty() && facts.unsaid.is_empty() {
        tracing::info!(target_name = %facts.target, "the server speaks FHIR {version} and says that it can do all that the routes want");
    }
    if !facts.cannot.is_empty() {
        let cannot = facts.cannot.join("; ");
        tracing::error!(target_name = %facts.target, "the server cannot do what routes want: {cannot}; `kiln check --online` says what to do");
    }
    if let [first, more @ ..] = facts.unsaid.as_slice() {
        let others = if more.is_empty() { String::new() } else { format!("; and {} more: `kiln check --online` lists them, and /readyz", more.len()) };
        tracing::info!(target_name = %facts.target, "the server speaks FHIR {version}; it does not say whether it can do: {first}{others}");
    }
}
