//! The control plane's tests of effects, in one binary.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod api;
mod auth;
mod base;
mod connections;
mod conversations;
mod dispatch;
mod drains;
mod edge;
mod events_http;
mod evidence;
mod feed;
mod followups;
mod histories;
mod hostile;
mod ingest;
mod input;
mod jumps;
mod leases;
mod limits;
mod link;
mod migrations;
mod openapi;
mod page;
mod policies;
mod queue;
mod retention;
mod retries;
mod runs;
mod sdk;
mod step;
mod store;
mod tenants;
mod waits;
mod why;
mod writer;
