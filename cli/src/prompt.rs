//! Where a prompt comes from: a file, the command line, standard input.

use std::{
    fs::File,
    io::{IsTerminal, Read},
    path::Path,
};

use protocol::api::runs::MAX_PROMPT_BYTES;

use crate::failure::Failure;

const PROMPT_FROM: &str = "give it as an argument, with --file, or on standard input";

/// The prompt: of `file`, else the argument, else standard input; `-` is standard input for both.
///
/// # Errors
/// There is none, it is empty, no UTF-8 or longer than a run's may be.
pub(crate) fn prompt(file: Option<&Path>, argument: Option<&str>) -> Result<String, Failure> {
    let bytes = match (file, argument) {
        (Some(file), _) if file.as_os_str() != "-" => {
            File::open(file).and_then(bounded).map_err(|error| {
                Failure::usage(format!("cannot read the prompt from {}: {error}", file.display()))
            })?
        }
        (None, Some(text)) if text != "-" => text.as_bytes().to_vec(),
        (file, argument) => {
            if file.is_none() && argument.is_none() && std::io::stdin().is_terminal() {
                return Err(Failure::usage("there is no prompt").hint(PROMPT_FROM));
            }
            bounded(std::io::stdin().lock())?
        }
    };
    if bytes.len() > MAX_PROMPT_BYTES {
        return Err(Failure::usage(format!("the prompt is longer than {MAX_PROMPT_BYTES} bytes"))
            .hint("put long material into the repository and let the prompt name it"));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage("the prompt is not UTF-8")
            .hint("put what is no text into the repository and let the prompt name it")
    })?;
    if text.trim().is_empty() {
        return Err(Failure::usage("the prompt is empty").hint(PROMPT_FROM));
    }
    Ok(text)
}

/// One byte over the limit is enough to know.
fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_PROMPT_BYTES).unwrap_or(u64::MAX) + 1;
    from.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_before_the_argument() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompt");
        std::fs::write(&path, "from the file\n").unwrap();
        assert_eq!(prompt(Some(&path), Some("argument")).unwrap(), "from the file\n");
        assert_eq!(prompt(None, Some("argument")).unwrap(), "argument");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(prompt(Some(&path), None).unwrap_err().exit_code, 2);
        assert_eq!(prompt(None, Some(" \n")).unwrap_err().exit_code, 2);
    }
}
