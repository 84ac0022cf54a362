//! Google's generateContent.

use serde_json::{Value, json};

use super::{Facts, halves, names};
use crate::model::{http::data, reply::Reply};

pub(super) fn facts(body: &Value) -> Facts {
    let contents = body["contents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let response = |content: &Value| {
        let parts = content["parts"].as_array()?;
        parts.iter().find_map(|part| part.get("functionResponse")).map(ToString::to_string)
    };
    let said = contents.last().and_then(response);
    let sets = body["tools"].as_array().into_iter().flatten();
    Facts {
        after_tool: said.is_some(),
        tool_said: said.unwrap_or_default(),
        results: contents.iter().filter_map(response).count(),
        tools: sets
            .flat_map(|set| names(&set["functionDeclarations"], "/name").collect::<Vec<_>>())
            .collect(),
        users: contents
            .iter()
            .filter(|content| content["role"] == "user" && response(content).is_none())
            .count(),
    }
}

pub(super) fn stream(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Text(text) => {
            let [first, second] = halves(text);
            vec![
                data(&part(&json!({"text": first}), None)),
                data(&part(&json!({"text": second}), Some("STOP"))),
            ]
        }
        Reply::Call { .. } | Reply::Refused => vec![data(&whole(reply))],
    }
}

pub(super) fn whole(reply: &Reply) -> Value {
    match reply {
        Reply::Text(text) => part(&json!({"text": text}), Some("STOP")),
        Reply::Refused => part(&json!({"text": ""}), Some("SAFETY")),
        Reply::Call { tool, input } => {
            part(&json!({"functionCall": {"name": tool, "args": input}}), Some("STOP"))
        }
    }
}

fn part(part: &Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": [part]}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({
        "candidates": [candidate],
        "modelVersion": "test-model",
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18,
            "cachedContentTokenCount": 3},
    })
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Value {
    if code == "insufficient_quota" {
        return json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
                {"quotaMetric": "requests", "quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]},
        ]}});
    }
    let word = match status {
        401 => "UNAUTHENTICATED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": word}})
}
