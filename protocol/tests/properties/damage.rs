//! JSON that was good once: texts with a few bytes changed, and values with a part changed.

use proptest::{prelude::*, sample::Index};
use serde_json::Value;

use crate::values;

/// Every message there is, as the snapshots have it.
pub(crate) const WIRE: [&str; 5] = [
    include_str!("../wire/events.jsonl"),
    include_str!("../wire/from_sidecar.jsonl"),
    include_str!("../wire/from_worker.jsonl"),
    include_str!("../wire/to_sidecar.jsonl"),
    include_str!("../wire/to_worker.jsonl"),
];

fn lines() -> impl Iterator<Item = String> {
    WIRE.iter().flat_map(|file| file.lines()).map(str::to_owned)
}

pub(crate) fn wire_line() -> impl Strategy<Value = String> {
    prop::sample::select(lines().collect::<Vec<_>>())
}

/// A message with a number that somebody on the way reads; the data of an event nobody does.
pub(crate) fn numbered_line() -> impl Strategy<Value = String> {
    let read = |line: &String| !line.contains(r#""kind""#);
    let has_number = |line: &String| {
        let mut message: Value = serde_json::from_str(line).unwrap();
        !numbers(&mut message).is_empty()
    };
    prop::sample::select(lines().filter(|line| read(line) && has_number(line)).collect::<Vec<_>>())
}

/// Where the numbers of a value stand, for [`nth`].
pub(crate) fn numbers(value: &mut Value) -> Vec<usize> {
    (0..count(value)).filter(|at| nth(value, *at).is_some_and(|part| part.is_number())).collect()
}

/// What may stand where something else was expected, and what readers stumble over.
const BITS: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.5",
    "\n",
    "\0",
    "\"type\":",
    "\"data\":",
    "é",
    "\u{feff}",
];

/// One change of a text.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    Cut(Index, Index),
    Put(Index, &'static str),
    Repeat(Index, Index),
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Index>;
    let edit = prop_oneof![
        (at(), at()).prop_map(|(from, to)| Edit::Cut(from, to)),
        (at(), prop::sample::select(&BITS[..])).prop_map(|(at, bit)| Edit::Put(at, bit)),
        (at(), at()).prop_map(|(from, to)| Edit::Repeat(from, to)),
    ];
    prop::collection::vec(edit, 1..6)
}

pub(crate) fn damaged(text: &str, edits: &[Edit]) -> String {
    let mut text = text.to_owned();
    for edit in edits {
        let place = |at: &Index, text: &str| text.floor_char_boundary(at.index(text.len() + 1));
        let range = |from: &Index, to: &Index, text: &str| {
            let (from, to) = (place(from, text), place(to, text));
            // Short ones, most of the time: what is left should still look like something.
            let end = text.floor_char_boundary((from.min(to) + 8).min(from.max(to)));
            from.min(to)..end.max(from.min(to))
        };
        match edit {
            Edit::Cut(from, to) => text.replace_range(range(from, to, &text), ""),
            Edit::Put(at, bit) => text.insert_str(place(at, &text), bit),
            Edit::Repeat(from, to) => {
                let range = range(from, to, &text);
                let again = text[range.clone()].to_owned();
                text.insert_str(range.start, &again);
            }
        }
    }
    text
}

/// A value in place of one somewhere in another.
pub(crate) fn graft() -> impl Strategy<Value = (Index, Value)> {
    (any::<Index>(), values::json())
}

/// How many values there are in `value`, itself included.
pub(crate) fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(entries) => entries.values().map(count).sum(),
        _ => 0,
    }
}

/// The `at`th value in `value`, in the order they stand in.
pub(crate) fn nth(value: &mut Value, at: usize) -> Option<&mut Value> {
    let mut left = at;
    find(value, &mut left)
}

fn find<'a>(value: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(value);
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, left)),
        Value::Object(entries) => entries.values_mut().find_map(|item| find(item, left)),
        _ => None,
    }
}
