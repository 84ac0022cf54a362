//! The body of `POST /api/v1/agent/runs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    control_plane::fuzzing::run_body(data);
});
