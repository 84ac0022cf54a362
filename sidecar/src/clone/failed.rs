//! Why a repository could not be cloned, without credentials.

use harness::failure::Failure;
use protocol::failure::FailureReason;

use super::source::without_credentials;
use crate::{exit::stopped, process::Broken};

pub(super) fn failed(url: &str, why: &str) -> Failure {
    let url = without_credentials(url);
    Failure::new(FailureReason::Clone, format!("could not clone {url}: {why}"))
}

pub(super) fn broken(url: &str, broken: Broken) -> Failure {
    match broken {
        Broken::Stopped(order) => stopped(&order),
        Broken::NotStarted(error) => failed(url, &error.to_string()),
    }
}
