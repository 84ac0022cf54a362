//! What a server may send between two events, and how it is read.

use protocol::failure::FailureReason;

use super::*;

fn put_together(stream: &str) -> Result<Reply, Failure> {
    put_together_as(Wire::Chat, stream)
}

fn put_together_as(wire: Wire, stream: &str) -> Result<Reply, Failure> {
    let mut assembly = Assembly::new(wire);
    // Byte by byte: where the network cuts must not matter.
    for byte in stream.as_bytes() {
        assembly.push(&[*byte])?;
    }
    assembly.finish()
}

#[test]
fn calls_are_put_together_from_their_parts() {
    let reply = put_together(
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\r\n\r\n\
         : a comment\n\
         data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"shell\",\"arguments\":\"{\\\"comm\"}}]}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"read_file\",\"arguments\":\"{}\"}}]}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"and\\\":1}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\n\
         data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n\
         data: [DONE]\n\n",
    )
    .unwrap();
    assert_eq!(reply.text, "Hé");
    assert_eq!(reply.usage.total(), 10);
    assert!(!reply.last);
    let calls: Vec<_> =
        reply.calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
    assert_eq!(calls, [("a", "{\"command\":1}"), ("b", "{}")]);
}

#[test]
fn every_part_of_an_answer_is_bounded() {
    let call = |id: &str, name: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"{id}\",\
             \"function\":{{\"name\":\"{name}\"}}}}]}}}}]}}\n"
        )
    };
    let long = "x".repeat(257);
    for stream in [call(&long, "shell"), call("id", &long)] {
        assert_eq!(put_together(&stream).unwrap_err().reason, FailureReason::AgentLimit);
    }
    // Lines that say nothing, for ever.
    let mut assembly = Assembly::new(Wire::Chat);
    let comments = ": still there\n".repeat(10_000);
    let ended = (0..1_000).try_for_each(|_| assembly.push(comments.as_bytes()).map(drop));
    assert_eq!(ended.unwrap_err().reason, FailureReason::AgentLimit);
}

#[test]
fn what_is_no_answer_is_a_failure_with_a_reason() {
    use FailureReason as R;
    for (stream, reason) in [
        ("", R::NetworkError),
        ("<html>\n", R::NetworkError),
        ("data: <html>\n", R::NetworkError),
        ("data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n", R::NetworkError),
        ("data: {\"error\":{\"code\":\"insufficient_quota\"}}\n", R::QuotaExhausted),
        ("data: {\"choices\":[{\"finish_reason\":\"content_filter\"}]}\n", R::ContentRefused),
        ("data: {\"choices\":[{\"finish_reason\":\"length\"}]}\n", R::AgentLimit),
    ] {
        assert_eq!(put_together(stream).unwrap_err().reason, reason, "{stream}");
    }
}

/// The same answer in each dialect: a text, two calls, and what it cost.
#[test]
fn every_dialect_says_the_same() {
    let responses = concat!(
        r#"data: {"type":"response.created","response":{}}"#,
        "\n\n",
        r#"data: {"type":"response.output_text.delta","output_index":0,"delta":"Hé"}"#,
        "\n\n",
        r#"data: {"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"a","name":"shell"}}"#,
        "\n\n",
        r#"data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{\"x\""}"#,
        "\n\n",
        r#"data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":":1}"}"#,
        "\n\n",
        r#"data: {"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"b","name":"read_file"}}"#,
        "\n\n",
        r#"data: {"type":"response.completed","response":{"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":2},"output_tokens":3}}}"#,
        "\n\n",
    );
    let anthropic = concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1}}}"#,
        "\n\n",
        r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        "\n\n",
        r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hé"}}"#,
        "\n\n",
        r#"data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"shell","input":{}}}"#,
        "\n\n",
        r#"data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}}"#,
        "\n\n",
        r#"data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"b","name":"read_file","input":{}}}"#,
        "\n\n",
        r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":3}}"#,
        "\n\n",
        r#"data: {"type":"message_stop"}"#,
        "\n\n",
    );
    for (wire, stream) in [(Wire::Responses, responses), (Wire::Anthropic, anthropic)] {
        let reply = put_together_as(wire, stream).unwrap();
        let calls: Vec<_> = reply
            .calls
            .iter()
            .map(|call| (call.id.as_str(), call.name.as_str(), call.arguments.as_str()))
            .collect();
        assert_eq!(calls, [("a", "shell", "{\"x\":1}"), ("b", "read_file", "")], "{wire:?}");
        assert_eq!((reply.text.as_str(), reply.usage.total()), ("Hé", 10), "{wire:?}");
        assert_eq!(reply.usage.cached_input_tokens, 2, "{wire:?}");
    }
}

#[test]
fn each_dialect_names_its_failures() {
    use FailureReason as R;
    for (wire, stream, reason) in [
        (
            Wire::Responses,
            r#"{"type":"response.failed","response":{"error":{"code":"insufficient_quota","message":"pay"}}}"#,
            R::QuotaExhausted,
        ),
        (
            Wire::Responses,
            r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#,
            R::AgentLimit,
        ),
        (Wire::Responses, r#"{"type":"response.refusal.delta","delta":"no"}"#, R::ContentRefused),
        (Wire::Responses, r#"{"type":"response.created"}"#, R::NetworkError),
        (
            Wire::Anthropic,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#,
            R::RateLimit,
        ),
        (
            Wire::Anthropic,
            r#"{"type":"message_delta","delta":{"stop_reason":"refusal"}}"#,
            R::ContentRefused,
        ),
        (
            Wire::Anthropic,
            r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"}}"#,
            R::AgentLimit,
        ),
        (Wire::Anthropic, r#"{"type":"ping"}"#, R::NetworkError),
        (Wire::Anthropic, "<html>", R::NetworkError),
    ] {
        let ended = put_together_as(wire, &format!("data: {stream}\n\n"));
        assert_eq!(ended.unwrap_err().reason, reason, "{stream}");
    }
}
