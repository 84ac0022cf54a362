//! The parsers of this part that take bytes from outside, and what must hold of them for every input: for the fuzz
//! targets in `fuzz/`, and for the properties below. In no build that ships.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, Uri},
    response::IntoResponse,
};
use protocol::{
    api::{
        environments::EnvironmentBody,
        runs::{CreateRun, MAX_PROMPT_BYTES},
    },
    ids::RunId,
};
use serde::de::DeserializeOwned;

use super::{
    environments,
    error::ApiError,
    events,
    extract::{Body, Ignored, read_json},
    params::Params,
    runs::create,
};
use crate::{runs::cursor, store::SortBy, timeouts::Ceilings};

const SORTS: [SortBy; 4] = [SortBy::UpdatedAt, SortBy::CreatedAt, SortBy::Title, SortBy::Agent];

/// Where a listing is to go on: what is taken is safe to bind, and written is the same place.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for sort in SORTS {
        let Ok(mark) = cursor::read(text, sort) else { continue };
        assert!(mark.id.parse::<RunId>().is_ok() && !mark.value.contains('\0'));
        assert!(!sort.is_time() || mark.value.parse::<i64>().is_ok());
        assert_eq!(cursor::read(&cursor::write(&mark), sort).ok(), Some(mark));
    }
}

/// After which event a stream is to go on, as a browser or a URL says it: a number, or a refusal.
pub fn sse_id(bytes: &[u8]) {
    let (id, query) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[][..]),
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(id) {
        headers.insert("last-event-id", value);
    }
    let Some(mut params) = params(query) else { return };
    let named = headers.get("last-event-id").filter(|value| !value.is_empty());
    let said =
        named.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()?.parse::<u64>().ok());
    match events::after(&headers, &mut params) {
        Ok(after) => assert!(named.is_none() || said == Some(after)),
        Err(error) => refused(error),
    }
}

/// The query of a listing.
pub fn query(bytes: &[u8]) {
    let Some(mut params) = params(bytes) else { return };
    drop(params.take_map("metadata"));
    assert!(params.take_all("state").iter().all(|value| !value.is_empty()));
    if let Ok(Some(text)) = params.text("q") {
        assert!(!text.contains('\0'));
    }
    match params.limit(20, 500) {
        Ok(limit) => assert!((1..=500).contains(&limit)),
        Err(error) => refused(error),
    }
    drop((Ignored::from(params), ()).into_response());
}

/// The body of a run that is to be made: a run within its bounds, or a refusal that names a field.
pub fn run_body(bytes: &[u8]) {
    let Some(body) = body::<CreateRun>(bytes) else { return };
    drop(create::check::without_effect(&body));
    match create::check::run(body, &HeaderMap::new(), Ceilings::default(), None) {
        Ok(new) => {
            assert!(!new.prompt.trim().is_empty() && new.prompt.len() <= MAX_PROMPT_BYTES);
            assert!((-100..=100).contains(&new.priority) && new.metadata.len() <= 20);
            let texts = new.metadata.values().chain(&new.title).chain(&new.model_id);
            assert!(texts.chain([&new.prompt]).all(|text| !text.contains('\0')));
            // It is shown back, so it must be read back.
            assert!(serde_json::from_str::<serde_json::Value>(&new.config).is_ok());
        }
        Err(error) => refused(error),
    }
}

/// The body of an environment.
pub fn environment_body(bytes: &[u8]) {
    let Some(body) = body::<EnvironmentBody>(bytes) else { return };
    match environments::check::environment(body, Ceilings::default()) {
        Ok(new) => assert!(!new.name.is_empty() && !new.name.chars().any(char::is_control)),
        Err(error) => refused(error),
    }
}

fn body<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match read_json::<T>(bytes) {
        Ok(Body(body, ignored)) => {
            // What has no effect is named in a header, whatever its name.
            drop((ignored, ()).into_response());
            Some(body)
        }
        Err(error) => {
            refused(error);
            None
        }
    }
}

/// A request can be wrong; it cannot be our mistake.
fn refused(error: ApiError) {
    let status = error.status();
    assert!(status.is_client_error(), "{error:?}");
    drop(error.into_response());
}

