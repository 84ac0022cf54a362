//! One event, as everybody on the way reads it, and as whoever looks inside does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::event::EventLine;

fuzz_target!(|data: &[u8]| {
    let Ok(line) = serde_json::from_slice::<EventLine>(data) else { return };
    let text = serde_json::to_string(&line).expect("an event line is plain data");
    let again: EventLine = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!((line.seq, line.at_ms, &line.kind), (again.seq, again.at_ms, &again.kind));
    if let Some(event) = line.event() {
        let line = EventLine::new(line.seq, line.at_ms, &event);
        assert!(line.event().is_some(), "what was written is read");
    }
});
