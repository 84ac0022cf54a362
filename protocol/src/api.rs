//! Bodies of the REST API, for the plane that answers and the clients that ask: both read and write them.
//! The shapes of the Oz SDKs are a contract (oz-api.md 1.1 to 1.7); what is ours beside them is marked.

pub mod artifacts;
pub mod config;
pub mod environments;
pub mod events;
pub mod limits;
pub mod lists;
pub mod plane;
pub mod problem;
pub mod runs;
pub mod texts;
pub mod time;
pub mod tokens;
pub mod why;
pub mod workers;
