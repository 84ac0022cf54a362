//! A worker that is only a listening socket and what a sidecar said to it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use protocol::{
    event::{Event, EventLine, Exit, Phase, Stream},
    ids::{ExecutionId, RunId, TenantId},
    secret::Secret,
    sidecar::{Assign, FromSidecar, Seq, SidecarHello, ToSidecar},
    spec::{HarnessSpec, ProviderKind, Repo, RunSpec},
};
use tempfile::TempDir;
use test_support::wait::in_time;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
};

pub(crate) const KEY: &str = "the key of this execution";

/// A run of `command` with nothing else to do.
pub(crate) fn command(command: &str) -> RunSpec {
    let harness = HarnessSpec {
        provider: ProviderKind::Command,
        command: Some(command.to_owned()),
        ..HarnessSpec::default()
    };
    RunSpec {
        run_id: "run".parse::<RunId>().unwrap(),
        execution_id: "execution".parse::<ExecutionId>().unwrap(),
        tenant_id: "tenant".parse::<TenantId>().unwrap(),
        attempt: 1,
        title: String::new(),
        prompt: "the prompt".to_owned(),
        image: String::new(),
        repos: Vec::new(),
        setup_commands: Vec::new(),
        env: BTreeMap::new(),
        harness,
        shape: protocol::spec::Shape::default(),
        network: protocol::spec::Network::default(),
        timeouts: protocol::spec::Timeouts::default(),
        artifacts: Vec::new(),
        session: None,
    }
}

/// `spec` with a repository.
pub(crate) fn with_repo(mut spec: RunSpec, url: impl AsRef<Path>) -> RunSpec {
    spec.repos.push(Repo::new(url.as_ref().display().to_string()));
    spec
}

/// A listening socket with a sidecar of its own, which dies with it.
pub(crate) struct Worker {
    pub(crate) folder: TempDir,
    listener: UnixListener,
    child: Option<Child>,
}

impl Worker {
    /// Listens, and starts nothing.
    pub(crate) fn listen() -> Self {
        let folder = TempDir::new().unwrap();
        // The agent's user passes through to the workspace below it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        std::fs::create_dir(folder.path().join("sock")).unwrap();
        let listener = UnixListener::bind(folder.path().join("sock/worker.sock")).unwrap();
        Self { folder, listener, child: None }
    }

    /// Listens, and starts a sidecar that is no container's.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(vars: &[(&str, &str)]) -> Self {
        let mut worker = Self::listen();
        worker.launch(vars);
        worker
    }

    /// Starts a sidecar that is no container's.
    pub(crate) fn launch(&mut self, vars: &[(&str, &str)]) {
        let child = Command::new(env!("CARGO_BIN_EXE_ozma-sidecar"))
            .args(["supervise", "--unisolated", "--root"])
            .arg(self.root())
            .env("OZMA_SOCKET", self.folder.path().join("sock/worker.sock"))
            .envs(vars.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).unwrap()
    }

    /// The next connection, its hello read.
    pub(crate) async fn accept(&self) -> (Connection, SidecarHello) {
        let (socket, _) = in_time("a sidecar dials", self.listener.accept()).await.unwrap();
        let mut connection = Connection::new(socket);
        let Some(FromSidecar::Hello(hello)) = connection.next().await else {
            panic!("its first word is no hello")
        };
        (connection, hello)
    }

    /// Hands `spec` over and takes everything until the exit event; acknowledges it all.
    pub(crate) async fn run(&mut self, spec: RunSpec) -> Heard {
        let (mut connection, hello) = self.accept().await;
        assert_eq!(hello.key, None);
        connection.assign(spec).await;
        self.finish(connection).await
    }

    /// Takes everything until the exit event, acknowledges it, and waits for the process.
    pub(crate) async fn finish(&mut self, mut connection: Connection) -> Heard {
        let mut heard = Heard::default();
        while heard.exit().is_none() {
            let line = connection.event().await.expect("an exit event before the end");
            // Now and then, or a long output would fill the journal and wait.
            if line.seq % 500 == 0 {
                connection.send(ToSidecar::Ack(Seq { seq: line.seq })).await;
            }
            heard.0.push(line);
        }
        let last = heard.0.last().map_or(0, |line| line.seq);
        connection.send(ToSidecar::Ack(Seq { seq: last })).await;
        self.ended().await;
        heard
    }

    /// The exit code of the sidecar itself.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let child = self.child.as_mut()?;
        in_time("the sidecar ends", child.wait()).await.unwrap().code()
    }
}

