//! Frames of a worker, as the plane reads them.

#![no_main]

use fuzz::settles;
use libfuzzer_sys::fuzz_target;
use protocol::link::FromWorker;

fuzz_target!(|data: &[u8]| {
    settles(FromWorker::parse, FromWorker::to_json, data);
});
