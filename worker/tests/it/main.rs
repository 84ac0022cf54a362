//! A real worker against a plane that is only its WebSocket, with real containers and the real sidecar.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod direct;
mod disk;
mod docker;
mod ends;
mod engine;
mod full;
mod harness;
mod life;
mod link;
mod plane;
mod remote;
mod restart;
mod rig;
mod session;
mod stop;
mod sweep;
