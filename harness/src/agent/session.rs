//! The conversation, written down as it is held, so that a later run can go on with it. One line a message; the
//! instructions are each run's own and not among them, nor is any key: nothing here ever had one.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use protocol::{event::Event, failure::FailureReason};

use crate::{agent::conversation::Message, failure::Failure};

/// Longest conversation that is kept, in bytes. What is said after it is not kept, a `truncated` event says so, and a
/// later run goes on with what is.
const MAX_BYTES: u64 = 16 << 20;

/// What stands for the result of a tool that had none when its run ended.
const NO_RESULT: &str = "[the run ended before this tool did]";

/// Where a conversation is kept; nothing is when there is no folder for it.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    /// None once it is full or could not be written.
    file: Option<File>,
    left: u64,
}

impl Session {
    /// A new one, named by a UUID.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        let folder = below(folder);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let id = uuid().map_err(io::Error::other)?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.join(format!("{id}.jsonl")))?;
        Ok(Self { id, file: Some(file), left: MAX_BYTES })
    }

    /// One that an earlier run kept, with what was said in it.
    ///
    /// # Errors
    /// `session_gone`: it is not there, or not as it was written.
    pub(super) fn resume(folder: &Path, id: &str) -> Result<(Self, Vec<Message>), Failure> {
        let gone = |why: &str| {
            let what = format!("the agent cannot go on with the session {id:?}: {why}");
            Failure::new(FailureReason::SessionGone, what)
        };
        if !is_uuid(id) {
            return Err(gone("its sessions are named by UUIDs"));
        }
        let path = below(folder).join(format!("{id}.jsonl"));
        let text = read(&path).map_err(|error| gone(&error.to_string()))?;
        // The last line may be cut: its run may have been killed while it wrote.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut said = Vec::new();
        for line in whole.lines() {
            said.push(serde_json::from_str(line).map_err(|_| gone("its file is damaged"))?);
        }
        if !matches!(said.first(), Some(Message::User(_))) {
            return Err(gone("its file is damaged"));
        }
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_len(whole.len() as u64).map(|()| file))
            .map_err(|error| gone(&error.to_string()))?;
        let left = MAX_BYTES.saturating_sub(whole.len() as u64);
        Ok((Self { id: id.to_owned(), file: Some(file), left }, answered(said)))
    }

    /// The event that names it.
    pub(super) fn event(&self) -> Event {
        Event::Session { provider: "agent".to_owned(), session_id: self.id.clone() }
    }

    /// Writes a message down. What a person should know, the first time one is left out.
    pub(super) fn keep(&mut self, message: &Message) -> Option<Event> {
        let file = self.file.as_mut()?;
        let mut line = serde_json::to_string(message).unwrap_or_default();
        line.push('\n');
        if line.len() as u64 > self.left {
            self.file = None;
            return Some(Event::Truncated { what: "session".to_owned(), limit: MAX_BYTES });
        }
        self.left -= line.len() as u64;
        let error = file.write_all(line.as_bytes()).err()?;
        self.file = None;
        let text = format!("the conversation is not kept any further: {error}");
        Some(Event::Notice { text })
    }
}

fn below(folder: &Path) -> PathBuf {
    folder.join("agent")
}

