//! A model server that answers by script, in the dialects of three vendors: OpenAI's chat completions and responses,
//! Anthropic's messages, Google's generateContent, streamed.
//!
//! The scenario is the first segment of the path, so that one server plays every part:
//! `http://127.0.0.1:port/<scenario>/v1` is a base URL. Written on bare TCP, because half of the scenarios are
//! answers no HTTP library would send.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::task::Task;

mod answer;
mod dialect;
mod http;
mod reply;

pub use answer::{
    FILE_COMMAND, MCP_TEXT, REGISTRY_CALLS, RESULT_TEXT, RETRY_AFTER, SLEEP_COMMAND, TEXT,
    TOOL_COMMAND,
};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub scenario: String,
    /// The path below the scenario, such as `/v1/chat/completions`.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// `Null` when it was no JSON.
    pub body: Value,
}

/// The server; closed when dropped.
#[derive(Debug)]
pub struct Model {
    addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _accepting: Task,
}

impl Model {
    /// On a free port of loopback.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    /// On an address that containers reach, such as that of the engine's bridge.
    ///
    /// # Panics
    /// The address cannot be bound.
    pub async fn start_on(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the model's address can be bound");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let requests = Arc::default();
        let accepting = Task::spawn(accept(listener, Arc::clone(&requests)));
        Self { addr, requests, _accepting: accepting }
    }

    /// The base URL of a scenario for the OpenAI dialects: `text`, `tool`, `file`, `sleep`, `mcp`, `registry`,
    /// `users`, `unauthorized`, `rate-limit-once`, `rate-limit`, `rate-limit-wait`, `rate-limit-long`, `refused`,
    /// `quota`, `overloaded`, `error-once`, `error`, `reset`, `malformed`, `slow`; anything else answers 404.
    pub fn base_url(&self, scenario: &str) -> String {
        format!("{}/v1", self.root(scenario))
    }

    /// The same for the dialects whose paths begin with a version.
    pub fn root(&self, scenario: &str) -> String {
        format!("http://{}/{scenario}", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, requests: Arc<Mutex<Vec<Request>>>) {
    let mut running = Vec::new();
    while let Ok((stream, _)) = listener.accept().await {
        running.push(Task::spawn(connection(stream, Arc::clone(&requests))));
    }
}

/// One request a connection: the answer says `connection: close`.
async fn connection(stream: TcpStream, requests: Arc<Mutex<Vec<Request>>>) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream).await else { return };
    let earlier = {
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        let before = |seen: &&Request| seen.scenario == request.scenario && !answer::is_aside(seen);
        let earlier = requests.iter().filter(before).count();
        requests.push(request.clone());
        earlier
    };
    let answer = answer::to(&request, earlier);
    let mut stream = stream.into_inner();
    for part in &answer.parts {
        if stream.write_all(part.as_bytes()).await.is_err() {
            return;
        }
    }
    match answer.ending {
        http::Ending::Close => {
            let _ = stream.shutdown().await;
        }
        // With nothing to linger for, the close becomes a reset.
        http::Ending::Reset => {
            let _ = stream.set_zero_linger();
        }
        // Until the client gives up.
        http::Ending::Stall => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

/// Reads one request with a body of known length; `None` when the client sends something else.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let (scenario, path) = target.trim_start_matches('/').split_once('/').unwrap_or((target, ""));
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(Ok(0), |text| text.parse()).ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        scenario: scenario.to_owned(),
        path: format!("/{path}"),
        headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    })
}
