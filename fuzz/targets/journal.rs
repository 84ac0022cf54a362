//! What root in the container may do to the sidecar's journal.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    sidecar::fuzzing::journal(data);
});
