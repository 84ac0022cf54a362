//! Where the plane's end of the link is, by the address of the plane. Pure.

use anyhow::{Context, bail};
use protocol::ids::WorkerId;

const PATH: &str = "/api/v1/selfhosted/worker/ws";

/// The address of the link below the plane's root.
///
/// # Errors
/// The text is no address of a plane.
pub(crate) fn address(plane_url: &str, worker_id: &WorkerId) -> anyhow::Result<String> {
    let url = plane_url.trim().trim_end_matches('/');
    let (scheme, rest) = url.split_once("://").context("must begin with http:// or https://")?;
    let scheme = match scheme {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        other => bail!("must begin with http:// or https://, not {other}://"),
    };
    if rest.is_empty() || rest.starts_with('/') || rest.contains(['?', '#']) {
        bail!("must be scheme://host[:port], without a query");
    }
    if rest.contains('@') {
        bail!("must hold no credentials; they belong into token or token_file");
    }
    let path = if rest.ends_with("/worker/ws") { "" } else { PATH };
    Ok(format!("{scheme}://{rest}{path}?worker_id={}", percent_encoded(worker_id.as_str())))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex::encode_upper([byte]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_below_the_planes_root() {
        let id: WorkerId = "my wörker".parse().unwrap();
        for (root, link) in [
            ("http://h:8080", "ws://h:8080/api/v1/selfhosted/worker/ws?worker_id=my%20w%C3%B6rker"),
            ("https://h/", "wss://h/api/v1/selfhosted/worker/ws?worker_id=my%20w%C3%B6rker"),
            ("ws://h/x/worker/ws", "ws://h/x/worker/ws?worker_id=my%20w%C3%B6rker"),
        ] {
            assert_eq!(address(root, &id).unwrap(), link);
        }
        for bad in ["h:8080", "ftp://h", "http://", "http://user:pass@h", "http://h?x"] {
            assert!(address(bad, &id).is_err(), "{bad} was taken");
        }
    }
}
