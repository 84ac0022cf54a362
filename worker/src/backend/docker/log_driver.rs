//! Where the output of containers is kept by the engine.

use std::collections::HashMap;

use bollard::models::{HostConfigLogConfig, SystemInfo};

/// Where the engine keeps what the sidecar prints, for people who look after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogDriver {
    /// Bounded to one file of a megabyte.
    Local,
    None,
}

impl LogDriver {
    pub(super) fn of(info: &SystemInfo, over_stdio: bool) -> Self {
        if over_stdio {
            // What is printed are the run's events, and the plane has them: not written a second time. One can
            // attach without a log.
            return Self::None;
        }
        let drivers = info.plugins.as_ref().and_then(|plugins| plugins.log.as_ref());
        match drivers {
            Some(drivers) if drivers.iter().any(|driver| driver == "local") => Self::Local,
            _ => Self::None,
        }
    }

    pub(super) fn config(self) -> HostConfigLogConfig {
        match self {
            Self::Local => HostConfigLogConfig {
                typ: Some("local".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "1m".to_owned()),
                    ("max-file".to_owned(), "1".to_owned()),
                    // The engine refuses to compress a single file.
                    ("compress".to_owned(), "false".to_owned()),
                ])),
            },
            Self::None => HostConfigLogConfig { typ: Some("none".to_owned()), config: None },
        }
    }
}
