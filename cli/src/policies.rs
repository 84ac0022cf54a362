//! Bounds, retries and tags on the command line, for environments and for single runs alike.

use clap::Args;
use protocol::{
    api::{config::AgentConfig, environments::EnvironmentBody},
    retry::{FailureClass, RetryPolicy},
};

/// What holds for a run; what is not said is the environment's or the plane's to say.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Policies {
    /// Seconds a run may take, set-up included
    #[arg(long, value_name = "SECONDS", alias = "timeout-secs")]
    pub timeout: Option<u64>,
    /// Seconds cloning and set-up may take
    #[arg(long, value_name = "SECONDS")]
    pub setup_timeout: Option<u64>,
    /// Seconds until the image must be there
    #[arg(long, value_name = "SECONDS")]
    pub image_timeout: Option<u64>,
    /// Seconds to wait for a worker; then the run fails
    #[arg(long, value_name = "SECONDS")]
    pub queue_timeout: Option<u64>,
    /// Attempts at most, 1 to 10; 1 is never again
    #[arg(long, value_name = "ATTEMPTS")]
    pub retry: Option<u32>,
    // An attribute, because the names would need marks in a comment that a terminal shows as they are.
    #[arg(long, value_name = "CLASS", value_parser = class,
        help = "Try again after this kind of failure, in place of the usual kinds: worker_lost, image_pull, \
                rejected, platform, setup, agent, provider, oom or timeout (repeatable)")]
    pub retry_on: Vec<FailureClass>,
    /// Only on a worker that has this tag (repeatable)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
}

impl Policies {
    pub(crate) fn put_into_environment(self, body: &mut EnvironmentBody) {
        body.retry = self.retry_policy();
        body.timeout_secs = self.timeout;
        body.setup_timeout_secs = self.setup_timeout;
        body.image_timeout_secs = self.image_timeout;
        body.queue_timeout_secs = self.queue_timeout;
        body.worker_tags = self.tag;
    }

    pub(crate) fn put_into_run(self, config: &mut AgentConfig) {
        config.retry = self.retry_policy();
        config.timeout_secs = self.timeout;
        config.setup_timeout_secs = self.setup_timeout;
        config.image_timeout_secs = self.image_timeout;
        config.queue_timeout_secs = self.queue_timeout;
        config.worker_tags = (!self.tag.is_empty()).then_some(self.tag);
    }

    fn retry_policy(&self) -> Option<RetryPolicy> {
        let on = (!self.retry_on.is_empty()).then(|| self.retry_on.clone());
        let policy = RetryPolicy { max_attempts: self.retry, on };
        (policy != RetryPolicy::default()).then_some(policy)
    }
}

/// A class of failure, for clap.
///
/// # Errors
/// None is called so; the text names those there are.
fn class(text: &str) -> Result<FailureClass, String> {
    FailureClass::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
        format!("the classes are {}", FailureClass::ALL.map(FailureClass::as_str).join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_sent() {
        let mut config = AgentConfig::default();
        Policies::default().put_into_run(&mut config);
        assert_eq!(config, AgentConfig::default());
        let some = Policies {
            retry_on: vec![class("oom").unwrap()],
            tag: vec!["gpu".to_owned()],
            ..Policies::default()
        };
        some.put_into_run(&mut config);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(json, r#"{"worker_tags":["gpu"],"retry":{"on":["oom"]}}"#);
        assert!(class("everything").unwrap_err().contains("worker_lost, image_pull"));
    }
}
