//! Profiles as files.
