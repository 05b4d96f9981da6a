//! The program's only source of randomness, which the seed decides.
//!
//! The standard library's hash keys, uuids and the runtime's own choices come from the C library's `getrandom`. This
//! program defines that function itself, so that they are functions of the seed as well. It runs one seed a process and
//! its simulation on one thread: else the order of the calls would not be.

#![allow(unsafe_code)]

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// Begins anew with a seed.
pub(crate) fn begin(seed: u64) {
    STATE
        .store(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x1234_5678_9abc_def1, Ordering::Relaxed);
}

/// The next number (splitmix64).
fn next() -> u64 {
    let mut z = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What getrandom(2) says: fills the buffer, and answers how much it has filled.
///
/// # Safety
/// `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller of getrandom(2) gives a buffer of that length.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&next().to_le_bytes()[..piece.len()]);
    }
    length.cast_signed()
}
