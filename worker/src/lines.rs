//! Lines of bounded length from a stream nobody trusts.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    #[error("read a line")]
    Io(#[from] std::io::Error),
}

/// The next line without its newline, in `line`; false at the end. What stands after the last newline is no
/// line: whoever wrote it died over it.
pub(crate) async fn next_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    line: &mut Vec<u8>,
    limit: usize,
) -> Result<bool, LineError> {
    line.clear();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(false);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = end.unwrap_or(available.len());
        if line.len() + part > limit {
            return Err(LineError::TooLong(limit));
        }
        line.extend_from_slice(&available[..part]);
        reader.consume(part + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_end_at_newlines_and_at_the_limit() {
        let mut reader = tokio::io::BufReader::with_capacity(3, &b"ab\n\nabcdef\nrest"[..]);
        let mut line = Vec::new();
        for expected in ["ab", "", "abcdef"] {
            assert!(next_line(&mut reader, &mut line, 6).await.unwrap());
            assert_eq!(line, expected.as_bytes());
        }
        assert!(!next_line(&mut reader, &mut line, 6).await.unwrap());

        let mut reader = &b"abcdefg\n"[..];
        let error = next_line(&mut reader, &mut line, 6).await.unwrap_err();
        assert!(matches!(error, LineError::TooLong(6)), "{error}");
    }
}
