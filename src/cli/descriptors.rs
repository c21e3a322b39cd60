//! What recordings and the server take of the process's file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all file descriptors that this process may have: each executable and library keeps one.
/// Answers the limit as it was, for the processes that we start: programs that use `select` rely on
/// the low one.
pub(crate) fn raise_descriptor_limit() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current != before.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!("RLIMIT_NOFILE stays at {:?}: {error}", before.current);
    }
    before
}
