//! What the codex provider prints.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::spec::ProviderKind;

fuzz_target!(|data: &[u8]| {
    harness::fuzzing::provider_output(ProviderKind::Codex, data);
});
