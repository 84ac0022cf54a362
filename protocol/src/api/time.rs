//! Points in time on the wire: RFC 3339 with milliseconds and `Z`. Reading takes any offset.

use std::fmt;

use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970, written as `2026-11-20T22:02:27.123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(value_type = String, format = DateTime, example = "2026-11-20T22:02:27.123Z")
)]
pub struct Timestamp(pub i64);

/// A text that is no RFC 3339 time, such as `2026-01-01T00:00:00+00:00`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a time like 2026-01-01T00:00:00Z or 2026-01-01T00:00:00+02:00")]
pub struct BadTimestamp;

impl Timestamp {
    pub fn as_ms(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, ms) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let (year, month, day) = date_of(day);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, milli) = (ms / 1_000 % 60, ms % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

impl std::str::FromStr for Timestamp {
    type Err = BadTimestamp;

    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        parse(text).map(Self).ok_or(BadTimestamp)
    }
}

impl TryFrom<String> for Timestamp {
    type Error = BadTimestamp;

    fn try_from(text: String) -> Result<Self, BadTimestamp> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(bytes, 0, 4)?, number(bytes, 5, 2)?, number(bytes, 8, 2)?);
    let hour = number(bytes, 11, 2)?;
    let (minute, second) = (number(bytes, 14, 2)?, number(bytes, 17, 2)?);
    let days = days_to(year, month, day);
    // A day the month does not have comes back as another one.
    if date_of(days) != (year, month, day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (milli, zone) = fraction(&bytes[19..])?;
    let seconds = hour * 3_600 + minute * 60 + second - offset_secs(zone)?;
    Some(days * DAY_MS + seconds * 1_000 + milli)
}

/// Milliseconds of a fraction that may be there, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let kept = digits[..count].iter().copied().chain(std::iter::repeat(b'0')).take(3);
    let milli = kept.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some((milli, &digits[count..]))
}

fn offset_secs(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        // A `+` in a query string that nobody encoded arrives as a blank.
        [sign @ (b'+' | b'-' | b' '), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone, 1, 2)?, number(zone, 4, 2)?);
            let secs = hours * 3_600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -secs } else { secs })
        }
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize, digits: usize) -> Option<i64> {
    bytes
        .get(at..at + digits)?
        .iter()
        .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. The year begins in March here, so that
/// the leap day is its last.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_209_747_123, "2026-11-20T21:22:27.123Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(ms)));
        }
    }

    #[test]
    fn reading_takes_offsets_and_fractions() {
        let noon = Timestamp(946_728_000_000);
        for text in [
            "2000-01-01T12:00:00Z",
            "2000-01-01T12:00:00.000000Z",
            "2000-01-01T14:00:00+02:00",
            "2000-01-01T14:00:00 02:00",
            "2000-01-01T10:30:00-01:30",
        ] {
            assert_eq!(text.parse(), Ok(noon), "{text}");
        }
        for bad in ["", "2000-01-01", "2001-02-29T00:00:00Z", "2000-01-01T24:00:00Z", "yesterday"] {
            assert_eq!(bad.parse::<Timestamp>(), Err(BadTimestamp), "{bad}");
        }
    }
}
