//! Ids with types: one for each thing that has an identity, checked at the door.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest id of any kind, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be 1 to {MAX_ID_BYTES} characters, {allowed}")]
pub struct BadId {
    kind: &'static str,
    allowed: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                let allowed: fn(char) -> bool = $check;
                if !text.is_empty() && text.len() <= MAX_ID_BYTES && text.chars().all(allowed) {
                    Ok(Self(text))
                } else {
                    Err(BadId { kind: $kind, allowed: $allowed })
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// What an id of our own may consist of: one safe path segment, whatever reads it.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

id!(
    /// What the user asked for. A plain UUID, because the stock CLI insists on one (oz-api.md 1.13).
    RunId, "a run id", "letters, digits, '-' and '_'", plain
);
id!(
    /// One attempt of a run, on one worker.
    ExecutionId, "an execution id", "letters, digits, '-' and '_'", plain
);
id!(
    /// The container image, repositories, set-up and values a run starts from.
    EnvironmentId, "an environment id", "letters, digits, '-' and '_'", plain
);
id!(
    /// Something a run leaves behind: a patch, a file, a pull request.
    ArtifactUid, "an artifact uid", "letters, digits, '-' and '_'", plain
);
id!(
    /// Whose data it is: the hex SHA-256 of the tenant's token (oz-api.md 1.14).
    TenantId, "a tenant id", "letters and digits", |c| c.is_ascii_alphanumeric()
);
id!(
    /// The name an operator gave a worker; `config.worker_host` must equal it exactly.
    WorkerId, "a worker id", "without control characters", |c| !c.is_control()
);

impl RunId {
    /// `id` must be a version 7 UUID, so that ids sort by age.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl ExecutionId {
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl ArtifactUid {
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

impl EnvironmentId {
    pub fn from_uuid(id: Uuid) -> Self {
        Self(format!("env_{}", id.simple()))
    }
}

/// Whether a provider may have this name for a conversation: a UUID, or something like it. It comes out of a container
/// and becomes an argument of the provider's command line.
pub fn is_session_name(name: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_a_word() {
        for name in ["01a1f987-7ad9-7e00-9f90-34e7019293e6", "ses_e066d5aebffeejUi", "1"] {
            assert!(is_session_name(name), "{name}");
        }
        let long = "a".repeat(MAX_ID_BYTES + 1);
        for name in ["", "-r", "_a", "a b", "../a", "a.b", "a:b", "é", "a\n", &long] {
            assert!(!is_session_name(name), "{name}");
        }
    }

    #[test]
    fn an_id_is_one_safe_path_segment() {
        for bad in ["", "..", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(bad.parse::<RunId>().is_err(), "{bad:?} was taken");
        }
        assert!("0198c5f0-0000-7000-8000-000000000000".parse::<RunId>().is_ok());
        assert!("my worker 1".parse::<WorkerId>().is_ok());
        assert!("my\nworker".parse::<WorkerId>().is_err());
    }
}
