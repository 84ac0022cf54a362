//! A server that takes connections and says nothing: what a registry or a repository looks like when it hangs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::TcpListener;

use crate::task::Task;

/// The server; its connections close when it is dropped.
#[derive(Debug)]
pub struct Silence {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _accepting: Task,
}

impl Silence {
    /// On `addr`; port 0 takes a free one.
    ///
    /// # Panics
    /// The address cannot be bound.
    pub async fn start_on(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.expect("the silent server's address is free");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let accepting = Task::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { addr, accepted, _accepting: accepting }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}
