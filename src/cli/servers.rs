//! What the FHIR servers of a site can do, beside what its routes want of them: for `kiln check --online` and the daemon.

use crate::diagnostic::{Diagnostic, Span};
use crate::fhir::{BundleKind, Capabilities, Shortfall, Wanted};
use crate::route::{RouteSet, Send};
use crate::site::{Site, TargetSite};
use crate::target::{FhirTarget, Sending, Setback, TargetConfig, V2Target};
use futures_util::future::{FutureExt as _, join_all};

/// What the routes want of a target. `send`: how the target is written, whatever a route says.
pub(crate) fn wanted(set: &RouteSet, target: &str, send: Option<Sending>) -> Vec<Wanted> {
    let to_target = set.routes().filter(|(_, info)| !info.messages && info.targets.iter().any(|t| **t == *target));
    let of_route = |(id, info): (_, &crate::route::RouteInfo)| {
        let bundle = match (send, info.send) {
            (Some(Sending::Transaction), _) | (None, Send::Transaction) => Some(BundleKind::Transaction),
            (Some(Sending::Batch), _) | (None, Send::Batch) => Some(BundleKind::Batch),
            (Some(Sending::Single), _) | (None, Send::Single) => None,
        };
        Wanted { route: info.name.to_string(), bundle, saves: set.saves_of(id) }
    };
    to_target.map(of_route).collect()
}

/// One line for a log or a page: `conditional update of Patient (adt, siu)`.
pub(crate) fn short(shortfall: &Shortfall) -> String {
    format!("{} ({})", shortfall.what, shortfall.routes.join(", "))
}

/// Asks every FHIR server of the site, and connects to every receiver of HL7 v2, all at once. K740: no answer that could be used; K741: it cannot do, or does not say that it can do, what a
/// route wants.
pub(crate) async fn ask(site: &Site, set: &RouteSet) -> Vec<Diagnostic> {
    let servers = site.targets.iter().zip(&site.target_places);
    let all = servers.filter_map(|(target, at)| match target.config(&[0; 32]) {
        TargetConfig::Fhir(config) => Some(one(target, *at, FhirTarget::open(config).map_err(|e| e.to_string()), set).left_future()),
        TargetConfig::V2(config) => Some(receiver(target, *at, V2Target::open(config).map_err(|e| e.to_string())).right_future()),
        TargetConfig::Folder(_) | TargetConfig::Null => None,
    });
    join_all(all).await.into_iter().flatten().collect()
}

/// A receiver of HL7 v2 is asked for a connection and nothing else: whatever is sent to it, it takes for a message.
async fn receiver(target: &TargetSite, at: Span, receiver: Result<V2Target, String>) -> Vec<Diagnostic> {
    let fault = match receiver {
        Ok(receiver) => receiver.probe().await.err().map(|setback| setback.summary),
        Err(what) => Some(what),
    };
    fault.map(|what| Diagnostic::error("K740", at, format!("target `{}`: {what}", target.name)).label("this receiver")).into_iter().collect()
}

async fn one(target: &TargetSite, at: Span, server: Result<FhirTarget, String>, set: &RouteSet) -> Vec<Diagnostic> {
    let unusable = |what: String| vec![Diagnostic::error("K740", at, format!("target `{}`: {what}", target.name)).label("this server")];
    let server = match server {
        Ok(server) => server,
        Err(what) => return unusable(what),
    };
    let capabilities = match server.capabilities().await {
        Ok(capabilities) => capabilities,
        Err(setback) => return unusable(said(&setback)),
    };
    let wanted = wanted(set, &target.name, target.send());
    let mut found = told(&capabilities, &wanted, &target.name, at);
    // No CapabilityStatement says whether a server takes searches by POST: it is tried, with an identifier that nothing has.
    let searches = capabilities.searched(&wanted);
    if let Some(resource_type) = searches.first() {
        match server.takes_search_by_post(resource_type).await {
            Ok(true) => {}
            Ok(false) => found.push(
                Diagnostic::warning("K741", at, format!("target `{}` takes no searches by POST", target.name))
                    .label("this server")
                    .help("Kiln searches by GET there: the server's log of addresses may hold identifiers of patients"),
            ),
            Err(setback) => found.extend(unusable(format!("a search for {resource_type} by identifier: {}", said(&setback)))),
        }
    }
    found
}

fn said(setback: &Setback) -> String {
    format!("{} [{}]", setback.summary, setback.code)
}

fn told(capabilities: &Capabilities, wanted: &[Wanted], name: &str, at: Span) -> Vec<Diagnostic> {
    let diagnostic = |s: Shortfall| {
        let routes = s.routes.join(", ");
        let fault = if s.denied {
            Diagnostic::error("K741", at, format!("target `{name}` cannot do what routes want: {} ({routes})", s.what))
        } else {
            Diagnostic::warning("K741", at, format!("target `{name}` does not say that it can do what routes want: {} ({routes})", s.what))
        };
        fault.label("this server").help(s.advice)
    };
    capabilities.shortfalls(wanted).into_iter().map(diagnostic).collect()
}
