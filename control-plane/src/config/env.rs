//! Settings from environment variables. The names are a contract (oz-api.md 1.14); one that is set to nothing
//! counts as not set.

use std::{fmt::Display, str::FromStr};

use protocol::spec::ProviderKind;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Config, ConfigError, Tenancy};

type Set = fn(&mut Config, &str) -> Result<(), String>;

/// Every variable the plane obeys.
pub const VARIABLES: &[&str] = &{
    let mut names = [""; TABLE.len()];
    let mut at = 0;
    while at < TABLE.len() {
        names[at] = TABLE[at].0;
        at += 1;
    }
    names
};

// `OZ_LISTEN` stands before the port, so that the port wins whatever the order of the variables.
const TABLE: [(&str, Set); 39] = [
    ("OZ_LISTEN", |config, text| read(text).map(|address| config.listen = address)),
    ("OZ_CONTROL_PLANE_PORT", |config, text| read(text).map(|port| config.listen.set_port(port))),
    ("OZ_DATA_DIR", |config, text| {
        config.data_dir = text.into();
        Ok(())
    }),
    ("DATABASE_URL", |config, text| put_secret(&mut config.database_url, text)),
    ("OZ_ADMIN_API_KEY", |config, text| put_secret(&mut config.admin_key, text)),
    ("OZ_ENCRYPTION_KEY", |config, text| put_secret(&mut config.encryption_key, text)),
    ("OZ_ADMIN_API_KEY_FILE", |config, text| {
        config.admin_key_file = Some(text.into());
        Ok(())
    }),
    ("OZ_ENCRYPTION_KEY_FILE", |config, text| {
        config.encryption_key_file = Some(text.into());
        Ok(())
    }),
    ("OZ_TENANCY", |config, text| {
        config.tenancy = match text {
            "open" => Tenancy::Open,
            "registered" => Tenancy::Registered,
            _ => return Err("must be open or registered".to_owned()),
        };
        Ok(())
    }),
    ("OZ_ALLOW_OPEN_TENANCY", |config, text| flag(text).map(|on| config.allow_open = on)),
    ("OZ_DEFAULT_IMAGE", |config, text| put(&mut config.default_image, text)),
    ("OZ_DEFAULT_HARNESS", |config, text| provider(text).map(|one| config.default_harness = one)),
    ("OZ_KEEP_SESSIONS", |config, text| flag(text).map(|on| config.keep_sessions = on)),
    ("OZ_WORKER_SIDECAR_IMAGE", |config, text| put(&mut config.worker_sidecar_image, text)),
    ("OZ_CORS_ORIGIN", |config, text| put(&mut config.cors_origin, text)),
    ("OZ_PUBLIC_URL", |config, text| put(&mut config.public_url, text)),
    ("OZ_LOG_LEVEL", |config, text| {
        text.clone_into(&mut config.log_level);
        Ok(())
    }),
    ("OZ_MAX_BODY_BYTES", |config, text| read(text).map(|n| config.max_body_bytes = n)),
    ("OZ_LEASE_MS", |config, text| read(text).map(|n| config.lease_ms = n)),
    ("OZ_HEARTBEAT_MS", |config, text| read(text).map(|n| config.heartbeat_ms = n)),
    ("OZ_WORKER_CLAIM_TIMEOUT_MS", |config, text| read(text).map(|n| config.claim_timeout_ms = n)),
    ("OZ_MAX_ATTEMPTS", |config, text| read(text).map(|n| config.max_attempts = n)),
    ("OZ_MAX_QUEUED_RUNS", |config, text| read(text).map(|n| config.max_queued_runs = n)),
    ("OZ_MAX_RUNNING_RUNS", |config, text| read(text).map(|n| config.max_running_runs = n)),
    ("OZ_MAX_ENVIRONMENTS", |config, text| read(text).map(|n| config.max_environments = n)),
    ("OZ_MAX_STREAMS", |config, text| read(text).map(|n| config.max_streams = n)),
    ("OZ_RUN_TIMEOUT_SECS", |config, text| read(text).map(|n| config.run_timeout_secs = n)),
    ("OZ_SETUP_TIMEOUT_SECS", |config, text| read(text).map(|n| config.setup_timeout_secs = n)),
    ("OZ_IMAGE_TIMEOUT_SECS", |config, text| read(text).map(|n| config.image_timeout_secs = n)),
    ("OZ_QUEUE_TIMEOUT_SECS", |config, text| read(text).map(|n| config.queue_timeout_secs = n)),
    ("OZ_MAX_RUN_SECS", |config, text| read(text).map(|n| config.max_run_secs = n)),
    ("OZ_MAX_SETUP_SECS", |config, text| read(text).map(|n| config.max_setup_secs = n)),
    ("OZ_MAX_IMAGE_SECS", |config, text| read(text).map(|n| config.max_image_secs = n)),
    ("OZ_MAX_QUEUE_SECS", |config, text| read(text).map(|n| config.max_queue_secs = n)),
    ("OZ_RUN_RETENTION_DAYS", |config, text| read(text).map(|n| config.run_retention_days = n)),
    ("OZ_EVENT_RETENTION_DAYS", |config, text| read(text).map(|n| config.event_retention_days = n)),
    ("OZ_RETENTION_SWEEP_INTERVAL_MS", |config, text| {
        read(text).map(|n| config.retention_sweep_interval_ms = n)
    }),
    ("OZ_METRICS_TOKEN", |config, text| put_secret(&mut config.metrics_token, text)),
    ("OZ_METRICS_TOKEN_FILE", |config, text| {
        config.metrics_token_file = Some(text.into());
        Ok(())
    }),
];

