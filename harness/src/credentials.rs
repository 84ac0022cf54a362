//! Which of an environment's values open a provider's door.

/// Environment values that are a provider's credentials. Set-up commands and the agent's own tools do not
/// get them; a provider does.
pub const PROVIDER_CREDENTIALS: [&str; 8] = [
    "OPENAI_API_KEY",
    "CODEX_API_KEY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "OZ_PROVIDER_API_KEY",
];
