//! The parsers of this part that take bytes from outside, and what must hold of them for every input: for the fuzz
//! targets in `fuzz/`, and for the properties below. In no build that ships.

mod providers;

pub use self::providers::provider_output;

use crate::{
    agent::{conversation::Reply, sse::Assembly, wire::Wire},
    failure::Failure,
    lines::{Lines, Piece},
};

/// What a model's endpoint streams: where the network cuts it must not matter. The first byte says where.
pub fn openai_stream(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    for wire in [Wire::Chat, Wire::Responses, Wire::Anthropic] {
        let cut = answer(wire, stream.chunks(usize::from(*size).max(1)));
        let whole = answer(wire, std::iter::once(stream));
        assert_eq!(cut, whole);
    }
}

/// What must be the same however the stream is cut.
type Answer = Result<(String, Vec<(String, String, String)>, u64, bool), String>;

fn answer<'a>(wire: Wire, chunks: impl Iterator<Item = &'a [u8]>) -> Answer {
    let told = |failure: Failure| format!("{}: {}", failure.reason, failure.message);
    let mut assembly = Assembly::new(wire);
    let mut shown = String::new();
    for chunk in chunks {
        shown.push_str(&assembly.push(chunk).map_err(told)?);
    }
    let Reply { text, calls, usage, last } = assembly.finish().map_err(told)?;
    assert_eq!(text, shown, "what was shown is what was said");
    assert_eq!(last, calls.is_empty());
    for call in &calls {
        assert!(!call.id.is_empty() && !call.name.is_empty());
        drop(call.input());
    }
    let calls = calls.into_iter().map(|call| (call.id, call.name, call.arguments)).collect();
    Ok((text, calls, usage.total(), last))
}

/// What a process prints: put together again, the pieces are what was printed, and none is over the bound. The first
/// two bytes say the bound and where reads end.
pub fn lines(bytes: &[u8]) {
    let [max, size, printed @ ..] = bytes else { return };
    let max = usize::from(*max).max(4);
    let mut lines = Lines::new(max);
    let mut again = Vec::new();
    let mut open = false;
    let mut take = |piece: Piece| {
        let (Piece::Line(bytes) | Piece::Part(bytes)) = &piece;
        assert!(bytes.len() <= max && !bytes.contains(&b'\n'));
        again.extend_from_slice(bytes);
        open = matches!(piece, Piece::Part(_));
        if !open {
            again.push(b'\n');
        }
    };
    for chunk in printed.chunks(usize::from(*size).max(1)) {
        lines.push(chunk);
        while let Some(piece) = lines.pop() {
            if let (Piece::Part(part), Ok(_)) = (&piece, std::str::from_utf8(printed)) {
                assert!(std::str::from_utf8(part).is_ok(), "a character was cut");
            }
            take(piece);
        }
    }
    if let Some(rest) = lines.rest() {
        take(rest);
    }
    assert!(lines.rest().is_none());
    // Of a last line without a newline one is made; one that was cut just at its end has none either.
    let expected = printed.strip_suffix(b"\n").unwrap_or(printed);
    assert_eq!(again.strip_suffix(b"\n").unwrap_or(&again), expected);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn config() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Streams as endpoints send them, with a few that none should.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![
            Just(String::new()),
            (0..130_usize).prop_map(|n| format!("\"index\":{n},"))
        ];
        let call = (number, "[a-c]{0,3}", "[a-z_]{0,9}", "[ -~é]{0,9}").prop_map(|(index, id, name, arguments)| {
            let function = serde_json::json!({"name": name, "arguments": arguments});
            format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{{index}"id":"{id}","function":{function}}}]}}}}]}}"#)
        });
        let text = any::<String>().prop_map(|text| {
            serde_json::json!({"choices": [{"delta": {"content": text}}]}).to_string()
        });
        let end =
            prop::sample::select(&["stop", "length", "tool_calls", "content_filter", "x"][..])
                .prop_map(|reason| format!(r#"{{"choices":[{{"finish_reason":"{reason}"}}]}}"#));
        let usage = any::<u64>().prop_map(|n| {
            format!(r#"{{"usage":{{"prompt_tokens":{n},"completion_tokens":{n}}}}}"#)
        });
        let other = prop::sample::select(&["[DONE]", "{}", "", "{\"error\":\"no\"}", "<html>"][..]);
        let data = prop_oneof![4 => call, 4 => text, 2 => end, 1 => usage, 1 => other.prop_map(str::to_owned)];
        let line = prop_oneof![
            8 => (data, prop::sample::select(&["\n\n", "\r\n\r\n", "\n"][..]))
                .prop_map(|(data, end)| format!("data: {data}{end}").into_bytes()),
            1 => vec(any::<u8>(), 0..9),
        ];
        vec(line, 0..12).prop_map(|lines| lines.concat())
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_stream_may_be_cut_anywhere(size in 1..=u8::MAX, stream in stream()) {
            openai_stream(&[&[size][..], &stream].concat());
        }

        #[test]
        fn a_stream_may_be_anything(stream in vec(any::<u8>(), 0..200)) {
            openai_stream(&stream);
        }

        #[test]
        fn what_is_printed_comes_out_whole(max in 0..20_u8, size in any::<u8>(), text in vec(
            prop_oneof![any::<String>().prop_map(String::into_bytes), vec(any::<u8>(), 0..9), Just(b"\n".to_vec())],
            0..9,
        )) {
            lines(&[&[max, size][..], &text.concat()].concat());
        }
    }
}
