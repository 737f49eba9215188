//! The folder of files that describes a site: listeners, targets, credentials, typed and checked.
