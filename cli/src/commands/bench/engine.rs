//! The few words of the engine's API that a bare container takes, over its unix socket: the measure to compare
//! with. Only `bench` uses it; runs go through the worker.

use std::{path::Path, time::Duration};

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::{client::builder, failure::Failure, surroundings::Surroundings};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Engine {
    http: Client,
}

impl Engine {
    /// The engine of `DOCKER_HOST`, or the usual one; `None` where it has no unix socket here.
    pub(crate) fn of(around: &Surroundings) -> Option<Self> {
        let socket = match around.var("DOCKER_HOST") {
            Some(host) => host.strip_prefix("unix://")?,
            None => DEFAULT_SOCKET,
        };
        if !Path::new(socket).exists() {
            return None;
        }
        let http = builder().ok()?.unix_socket(socket).timeout(PATIENCE).build().ok()?;
        Some(Self { http })
    }

    /// The size of an image; `None` when it is not there.
    pub(crate) async fn image_bytes(&self, image: &str) -> Option<u64> {
        let answer = self.call(Method::GET, &format!("/images/{image}/json"), None).await.ok()?;
        answer.json::<Value>().await.ok()?["Size"].as_u64()
    }

    /// Creates and starts a container that prints a line, until the line is here; then removes it.
    pub(crate) async fn bare(&self, image: &str) -> Result<(), Failure> {
        let body = json!({
            "Image": image,
            "Cmd": ["/bin/sh", "-c", "echo first"],
            "Labels": {"ozma.bench": "1"},
        });
        let made: Value = self
            .call(Method::POST, "/containers/create", Some(&body))
            .await?
            .json()
            .await
            .map_err(|error| failed(&error))?;
        let id = made["Id"].as_str().unwrap_or_default();
        let first = async {
            self.call(Method::POST, &format!("/containers/{id}/start"), None).await?;
            let logs = format!("/containers/{id}/logs?follow=1&stdout=1");
            let mut logs = self.call(Method::GET, &logs, None).await?;
            let line = logs.chunk().await.map_err(|error| failed(&error))?;
            line.map(|_| ()).ok_or_else(|| Failure::platform("the bare container printed nothing"))
        };
        first.await
    }

    /// Removes what [`bare`](Self::bare) left, so that removal is in nobody's time.
    pub(crate) async fn sweep(&self) -> Result<(), Failure> {
        let all = "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22ozma.bench%3D1%22%5D%7D";
        let list: Value = self
            .call(Method::GET, all, None)
            .await?
            .json()
            .await
            .map_err(|error| failed(&error))?;
        for id in list.as_array().into_iter().flatten().filter_map(|c| c["Id"].as_str()) {
            self.call(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await?;
        }
        Ok(())
    }

    /// The process of a run's container, as this machine numbers it.
    pub(crate) async fn process_of(&self, run: &str) -> Result<Option<u32>, Failure> {
        let filters = format!("%7B%22label%22%3A%5B%22ozma.run%3D{run}%22%5D%7D");
        let path = format!("/containers/json?filters={filters}");
        let list = self.call(Method::GET, &path, None).await?;
        let list: Value = list.json().await.map_err(|error| failed(&error))?;
        let Some(id) = list[0]["Id"].as_str() else { return Ok(None) };
        let shown = self.call(Method::GET, &format!("/containers/{id}/json"), None).await?;
        let shown: Value = shown.json().await.map_err(|error| failed(&error))?;
        Ok(shown["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, Failure> {
        let mut request = self.http.request(method, format!("http://localhost{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|error| failed(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        Err(Failure::platform(format!("the engine answered {status}: {}", said.trim())))
    }
}

fn failed(error: &reqwest::Error) -> Failure {
    Failure::platform(format!("the engine: {error}"))
}
