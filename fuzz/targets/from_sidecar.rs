//! Lines of a container, as its worker reads and acts on them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    worker::fuzzing::sidecar_says(data);
});
