//! The sidecar as a worker meets it: a process at the other end of a socket.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod agent;
mod artifacts;
mod cancel;
mod clone;
mod container;
mod http_git;
mod link;
mod output;
mod session;
mod setup;
mod worker;
