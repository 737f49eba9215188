//! Intake, dispatch, delivery, reload and the order of shutdown.
