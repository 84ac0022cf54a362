//! Lines of what a process prints, and of a sidecar's socket.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    harness::fuzzing::lines(data);
    worker::fuzzing::lines(data);
});
