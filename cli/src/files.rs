//! Reading a file that somebody else may have written: whatever it is, only so much of it.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The text of a file of at most `most` bytes, whatever the file says of its size.
///
/// # Errors
/// It cannot be read, is longer, or no UTF-8.
pub(crate) fn text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_an_end_is_read_up_to_the_bound() {
        let endless = text(Path::new("/dev/zero"), 1 << 16).unwrap_err();
        assert_eq!(endless.to_string(), "it is larger than 65536 bytes");
        assert_eq!(text(Path::new("/dev/null"), 0).unwrap(), "");
    }
}