/// One connection of a sidecar.
pub(crate) struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    output: OwnedWriteHalf,
}

impl Connection {
    fn new(socket: UnixStream) -> Self {
        let (input, output) = socket.into_split();
        Self { lines: BufReader::new(input).lines(), output }
    }

    pub(crate) async fn next(&mut self) -> Option<FromSidecar> {
        let line = in_time("the sidecar says something", self.lines.next_line()).await.ok()??;
        Some(FromSidecar::parse(&line).unwrap())
    }

    pub(crate) async fn event(&mut self) -> Option<EventLine> {
        match self.next().await? {
            FromSidecar::Event(line) => Some(line),
            other => panic!("{other:?} is no event"),
        }
    }

    /// Takes events until one is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> EventLine {
        loop {
            let line = self.event().await.expect("the wanted event before the end");
            if line.event().is_some_and(|event| wanted(&event)) {
                return line;
            }
        }
    }

    pub(crate) async fn send(&mut self, message: ToSidecar) {
        let line = format!("{}\n", message.to_json());
        // A sidecar that is gone already is for the caller to notice.
        let _ = self.output.write_all(line.as_bytes()).await;
    }

    pub(crate) async fn assign(&mut self, spec: RunSpec) {
        self.send(ToSidecar::Assign(Box::new(Assign { key: Secret::new(KEY), spec }))).await;
    }

    pub(crate) async fn cancel(&mut self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap();
        let cause = protocol::sidecar::StopCause::Cancelled;
        self.send(ToSidecar::Cancel(protocol::sidecar::Cancel { cause, grace_ms })).await;
    }
}

/// What a sidecar said, in order.
#[derive(Debug, Default)]
pub(crate) struct Heard(pub(crate) Vec<EventLine>);

impl Heard {
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.iter().map(|line| line.event().expect("an event this build knows"))
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.0.last()?.event()? {
            Event::Exit(exit) => Some(exit),
            _ => None,
        }
    }

    /// The lines printed on one stream in one phase.
    pub(crate) fn lines(&self, wanted: Phase, on: Stream) -> Vec<String> {
        let texts = self.events().filter_map(|event| match event {
            Event::Output { phase, stream, text, .. } if phase == wanted && stream == on => text,
            _ => None,
        });
        texts.collect()
    }

    pub(crate) fn stdout(&self) -> Vec<String> {
        self.lines(Phase::Provider, Stream::Stdout)
    }

    /// Files by name, their content checked against size and digest.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        use sha2::{Digest, Sha256};
        let (mut parts, mut files) = (BTreeMap::<_, Vec<u8>>::new(), BTreeMap::new());
        for event in self.events() {
            match event {
                Event::ArtifactPart { artifact_uid, base64, .. } => {
                    let bytes = BASE64_STANDARD.decode(base64).unwrap();
                    parts.entry(artifact_uid).or_default().extend(bytes);
                }
                Event::Artifact(artifact) if artifact.artifact_type == "FILE" => {
                    let bytes = parts.remove(&artifact.artifact_uid).unwrap_or_default();
                    assert_eq!(artifact.size_bytes, Some(bytes.len() as u64));
                    assert_eq!(artifact.sha256, Some(hex::encode(Sha256::digest(&bytes))));
                    files.insert(artifact.filename.unwrap(), bytes);
                }
                _ => {}
            }
        }
        files
    }

    /// Everything as text, to search it for what must not be there.
    pub(crate) fn everything(&self) -> String {
        self.0.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }
}
