//! How a process says in which span its threads are, as the sampler is told it.

use spanflame_symbols::go::GoLabels;
use spanflame_symbols::thread_local::ThreadLocalPlace;

use super::abi::{sf_words, sf_words_kind};

/// Where a thread's own word of its span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationWords {
    /// OpenTelemetry's thread context (OTEP 4947): where its pointer is.
    ThreadContext(ThreadLocalPlace),
    /// Labels of Go's profiler.
    GoLabels(GoLabels),
}

impl ApplicationWords {
    pub(super) fn for_kernel(&self) -> sf_words {
        let mut words = sf_words::default();
        match *self {
            Self::ThreadContext(ThreadLocalPlace::Distance(distance)) => {
                words.kind = sf_words_kind::SF_WORDS_THREAD.0;
                words.offset = distance;
            }
            Self::ThreadContext(ThreadLocalPlace::Module { module, offset }) => {
                words.kind = sf_words_kind::SF_WORDS_MODULE.0;
                words.module = module;
                words.offset = offset.cast_signed();
            }
            Self::GoLabels(GoLabels { goroutines, g_labels, is_slice }) => {
                words.kind = match is_slice {
                    true => sf_words_kind::SF_WORDS_GO_SLICE.0,
                    false => sf_words_kind::SF_WORDS_GO_MAP.0,
                };
                words.offset = goroutines.tls_offset.into();
                (words.g_m, words.m_curg) = (goroutines.g_m, goroutines.m_curg);
                words.g_labels = g_labels;
            }
        }
        words
    }
}
