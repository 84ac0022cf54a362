//! What is said between Ozma's processes, and the rules of a run.
//! It does no IO, reads no clock, and knows neither tokio, axum nor sqlx.

pub mod api;
pub mod event;
pub mod evidence;
pub mod failure;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod link;
pub mod retry;
pub mod run;
pub mod secret;
pub mod sidecar;
pub mod spec;
