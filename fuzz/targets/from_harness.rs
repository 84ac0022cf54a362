//! Lines of the unprivileged child, as the sidecar reads them.

#![no_main]

use fuzz::settles;
use libfuzzer_sys::fuzz_target;
use protocol::sidecar::FromHarness;

fuzz_target!(|data: &[u8]| {
    settles(FromHarness::parse, FromHarness::to_json, data);
});
