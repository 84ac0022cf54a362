//! Which of an environment's values open a provider's door.

/// Environment values that are a provider's credentials. Set-up commands and the agent's own tools do not
/// get them; a provider does.
pub const PROVIDER_CREDENTIALS: [&str; 4] =
    ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OZ_PROVIDER_API_KEY"];
