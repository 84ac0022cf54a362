//! The control plane's tests of effects, in one binary.

mod base;
mod migrations;
mod store;
