//! Which of an environment's values open a provider's door.

/// Environment values that are a provider's credentials. Set-up commands and the agent's own tools do not
/// get them; a provider does.
pub const PROVIDER_CREDENTIALS: [&str; 10] = [
    "OPENAI_API_KEY",
    "CODEX_API_KEY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OZ_PROVIDER_API_KEY",
    "WORKBENCH_OPENAI_API_KEY",
    "WORKBENCH_ANTHROPIC_API_KEY",
];

/// Whether a value of this name is one, the `OZ_PROVIDER_<KEY>_API_KEY` of any key included.
pub fn is_credential(name: &str) -> bool {
    PROVIDER_CREDENTIALS.contains(&name)
        || (name.starts_with("OZ_PROVIDER_") && name.ends_with("_API_KEY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_provider_are_credentials() {
        assert!(is_credential("OZ_PROVIDER_GLM_API_KEY") && is_credential("OPENAI_API_KEY"));
        assert!(!is_credential("OZ_PROVIDER_GLM_MODEL") && !is_credential("MY_API_KEY"));
    }
}
