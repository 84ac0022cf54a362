//! Reading, writing and editing files.

use std::{
    fmt::Write as _,
    fs,
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Largest file that is read or edited; a larger one is refused with the advice to use the shell.
const MAX_FILE_BYTES: u64 = 8 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Read {
    path: String,
    start_line: Option<usize>,
    end_line: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    path: String,
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    path: String,
    old_text: String,
    new_text: String,
}

pub(super) fn read(directory: &Path, input: &Read) -> Result<String, String> {
    let text = content(directory, &input.path)?;
    if input.start_line.is_none() && input.end_line.is_none() {
        return Ok(text);
    }
    let first = input.start_line.unwrap_or(1).max(1);
    let last = input.end_line.unwrap_or(usize::MAX);
    if last < first {
        return Err(format!("end_line {last} is before start_line {first}"));
    }
    let mut shown = String::new();
    for line in text.split_inclusive('\n').skip(first - 1).take(last - first + 1) {
        shown.push_str(line);
    }
    if shown.is_empty() {
        let _ = write!(shown, "[{} has {} lines]", input.path, text.lines().count());
    }
    Ok(shown)
}

pub(super) fn write(directory: &Path, input: &Write) -> Result<String, String> {
    let path = resolve(directory, &input.path);
    let told = |error: io::Error| format!("{}: {error}", input.path);
    if fs::metadata(&path).is_ok_and(|about| !about.is_file()) {
        return Err(not_regular(&input.path));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(told)?;
    }
    fs::write(&path, &input.content).map_err(told)?;
    Ok(format!("{}: {} bytes written", input.path, input.content.len()))
}

pub(super) fn edit(directory: &Path, input: &Edit) -> Result<String, String> {
    if input.old_text.is_empty() {
        return Err("old_text is empty: name the passage to replace, or use write_file".to_owned());
    }
    let text = content(directory, &input.path)?;
    let found = text.matches(&input.old_text).count();
    if found != 1 {
        return Err(format!(
            "{}: old_text stands in it {found} times, not once; nothing was changed",
            input.path
        ));
    }
    let text = text.replacen(&input.old_text, &input.new_text, 1);
    fs::write(resolve(directory, &input.path), text)
        .map_err(|error| format!("{}: {error}", input.path))?;
    Ok(format!("{}: 1 passage replaced", input.path))
}

/// A path of the model: relative to the working directory, absolute as it stands.
fn resolve(directory: &Path, path: &str) -> PathBuf {
    directory.join(path)
}

/// A pipe or a device would never end, and one of the pipes is our own.
fn not_regular(path: &str) -> String {
    format!("{path}: no regular file; use the shell")
}

fn content(directory: &Path, path: &str) -> Result<String, String> {
    text(&resolve(directory, path), MAX_FILE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => format!("{path}: {error}; use the shell"),
        _ => format!("{path}: {error}"),
    })
}

/// All of a text file that has at most `max` bytes.
///
/// # Errors
/// It cannot be read, or is no such file: `InvalidData`.
pub(super) fn text(path: &Path, max: u64) -> io::Result<String> {
    let none = |what: &str| Err(io::Error::new(ErrorKind::InvalidData, what));
    if !fs::metadata(path)?.is_file() {
        return none("no regular file");
    }
    let mut bytes = Vec::new();
    // Some files of the kernel's say they are empty and have no end.
    fs::File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return none(&format!("more than {max} bytes"));
    }
    String::from_utf8(bytes).or_else(|_| none("not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit_of(old: &str, new: &str) -> Edit {
        Edit { path: "a/b.txt".to_owned(), old_text: old.to_owned(), new_text: new.to_owned() }
    }

    #[test]
    fn files_are_written_read_in_part_and_edited_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = "a/b.txt".to_owned();
        let input = Write { path: path.clone(), content: "one\ntwo\ntwo\nfour".to_owned() };
        write(folder.path(), &input).unwrap();
        let part = Read { path, start_line: Some(2), end_line: Some(3) };
        assert_eq!(read(folder.path(), &part).unwrap(), "two\ntwo\n");
        assert!(edit(folder.path(), &edit_of("two", "2")).unwrap_err().contains("2 times"));
        assert!(edit(folder.path(), &edit_of("three", "3")).unwrap_err().contains("0 times"));
        edit(folder.path(), &edit_of("one\ntwo", "1\n2")).unwrap();
        let text = fs::read_to_string(folder.path().join("a/b.txt")).unwrap();
        assert_eq!(text, "1\n2\ntwo\nfour");
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bin"), [0xff, 0xfe]).unwrap();
        let large = fs::File::create(folder.path().join("large")).unwrap();
        large.set_len(MAX_FILE_BYTES + 1).unwrap();
        for (path, why) in [
            ("bin", "not UTF-8"),
            (".", "no regular file"),
            ("none", "No such file"),
            ("large", "more than 8388608 bytes; use the shell"),
        ] {
            let input = Read { path: path.to_owned(), start_line: None, end_line: None };
            assert!(read(folder.path(), &input).unwrap_err().contains(why), "{path}");
        }
        // Nobody reads: opening it would wait for ever.
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let input = Write { path: "pipe".to_owned(), content: String::new() };
        assert!(write(folder.path(), &input).unwrap_err().contains("no regular file"));
    }
}
