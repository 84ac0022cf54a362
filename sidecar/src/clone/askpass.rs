//! The answer to git's question for a user name or a password. The token is in the environment of that one git
//! process, which only its own user can read.

use std::process::Command;

use crate::{clone::source::Login, environment::Variables};

const HOST: &str = "OZMA_ASKPASS_HOST";
const USER: &str = "OZMA_ASKPASS_USER";
const PASSWORD: &str = "OZMA_ASKPASS_PASSWORD";

/// Has `command` ask this binary.
pub(super) fn provide(command: &mut Command, login: Option<&Login>) {
    let (Some(login), Ok(program)) = (login, std::env::current_exe()) else { return };
    command
        .env("GIT_ASKPASS", program)
        .env("OZMA_ASKPASS", "1")
        .env(HOST, &login.host)
        .env(USER, &login.user)
        .env(PASSWORD, login.password.expose());
}

/// The answer to `prompt`; nothing when it asks for another host than the token's, after a redirect say.
pub(crate) fn answer(prompt: &str, vars: &Variables) -> String {
    let host = || {
        let (_, rest) = prompt.split_once("://")?;
        let authority = rest.split(['\'', '/']).next()?;
        Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
    };
    let wanted = if prompt.starts_with("Username") { USER } else { PASSWORD };
    let answer = match (host(), vars.get(HOST)) {
        (Some(asked), Some(ours)) if asked == ours => vars.get(wanted),
        _ => None,
    };
    answer.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_host_is_answered() {
        let vars = [(HOST, "h:1"), (USER, "u"), (PASSWORD, "p")];
        let vars = Variables::new(vars.iter().map(|(name, value)| (name.into(), value.into())));
        for (prompt, reply) in [
            ("Username for 'http://h:1': ", "u"),
            ("Password for 'http://u@h:1': ", "p"),
            ("Password for 'http://u@h:1/x': ", "p"),
            ("Password for 'http://u@h:2': ", ""),
            ("Password for 'http://h:1@evil': ", ""),
            ("Password: ", ""),
        ] {
            assert_eq!(answer(prompt, &vars), reply, "{prompt}");
        }
    }
}
