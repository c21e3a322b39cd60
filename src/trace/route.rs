//! Routes from targets.