impl Config {
    /// Takes what the variables say; others than [`VARIABLES`] are none of ours.
    ///
    /// # Errors
    /// A value cannot be read. The text names the variable and never shows its value.
    pub fn apply_env(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let variables: Vec<(String, String)> = variables
            .into_iter()
            .filter(|(name, value)| VARIABLES.contains(&name.as_str()) && !value.is_empty())
            .collect();
        for (name, set) in TABLE {
            for (_, value) in variables.iter().filter(|(given, _)| given == name) {
                set(self, value).map_err(|rule| ConfigError::new(name, rule))?;
            }
        }
        Ok(())
    }
}

fn read<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: T::Err| error.to_string())
}

#[expect(clippy::unnecessary_wraps, reason = "one form for every entry of the table")]
fn put(setting: &mut Option<String>, text: &str) -> Result<(), String> {
    *setting = Some(text.to_owned());
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "one form for every entry of the table")]
fn put_secret(setting: &mut Option<SecretString>, text: &str) -> Result<(), String> {
    *setting = Some(SecretString::from(text.trim().to_owned()));
    Ok(())
}

/// A provider by its name.
fn provider(text: &str) -> Result<Option<ProviderKind>, String> {
    let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text.trim());
    ProviderKind::deserialize(name).map(Some).map_err(|error| error.to_string())
}

/// The community plane's forms of yes, and their opposites.
fn flag(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("must be 1, true, yes, on, 0, false, no or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_variable_wins_over_the_file_and_nothing_is_not_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ozma.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:9000\"\nmax_attempts = 5\n").unwrap();
        let variables = pairs(&[
            ("OZ_CONTROL_PLANE_PORT", "9001"),
            ("OZ_LISTEN", "[::1]:1"),
            ("OZ_DEFAULT_IMAGE", ""),
            ("OZ_SOMETHING_ELSE", "x"),
        ]);
        let config = Config::load(Some(&file), variables).unwrap();
        assert_eq!(config.listen.to_string(), "[::1]:9001");
        assert_eq!((config.max_attempts, config.default_image), (5, None));
    }

    #[test]
    fn a_bad_value_is_named_and_not_shown() {
        let error = Config::load(None, pairs(&[("OZ_TENANCY", "hunter2")])).unwrap_err();
        assert_eq!(error.to_string(), "OZ_TENANCY: must be open or registered");
        assert!(Config::load(None, pairs(&[("OZ_LEASE_MS", "-1")])).is_err());
        let error = Config::load(None, pairs(&[("OZ_DEFAULT_HARNESS", "hal")])).unwrap_err();
        assert!(error.to_string().starts_with("OZ_DEFAULT_HARNESS: unknown variant"), "{error}");
        let config = Config::load(None, pairs(&[("OZ_DEFAULT_HARNESS", "command")])).unwrap();
        assert_eq!(config.validate().unwrap_err().setting, "default_harness");
    }

    #[test]
    fn a_misspelt_key_of_the_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ozma.toml");
        std::fs::write(&file, "lisen = \"127.0.0.1:9000\"\n").unwrap();
        let error = format!("{:#}", Config::load(Some(&file), Vec::new()).unwrap_err());
        assert!(error.contains("lisen"), "{error}");
    }

    #[test]
    fn secrets_do_not_print() {
        let variables =
            pairs(&[("OZ_ADMIN_API_KEY", "hunter2"), ("DATABASE_URL", "postgres://u:hunter2@h/d")]);
        let config = Config::load(None, variables).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
