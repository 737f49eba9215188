//! All resources of a message in one transaction Bundle: all or nothing (<https://hl7.org/fhir/R4/http.html#transaction>).

use crate::fhir::{BundleKind, Json, ListMerge, Save, SaveMode, Step, conflict, links, write_bundle};
use crate::target::fhir::answer::{Answer, entry_place};
use crate::target::fhir::http::Effect;
use crate::target::fhir::judge::{Asked, setback};
use crate::target::fhir::read::{may_refuse_patches, may_stumble_over_patches};
use crate::target::fhir::{FhirTarget, Work};
use crate::target::{Fault, Retry, Setback};
use reqwest::header::CONTENT_TYPE;
use std::collections::BTreeSet;

impl FhirTarget {
    pub(crate) async fn transaction(&self, work: &mut Work<'_>) -> Result<(), Setback> {
        self.read_first(work).await?;
        if let Some((a, b)) = conflict(work.saves, &work.steps) {
            return Err(same_resource(work, a, b));
        }
        let (mut answer, mut sent) = match self.post_transaction(work).await? {
            None => return Ok(()),
            Some(answered) => answered,
        };
        // Refused as a whole: where only the patches were in the way, whole resources get through. After a 500 it may have been done; then only
        // what cannot be done twice is sent again.
        let twice = (work.saves.entries.iter().zip(&work.steps)).all(|(save, step)| save.mode != SaveMode::Create || !step.writes());
        if (may_refuse_patches(answer.status) || (twice && may_stumble_over_patches(answer.status)))
            && (answer.is_fhir() || answer.status != 404)
            && self.without_patches(work).await?
        {
            let Some(answered) = self.post_transaction(work).await? else { return Ok(()) };
            (answer, sent) = answered;
            if answer.is_success() {
                self.never_patch_again();
            }
        }
        match answer.entries("transaction-response", sent.len()) {
            Some(entries) => {
                let places: Vec<_> = entries.iter().map(entry_place).collect();
                if places.iter().zip(&sent).any(|(p, n)| !(200..300).contains(&p.status) && !is_gone(work, *n, p.status)) {
                    return Err(answer.setback(Retry::Ambiguous, Fault::Target, "not-promised", "the transaction's answer has an entry that did not succeed"));
                }
                work.committed = true;
                let mut late = None;
                for (place, &n) in places.into_iter().zip(&sent) {
                    late = late.or(accept(work, n, place.id, place.etag, place.status));
                }
                late.map_or(Ok(()), Err)
            }
            None if answer.is_success() => Err(setback(&answer, Asked::Endpoint, "the transaction").about(&sent)),
            None => Err(self.refused(work, &answer).await.about(&sent)),
        }
    }

    /// Reads what must be known before writing: the current resource of a merge, and everything after an attempt without an answer.
    async fn read_first(&self, work: &mut Work<'_>) -> Result<(), Setback> {
        let mut merges = Vec::new();
        for n in 0..work.steps.len() {
            let mode = work.saves.entries[n].mode;
            let doubtful = work.job.after_ambiguous && matches!(mode, SaveMode::CreateIfNone | SaveMode::Update | SaveMode::Delete);
            // A server may delete all that match; one is meant.
            let open = doubtful || matches!(work.steps[n], Step::DeleteWhere);
            if work.steps[n].writes() && (mode.keeps_the_rest() || open) {
                merges.extend(self.resolve(work, n).await?.map(|current| (n, current)));
            }
        }
        // A list that meets the stored one entry by entry needs the ids of what it refers to: what is on the server already has one.
        let linked: BTreeSet<usize> = merges.iter().flat_map(|(n, _)| linked_from_lists(&work.saves.entries[*n])).collect();
        for m in linked {
            let open = work.steps[m].writes() && work.steps[m].id().is_none();
            if open && matches!(work.saves.entries[m].mode, SaveMode::CreateIfNone | SaveMode::Update) {
                self.resolve(work, m).await?;
            }
        }
        for (n, current) in merges {
            let steps = work.steps.clone();
            let (saves, delivery) = (work.saves, work.job.delivery);
            work.change(n, &saves.entries[n], current, &|m| links(saves, &steps, delivery, m), self.patch_format(&saves.entries[n]));
        }
        Ok(())
    }

