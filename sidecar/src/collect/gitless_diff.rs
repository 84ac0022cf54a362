//! One file's part of a patch, as `git diff --binary --full-index` writes it and `git apply` reads it.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use gix::ObjectId;
use similar::{ChangeTag, TextDiff};

/// How long one file may be compared; then the hunks are only larger than they need be.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// How far a file is looked at for a zero byte, which makes it binary; the same as git's.
const LOOKED_AT: usize = 8_000;

/// A file before or after.
pub(super) struct Side {
    /// As git writes it: `100644`, `100755`, `120000` in octal.
    pub(super) mode: u32,
    pub(super) id: ObjectId,
    pub(super) content: Vec<u8>,
}

const TYPE: u32 = 0o170_000;

/// Writes what became of the file at `path`.
pub(super) fn write(
    out: &mut impl Write,
    path: &str,
    before: Option<&Side>,
    after: Option<&Side>,
) -> io::Result<()> {
    if let (Some(old), Some(new)) = (before, after)
        && old.mode & TYPE != new.mode & TYPE
    {
        // A file that became a link, or the other way: git takes the one away and makes the other.
        write(out, path, before, None)?;
        return write(out, path, None, after);
    }
    let (a, b) = (quoted("a/", path), quoted("b/", path));
    writeln!(out, "diff --git {a} {b}")?;
    let same_mode = match (before, after) {
        (None, Some(new)) => {
            writeln!(out, "new file mode {:06o}", new.mode)?;
            String::new()
        }
        (Some(old), None) => {
            writeln!(out, "deleted file mode {:06o}", old.mode)?;
            String::new()
        }
        (Some(old), Some(new)) if old.mode != new.mode => {
            writeln!(out, "old mode {:06o}\nnew mode {:06o}", old.mode, new.mode)?;
            String::new()
        }
        (Some(old), _) => format!(" {:06o}", old.mode),
        (None, None) => return Ok(()),
    };
    let null = gix::hash::Kind::Sha1.null();
    let (old_id, new_id) =
        (before.map_or(null, |side| side.id), after.map_or(null, |side| side.id));
    if old_id == new_id {
        return Ok(());
    }
    writeln!(out, "index {old_id}..{new_id}{same_mode}")?;
    let content = |side: Option<&Side>| side.map(|side| side.content.clone()).unwrap_or_default();
    let (old, new) = (content(before), content(after));
    match (text(&old), text(&new)) {
        (Some(old), Some(new)) => {
            // Behind a name with a space git wants a tab, to see where it ends.
            let end = if path.contains(' ') { "\t" } else { "" };
            let name = |there: bool, name: &str| {
                if there { format!("{name}{end}") } else { "/dev/null".to_owned() }
            };
            let hunks = hunks(old, new);
            if !hunks.is_empty() {
                writeln!(out, "--- {}", name(before.is_some(), &a))?;
                writeln!(out, "+++ {}", name(after.is_some(), &b))?;
                out.write_all(hunks.as_bytes())?;
            }
            Ok(())
        }
        _ => binary(out, &new),
    }
}

fn text(content: &[u8]) -> Option<&str> {
    if content.iter().take(LOOKED_AT).any(|byte| *byte == 0) {
        return None;
    }
    std::str::from_utf8(content).ok()
}

fn hunks(old: &str, new: &str) -> String {
    // Only `\n` ends a line, whatever else a file holds.
    let (old, new): (Vec<_>, Vec<_>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let diff = TextDiff::configure().timeout(TIMEOUT).diff_slices(&old, &new);
    let mut text = String::new();
    for group in diff.grouped_ops(CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let range = |start: usize, end: usize| {
            // An empty range names the line before it.
            let from = if start == end { start } else { start + 1 };
            format!("{from},{}", end - start)
        };
        let olds = range(first.old_range().start, last.old_range().end);
        let news = range(first.new_range().start, last.new_range().end);
        let _ = writeln!(text, "@@ -{olds} +{news} @@");
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            text.push(match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            });
            text.push_str(change.value());
            if !change.value().ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    text
}

/// A name as git reads it back: quoted when it holds what would end it.
fn quoted(prefix: &str, path: &str) -> String {
    if !path.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        return format!("{prefix}{path}");
    }
    let mut name = format!("\"{prefix}");
    for c in path.chars() {
        match c {
            '"' | '\\' => {
                name.push('\\');
                name.push(c);
            }
            c if c.is_control() => {
                for byte in c.to_string().bytes() {
                    let _ = write!(name, "\\{byte:03o}");
                }
            }
            c => name.push(c),
        }
    }
    name + "\""
}

/// The new content whole, in git's base 85.
fn binary(out: &mut impl Write, content: &[u8]) -> io::Result<()> {
    const DIGITS: &[u8; 85] =
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
    writeln!(out, "GIT binary patch\nliteral {}", content.len())?;
    for line in zlib(content).chunks(52) {
        let length = u8::try_from(line.len()).unwrap_or(52);
        let mark = if length <= 26 { b'A' + length - 1 } else { b'a' + length - 27 };
        let mut text = vec![mark];
        for group in line.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..group.len()].copy_from_slice(group);
            let mut number = u32::from_be_bytes(bytes);
            let mut digits = [0; 5];
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS[(number % 85) as usize];
                number /= 85;
            }
            text.extend_from_slice(&digits);
        }
        text.push(b'\n');
        out.write_all(&text)?;
    }
    out.write_all(b"\n")
}

/// A zlib stream that stores without compressing: a patch is bounded, and smaller code counts more.
fn zlib(content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 0xffff;
    let mut stream = vec![0x78, 0x01];
    let blocks = content.chunks(BLOCK).count().max(1);
    for index in 0..blocks {
        let block = &content[index * BLOCK..content.len().min((index + 1) * BLOCK)];
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        stream.push(u8::from(index + 1 == blocks));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in content {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    stream.extend_from_slice(&((b << 16) | a).to_be_bytes());
    stream
}