fn read(path: &Path) -> io::Result<String> {
    let about = fs::symlink_metadata(path)?;
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(io::Error::other("its file is none of the agent's"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    // A cut last line may be cut inside a character.
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// A conversation in which every call has a result: endpoints take no other.
fn answered(said: Vec<Message>) -> Vec<Message> {
    let mut whole = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for message in said {
        match &message {
            Message::Tool { id, .. } => open.retain(|open| open != id),
            _ => whole.extend(open.drain(..).map(no_result)),
        }
        if let Message::Assistant { calls, .. } = &message {
            open = calls.iter().map(|call| call.id.clone()).collect();
        }
        whole.push(message);
    }
    whole.extend(open.into_iter().map(no_result));
    whole
}

fn no_result(id: String) -> Message {
    Message::Tool { id, output: NO_RESULT.to_owned() }
}

/// A random one, version 4.
fn uuid() -> Result<String, getrandom::Error> {
    let (high, low) = (getrandom::u64()?, getrandom::u64()?);
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::conversation::Call;

    fn call(id: &str) -> Call {
        Call { id: id.to_owned(), name: "shell".to_owned(), arguments: "{}".to_owned() }
    }

    fn user(text: &str) -> Message {
        Message::User(text.to_owned())
    }

    fn shown(said: &[Message]) -> Vec<String> {
        said.iter().map(|message| serde_json::to_string(message).unwrap()).collect()
    }

    #[test]
    fn what_was_said_is_said_again_and_every_call_has_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let mut session = Session::begin(folder.path()).unwrap();
        let calls = vec![call("a"), call("b")];
        let assistant = Message::Assistant { text: "é\n".to_owned(), calls };
        let result = Message::Tool { id: "a".to_owned(), output: "x".to_owned() };
        for message in [user("first"), assistant.clone(), result.clone()] {
            assert_eq!(session.keep(&message), None);
        }
        let path = folder.path().join(format!("agent/{}.jsonl", session.id));
        // Killed while it wrote, inside a character.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"user\":\"\xc3")
            .unwrap();
        let (mut again, said) = Session::resume(folder.path(), &session.id).unwrap();
        let whole = [user("first"), assistant, result, no_result("b".to_owned())];
        assert_eq!(shown(&said), shown(&whole));
        assert_eq!(again.event(), session.event());
        assert_eq!(again.keep(&user("second")), None);
        let (_, said) = Session::resume(folder.path(), &session.id).unwrap();
        assert_eq!(shown(&said), shown(&[&whole[..], &[user("second")]].concat()));
    }

    #[test]
    fn one_that_is_not_there_or_damaged_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut session = Session::begin(folder.path()).unwrap();
        let path = folder.path().join(format!("agent/{}.jsonl", session.id));
        let mut reasons = Vec::new();
        let mut try_it = |id: &str| {
            let failure = Session::resume(folder.path(), id).map(|_| ()).unwrap_err();
            assert_eq!(failure.reason, FailureReason::SessionGone);
            reasons.push(failure.message.rsplit(": ").next().unwrap().to_owned());
        };
        // Nothing was said in it.
        try_it(&session.id);
        session.keep(&user("first"));
        for damage in [&b"nonsense\n"[..], b"\xff\n"] {
            let whole = fs::read(&path).unwrap();
            fs::write(&path, [&whole, damage].concat()).unwrap();
            try_it(&session.id);
            fs::write(&path, whole).unwrap();
        }
        try_it("../../etc/passwd");
        fs::remove_file(&path).unwrap();
        try_it(&session.id);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        try_it(&session.id);
        let expected = expect_test::expect![[r"
            its file is damaged
            its file is damaged
            invalid utf-8 sequence of 1 bytes from index 17
            its sessions are named by UUIDs
            No such file or directory (os error 2)
            its file is none of the agent's"]];
        expected.assert_eq(&reasons.join("\n"));
    }

    #[test]
    fn a_long_conversation_is_kept_up_to_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let mut session = Session::begin(folder.path()).unwrap();
        assert_eq!(session.keep(&user("first")), None);
        session.left = 20;
        let told = session.keep(&user(&"x".repeat(30)));
        assert!(matches!(told, Some(Event::Truncated { .. })), "{told:?}");
        assert_eq!(session.keep(&user("y")), None);
        let (_, said) = Session::resume(folder.path(), &session.id).unwrap();
        assert_eq!(said.len(), 1);
    }

    #[test]
    fn names_are_uuids_and_differ() {
        let (one, other) = (uuid().unwrap(), uuid().unwrap());
        assert!(is_uuid(&one) && is_uuid(&other) && one != other);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]));
        assert!(!is_uuid("") && !is_uuid(&one.replace('-', "x")));
    }
}
