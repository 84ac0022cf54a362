//! Addresses of pull requests in what the provider printed.

use protocol::event::Event;

/// More are not kept.
const MAX_LINKS: usize = 32;

/// A longer owner, group or name is none.
const MAX_LINK_BYTES: usize = 300;

/// Distinct addresses, in the order they were first printed.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<String>);

impl Links {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0
    }

    pub(crate) fn search(&mut self, event: &Event) {
        let (Event::Output { text: Some(text), .. }
        | Event::Text { text, .. }
        | Event::Answer { text, .. }
        | Event::ToolResult { output: text, .. }) = event
        else {
            return;
        };
        for (at, _) in text.match_indices("https://") {
            if self.0.len() >= MAX_LINKS {
                return;
            }
            if let Some(link) = pull_request(&text[at..])
                && !self.0.iter().any(|known| known == link)
            {
                self.0.push(link.to_owned());
            }
        }
    }
}

/// The address `text` begins with, if it is `https://github.com/o/r/pull/N` or `https://…/-/merge_requests/N`.
fn pull_request(text: &str) -> Option<&str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/:.-_~".contains(c);
    let end = text.find(|c| !allowed(c)).unwrap_or(text.len()).min(MAX_LINK_BYTES);
    let url = text.get(..end)?;
    let path = url.strip_prefix("https://")?;
    let number_at = if path.starts_with("github.com/") {
        let mut parts = path.splitn(5, '/');
        let (_, owner, name, pull) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if owner.is_empty() || name.is_empty() || pull != "pull" {
            return None;
        }
        url.len() - parts.next()?.len()
    } else {
        const MARK: &str = "/-/merge_requests/";
        url.find(MARK)? + MARK.len()
    };
    let digits = url[number_at..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| &url[..number_at + digits])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_requests_are_found_once_and_nothing_else_is() {
        let mut links = Links::default();
        let text = "see https://github.com/a/b/pull/12, (https://github.com/a/b/pull/12/files) \
                    https://github.com/a/b/pulls https://github.com/a/b/issues/3 \
                    https://git.example/g/s/p/-/merge_requests/7. https://github.com//x/pull/1 https://";
        let event = Event::Text { text: text.to_owned(), scripted: false };
        links.search(&event);
        links.search(&event);
        assert_eq!(
            links.into_vec(),
            ["https://github.com/a/b/pull/12", "https://git.example/g/s/p/-/merge_requests/7"]
        );
    }
}
