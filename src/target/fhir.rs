//! A FHIR server behind its REST interface.

use crate::target::{Fault, FhirConfig, Job, Receipt, Retry, Sending, Setback, TargetError};

/// A FHIR server.
pub struct FhirTarget {
    _config: FhirConfig,
}

fn unfinished() -> Setback {
    Setback {
        retry: Retry::Transient,
        fault: Fault::Target,
        retry_after: None,
        status: None,
        code: "unfinished",
        summary: "this target cannot deliver yet".to_owned(),
        detail: None,
        stale: Vec::new(),
        saved: Vec::new(),
    }
}

impl FhirTarget {
    /// Opens the target.
    pub fn open(config: FhirConfig) -> Result<Self, TargetError> {
        Ok(Self { _config: config })
    }

    /// One attempt at a delivery.
    pub async fn deliver(&self, _job: Job<'_>, _send: Sending) -> Result<Receipt, Setback> {
        Err(unfinished())
    }

    /// Reads the CapabilityStatement.
    pub async fn probe(&self) -> Result<(), Setback> {
        Err(unfinished())
    }
}
