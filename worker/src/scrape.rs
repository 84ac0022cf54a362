//! `GET /metrics` for Prometheus, where an address for it is set. One small answer to any request: it serves
//! nothing else and reads no more of a request than its first bytes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{config::Config, executions::Executions, metrics::Gauges};

/// For one request, answer included.
const WITHIN: Duration = Duration::from_secs(5);

/// # Errors
/// The address is not to be had.
pub(crate) async fn serve(
    listen: SocketAddr,
    config: &Config,
    executions: Arc<Executions>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("metrics_listen: listen on {listen}"))?;
    let (capacity, backend) = (config.capacity, config.backend.as_str());
    let life = executions.context.life.clone();
    life.clone().spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = life.draining().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let text = executions.context.metrics.text(&Gauges {
                active: executions.all().len(),
                capacity,
                worker_id: executions.context.worker_id.as_str(),
                backend,
                refusal: executions.context.gate.refusal(),
                engine_there: executions.context.gate.is_engine_there(),
            });
            // One after the other: a scraper comes every few seconds.
            let _ = tokio::time::timeout(WITHIN, answer(stream, text)).await;
        }
    });
    Ok(())
}

async fn answer(mut stream: TcpStream, text: String) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await?;
    let found = request[..read].starts_with(b"GET /metrics");
    let (status, body) = if found { ("200 OK", text) } else { ("404 Not Found", String::new()) };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
