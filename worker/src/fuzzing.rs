//! The parsers of this part that take bytes from outside, and what must hold of them for every input: for the fuzz
//! targets in `fuzz/`, and for the properties below. In no build that ships.

use protocol::{
    event::{Event, EventLine, EventSource},
    link::{Events, FromWorker, ToWorker},
};
use service::clock::Clock;
use tokio::time::Instant;

use crate::{
    backend::docker::journal,
    lines::{LineError, next_line},
    sidecar_link,
    simulation::{Life, Line, Pushed},
};

/// A container says anything on its sidecar's link. The first byte says how the connection came about.
pub fn sidecar_says(bytes: &[u8]) {
    let Some((way, said)) = bytes.split_first() else { return };
    let thread = format!("{:?}", std::thread::current().id());
    let folder = std::env::temp_dir().join(format!("ozma-fuzz-{}-{thread}", std::process::id()));
    let _ = std::fs::create_dir_all(&folder);
    let outcome =
        sidecar_link::fuzzing::hear(&folder, *way, said).expect("the folder can be written");
    let _ = std::fs::remove_dir_all(&folder);
    assert!(outcome.numbers.iter().copied().eq(1..=outcome.received), "{:?}", outcome.numbers);
    assert!(!outcome.kinds.iter().any(|kind| kind == "state" || kind == "image_progress"));
    let exits = outcome.kinds.iter().filter(|kind| *kind == "exit").count();
    assert_eq!(outcome.exit.is_some(), exits > 0);
    // Before anybody can acknowledge it.
    assert!(exits == 0 || outcome.saved.is_some());
}

/// A plane says anything, one frame a line; between any two the executions say something of their own.
pub fn plane_says(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let now = Instant::now();
    let name = "w".parse().expect("an id");
    let (run, execution) = ("r".parse().expect("an id"), "e".parse().expect("an id"));
    let worker = Life::begin(name, "i".to_owned(), 3, Clock::system());
    let mut cares = vec![worker.hold_earlier(run, execution, 0)];
    let (mut line, hello) = worker.dial(now);
    assert!(matches!(hello, FromWorker::Hello(_)));
    for frame in text.lines().filter_map(|line| ToWorker::parse(line).ok()) {
        match worker.hear(&mut line, frame, now) {
            Ok(Some((care, _))) => cares.push(care),
            Ok(None) => {}
            Err(_) => break,
        }
        for care in &cares {
            care.say(&Event::Notice { text: String::new() });
            let next = care.received().saturating_add(1);
            let event = EventLine::new(next, 0, &Event::Notice { text: String::new() });
            let taken = care.offer(event);
            assert!(taken != Some(Pushed::Gap), "the number after the newest is too early");
        }
        said(&worker, &mut line, now);
    }
    assert!(cares.len() <= 1 + text.lines().count());
    for care in &cares {
        worker.forget(care);
    }
    assert!(worker.is_empty());
}

/// Everything that goes out now: it ends, and the numbers of each batch follow each other.
fn said(worker: &Life, line: &mut Line, now: Instant) {
    for _ in 0..10_000 {
        let Some(frame) = worker.next(line, now) else { return };
        if let FromWorker::Events(Events { source, events, .. }) = frame {
            assert!(!events.is_empty());
            for pair in events.windows(2) {
                let next = pair[0].seq.checked_add(1);
                assert_eq!(Some(pair[1].seq), next, "{} events", EventSource::as_str(source));
            }
        }
    }
    panic!("it never stops talking");
}

/// The archive an engine hands out for the journal of a container that could do what it liked with its files.
pub fn archive(bytes: &[u8]) {
    let mut rest = bytes;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    if let Ok(size) = runtime.block_on(journal::only_file(&mut rest)) {
        assert!(size <= journal::MAX_BYTES);
        let header = &bytes[..bytes.len() - rest.len()];
        assert!(
            header.len().is_multiple_of(512) && !header.is_empty(),
            "not at the end of a block"
        );
        assert!(matches!(header[header.len() - 512 + 156], b'0' | 0), "not a regular file");
    }
}

