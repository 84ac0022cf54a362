//! Messages: what is written is read back, and what is read may be anything.

use std::fmt::Debug;

use proptest::{prelude::*, test_runner::TestCaseResult};
use protocol::{
    event::EventLine,
    frame::FrameError,
    link::{FromWorker, ToWorker},
    sidecar::{FromHarness, FromSidecar, ToSidecar},
};
use serde_json::{Value, json};

use crate::{config, damage, values};

/// A direction of a link, read and written.
macro_rules! read {
    ($name:ident, $text:expr) => {
        $name::parse($text).map(|message| (message.kind().to_owned(), message.to_json()))
    };
}

type Reading = Result<(String, String), FrameError>;

/// The text, read as each direction would.
fn readings(text: &str) -> Vec<Reading> {
    vec![
        read!(FromWorker, text),
        read!(ToWorker, text),
        read!(FromSidecar, text),
        read!(ToSidecar, text),
        read!(FromHarness, text),
    ]
}

/// What was taken is written as something that is taken for the same.
fn settles(text: &str) -> TestCaseResult {
    for (direction, reading) in readings(text).into_iter().enumerate() {
        let Ok((kind, json)) = reading else { continue };
        let again = readings(&json).swap_remove(direction);
        prop_assert_eq!(again.ok(), Some((kind, json)));
    }
    Ok(())
}

