//! Environment variables: this process's own, and what its children get of them.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use harness::credentials::is_credential;
use protocol::secret::Secret;

/// Where programs are sought when the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image's variables, as this process was started with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables(BTreeMap<String, OsString>);

impl Variables {
    pub(crate) fn new(vars: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self(vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// The image's search path.
    pub(crate) fn path(&self) -> &std::ffi::OsStr {
        self.0.get("PATH").map_or_else(|| DEFAULT_PATH.as_ref(), OsString::as_os_str)
    }

    /// The first executable file `program` on the search path.
    pub(crate) fn find_program(&self, program: &str) -> Option<std::path::PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.get("PATH").unwrap_or(DEFAULT_PATH);
        path.split(':').map(|folder| Path::new(folder).join(program)).find(|candidate| {
            candidate.is_absolute()
                && std::fs::metadata(candidate)
                    .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
        })
    }

    /// What every child gets: the image's variables without ours, a search path, a home, no prompts of git.
    pub(crate) fn base(&self, home: &Path, temporary: Option<&Path>) -> BTreeMap<String, OsString> {
        let mut vars = self.0.clone();
        vars.retain(|name, _| !name.starts_with("OZMA_"));
        vars.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.into());
        vars.insert("HOME".to_owned(), home.into());
        vars.insert("GIT_TERMINAL_PROMPT".to_owned(), "0".into());
        if let Some(temporary) = temporary {
            vars.insert("TMPDIR".to_owned(), temporary.into());
        }
        vars
    }
}

/// The environment's values for a set-up command: all but the providers' credentials.
pub(crate) fn for_setup(env: &BTreeMap<String, Secret>) -> impl Iterator<Item = (&str, &str)> {
    env.iter()
        .filter(|(name, _)| !is_credential(name))
        .map(|(name, value)| (name.as_str(), value.expose()))
}