    /// The answer, and the entries that were sent in their order; `None` if there is nothing to send.
    async fn post_transaction(&self, work: &Work<'_>) -> Result<Option<(Answer, Vec<usize>)>, Setback> {
        let delivery = work.job.delivery;
        let mut body = Json::with_capacity(4096);
        let link = |n: usize| links(work.saves, &work.steps, delivery, n);
        let sent = write_bundle(BundleKind::Transaction, work.saves, &work.steps, delivery, &|_| true, &link, &mut body);
        if sent.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.post_bundle(body).await?, sent)))
    }

    /// After a refusal: puts whole resources in the place of patches. False if there are none, or if a patch met another state than it was made for.
    pub(crate) async fn without_patches(&self, work: &mut Work<'_>) -> Result<bool, Setback> {
        let mut any = false;
        for n in 0..work.steps.len() {
            let Step::Patch(change) = &work.steps[n] else { continue };
            if self.is_outdated(work.saves.entries[n].resource_type, change).await? {
                return Ok(false);
            }
            any |= work.send_whole(n);
        }
        Ok(any)
    }

    pub(crate) async fn post_bundle(&self, body: Json) -> Result<Answer, Setback> {
        let request = self.client.post(&self.base).header(CONTENT_TYPE, "application/fhir+json").header("Prefer", "return=minimal");
        self.send_json(request, body, Effect::Writes).await
    }

    /// A refusal because a patch was made for a state that is gone.
    pub(crate) async fn find_outdated(&self, work: &mut Work<'_>, answer: &Answer) -> Option<Setback> {
        if !may_refuse_patches(answer.status) {
            return None;
        }
        for n in 0..work.steps.len() {
            let Some(Step::Patch(change)) = work.steps.get(n) else { continue };
            match self.is_outdated(work.saves.entries.get(n)?.resource_type, change).await {
                Ok(true) => {
                    work.forget(n);
                    return Some(outdated(answer));
                }
                Ok(false) => {}
                Err(setback) => return Some(setback),
            }
        }
        None
    }

    /// Why a transaction as a whole was refused: a known id that is no longer true, a race, the message, or the target.
    async fn refused(&self, work: &mut Work<'_>, answer: &Answer) -> Setback {
        let endpoint = || setback(answer, Asked::Endpoint, "the transaction");
        if let Some(raced) = self.find_outdated(work, answer).await {
            return raced;
        }
        match answer.status {
            412 => {
                let all: Vec<usize> = (0..work.steps.len()).collect();
                let verdict = self.explain_412(work, answer, &all).await;
                if verdict.fault == Fault::Race {
                    all.iter().filter(|n| work.known[**n] && work.steps[**n].writes()).copied().collect::<Vec<_>>().iter().for_each(|n| work.forget(*n));
                }
                verdict
            }
            409 if answer.is_fhir() => match self.find_stale(work, answer).await {
                Some(setback) => setback,
                None => self.explain_409(work, answer).await,
            },
            // Servers differ in what they say about an id or a reference to what is no longer there.
            400 | 404 | 405 | 410 | 422 if answer.is_fhir() => self.find_stale(work, answer).await.unwrap_or_else(endpoint),
            _ => endpoint(),
        }
    }
}

/// The entries that a merge's lists refer to, where old and new entries of the list are compared.
fn linked_from_lists(save: &Save) -> Vec<usize> {
    let mut found = Vec::new();
    for (element, how) in &save.merge {
        if *how != ListMerge::Replace
            && let Some(list) = save.body.get(element)
        {
            list.links(&mut |entry| found.push(entry));
        }
    }
    found
}

/// A patch that met another state than it was made for.
pub(crate) fn outdated(answer: &Answer) -> Setback {
    answer.setback(Retry::Transient, Fault::Race, "patch-outdated", "somebody else changed the resource in between; it is read again")
}

/// A delete of what is gone already has done what it should.
pub(crate) fn is_gone(work: &Work<'_>, n: usize, status: u16) -> bool {
    matches!(status, 404 | 410) && work.saves.entries.get(n).is_some_and(|s| s.mode == SaveMode::Delete)
}

/// Takes the server's word for one entry. `Some` if it did less than asked: a conditional create that found something where we had seen
/// nothing has left our content out.
pub(crate) fn accept(work: &mut Work<'_>, n: usize, id: Option<String>, etag: Option<String>, status: u16) -> Option<Setback> {
    let save = work.saves.entries.get(n)?;
    if save.mode == SaveMode::Delete {
        work.forget(n);
        return None;
    }
    if matches!(work.steps.get(n), Some(Step::Post { once: true })) && save.mode != SaveMode::CreateIfNone && status == 200 {
        return Some(Setback {
            retry: Retry::Transient,
            fault: Fault::Race,
            retry_after: None,
            status: Some(200),
            code: "created-meanwhile",
            summary: format!("'{}': somebody else created it in between; it is read again", save.name),
            detail: None,
            stale: Vec::new(),
            saved: Vec::new(),
            sent: Vec::new(),
            about: Vec::new(),
        });
    }
    let id = work.steps.get(n).and_then(Step::id).map(str::to_owned).or(id);
    if let Some(id) = id {
        work.note(n, &id, etag, status);
    }
    None
}

pub(crate) fn same_resource(work: &Work<'_>, a: usize, b: usize) -> Setback {
    let name = |n: usize| work.saves.entries.get(n).map_or("", |s| s.name.as_str());
    let resource_type = work.saves.entries.get(a).map_or("", |s| s.resource_type);
    Setback {
        retry: Retry::Permanent,
        fault: Fault::Message,
        retry_after: None,
        status: None,
        code: "same-resource",
        summary: format!("'{}' and '{}' are one {resource_type}, which a transaction may write only once", name(a), name(b)),
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
        sent: Vec::new(),
        about: Vec::new(),
    }
}
