//! Output of any size and kind: nothing lost, nothing doubled, the provider waits when nobody takes it.

use base64::{Engine, prelude::BASE64_STANDARD};
use protocol::event::{Event, Stream};

use crate::worker::{Heard, Worker, command};

/// The bytes of the standard output, as they were printed.
fn bytes(heard: &Heard) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in heard.events() {
        if let Event::Output { stream: Stream::Stdout, text, base64, partial, .. } = event {
            match (text, base64) {
                (Some(text), None) => bytes.extend(text.into_bytes()),
                (None, Some(text)) => bytes.extend(BASE64_STANDARD.decode(text).unwrap()),
                both => panic!("{both:?}"),
            }
            if !partial {
                bytes.push(b'\n');
            }
        }
    }
    bytes
}

#[tokio::test]
async fn ten_megabytes_in_lines_arrive_whole() {
    let tail = "y".repeat(95);
    let heard = Worker::start().run(command(&format!("seq 1 100000 | sed 's/$/ {tail}/'"))).await;
    assert!(heard.exit().unwrap().success);
    let printed: String =
        (1..=100_000).fold(String::new(), |text, n| text + &format!("{n} {tail}\n"));
    assert!(printed.len() > 10_000_000);
    assert!(bytes(&heard) == printed.as_bytes());
}

#[tokio::test]
async fn a_line_of_five_megabytes_and_binary_garbage_arrive_whole() {
    let line = "head -c 5000000 /dev/zero | tr '\\0' z; echo";
    let heard = Worker::start()
        .run(command(&format!("{line}; printf '\\377\\000\\376 x\\n'; {line}")))
        .await;
    let z = vec![b'z'; 5_000_000];
    let expected = [&z[..], b"\n\xff\0\xfe x\n", &z[..], b"\n"].concat();
    assert!(bytes(&heard) == expected);
}

#[tokio::test]
async fn a_journal_that_nobody_acknowledges_makes_the_provider_wait() {
    // More than the journal holds: without acknowledgements it must stop before the end.
    let worker = Worker::start();
    let (mut connection, _) = worker.accept().await;
    let line = "x".repeat(999);
    connection.assign(command(&format!("yes {line} | head -n 90000; echo end > done"))).await;
    let done = worker.root().join("workspace/done");
    let mut heard = Heard::default();
    let mut held = 0;
    // The journal's bound, less what one more line would take.
    while held < protocol::limits::MAX_JOURNAL_BYTES - 2_000 {
        let line = connection.event().await.unwrap();
        held += serde_json::to_string(&line).unwrap().len() as u64 + 1;
        heard.0.push(line);
    }
    assert!(!done.exists(), "it went on though nothing was acknowledged");
    while heard.exit().is_none() {
        let seq = heard.0.last().unwrap().seq;
        connection.send(protocol::sidecar::ToSidecar::Ack(protocol::sidecar::Seq { seq })).await;
        for _ in 0..500 {
            heard.0.push(connection.event().await.unwrap());
            if heard.exit().is_some() {
                break;
            }
        }
    }
    assert!(done.exists());
    assert_eq!(heard.stdout().len(), 90_000);
    assert!(heard.0.iter().zip(1..).all(|(line, seq)| line.seq == seq));
    drop(worker);
}
