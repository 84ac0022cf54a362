//! A TCP proxy that breaks the network on command: cut, stall, refuse, or cut in the middle of a frame.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::task::Task;

/// No limit on the bytes that may pass.
const NO_LIMIT: i64 = i64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Connections stay up and nothing passes.
    Stalled,
    /// New connections are closed at once.
    Refusing,
}

#[derive(Debug)]
struct State {
    /// Tried in turn, each connection beginning with the next one, until one answers.
    targets: Mutex<Vec<SocketAddr>>,
    mode: watch::Sender<Mode>,
    /// Its number grows with every cut; a connection ends when it differs from the one it began with.
    cuts: watch::Sender<u64>,
    /// Bytes that may still pass, both ways together; at 0 everything is cut.
    left: AtomicI64,
    connections: AtomicUsize,
}

/// A proxy in front of one address, or of several as a balancer. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<State>,
    _accepting: Task,
}

impl Proxy {
    /// A proxy on a free port of loopback that passes everything to `target`.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn start(target: SocketAddr) -> Self {
        Self::in_front_of(&[target]).await
    }

    /// A proxy that spreads its connections over `targets`, passing over those that do not answer.
    ///
    /// # Panics
    /// Loopback has no free port.
    pub async fn in_front_of(targets: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            targets: Mutex::new(targets.to_vec()),
            mode: watch::Sender::new(Mode::Open),
            cuts: watch::Sender::new(0),
            left: AtomicI64::new(NO_LIMIT),
            connections: AtomicUsize::new(0),
        });
        let accepting = Task::spawn(accept(listener, Arc::clone(&state)));
        Self { addr, state, _accepting: accepting }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on new connections go there; to nobody, they are closed at once. Those that are up stay.
    ///
    /// A server that is started again on a port of its own choice is found under the proxy's address, which nobody
    /// can take meanwhile.
    pub fn lead_to(&self, targets: &[SocketAddr]) {
        *self.state.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.to_vec();
    }

    /// Connections accepted so far, refused ones included.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Closes every connection; new ones are let through.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cut| *cut += 1);
    }

    /// Lets `bytes` more pass, both ways together, then cuts everything, in the middle of whatever passes.
    /// Afterwards new connections are let through whole.
    pub fn cut_after(&self, bytes: u32) {
        self.state.left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// A black hole: connections stay up, new ones are accepted, nothing passes.
    pub fn stall(&self) {
        self.state.mode.send_replace(Mode::Stalled);
    }

    /// Closes every connection and every new one at once, until [`open`](Self::open).
    pub fn refuse(&self) {
        self.state.mode.send_replace(Mode::Refusing);
        self.cut();
    }

    /// Ends a stall or a refusal: what was held back passes now.
    pub fn open(&self) {
        self.state.mode.send_replace(Mode::Open);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut running = Vec::new();
    while let Ok((client, _)) = listener.accept().await {
        let nth = state.connections.fetch_add(1, Ordering::SeqCst);
        if *state.mode.borrow() != Mode::Refusing {
            running.push(Task::spawn(connection(client, nth, Arc::clone(&state))));
        }
    }
}

async fn connection(client: TcpStream, nth: usize, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    cuts.mark_unchanged();
    let Some(server) = dial(nth, &state).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = cuts.changed() => {}
        () = pass(from_client, to_server, &state) => {}
        () = pass(from_server, to_client, &state) => {}
    }
}

async fn dial(nth: usize, state: &State) -> Option<TcpStream> {
    let targets = state.targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for n in 0..targets.len() {
        if let Ok(server) = TcpStream::connect(targets[(nth + n) % targets.len()]).await {
            return Some(server);
        }
    }
    None
}

/// Copies one direction until it ends or the allowance does.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut mode = state.mode.subscribe();
    let mut buffer = [0; 4096];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if mode.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
            return;
        }
        let wanted = i64::try_from(read).unwrap_or(NO_LIMIT);
        let allowed = take(&state.left, wanted);
        let count = usize::try_from(allowed).unwrap_or(0);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if allowed < wanted {
            // The bytes on their way are let out before the connection closes.
            let _ = to.flush().await;
            state.left.store(NO_LIMIT, Ordering::SeqCst);
            state.cuts.send_modify(|cut| *cut += 1);
            return;
        }
    }
}

fn take(left: &AtomicI64, wanted: i64) -> i64 {
    let mut taken = 0;
    let _ = left.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        taken = wanted.min(left);
        Some(if left == NO_LIMIT { NO_LIMIT } else { left - taken })
    });
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::in_time;

    async fn echo() -> (SocketAddr, Task) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = Task::spawn(async move {
            let mut running = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                running.push(Task::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                }));
            }
        });
        (addr, task)
    }

    #[tokio::test]
    async fn it_cuts_in_the_middle_and_lets_the_next_one_through() {
        let (addr, _echo) = echo().await;
        let proxy = Proxy::start(addr).await;
        proxy.cut_after(7);
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = Vec::new();
        let _ = in_time("the cut", stream.read_to_end(&mut back)).await;
        assert_eq!(back, b"he");

        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        in_time("the echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!((&back, proxy.connections()), (b"hello", 2));
    }

    #[tokio::test]
    async fn it_finds_the_server_that_answers_and_another_later() {
        let (addr, _echo) = echo().await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let proxy = Proxy::in_front_of(&[nobody, addr]).await;
        for _ in 0..2 {
            let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            let mut back = [0; 1];
            in_time("the echo", stream.read_exact(&mut back)).await.unwrap();
        }
        proxy.lead_to(&[]);
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        let mut back = Vec::new();
        let _ = in_time("the end", stream.read_to_end(&mut back)).await;
        assert!(back.is_empty());
    }

    #[tokio::test]
    async fn a_stall_holds_and_an_opening_lets_go() {
        let (addr, _echo) = echo().await;
        let proxy = Proxy::start(addr).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        proxy.stall();
        stream.write_all(b"x").await.unwrap();
        let mut back = [0; 1];
        let early = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(early, stream.read_exact(&mut back)).await.is_err());
        proxy.open();
        in_time("what was held back", stream.read_exact(&mut back)).await.unwrap();
    }
}
