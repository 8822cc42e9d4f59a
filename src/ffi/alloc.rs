//! The global allocator: every byte of the module is in the server's `used_memory` and counts
//! against `maxmemory`. Any thread.
//!
//! Before the server filled in the bindings, and in test programs that link this crate without a
//! server, the system's allocator serves; nothing allocated by the one is freed by the other, because
//! OnLoad fills in the bindings before it allocates.

use redis_module::raw;
use std::alloc::{GlobalAlloc, Layout, System};

struct ServerAlloc;

#[global_allocator]
static ALLOCATOR: ServerAlloc = ServerAlloc;

/// What every allocation is aligned to. The jemalloc that Redis and Valkey bundle is built with a
/// quantum of 8: a request of 24 or 40 bytes is aligned to no more.
const MIN_ALIGN: usize = 8;

/// Size to ask for. jemalloc aligns a size that is a multiple of a power of two to that power (up to
/// a page), libc aligns everything to 16; no part of the module needs more than 16.
fn padded(layout: Layout) -> usize {
    if layout.align() <= MIN_ALIGN { layout.size() } else { layout.pad_to_align().size() }
}

// SAFETY: each method hands the request to one allocator that keeps the contract of `GlobalAlloc`:
// the server's zmalloc family never unwinds, and `padded` sees to the alignment.
unsafe impl GlobalAlloc for ServerAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract; the binding is read by value.
        unsafe {
            match raw::RedisModule_Alloc {
                Some(alloc) => alloc(padded(layout)).cast(),
                None => System.alloc(layout),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Asking for zeroed pages saves touching them.
        unsafe {
            match raw::RedisModule_Calloc {
                Some(calloc) => calloc(1, padded(layout)).cast(),
                None => System.alloc_zeroed(layout),
            }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that `size`, rounded up to the alignment, does not overflow.
        unsafe {
            match raw::RedisModule_Realloc {
                Some(realloc) => {
                    let new = Layout::from_size_align_unchecked(size, layout.align());
                    realloc(pointer.cast(), padded(new)).cast()
                }
                None => System.realloc(pointer, layout, size),
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the same allocator, see the head of this file.
        unsafe {
            match raw::RedisModule_Free {
                Some(free) => free(pointer.cast()),
                None => System.dealloc(pointer, layout),
            }
        }
    }
}
