//! Git's own HTTP server program behind the smallest HTTP server: `/open/` for all, `/closed/` with a token.

use std::{path::PathBuf, process::Stdio};

use base64::{Engine, prelude::BASE64_STANDARD};
use test_support::repo::Repository;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

pub(crate) const TOKEN: &str = "marked-token-4711";

pub(crate) struct Server {
    addr: std::net::SocketAddr,
    _folder: tempfile::TempDir,
    _serving: JoinSet<()>,
}

impl Server {
    /// Serves `repo` as `open/repo.git` and `closed/repo.git`.
    pub(crate) async fn start(repo: &Repository) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for place in ["open", "closed"] {
            repo.bare(&folder.path().join(place).join("repo.git"));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let root = folder.path().to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, root.clone()));
            }
        });
        Self { addr, _folder: folder, _serving: serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }
}

/// One request a connection.
async fn serve(socket: TcpStream, root: PathBuf) {
    let mut socket = BufReader::new(socket);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read_until(b'\n', &mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    if header("expect").is_some() {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    }
    let body = body(&mut socket, header("content-length"), header("transfer-encoding")).await;
    let allowed = |given: String| {
        let pair = BASE64_STANDARD.decode(given.strip_prefix("Basic ")?).ok()?;
        Some(String::from_utf8(pair).ok()?.ends_with(&format!(":{TOKEN}")))
    };
    if path.starts_with("/closed/") && header("authorization").and_then(allowed) != Some(true) {
        let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n\
                      Content-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = socket.write_all(answer.as_bytes()).await;
        return;
    }
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = backend.stdin.take().unwrap();
    let write = async move {
        let _ = stdin.write_all(&body).await;
    };
    let ((), output) = tokio::join!(write, backend.wait_with_output());
    let output = output.unwrap().stdout;
    let split = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let headers = String::from_utf8_lossy(&output[..split]).into_owned();
    let status = headers.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let start = format!(
        "HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        output.len() - split - 4
    );
    let _ = socket.write_all(start.as_bytes()).await;
    let _ = socket.write_all(&output[split + 4..]).await;
    let _ = socket.shutdown().await;
}

async fn body(
    socket: &mut BufReader<TcpStream>,
    length: Option<String>,
    encoding: Option<String>,
) -> Vec<u8> {
    let mut body = Vec::new();
    if encoding.is_some_and(|encoding| encoding == "chunked") {
        loop {
            let mut size = String::new();
            socket.read_line(&mut size).await.unwrap();
            let size = u64::from_str_radix(size.trim(), 16).unwrap();
            socket.take(size + 2).read_to_end(&mut body).await.unwrap();
            body.truncate(body.len() - 2);
            if size == 0 {
                return body;
            }
        }
    }
    let length = length.map_or(0, |text| text.parse().unwrap());
    socket.take(length).read_to_end(&mut body).await.unwrap();
    body
}
