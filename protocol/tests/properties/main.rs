//! What holds for every input: of the state machine, of the retry policy, and of everything read from a wire.
//! How many inputs are tried is `PROPTEST_CASES`; a find becomes a named test beside the code it was found in.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod damage;
mod frames;
mod runs;
mod texts;
mod values;

use proptest::test_runner::Config;

/// As many cases as asked for. Finds are written down as tests of their own, not as seeds.
fn config() -> Config {
    Config { failure_persistence: None, ..Config::default() }
}
