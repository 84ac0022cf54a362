//! What several targets share.

use std::fmt::Debug;

/// A message that was read is written as something that is read as the same.
///
/// # Panics
/// It is not.
pub fn settles<T: Debug, E>(
    parse: impl Fn(&str) -> Result<T, E>,
    json: impl Fn(&T) -> String,
    data: &[u8],
) {
    let Some(message) = std::str::from_utf8(data).ok().and_then(|text| parse(text).ok()) else {
        return;
    };
    let text = json(&message);
    let Ok(again) = parse(&text) else { panic!("written and not understood: {text}") };
    assert_eq!(text, json(&again));
}