fn same<T: Debug>(
    message: &T,
    json: impl Fn(&T) -> String,
    parse: impl Fn(&str) -> Result<T, FrameError>,
) -> TestCaseResult {
    let text = json(message);
    prop_assert!(!text.contains('\n'), "a message is one line");
    let read = parse(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    // Debug tells of fields the wire leaves out, the wire of secrets Debug leaves out.
    prop_assert_eq!(format!("{message:?}"), format!("{read:?}"));
    prop_assert_eq!(text, json(&read));
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_a_worker_says_is_read_back(message in values::from_worker()) {
        same(&message, FromWorker::to_json, FromWorker::parse)?;
    }

    #[test]
    fn what_a_worker_is_told_is_read_back(message in values::to_worker()) {
        same(&message, ToWorker::to_json, ToWorker::parse)?;
    }

    #[test]
    fn what_a_sidecar_says_is_read_back(message in values::from_sidecar()) {
        same(&message, FromSidecar::to_json, FromSidecar::parse)?;
    }

    #[test]
    fn what_a_sidecar_is_told_is_read_back(message in values::to_sidecar()) {
        same(&message, ToSidecar::to_json, ToSidecar::parse)?;
    }

    #[test]
    fn what_a_harness_says_is_read_back(message in values::from_harness()) {
        same(&message, FromHarness::to_json, FromHarness::parse)?;
    }

    #[test]
    fn an_event_comes_out_of_its_line_as_it_went_in(
        event in values::event(), seq in any::<u64>(), at in any::<i64>(),
    ) {
        let text = serde_json::to_string(&EventLine::new(seq, at, &event)).unwrap();
        let line: EventLine = serde_json::from_str(&text).unwrap();
        prop_assert_eq!((line.seq, line.at_ms), (seq, at));
        prop_assert_eq!(line.event(), Some(event));
    }

    #[test]
    fn no_text_is_too_strange_to_refuse(text in any::<String>()) {
        settles(&text)?;
    }

    #[test]
    fn no_damage_is_too_strange_to_refuse(line in damage::wire_line(), edits in damage::edits()) {
        settles(&damage::damaged(&line, &edits))?;
    }

    #[test]
    fn no_value_is_too_strange_to_refuse(
        line in damage::wire_line(), (at, value) in damage::graft(),
    ) {
        let mut message: Value = serde_json::from_str(&line).unwrap();
        let count = damage::count(&message);
        *damage::nth(&mut message, at.index(count)).unwrap() = value;
        settles(&message.to_string())?;
    }

    #[test]
    fn a_type_of_another_age_is_told_by_its_name(kind in values::text(), data in values::json()) {
        for text in [json!({"type": kind, "data": data}), json!({"type": kind})] {
            for (at, reading) in readings(&text.to_string()).into_iter().enumerate() {
                match reading {
                    Ok((read, _)) => prop_assert_eq!(&read, &kind),
                    // A kind that exists, with data of another form.
                    Err(_) => prop_assert!(known(at).contains(&kind.as_str())),
                }
            }
        }
    }

    #[test]
    fn a_field_of_another_age_is_passed_over(
        line in damage::wire_line(), name in "x_[a-z]{1,9}", value in values::json(), deep in 0_usize..60,
    ) {
        let mut message: Value = serde_json::from_str(&line).unwrap();
        let mut more = message.clone();
        more["data"][&name] = value.clone();
        more[&name] = json!([nested(deep)]);
        let (before, after) = (readings(&line), readings(&more.to_string()));
        for (before, after) in before.into_iter().zip(after) {
            // Data that nobody between reads goes on as it came.
            if line.contains(r#""kind""#) { continue }
            prop_assert_eq!(before.ok(), after.ok(), "{}", more);
        }
        // A repository is what a user wrote, and is taken by the word.
        if let Some(repo) = message.pointer_mut("/data/spec/repos/0") {
            repo[&name] = value;
            prop_assert!(readings(&message.to_string()).iter().any(Result::is_err));
        }
    }

    #[test]
    fn a_number_no_field_can_hold_is_refused(
        line in damage::numbered_line(), at in any::<prop::sample::Index>(),
        bad in prop::sample::select(&["18446744073709551616", "-9223372036854775809", "0.5", "1e3"][..]),
    ) {
        let mut message: Value = serde_json::from_str(&line).unwrap();
        let numbers = damage::numbers(&mut message);
        *damage::nth(&mut message, numbers[at.index(numbers.len())]).unwrap() = json!("HERE");
        let text = message.to_string().replace("\"HERE\"", bad);
        for (before, after) in readings(&line).into_iter().zip(readings(&text)) {
            let unknown = before.is_ok_and(|(_, json)| json != line);
            prop_assert!(unknown || after.is_err(), "{text}");
        }
    }
}

/// The types each direction knows, in the order of [`readings`].
fn known(direction: usize) -> &'static [&'static str] {
    [
        &[
            "hello",
            "task_claimed",
            "task_rejected",
            "task_completed",
            "task_failed",
            "events",
            "heartbeat",
        ][..],
        &["welcome", "task_assignment", "task_cancellation", "ack", "report_ack", "stop"][..],
        &["hello", "event"][..],
        &["assign", "resume", "ack", "cancel", "message"][..],
        &["event", "exit"][..],
    ][direction]
}

fn nested(deep: usize) -> Value {
    (0..deep).fold(Value::Null, |inner, _| json!([inner]))
}

/// A reader that calls itself for each bracket would end the process; data nobody reads may nest as it likes.
#[test]
fn no_depth_is_too_deep_to_refuse() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        for text in [
            deep.clone(),
            format!(r#"{{"type":"hello","data":{deep}}}"#),
            format!(r#"{{"type":"event","data":{{"seq":1,"at_ms":1,"kind":"x","data":{deep}}}}}"#),
            format!(r#"{{"type":"unheard_of","data":{deep},"more":{deep}}}"#),
        ] {
            drop(readings(&text));
        }
        let data = format!(r#"{{"id":"1","name":"shell","input":{deep}}}"#);
        let line = format!(r#"{{"seq":1,"at_ms":1,"kind":"tool_call","data":{data}}}"#);
        let line: EventLine = serde_json::from_str(&line).unwrap();
        assert_eq!(line.event(), None, "a value this deep is nothing to look into");
        let said = format!(r#"{{"type":"event","data":{{"kind":"tool_call","data":{data}}}}}"#);
        assert!(FromHarness::parse(&said).is_err());
    }
}
