//! What tests need of the world around Ozma: a database, a worker, a model, a broken network, an image.
//! Only ever a dev-dependency. Helpers panic with a sentence where a program would return an error:
//! a panic is how a test reports.

pub mod disk;
pub mod engine;
pub mod http;
pub mod image;
pub mod model;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod repo;
pub mod silence;
mod task;
pub mod wait;
pub mod worker;
