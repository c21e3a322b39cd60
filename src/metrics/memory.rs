//! What this process has allocated: now, by what the allocator says of itself, and ever, by counting.
//!
//! glibc does not count what was ever allocated, so [`CountingAllocator`] stands before it: one addition for
//! each allocation, to one of a few counters, so that threads do not wait for each other's cache line.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The heap at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heap {
    /// Bytes that are allocated.
    pub allocated_bytes: u64,
    /// Bytes that the allocator has of the system.
    pub system_bytes: u64,
}

/// What the allocator says (mallinfo(3)). Looks at all its arenas, some microseconds each.
#[cfg(target_env = "gnu")]
#[must_use]
pub fn heap() -> Heap {
    // SAFETY: mallinfo2 takes nothing and returns plain numbers.
    let info = unsafe { libc::mallinfo2() };
    let bytes = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    Heap {
        allocated_bytes: bytes(info.uordblks.saturating_add(info.hblkhd)),
        system_bytes: bytes(info.arena.saturating_add(info.hblkhd)),
    }
}

/// Other C libraries do not tell: what was counted and not given back, and the same for want of more.
#[cfg(not(target_env = "gnu"))]
#[must_use]
pub fn heap() -> Heap {
    let given_back = |stripe: &Stripe| stripe.freed.load(Ordering::Relaxed);
    let allocated_bytes = ever_allocated_bytes().saturating_sub(STRIPES.iter().map(given_back).sum());
    Heap { allocated_bytes, system_bytes: allocated_bytes }
}

/// Memory that is allocated and free again is kept by the allocator up to here.
#[cfg(target_env = "gnu")]
const KEPT_FREE_BYTES: u64 = 32 << 20;

/// Gives free memory back to the system, if there is much of it: after the answer to a great query, glibc keeps
/// what it took, and a server that is left running would for ever take what its greatest moment took. Some
/// milliseconds if there is something to give back.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        let Heap { allocated_bytes, system_bytes } = heap();
        if system_bytes.saturating_sub(allocated_bytes) > KEPT_FREE_BYTES {
            // SAFETY: it takes a number, and may be called at any time from any thread.
            unsafe { libc::malloc_trim(0) };
        }
    }
}

/// From here on pieces of a mebibyte and more are taken of the system and given back to it one by one. glibc raises that
/// limit by itself to the greatest piece that was ever freed, and keeps what is smaller: after the unwind tables of a
/// browser and a JVM were read, 20 MB for good. For programs that are over before they would use it again.
pub fn keep_no_large_pieces() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes two numbers, and may be called at any time from any thread.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
    }
}

/// Bytes that were ever allocated by Rust code of this process; 0 where [`CountingAllocator`] is not in use.
#[must_use]
pub fn ever_allocated_bytes() -> u64 {
    STRIPES.iter().map(|stripe| stripe.allocated.load(Ordering::Relaxed)).sum()
}

/// The system's allocator, counted.
pub struct CountingAllocator;

/// Counters of some threads, on a cache line of their own.
#[repr(align(64))]
struct Stripe {
    allocated: AtomicU64,
    #[cfg(not(target_env = "gnu"))]
    freed: AtomicU64,
}

static STRIPES: [Stripe; 16] = [const {
    Stripe {
        allocated: AtomicU64::new(0),
        #[cfg(not(target_env = "gnu"))]
        freed: AtomicU64::new(0),
    }
}; 16];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // Without a destructor and with a constant beginning, it needs no allocation and may be used at any time.
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn stripe() -> &'static Stripe {
    let index = STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES.len());
        }
        stripe.get()
    });
    STRIPES.get(index).unwrap_or(&STRIPES[0])
}

fn count(bytes: usize) {
    stripe().allocated.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: everything is done by the system's allocator, with the arguments that it is to get.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        #[cfg(not(target_env = "gnu"))]
        stripe().freed.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        #[cfg(target_env = "gnu")]
        count(size.saturating_sub(layout.size()));
        #[cfg(not(target_env = "gnu"))]
        {
            count(size);
            stripe().freed.fetch_add(layout.size() as u64, Ordering::Relaxed);
        }
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_once_and_only_growth_of_what_grows() {
        let before = ever_allocated_bytes();
        let layout = Layout::from_size_align(1_000_000, 8).expect("sizes");
        // SAFETY: the size is not zero, and the pointer is given back with the layout it has.
        unsafe {
            let pointer = CountingAllocator.alloc(layout);
            assert!(!pointer.is_null());
            let pointer = CountingAllocator.realloc(pointer, layout, 1_500_000);
            assert!(!pointer.is_null());
            CountingAllocator.dealloc(pointer, Layout::from_size_align(1_500_000, 8).expect("sizes"));
        }
        let counted = ever_allocated_bytes() - before;
        assert!((1_500_000..3_000_000).contains(&counted), "{counted}");
    }

    #[test]
    fn the_heap_has_what_is_held() {
        let held = std::hint::black_box(vec![1_u8; 8 << 20]);
        let heap = heap();
        assert!(heap.allocated_bytes >= held.len() as u64 || cfg!(not(target_env = "gnu")), "{heap:?}");
        assert!(heap.system_bytes >= heap.allocated_bytes, "{heap:?}");
    }
}
