//! Lines of a worker, as a sidecar reads and acts on them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    sidecar::fuzzing::worker_says(data);
});
