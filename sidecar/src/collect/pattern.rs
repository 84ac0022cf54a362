//! Paths with `*`, `?` and `**`, matched segment by segment.

/// A pattern below the workspace. Of one that leads out of it nothing matches.
#[derive(Debug)]
pub(crate) struct Pattern {
    segments: Vec<String>,
}

impl Pattern {
    /// `None` when the pattern cannot match anything below the workspace.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.strip_prefix("/workspace/").unwrap_or(text);
        let segments: Vec<_> = text
            .split('/')
            .filter(|segment| !segment.is_empty() && *segment != ".")
            .map(str::to_owned)
            .collect();
        let out = text.starts_with('/') || segments.iter().any(|segment| segment == "..");
        (!out && !segments.is_empty()).then_some(Self { segments })
    }

    pub(crate) fn matches(&self, path: &[&str]) -> bool {
        matches_path(&self.segments, path)
    }

    /// Whether something below the folder `path` may match.
    pub(crate) fn enters(&self, path: &[&str]) -> bool {
        let mut pattern = self.segments.iter();
        for name in path {
            match pattern.next() {
                Some(segment) if segment == "**" => return true,
                Some(segment) if matches_name(segment.as_bytes(), name.as_bytes()) => {}
                _ => return false,
            }
        }
        pattern.next().is_some()
    }
}

/// With one place to go back to, so that no path takes more than length × length steps: a double star that took too
/// little before the next one can only take more.
fn matches_path(pattern: &[String], path: &[&str]) -> bool {
    let (mut p, mut n, mut stars) = (0, 0, None);
    while n < path.len() {
        if pattern.get(p).is_some_and(|segment| segment == "**") {
            stars = Some((p, n));
            p += 1;
        } else if pattern
            .get(p)
            .is_some_and(|segment| matches_name(segment.as_bytes(), path[n].as_bytes()))
        {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, taken)) = stars {
            stars = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|segment| segment == "**")
}

/// As [`matches_path`], with `*`.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == name[n]) && pattern[p] != b'*'
        {
            (p, n) = (p + 1, n + 1);
        } else if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let path: Vec<_> = path.split('/').collect();
        Pattern::new(pattern).is_some_and(|pattern| pattern.matches(&path))
    }

    #[test]
    fn stars_stay_in_their_segment_and_double_stars_do_not() {
        for (pattern, path) in [
            ("a.txt", "a.txt"),
            ("*.txt", "a.txt"),
            ("out/**", "out/a/b"),
            ("**/*.log", "x.log"),
            ("**/*.log", "a/b/x.log"),
            ("a/**/b", "a/b"),
            ("/workspace/r?port*", "report-1"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.txt", "a/b.txt"),
            ("a", "b"),
            ("../x", "x"),
            ("/etc/passwd", "etc/passwd"),
            ("", "x"),
            ("a*b*c", "abcd"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn folders_that_cannot_hold_a_match_are_not_entered() {
        let pattern = Pattern::new("a/*/c").unwrap();
        assert!(pattern.enters(&[]) && pattern.enters(&["a"]) && pattern.enters(&["a", "b"]));
        assert!(!pattern.enters(&["b"]) && !pattern.enters(&["a", "b", "c"]));
        assert!(Pattern::new("**/x").unwrap().enters(&["any", "where"]));
    }
}
