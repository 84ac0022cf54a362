//! What the providers with a command line print: nothing of it may break a run, and where reads end must not matter.

use protocol::{
    event::{Event, Exit},
    limits::MAX_SIDECAR_LINE_BYTES,
    spec::ProviderKind,
};

use crate::replay::replay;

/// The first byte says where reads end, the second is the exit code; the rest was printed.
pub fn provider_output(provider: ProviderKind, bytes: &[u8]) {
    let [size, code, printed @ ..] = bytes else { return };
    let code = i32::from(*code);
    let cut = told(provider, printed, code, usize::from(*size).max(1));
    assert_eq!(cut, told(provider, printed, code, usize::MAX));
}

/// The events as they travel, but for times, and the judgement.
fn told(provider: ProviderKind, printed: &[u8], code: i32, chunk: usize) -> (Vec<String>, Exit) {
    let (events, exit) = replay(provider, printed, "", code, chunk);
    assert_eq!(exit.success, exit.reason.is_none());
    let events = events.into_iter().map(|mut event| {
        if let Event::ToolResult { duration_ms, .. } = &mut event {
            *duration_ms = 0;
        }
        let text = serde_json::to_string(&event).expect("an event is plain data");
        assert!(text.len() < MAX_SIDECAR_LINE_BYTES - 1024, "{} bytes", text.len());
        text
    });
    (events.collect(), exit)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};

    use super::*;

    /// Lines as they were seen, the shorter ones.
    fn seen(provider: ProviderKind) -> Vec<String> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
        let mut lines = Vec::new();
        for case in std::fs::read_dir(folder.join(provider.as_str())).unwrap() {
            let printed =
                std::fs::read(case.unwrap().path().join("stdout.txt")).unwrap_or_default();
            let printed = String::from_utf8_lossy(&printed).into_owned();
            lines.extend(printed.lines().filter(|line| line.len() < 4096).map(str::to_owned));
        }
        lines.sort();
        lines.dedup();
        assert!(lines.len() > 20, "{provider:?}: {}", lines.len());
        lines
    }

    /// Something else in the place of the `at`th value of an object.
    fn replaced(line: &str, at: usize, with: &Value) -> Option<String> {
        fn places(value: &Value, path: &str, found: &mut Vec<String>) {
            found.push(path.to_owned());
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        let name = name.replace('~', "~0").replace('/', "~1");
                        places(value, &format!("{path}/{name}"), found);
                    }
                }
                Value::Array(items) => {
                    for (index, value) in items.iter().enumerate() {
                        places(value, &format!("{path}/{index}"), found);
                    }
                }
                _ => {}
            }
        }
        let mut value: Value = serde_json::from_str(line).ok()?;
        let mut found = Vec::new();
        places(&value, "", &mut found);
        *value.pointer_mut(&found[at % found.len()])? = with.clone();
        Some(value.to_string())
    }

    /// One of those lines as it is, with a value replaced, cut short, with a byte that is no text, or none of them.
    fn line(lines: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
        let values = prop_oneof![
            Just(Value::Null),
            Just(json!(u64::MAX)),
            Just(json!(-1.5e300)),
            Just(json!({"a": [[]]})),
            any::<bool>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            (1..300_000_usize).prop_map(|n| Value::from("\u{1}é".repeat(n))),
        ];
        let known = (0..lines.len(), 0..4_u8, any::<usize>(), values);
        let known = known.prop_map(move |(index, how, at, value)| {
            let line = &lines[index];
            let at_byte = at % line.len().max(1);
            match how {
                0 => line.clone().into_bytes(),
                1 => replaced(line, at, &value).unwrap_or_default().into_bytes(),
                2 => line.as_bytes()[..at_byte.min(line.len())].to_vec(),
                _ => {
                    let mut bytes = line.clone().into_bytes();
                    bytes.insert(at_byte.min(line.len()), 0xff);
                    bytes
                }
            }
        });
        prop_oneof![9 => known, 1 => vec(any::<u8>(), 0..40)]
    }

    fn holds(provider: ProviderKind) {
        let usual = ProptestConfig::default();
        // Each case is a few thousand lines of work.
        let cases = usual.cases.div_ceil(8);
        let config = ProptestConfig { failure_persistence: None, cases, ..usual };
        let printed = vec(line(seen(provider)), 0..8).prop_map(|lines| lines.join(&b'\n'));
        proptest!(config, |(size in any::<u8>(), code in any::<u8>(), printed in printed)| {
            provider_output(provider, &[&[size, code][..], &printed].concat());
        });
    }

    #[test]
    fn claude_may_print_anything() {
        holds(ProviderKind::Claude);
    }

    #[test]
    fn codex_may_print_anything() {
        holds(ProviderKind::Codex);
    }

    #[test]
    fn opencode_may_print_anything() {
        holds(ProviderKind::Opencode);
    }

    #[test]
    fn gemini_may_print_anything() {
        holds(ProviderKind::Gemini);
    }
}
