//! What an answer of a model's endpoint stands for, asked over HTTP by the built-in agent.

use protocol::failure::FailureReason;
use serde::Deserialize;

use super::Failure;

/// Longest part of an endpoint's own message that is shown.
const MAX_SHOWN_BYTES: usize = 600;

/// The error of an OpenAI-compatible body: `{"error": {"message", "code", "type"}}`, or some other text.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiError {
    message: Option<String>,
    code: Option<serde_json::Value>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl ApiError {
    pub(crate) fn read(body: &str) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: serde_json::Value,
        }
        let error = serde_json::from_str::<Body>(body).map(|body| body.error);
        match error {
            Ok(serde_json::Value::String(message)) => {
                Self { message: Some(message), ..Self::default() }
            }
            Ok(object) => serde_json::from_value(object).unwrap_or_default(),
            Err(_) => Self { message: Some(body.trim().to_owned()), ..Self::default() },
        }
    }

    fn says(&self, word: &str) -> bool {
        self.code.as_ref().and_then(|code| code.as_str()) == Some(word)
            || self.kind.as_deref() == Some(word)
    }

    fn shown(&self) -> String {
        let message =
            self.message.as_deref().filter(|text| !text.is_empty()).unwrap_or("no reason");
        let end = message.floor_char_boundary(MAX_SHOWN_BYTES);
        message[..end].to_owned()
    }

    /// The failure an answer with `status` stands for; `status` 0 is an error inside a stream.
    pub(crate) fn failure(&self, status: u16) -> Failure {
        let message = self.message.as_deref().unwrap_or_default();
        let reason = if ["insufficient_quota", "billing_hard_limit_reached", "billing_error"]
            .iter()
            .any(|word| self.says(word))
            // Anthropic's is a bad request with a text.
            || message.contains("credit balance is too low")
        {
            FailureReason::QuotaExhausted
        } else if self.says("overloaded_error") || self.says("rate_limit_error") {
            FailureReason::RateLimit
        } else if self.says("authentication_error") || self.says("permission_error") {
            FailureReason::AuthExpired
        } else if self.says("content_filter") || self.says("content_policy_violation") {
            FailureReason::ContentRefused
        } else {
            match status {
                401 | 403 => FailureReason::AuthExpired,
                402 => FailureReason::QuotaExhausted,
                // Overloaded: like a rate limit, it passes with time.
                429 | 503 | 529 => FailureReason::RateLimit,
                0 | 408 | 500..=599 => FailureReason::NetworkError,
                _ => FailureReason::AgentInvocation,
            }
        };
        let place = if status == 0 { "in its stream".to_owned() } else { status.to_string() };
        Failure::new(reason, format!("the model's endpoint answered {place}: {}", self.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_put_into_its_class() {
        use FailureReason as R;
        for (status, body, reason) in [
            (401, r#"{"error":{"message":"bad key"}}"#, R::AuthExpired),
            (403, "forbidden", R::AuthExpired),
            (429, r#"{"error":{"message":"slow down"}}"#, R::RateLimit),
            (429, r#"{"error":{"code":"insufficient_quota","message":"pay"}}"#, R::QuotaExhausted),
            (400, r#"{"error":{"code":"content_filter"}}"#, R::ContentRefused),
            (404, r#"{"error":{"message":"no such model"}}"#, R::AgentInvocation),
            (500, "<html>", R::NetworkError),
            (529, r#"{"error":"overloaded"}"#, R::RateLimit),
        ] {
            assert_eq!(ApiError::read(body).failure(status).reason, reason, "{status} {body}");
        }
    }

    #[test]
    fn a_long_message_is_shown_in_part() {
        let shown = ApiError::read(&"é".repeat(1000)).shown();
        assert_eq!(shown.len(), MAX_SHOWN_BYTES);
    }
}
