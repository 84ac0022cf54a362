//! The texts a simulated worker sends and the few fields it reads, made by hand because the generator shares the
//! processor with the plane. A test holds them against the protocol's own types.

use std::{borrow::Cow, fmt::Write};

use protocol::link::PROTOCOL_VERSION;
use serde::Deserialize;

/// Events of one run's life: as many as the target asks for, of the kinds a real run has.
pub(crate) const EVENTS_OF_A_RUN: u64 = 10;

/// Their kinds, in order.
pub(crate) const WHOLE_LIFE: [&str; 10] = [
    "phase_started",
    "output",
    "output",
    "output",
    "output",
    "output",
    "output",
    "answer",
    "phase_finished",
    "exit",
];

/// Data of one output event of the stream, about 150 bytes.
const LINE: &str = r#"{"phase":"provider","stream":"stdout","text":"test tests::store::a_claim_is_one_transaction ... ok, 14 of 212 in 0.31 s, target/debug/deps"}"#;

/// Any frame of the plane; only what the generator looks at.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) data: Fields<'a>,
}

/// Borrowed, because an assignment is large and two ids of it are wanted; ids need no escapes.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Fields<'a> {
    #[serde(default)]
    pub(crate) task_id: &'a str,
    #[serde(default)]
    pub(crate) execution_id: &'a str,
    #[serde(default)]
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) heartbeat_ms: u64,
    #[serde(default)]
    pub(crate) lease_ms: u64,
}

pub(crate) fn hello(instance: &str, capacity: u32) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        r#"{{"type":"hello","data":{{"protocol":{PROTOCOL_VERSION},"instance_id":"{instance}","version":"{version}","backend":"bench","capacity":{capacity}}}}}"#
    )
}

pub(crate) fn heartbeat<'a>(held: impl Iterator<Item = &'a String>, free: u32) -> String {
    let mut text = String::from(r#"{"type":"heartbeat","data":{"executions":["#);
    for (i, id) in held.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\"{id}\"");
    }
    let _ = write!(text, r#"],"free":{free}}}}}"#);
    text
}

pub(crate) fn claimed(run: &str, execution: &str, worker: &str) -> String {
    format!(
        r#"{{"type":"task_claimed","data":{{"task_id":"{run}","worker_id":"{worker}","execution_id":"{execution}"}}}}"#
    )
}

pub(crate) fn completed(run: &str, execution: &str) -> String {
    format!(
        r#"{{"type":"task_completed","data":{{"task_id":"{run}","execution_id":"{execution}","message":"done","exit_code":0,"peak_memory_bytes":104857600}}}}"#
    )
}

/// The ten events of a short run, in one frame.
pub(crate) fn whole_life(execution: &str, at_ms: i64) -> String {
    let mut text = begin(execution, 3 << 10);
    event(&mut text, 1, at_ms, "phase_started", r#"{"phase":"provider"}"#);
    for seq in 2..=7 {
        event(&mut text, seq, at_ms, "output", LINE);
    }
    let answer = r#"{"text":"All 212 tests pass; the claim is one transaction now."}"#;
    event(&mut text, 8, at_ms, "answer", answer);
    let phase = r#"{"phase":"provider","duration_ms":1234,"ok":true}"#;
    event(&mut text, 9, at_ms, "phase_finished", phase);
    let exit = r#"{"success":true,"exit_code":0,"message":"the command exited 0"}"#;
    event(&mut text, 10, at_ms, "exit", exit);
    text.push_str("]}}");
    text
}

/// `count` lines of output, numbered from `first`, in one frame.
pub(crate) fn output(execution: &str, first: u64, count: u64, at_ms: i64) -> String {
    let bytes = usize::try_from(count).unwrap_or(0) * (LINE.len() + 64) + 256;
    let mut text = begin(execution, bytes);
    for seq in first..first + count {
        event(&mut text, seq, at_ms, "output", LINE);
    }
    text.push_str("]}}");
    text
}

fn begin(execution: &str, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes);
    let _ = write!(
        text,
        r#"{{"type":"events","data":{{"execution_id":"{execution}","source":"sidecar","events":["#
    );
    text
}

fn event(text: &mut String, seq: u64, at_ms: i64, kind: &str, data: &str) {
    if !text.ends_with('[') {
        text.push(',');
    }
    let _ = write!(text, r#"{{"seq":{seq},"at_ms":{at_ms},"kind":"{kind}","data":{data}}}"#);
}

#[cfg(test)]
mod tests {
    use protocol::{
        event::Event,
        limits::{MAX_EVENTS_FRAME_BYTES, MAX_EVENTS_PER_FRAME},
        link::{FromWorker, ToWorker},
    };

    use super::*;

    #[test]
    fn the_protocol_understands_every_text() {
        let held = ["e-1".to_owned(), "e-2".to_owned()];
        let texts = [
            hello("i", 7),
            heartbeat(held.iter(), 5),
            heartbeat([].iter(), 5),
            claimed("r", "e", "w"),
            completed("r", "e"),
        ];
        let kinds = ["hello", "heartbeat", "heartbeat", "task_claimed", "task_completed"];
        for (text, kind) in texts.iter().zip(kinds) {
            assert_eq!(FromWorker::parse(text).unwrap().kind(), kind, "{text}");
        }
        let Ok(FromWorker::Heartbeat(beat)) = FromWorker::parse(&texts[1]) else { panic!() };
        assert_eq!((beat.executions.len(), beat.free), (2, 5));
    }

    #[test]
    fn events_are_events_and_fit_a_frame() {
        let most = MAX_EVENTS_PER_FRAME as u64;
        for (text, first, count) in
            [(whole_life("e", 5), 1, EVENTS_OF_A_RUN), (output("e", 40, most, 5), 40, most)]
        {
            assert!(text.len() < MAX_EVENTS_FRAME_BYTES);
            let Ok(FromWorker::Events(events)) = FromWorker::parse(&text) else { panic!() };
            assert_eq!(events.events.len() as u64, count);
            assert!(events.events.iter().zip(first..).all(|(line, seq)| line.seq == seq));
            assert!(events.events.iter().all(|line| line.event().is_some()));
            let last = events.events.last().and_then(protocol::event::EventLine::event);
            assert_eq!(matches!(last, Some(Event::Exit(_))), first == 1);
        }
        assert!((130..170).contains(&LINE.len()), "{}", LINE.len());
    }

    #[test]
    fn the_planes_frames_are_read() {
        for text in [
            r#"{"type":"ack","data":{"execution_id":"e","source":"sidecar","seq":9}}"#,
            r#"{"type":"welcome","data":{"protocol":1,"lease_ms":12000,"heartbeat_ms":4000,"executions":[]}}"#,
            r#"{"type":"report_ack","data":{"execution_id":"e"}}"#,
        ] {
            let theirs = ToWorker::parse(text).unwrap().to_json();
            let frame: Incoming<'_> = serde_json::from_str(&theirs).unwrap();
            assert!(text.contains(frame.kind.as_ref()));
            assert!(frame.data.execution_id == "e" || frame.data.lease_ms == 12_000);
        }
        let assignment = r#"{"type":"task_assignment","data":{"task_id":"r","execution_id":"e","task":{"id":"r","task_definition":{"prompt":"\n"}},"spec":{"env":{}}}}"#;
        let read: Incoming<'_> = serde_json::from_str(assignment).unwrap();
        assert_eq!((read.data.task_id, read.data.execution_id), ("r", "e"));
    }
}
