//! The engine's archive of an ended container's journal.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    worker::fuzzing::archive(data);
});
