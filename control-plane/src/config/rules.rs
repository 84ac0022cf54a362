//! What settings may be, all of them at once. Every error names its setting.

use axum::http::HeaderValue;
use protocol::spec::ProviderKind;
use secrecy::ExposeSecret;

use super::{Config, ConfigError, Tenancy};
use crate::{sealing::Sealer, timeouts::MAX_TIMEOUT_SECS};

/// An admin key shorter than this is a password, and one that can be guessed.
const MIN_ADMIN_KEY_BYTES: usize = 8;

impl Config {
    /// Whether the plane can start with this.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_exposure()?;
        self.validate_secrets()?;
        self.validate_addresses()?;
        self.validate_bounds()
    }

    fn validate_exposure(&self) -> Result<(), ConfigError> {
        if self.tenancy == Tenancy::Open && !self.listen.ip().is_loopback() && !self.allow_open {
            return Err(ConfigError::new(
                "listen",
                format!(
                    "{} is not loopback, and with open tenancy anybody who reaches it becomes a tenant and \
                     starts containers. Set OZ_TENANCY=registered (an admin issues tokens), or listen on \
                     127.0.0.1, or accept it with OZ_ALLOW_OPEN_TENANCY=1",
                    self.listen
                ),
            ));
        }
        Ok(())
    }

    fn validate_secrets(&self) -> Result<(), ConfigError> {
        for (name, value, file) in [
            ("admin_key", &self.admin_key, &self.admin_key_file),
            ("encryption_key", &self.encryption_key, &self.encryption_key_file),
            ("metrics_token", &self.metrics_token, &self.metrics_token_file),
        ] {
            if value.is_some() && file.is_some() {
                return Err(ConfigError::new(name, format!("give it or {name}_file, not both")));
            }
        }
        if let Some(key) = &self.admin_key {
            check_admin_key(key.expose_secret())
                .map_err(|rule| ConfigError::new("admin_key", rule))?;
        }
        if let Some(key) = &self.encryption_key {
            Sealer::from_text(key.expose_secret())
                .map_err(|error| ConfigError::new("encryption_key", error.to_string()))?;
        }
        if let Some(token) = &self.metrics_token {
            check_admin_key(token.expose_secret())
                .map_err(|rule| ConfigError::new("metrics_token", rule))?;
        }
        let Some(url) = &self.database_url else { return Ok(()) };
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if known.iter().any(|scheme| url.expose_secret().starts_with(scheme)) {
            Ok(())
        } else {
            Err(ConfigError::new(
                "database_url",
                "must begin with sqlite:, postgres:// or postgresql://",
            ))
        }
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        for origin in self.cors_origins() {
            let web = origin.starts_with("http://") || origin.starts_with("https://");
            let plain = HeaderValue::from_str(origin).is_ok() && !origin.ends_with('/');
            if origin != "*" && !(web && plain) {
                let rule = "must be * or origins like https://example.org, parted by commas";
                return Err(ConfigError::new("cors_origin", rule));
            }
        }
        if let Some(url) = &self.public_url {
            let web = url.starts_with("http://") || url.starts_with("https://");
            if !web || url.ends_with('/') || url.chars().any(char::is_whitespace) {
                let rule = "must be like https://ozma.example.org, without a / at the end";
                return Err(ConfigError::new("public_url", rule));
            }
        }
        if self.default_harness == Some(ProviderKind::Command) {
            let rule = "command has no command line without an environment; name a provider";
            return Err(ConfigError::new("default_harness", rule));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::new("data_dir", "must not be empty"));
        }
        if self.log_level.trim().is_empty() {
            return Err(ConfigError::new("log_level", "must not be empty"));
        }
        Ok(())
    }

    fn validate_bounds(&self) -> Result<(), ConfigError> {
        let bytes = u64::try_from(self.max_body_bytes).unwrap_or(u64::MAX);
        let week = MAX_TIMEOUT_SECS;
        for (name, value, least, most) in [
            ("max_body_bytes", bytes, 1 << 10, 64 << 20),
            ("lease_ms", self.lease_ms, 100, 3_600_000),
            ("heartbeat_ms", self.heartbeat_ms, 20, 3_600_000),
            ("claim_timeout_ms", self.claim_timeout_ms, 100, 3_600_000),
            ("max_attempts", u64::from(self.max_attempts), 1, 100),
            ("max_queued_runs", u64::from(self.max_queued_runs), 0, 10_000_000),
            ("max_running_runs", u64::from(self.max_running_runs), 0, 10_000_000),
            ("max_environments", u64::from(self.max_environments), 1, 1_000_000),
            ("max_streams", u64::from(self.max_streams), 1, 100_000),
            // A default above its ceiling counts as the ceiling.
            ("run_timeout_secs", self.run_timeout_secs, 1, week),
            ("setup_timeout_secs", self.setup_timeout_secs, 1, week),
            ("image_timeout_secs", self.image_timeout_secs, 1, week),
            ("queue_timeout_secs", self.queue_timeout_secs, 0, week),
            ("max_run_secs", self.max_run_secs, 1, week),
            ("max_setup_secs", self.max_setup_secs, 1, week),
            ("max_image_secs", self.max_image_secs, 1, week),
            ("max_queue_secs", self.max_queue_secs, 1, week),
            ("retention_sweep_interval_ms", self.retention_sweep_interval_ms, 60_000, week * 1_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(ConfigError::new(name, format!("must be {least} to {most}")));
            }
        }
        // Longer than the calendar goes on; a sum of it and the time must be a number.
        for (name, days) in [
            ("run_retention_days", self.run_retention_days),
            ("event_retention_days", self.event_retention_days),
        ] {
            if days > 36_500 {
                return Err(ConfigError::new(name, "must be at most 36500"));
            }
        }
        if self.heartbeat_ms.saturating_mul(2) > self.lease_ms {
            let rule = "must be at most half of lease_ms, so that one lost heartbeat loses no run";
            return Err(ConfigError::new("heartbeat_ms", rule));
        }
        Ok(())
    }

    /// The origins of `cors_origin`; none when it is off.
    pub(crate) fn cors_origins(&self) -> impl Iterator<Item = &str> {
        let list = self.cors_origin.as_deref().unwrap_or_default();
        list.split(',').map(str::trim).filter(|origin| !origin.is_empty())
    }
}

