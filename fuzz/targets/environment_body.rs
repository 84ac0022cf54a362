//! The body of `POST /api/v1/environments`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    control_plane::fuzzing::environment_body(data);
});
