//! A real worker against a plane that is only its WebSocket, with real containers and the real sidecar.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod direct;
mod docker;
mod ends;
mod engine;
mod life;
mod link;
mod plane;
mod remote;
mod restart;
mod rig;
mod stop;
mod sweep;