/// A key must fit into an `Authorization` header, and not be guessed by hand.
pub(crate) fn check_admin_key(key: &str) -> Result<(), String> {
    if key.len() < MIN_ADMIN_KEY_BYTES {
        return Err(format!("must be at least {MIN_ADMIN_KEY_BYTES} characters"));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must consist of visible ASCII characters".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().setting
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn open_tenancy_beyond_loopback_must_be_said_aloud() {
        let open = Config { listen: ([0, 0, 0, 0], 8080).into(), ..Config::default() };
        let error = open.validate().unwrap_err().to_string();
        assert!(error.contains("OZ_ALLOW_OPEN_TENANCY=1"), "{error}");
        assert_eq!(Config { allow_open: true, ..open.clone() }.validate(), Ok(()));
        assert_eq!(Config { tenancy: Tenancy::Registered, ..open }.validate(), Ok(()));
    }

    #[test]
    fn every_error_names_its_setting() {
        let secret = |text: &str| Some(SecretString::from(text.to_owned()));
        assert_eq!(refused(|config| config.admin_key = secret("short")), "admin_key");
        assert_eq!(refused(|config| config.encryption_key = secret("short")), "encryption_key");
        assert_eq!(refused(|config| config.database_url = secret("mysql://h/d")), "database_url");
        assert_eq!(
            refused(|config| config.cors_origin = Some("example.org".into())),
            "cors_origin"
        );
        assert_eq!(refused(|config| config.public_url = Some("x".into())), "public_url");
        assert_eq!(refused(|config| config.heartbeat_ms = 11_000), "heartbeat_ms");
        assert_eq!(refused(|config| config.max_attempts = 0), "max_attempts");
        assert_eq!(refused(|config| config.max_body_bytes = 0), "max_body_bytes");
        assert_eq!(refused(|config| config.max_run_secs = 604_801), "max_run_secs");
        assert_eq!(refused(|config| config.run_timeout_secs = 0), "run_timeout_secs");
        assert_eq!(refused(|config| config.run_retention_days = 40_000), "run_retention_days");
        let interval = refused(|config| config.retention_sweep_interval_ms = 59_999);
        assert_eq!(interval, "retention_sweep_interval_ms");
        let keep = Config { run_retention_days: -1, queue_timeout_secs: 0, ..Config::default() };
        assert_eq!((keep.validate(), keep.settings().run_retention), (Ok(()), None));
    }
}