fn params(query: &[u8]) -> Option<Params> {
    let uri = Uri::try_from([b"/?", query].concat()).ok()?;
    let mut request = axum::http::Request::new(());
    *request.uri_mut() = uri;
    let (mut parts, ()) = request.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let read = Params::from_request_parts(&mut parts, &());
    match runtime.block_on(read) {
        Ok(params) => Some(params),
        Err(error) => {
            refused(error);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::{collection::vec, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        metrics::text::Page,
        store::{Mark, RunEvent},
    };

    fn config() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            select(&["agent", "oz", "open", "acme/shop", "debian:12", "gpu", "1.5"][..])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(Value::from),
                vec((select(FIELDS), inner), 0..4).prop_map(|pairs| {
                    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }),
            ]
        })
    }

    const FIELDS: &[&str] = &[
        "prompt",
        "config",
        "title",
        "metadata",
        "parent_run_id",
        "mode",
        "name",
        "model_id",
        "environment_id",
        "worker_host",
        "worker_tags",
        "priority",
        "retry",
        "max_attempts",
        "on",
        "timeout_secs",
        "queue_timeout_secs",
        "harness",
        "type",
        "docker_image",
        "repos",
        "url",
        "ref",
        "env_vars",
        "setup_commands",
        "instance_shape",
        "vcpus",
        "memory_gb",
        "network",
        "artifacts",
        "x\r\ny",
    ];

    fn body() -> impl Strategy<Value = Value> {
        vec((select(FIELDS), value()), 0..6).prop_map(|pairs| {
            let mut body = json!({"prompt": "p", "name": "n", "docker_image": "i"});
            body.as_object_mut()
                .unwrap()
                .extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
            body
        })
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_place_in_a_listing_reads_back(id in "[A-Za-z0-9_-]{1,128}", number in any::<i64>(), text in any::<String>()) {
            let text = text.replace('\0', "");
            for (sort, value) in SORTS.into_iter().map(|sort| (sort, if sort.is_time() { number.to_string() } else { text.clone() })) {
                let mark = Mark { value, id: id.clone() };
                prop_assert_eq!(cursor::read(&cursor::write(&mark), sort).unwrap(), mark);
            }
        }

        #[test]
        fn a_cursor_may_be_anything(text in prop_oneof![any::<String>(), "[A-Za-z0-9_-]{0,60}"]) {
            cursor(text.as_bytes());
        }

        #[test]
        fn where_to_go_on_may_be_anything(
            id in prop_oneof![any::<u64>().prop_map(|id| id.to_string()), any::<String>(), Just(String::new())],
            query in prop_oneof!["(after|cursor|limit|x)=[-+%0-9a-z]{0,21}(&(after|cursor)=[0-9]{0,4})?", any::<String>()],
        ) {
            sse_id(format!("{id}\n{query}").as_bytes());
        }

        #[test]
        fn a_query_may_be_anything(query in "((state|state\\[\\]|metadata\\[[a-z%]{0,5}\\]|q|limit|[a-z%]{1,4})=[-%0-9A-Za-z+]{0,9}&?){0,9}") {
            query_of(&query);
        }

        #[test]
        fn a_body_may_be_anything(body in body(), text in any::<String>()) {
            run_body(body.to_string().as_bytes());
            environment_body(body.to_string().as_bytes());
            run_body(text.as_bytes());
        }

        #[test]
        fn a_label_of_a_metric_reads_back(value in any::<String>()) {
            let mut page = Page::new("ozma");
            page.sample("x", &[("a", value.as_str()), ("b", "")], 1);
            let text = page.into_text();
            let inner = text.strip_prefix("ozma_x{a=\"").unwrap().strip_suffix("\",b=\"\"} 1\n").unwrap();
            prop_assert_eq!(unescape(inner).unwrap(), value);
        }

        #[test]
        fn an_event_is_one_message_of_the_stream(
            seq in any::<u64>(), at_ms in 0..253_402_300_800_000_i64, kind in "[a-z0-9_]{1,64}", data in value(),
            blanks in select(&["", " ", "\n", "\r\n", "\r", "\n\n\t"][..]),
        ) {
            let raw = format!("{{{blanks}\"a\":{blanks}{data}{blanks}}}");
            let event = RunEvent { seq, execution_id: None, at_ms, kind: kind.clone(), data: serde_json::from_str(&raw).unwrap() };
            let text = streamed(event);
            let message = text.strip_suffix("\n\n").expect("one message, ended");
            prop_assert!(!message.contains("\n\n") && !message.contains('\r'), "{}", text);
            let mut fields: Vec<_> = message.lines().map(|line| line.split_once(": ").unwrap()).collect();
            fields.sort_unstable();
            let id = seq.to_string();
            prop_assert_eq!((fields.len(), fields[1], fields[2]), (3, ("event", kind.as_str()), ("id", id.as_str())));
            let shown: Value = serde_json::from_str(fields[0].1).unwrap();
            prop_assert_eq!(&shown["data"]["a"], &serde_json::from_str::<Value>(&raw).unwrap()["a"]);
        }
    }

    fn query_of(text: &str) {
        query(text.as_bytes());
    }

    /// As a server of metrics reads a label's value; `None` where it would not.
    fn unescape(text: &str) -> Option<String> {
        let mut chars = text.chars();
        let mut value = String::new();
        while let Some(c) = chars.next() {
            value.push(match c {
                '\\' => match chars.next()? {
                    '\\' => '\\',
                    '"' => '"',
                    'n' => '\n',
                    _ => return None,
                },
                '"' | '\n' => return None,
                c => c,
            });
        }
        Some(value)
    }

    fn streamed(event: RunEvent) -> String {
        let lines = events::lines(stream::iter([Ok(vec![event])]));
        let response = axum::response::sse::Sse::new(lines).into_response();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bytes = runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}