/// Lines of a stream nobody trusts, within a limit: what comes out is what was in it, up to the first that is too
/// long. The first two bytes say the limit and where reads end.
pub fn lines(bytes: &[u8]) {
    let [limit, size, stream @ ..] = bytes else { return };
    let limit = usize::from(*limit);
    let mut reader = tokio::io::BufReader::with_capacity(usize::from(*size).max(1), stream);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut got, mut line) = (Vec::new(), Vec::new());
    let ended = runtime.block_on(async {
        while next_line(&mut reader, &mut line, limit).await? {
            assert!(line.capacity() <= 4 * limit.max(16), "memory for more than a line");
            got.push(line.clone());
        }
        Ok::<_, LineError>(())
    });
    let mut all: Vec<_> = stream.split(|byte| *byte == b'\n').collect();
    let rest = all.pop().unwrap_or_default();
    let sound = all.iter().take_while(|line| line.len() <= limit).count();
    assert!(got.iter().map(Vec::as_slice).eq(all[..sound].iter().copied()));
    let too_long = sound < all.len() || rest.len() > limit;
    assert_eq!(too_long, matches!(ended, Err(LineError::TooLong(_))));
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn config() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    fn sidecar_line() -> impl Strategy<Value = String> {
        let event = (0..6_u64, select(&["notice", "text", "exit", "state", "x"][..])).prop_map(|(seq, kind)| {
            let data = if kind == "exit" { r#"{"success":true,"message":""}"# } else { r#"{"text":""}"# };
            format!(r#"{{"type":"event","data":{{"seq":{seq},"at_ms":1,"kind":"{kind}","data":{data}}}}}"#)
        });
        let hello = select(&[r#""key":"KEY","#, r#""key":"k","#, ""][..]).prop_map(|key| {
            format!(r#"{{"type":"hello","data":{{{key}"version":"1","last_seq":0}}}}"#)
        });
        prop_oneof![6 => event, 3 => hello, 1 => any::<String>(), 1 => Just(r#"{"type":"x"}"#.to_owned())]
    }

    fn frame() -> impl Strategy<Value = String> {
        let number = prop_oneof![0..5_u64, Just(u64::MAX), Just(u64::MAX - 1)];
        let source = select(&["worker", "sidecar"][..]);
        let id = || select(&["e", "f", "g"][..]);
        let ack = (id(), source, number.clone()).prop_map(|(id, source, seq)| {
            format!(r#"{{"type":"ack","data":{{"execution_id":"{id}","source":"{source}","seq":{seq}}}}}"#)
        });
        let welcome = (id(), any::<bool>(), number.clone(), number, any::<u64>()).prop_map(|(id, keep, worker, sidecar, ms)| {
            format!(r#"{{"type":"welcome","data":{{"protocol":1,"lease_ms":{ms},"heartbeat_ms":{ms},"executions":[{{"execution_id":"{id}","keep":{keep},"worker_seq":{worker},"sidecar_seq":{sidecar}}}]}}}}"#)
        });
        let assign = id().prop_map(|id| {
            let spec = format!(r#"{{"run_id":"r","execution_id":"{id}","tenant_id":"t","attempt":1,"title":"","prompt":"","image":""}}"#);
            format!(r#"{{"type":"task_assignment","data":{{"task_id":"r","execution_id":"{id}","task":{{"id":"r","task_definition":{{"prompt":""}}}},"spec":{spec}}}}}"#)
        });
        let other = (
            id(),
            select(&["report_ack", "stop", "task_cancellation", "drain", "resume", "x"][..]),
        )
            .prop_map(|(id, kind)| {
                format!(r#"{{"type":"{kind}","data":{{"execution_id":"{id}","task_id":"r"}}}}"#)
            });
        prop_oneof![3 => ack, 2 => welcome, 3 => assign, 3 => other, 1 => any::<String>()]
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_container_may_say_anything(way in 0..3_u8, lines in vec(sidecar_line(), 0..9)) {
            sidecar_says(&[&[way][..], lines.join("\n").as_bytes(), b"\n"].concat());
        }

        #[test]
        fn a_plane_may_say_anything(frames in vec(frame(), 0..20)) {
            plane_says(frames.join("\n").as_bytes());
        }

        #[test]
        fn an_archive_may_be_anything(entries in vec((select(&b"05xg\0z"[..]), "[0-7 \0+x]{12}", 0..1500_usize), 0..6)) {
            let entry = |(kind, size, rest): &(u8, String, usize)| {
                let mut header = vec![0; 512 + rest];
                header[124..136].copy_from_slice(size.as_bytes());
                header[156] = *kind;
                header
            };
            archive(&entries.iter().flat_map(entry).collect::<Vec<_>>());
        }

        #[test]
        fn lines_come_out_as_they_were(limit in 0..9_u8, size in 0..9_u8, text in vec(
            prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..60,
        )) {
            lines(&[&[limit, size][..], &text].concat());
        }
    }
}
