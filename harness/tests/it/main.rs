//! Providers as the sidecar drives them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod agent;
mod cli;
mod command;
mod endpoints;
mod mcp;
mod run;
mod transcripts;
