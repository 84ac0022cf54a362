//! What the end of each command-line provider stands for: its own last word first, then what it printed to standard
//! error, then its exit code, which says little.

use protocol::failure::FailureReason;

use super::Failure;
use crate::dialect::{Said, Told};

/// How a provider's process ended.
pub(crate) struct Ended<'a> {
    pub(crate) exit_code: i32,
    pub(crate) said: &'a Said,
    /// The end of what it wrote to standard error.
    pub(crate) stderr: &'a str,
}

/// Claude Code: a class word and a status, and texts where it has neither.
pub(crate) fn claude(ended: &Ended<'_>) -> Failure {
    use FailureReason as R;
    let Some(told) = &ended.said.error else { return without_a_word(ended) };
    let class = told.class.as_deref().unwrap_or_default();
    let reason = match (class, told.status) {
        _ if told.says(&["No conversation found with session ID"]) => R::SessionGone,
        ("usage_limit_reached" | "billing_error", _) => R::QuotaExhausted,
        _ if told.says(&["redit balance is too low"]) => R::QuotaExhausted,
        ("error_max_turns" | "error_max_budget_usd" | "max_turns", _) => R::AgentLimit,
        _ if told.says(&["Not logged in", "/login"]) => R::AuthMissing,
        ("refusal", _) => R::ContentRefused,
        _ if told.says(&["usage policy", "Usage Policy", "content policy"]) => R::ContentRefused,
        ("rate_limit" | "overloaded_error", _) | (_, Some(429 | 503 | 529)) => R::RateLimit,
        ("authentication_failed", _) | (_, Some(401 | 403)) => R::AuthExpired,
        ("connection_failed" | "server_error", _) | (_, Some(408 | 500..)) => R::NetworkError,
        _ if told.says(&["malformed response", "JSON Parse error", "API Error: Connection"]) => {
            R::NetworkError
        }
        _ => R::AgentExit,
    };
    told.failure(reason)
}

/// Codex: texts only; where a status stands in one, its dialect has found it.
pub(crate) fn codex(ended: &Ended<'_>) -> Failure {
    use FailureReason as R;
    let Some(told) = &ended.said.error else { return without_a_word(ended) };
    let reason = if told.says(&["Missing environment variable"]) {
        R::AuthMissing
    } else if told.says(&["Quota exceeded", "usage limit", "insufficient_quota"]) {
        R::QuotaExhausted
    } else if matches!(told.status, Some(429 | 503 | 529))
        || told.says(&["at capacity", "Overloaded", "Rate limit"])
    {
        R::RateLimit
    } else if matches!(told.status, Some(401 | 403))
        || told.says(&["You do not have access to this"])
    {
        R::AuthExpired
    } else if told.says(&["content policy", "content_filter", "flagged for", "for safety reasons"])
    {
        R::ContentRefused
    } else if matches!(told.status, Some(408 | 500..))
        || told.says(&[
            "experiencing high demand",
            "stream disconnected",
            "stream closed",
            "Connection failed",
            "error sending request",
        ])
    {
        R::NetworkError
    } else {
        R::AgentExit
    };
    told.failure(reason)
}

/// `OpenCode`: a name and a status.
pub(crate) fn opencode(ended: &Ended<'_>) -> Failure {
    use FailureReason as R;
    if let Some(why) = ended.said.stuck {
        return Failure::new(R::NetworkError, format!("the provider was stopped: {why}"));
    }
    let Some(told) = &ended.said.error else { return without_a_word(ended) };
    let class = told.class.as_deref().unwrap_or_default();
    let reason = match (class, told.status) {
        ("insufficient_quota" | "usage_limit_reached", _) => R::QuotaExhausted,
        _ if told.says(&["credit balance", "exceeded your current quota"]) => R::QuotaExhausted,
        ("content-filter" | "ContentFilterError", _) => R::ContentRefused,
        (_, Some(401 | 403)) | ("ProviderAuthError", _) => R::AuthExpired,
        (_, Some(429 | 503 | 529)) => R::RateLimit,
        _ if told.says(&["verloaded"]) => R::RateLimit,
        (_, Some(408 | 500..)) => R::NetworkError,
        ("APIError", None) => R::NetworkError,
        _ if told.says(&["JSON parsing failed", "Cannot connect", "Connection reset"]) => {
            R::NetworkError
        }
        _ => R::AgentExit,
    };
    told.failure(reason)
}

