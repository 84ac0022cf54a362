//! Names and types that come from a container, made fit for headers and for other people's disks.

use std::fmt::Write;

use axum::http::HeaderValue;

/// The type of content that does not say, or not plainly.
pub(super) const BINARY: &str = "application/octet-stream";

/// `type/subtype` of plain characters, perhaps with a character set; else bytes.
pub(super) fn content_type(given: Option<&str>) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&^_.+-/;= ".contains(c);
    given
        .filter(|text| text.len() <= 128 && text.contains('/') && text.chars().all(plain))
        .unwrap_or(BINARY)
}

/// A name without folders, so that whoever saves the content under it saves it where it meant to.
pub(super) fn file_name(given: Option<&str>) -> String {
    let name = given.and_then(|name| name.rsplit(['/', '\\']).next()).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    if matches!(name.as_str(), "" | "." | "..") { "artifact".to_owned() } else { name }
}

/// A download under that name, for old clients in ASCII, for others in full (RFC 6266).
pub(super) fn disposition(filename: Option<&str>) -> HeaderValue {
    let name = file_name(filename);
    let keep = |c: char| c.is_ascii_alphanumeric() || "._- ()+@,".contains(c);
    let ascii: String = name.chars().map(|c| if keep(c) { c } else { '_' }).collect();
    let mut full = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            full.push(char::from(byte));
        } else {
            write!(full, "%{byte:02X}").expect("a string takes what is written");
        }
    }
    let text = format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{full}");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_a_name() {
        for (name, expected) in [
            ("a.patch", "attachment; filename=\"a.patch\"; filename*=UTF-8''a.patch"),
            ("../../etc/passwd", "attachment; filename=\"passwd\"; filename*=UTF-8''passwd"),
            ("a\"\r\nx: y", "attachment; filename=\"a_x_ y\"; filename*=UTF-8''a%22x%3A%20y"),
            ("é", "attachment; filename=\"_\"; filename*=UTF-8''%C3%A9"),
            ("..", "attachment; filename=\"artifact\"; filename*=UTF-8''artifact"),
        ] {
            assert_eq!(disposition(Some(name)), expected, "{name:?}");
        }
    }

    #[test]
    fn a_hostile_type_is_bytes() {
        assert_eq!(
            content_type(Some("text/x-patch; charset=utf-8")),
            "text/x-patch; charset=utf-8"
        );
        for bad in ["html", "text/html\r\nx: y", "text/<b>"] {
            assert_eq!(content_type(Some(bad)), BINARY);
        }
    }
}
