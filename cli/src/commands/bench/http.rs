//! One kept-alive HTTP/1.1 connection to a plane that is ours, as light as it can be: the generator shares the
//! processor with what it measures. It understands the answers our plane gives and nothing else.

use std::{io, io::Write, net::SocketAddr};

use protocol::secret::Secret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Longest body of an answer: a page of the longest events.
const MAX_BODY_BYTES: usize = 64 << 20;

pub(crate) struct Http {
    stream: TcpStream,
    host: String,
    token: Secret,
    out: Vec<u8>,
    answer: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(plane: SocketAddr, token: &Secret) -> io::Result<Self> {
        let stream = TcpStream::connect(plane).await?;
        stream.set_nodelay(true)?;
        let (out, answer) = (Vec::with_capacity(1 << 10), Vec::with_capacity(4 << 10));
        Ok(Self { stream, host: plane.to_string(), token: token.clone(), out, answer })
    }

    /// The status and the body.
    ///
    /// # Errors
    /// The connection broke, or the answer is none of our plane's.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> io::Result<(u16, &[u8])> {
        self.exchange("POST", path, body).await
    }

    /// As [`post`](Self::post).
    pub(crate) async fn get(&mut self, path: &str) -> io::Result<(u16, &[u8])> {
        self.exchange("GET", path, "").await
    }

    async fn exchange(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, &[u8])> {
        self.out.clear();
        let (host, token) = (&self.host, self.token.expose());
        write!(
            self.out,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.write_all(&self.out).await?;
        self.answer.clear();
        let (status, from, to) = loop {
            if let Some(read) = head(&self.answer)? {
                break read;
            }
            self.more().await?;
        };
        while self.answer.len() < to {
            self.more().await?;
        }
        Ok((status, &self.answer[from..to]))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Status, and where the body begins and ends; `None` while the head is not whole.
fn head(answer: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        let too_long = answer.len() > MAX_HEAD_BYTES;
        return if too_long { Err(wrong("an endless head")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&answer[..end]).map_err(|_| wrong("a head that is no text"))?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| wrong("an answer without a status"))?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if length <= MAX_BODY_BYTES => Ok(Some((status, end + 4, end + 4 + length))),
        _ => Err(wrong("an answer without a length, or with too long a one")),
    }
}

#[cfg(test)]
mod tests {
    use super::head;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(head(answer).unwrap(), Some((200, 44, 46)));
        assert_eq!(head(&answer[..43]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(head(b"\r\n\r\n").is_err());
        assert!(head(&vec![b'x'; 17 << 10]).is_err());
    }
}
