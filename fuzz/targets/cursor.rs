//! Where a listing is to go on.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    control_plane::fuzzing::cursor(data);
});
