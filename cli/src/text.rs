//! Turning things into text for people: hostile bytes, durations, sizes. Pure.

/// `text` without anything a terminal would obey: what a container prints must not move cursors, set titles
/// or hide lines. Tabs stay; other control characters become visible.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => '\t',
            '\u{7f}' => '\u{2421}',
            c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            // C1 controls, and the marks that reorder what is shown.
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// At most `max` characters, the last one an ellipsis when something was cut.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `850 ms`, `12.3 s`, `4m05s`, `2h03m`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        100_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// `512 B`, `1.4 kB`, `3.2 MB`, `1.0 GB`, by thousands.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    for (unit, worth) in UNITS {
        if bytes >= worth {
            return format!("{}.{} {unit}", bytes / worth, bytes % worth * 10 / worth);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_does_not_reach_the_terminal() {
        assert_eq!(printable("\x1b[2Jgone\r\x07\tok\u{9b}31m"), "␛[2Jgone␍␇\tok\u{fffd}31m");
        assert_eq!(printable("gr\u{fc}n \u{202e}nedro"), "gr\u{fc}n \u{fffd}nedro");
    }

    #[test]
    fn durations_and_sizes_read_well() {
        let shown: Vec<_> =
            [0, 999, 1_000, 12_345, 99_999, 100_000, 3_599_999, 7_380_000].map(duration).to_vec();
        assert_eq!(
            shown,
            ["0 ms", "999 ms", "1.0 s", "12.3 s", "99.9 s", "1m40s", "59m59s", "2h03m"]
        );
        assert_eq!([0, 999, 1_400, 3_250_000].map(size), ["0 B", "999 B", "1.4 kB", "3.2 MB"]);
    }

    #[test]
    fn a_cut_shows() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
    }
}