/// Gemini: texts, in which the endpoint's JSON often stands whole; what it gave up on, it tells standard error.
pub(crate) fn gemini(ended: &Ended<'_>) -> Failure {
    use FailureReason as R;
    match ended.exit_code {
        41 => {
            let message = last_line(ended.stderr).unwrap_or("no credential");
            return Failure::new(R::AuthMissing, format!("the provider has no access: {message}"));
        }
        53 => return Failure::new(R::AgentLimit, "the provider reached its bound on turns"),
        _ => {}
    }
    let Some(told) = &ended.said.error else { return without_a_word(ended) };
    // What its message leaves out, its exit code may have: the last byte of the endpoint's status.
    let code = |codes: &[u16]| {
        codes.iter().any(|code| {
            told.status == Some(*code)
                || ended.exit_code > 128 && ended.exit_code == i32::from(code % 256)
        })
    };
    let reason = if told.says(&["daily quota", "exhausted your", "Quota exceeded"]) {
        R::QuotaExhausted
    } else if told.says(&["API key not valid", "API_KEY_INVALID", "UNAUTHENTICATED"])
        || code(&[401, 403])
    {
        R::AuthExpired
    } else if told.says(&["Resource has been exhausted", "verloaded", "RESOURCE_EXHAUSTED"])
        || code(&[429, 503])
    {
        R::RateLimit
    } else if told.says(&["SAFETY", "PROHIBITED_CONTENT", "response was blocked"]) {
        R::ContentRefused
    } else if told.says(&[
        "fetch failed",
        "API Error: terminated",
        "Incomplete JSON",
        "JSON input",
        "without a finish reason",
        "ECONN",
        "sending request",
    ]) || code(&[500, 502, 504])
    {
        R::NetworkError
    } else {
        R::AgentExit
    };
    told.failure(reason)
}

/// A provider that ended without a final word of its own.
fn without_a_word(ended: &Ended<'_>) -> Failure {
    let code = ended.exit_code;
    let said = last_line(ended.stderr);
    let shown =
        said.map_or_else(|| "it said nothing".to_owned(), |line| format!("it said: {line}"));
    let strange = ended.said.lines == 0
        && [
            "unknown option",
            "unexpected argument",
            "Unknown argument",
            "unrecognized",
            "unknown variant",
            "unknown field",
            "unknown configuration",
            "no longer supported",
            "requires --verbose",
        ]
        .iter()
        .any(|sign| ended.stderr.contains(sign));
    let usage = ended.said.lines == 0 && ended.stderr.trim_start().starts_with("opencode run");
    if strange || usage {
        let first = ended.stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        return Failure::new(
            FailureReason::CliVersionMismatch,
            format!(
                "this version of the provider does not take the arguments it was given (code {code}): {first}"
            ),
        );
    }
    let gone = ["no rollout found for thread", "Session not found", "Error resuming session"];
    if ended.said.lines == 0 && gone.iter().any(|sign| ended.stderr.contains(sign)) {
        return Failure::new(
            FailureReason::SessionGone,
            format!("the provider has not the session it should go on with; {shown}"),
        );
    }
    if ended.said.lines == 0 && matches!(code, 126 | 127) {
        return Failure::new(
            FailureReason::AgentInvocation,
            format!("the provider's program could not be run in this image; {shown}"),
        );
    }
    if code == 0 {
        return Failure::new(
            FailureReason::AgentExit,
            "the provider ended with code 0, but without its own word of success",
        );
    }
    Failure::new(
        FailureReason::AgentExit,
        format!("the provider ended with code {code} and without a final word; {shown}"),
    )
}

/// The line that tells most: the first that speaks of an error, else the last that is not empty.
fn last_line(text: &str) -> Option<&str> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| line.contains("rror: ") || line.contains("EROFS"))
        .or_else(|| lines().next_back())
}

impl Told {
    fn says(&self, signs: &[&str]) -> bool {
        signs.iter().any(|sign| self.message.contains(sign))
    }

    fn failure(&self, reason: FailureReason) -> Failure {
        let said = if self.message.is_empty() { "no reason" } else { &self.message };
        let status = self.status.map(|status| format!(" ({status})")).unwrap_or_default();
        let mut failure = Failure::new(reason, format!("the provider failed{status}: {said}"));
        failure.retry_after = self.retry_after;
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(judge: fn(&Ended<'_>) -> Failure, told: Told) -> FailureReason {
        let mut said = Said::default();
        said.error = Some(told);
        judge(&Ended { exit_code: 1, said: &said, stderr: "" }).reason
    }

    /// An id, a port and a count of tokens may have the digits of a status.
    #[test]
    fn digits_in_a_message_are_no_status() {
        let message =
            "The model refused request req_429503 of 401 tokens, url: http://h:4035/503/v1";
        for judge in [claude, codex, opencode, gemini] {
            let told = || Told { message: message.to_owned(), ..Told::default() };
            assert_eq!(reason(judge, told()), FailureReason::AgentExit);
            for (status, expected) in [
                (429, FailureReason::RateLimit),
                (401, FailureReason::AuthExpired),
                (500, FailureReason::NetworkError),
            ] {
                let told = Told { status: Some(status), ..told() };
                assert_eq!(reason(judge, told), expected, "{status}");
            }
        }
    }
}
