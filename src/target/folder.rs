//! A folder of files as a target.

use crate::target::{Fault, FolderConfig, Job, Receipt, Retry, Setback, TargetError};

/// A folder.
pub struct FolderTarget {
    _config: FolderConfig,
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

impl FolderTarget {
    /// Opens the folder.
    pub fn open(config: FolderConfig) -> Result<Self, TargetError> {
        Ok(Self { _config: config })
    }

    /// Compares with what the journal remembers.
    pub fn resume(&self, _state: &str) -> Result<(), TargetError> {
        Ok(())
    }

    /// One attempt at a delivery.
    pub async fn deliver(&self, _job: Job<'_>) -> Result<Receipt, Setback> {
        Err(unfinished())
    }

    /// Is the folder writable?
    pub fn probe(&self) -> Result<(), Setback> {
        Err(unfinished())
    }
}
