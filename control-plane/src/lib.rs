//! The control plane: API, dispatch and storage. `http` and `link` call `runs`, `dispatch` and `feed`, and those
//! the store; the store knows no HTTP, HTTP no SQL, and nothing here knows containers.

mod alone;
pub mod app;
pub mod config;
pub mod core;
pub mod counters;
pub mod dispatch;
mod entry;
pub mod environments;
pub mod evidence;
pub mod feed;
mod http;
mod keys;
pub mod link;
pub mod loops;
pub mod metrics;
pub mod placement;
pub mod plan;
mod planes;
pub mod reaper;
pub mod reports;
pub mod retention;
pub mod runs;
pub mod scope;
pub mod sealing;
pub mod state;
pub mod store;
mod streams;
mod time;
pub mod timeouts;
pub mod wake;
pub mod why;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use self::http::fuzzing;
pub use app::Plane;
pub use config::{Config, ConfigError, Tenancy};
