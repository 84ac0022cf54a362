//! `Last-Event-ID`, and after a newline the query.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    control_plane::fuzzing::sse_id(data);
    control_plane::fuzzing::query(data);
});
