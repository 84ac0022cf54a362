//! Patterns of files to keep, with a path after a newline.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        sidecar::fuzzing::pattern(text);
    }
});
