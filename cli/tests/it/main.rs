//! End to end: the real `ozma`, a real engine, real containers. `scripts/test.sh` makes the images they need.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod agent;
mod bench;
mod cancel;
mod cli;
mod client;
mod conversation;
mod direct;
mod ends;
mod exec;
mod faults;
mod fidelity;
mod harness_images;
mod images;
mod providers;
mod restarts;
mod secrets;
mod stack;
mod success;
mod tenants;
