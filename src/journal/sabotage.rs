//! The two faults that the power-loss test must notice. Only in builds with the feature `sabotage`, which no release has.

fn is(word: &str) -> bool {
    std::env::var("KILN_SABOTAGE").is_ok_and(|value| value == word)
}

/// Commits without fsync.
pub(in crate::journal) fn sync_off() -> bool {
    is("sync-off")
}

/// Says that a message is stored before it is.
pub(in crate::journal) fn early_acknowledgement() -> bool {
    is("early-ack")
}
