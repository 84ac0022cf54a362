//! Frames of a plane, as a worker reads and acts on them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    worker::fuzzing::plane_says(data);
});
