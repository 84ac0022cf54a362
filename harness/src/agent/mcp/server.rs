//! One MCP server: how it is started and spoken to. One that has died is started again by the next call, a few times.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Stdio,
    time::Duration,
};

use protocol::{secret::Secret, spec::McpServer};
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ContentBlock, JsonObject},
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{agent::text::cut, process::signal_group, tls};

/// From the start of a server to its list of tools.
const START_WITHIN: Duration = Duration::from_secs(30);

/// For one call; then it is a tool error, and the server stays.
const CALL_WITHIN: Duration = Duration::from_mins(5);

/// How often one server is started again after it died.
const MAX_RESTARTS: u32 = 3;

/// Most tools taken of one server.
const MAX_TOOLS: usize = 128;

/// Longest description of a tool, and largest schema, in bytes; a longer description is cut, a larger schema left out.
const MAX_DESCRIPTION_BYTES: usize = 4 << 10;
const MAX_SCHEMA_BYTES: usize = 32 << 10;

/// A tool of a server's.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) input_schema: Value,
}

pub(super) struct Server {
    how: McpServer,
    link: Option<Link>,
    tools: Vec<Offered>,
    restarts: u32,
}

struct Link {
    service: RunningService<RoleClient, ()>,
    /// Its program, where it is one; ends with this value.
    _program: Option<Program>,
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(pid) = self.0.id() {
            signal_group(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

impl Server {
    pub(super) async fn start(
        how: &McpServer,
        directory: &Path,
        env: &BTreeMap<String, Secret>,
    ) -> Result<Self, String> {
        let (link, tools) = connect(how, directory, env).await?;
        Ok(Self { how: how.clone(), link: Some(link), tools, restarts: 0 })
    }

    pub(super) fn tools(&self) -> &[Offered] {
        &self.tools
    }

    pub(super) async fn call(
        &mut self,
        tool: &str,
        arguments: &str,
        directory: &Path,
        env: &BTreeMap<String, Secret>,
    ) -> Result<String, String> {
        let arguments: JsonObject = match arguments.trim() {
            "" => JsonObject::new(),
            text => serde_json::from_str(text)
                .map_err(|error| format!("the arguments are no JSON object: {error}"))?,
        };
        if self.link.is_none() {
            if self.restarts >= MAX_RESTARTS {
                return Err("it has died too often".to_owned());
            }
            self.restarts += 1;
            self.link = Some(connect(&self.how, directory, env).await?.0);
        }
        let Some(link) = &self.link else { return Err("it does not run".to_owned()) };
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        match tokio::time::timeout(CALL_WITHIN, link.service.call_tool(params)).await {
            Err(_) => Err(format!("no answer within {} s", CALL_WITHIN.as_secs())),
            Ok(Ok(result)) => said(&result),
            Ok(Err(ServiceError::McpError(error))) => Err(error.message.into_owned()),
            Ok(Err(error)) => {
                self.link = None;
                Err(format!("it is gone ({error}); the next call starts it again"))
            }
        }
    }
}

/// What a tool gave back, as text; an error of the tool's is one here.
fn said(result: &CallToolResult) -> Result<String, String> {
    let parts = result.content.iter().map(|block| match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => format!("[an image, {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[a sound, {}]", audio.mime_type),
        other => serde_json::to_string(other).unwrap_or_default(),
    });
    let mut text = parts.collect::<Vec<_>>().join("\n");
    if text.is_empty()
        && let Some(structured) = &result.structured_content
    {
        text = structured.to_string();
    }
    if result.is_error == Some(true) { Err(text) } else { Ok(text) }
}

async fn connect(
    how: &McpServer,
    directory: &Path,
    env: &BTreeMap<String, Secret>,
) -> Result<(Link, Vec<Offered>), String> {
    let connected = async {
        let link = match how {
            McpServer::Stdio { command, args, env: own } => {
                stdio(command, args, directory, env.iter().chain(own)).await?
            }
            McpServer::Http { url, headers } => http(url, headers).await?,
        };
        let tools = link.service.list_all_tools().await.map_err(|error| error.to_string())?;
        Ok((link, tools.into_iter().take(MAX_TOOLS).map(offered).collect()))
    };
    match tokio::time::timeout(START_WITHIN, connected).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no answer within {} s", START_WITHIN.as_secs())),
    }
}

async fn stdio(
    command: &str,
    args: &[String],
    directory: &Path,
    env: impl Iterator<Item = (&String, &Secret)>,
) -> Result<Link, String> {
    let mut program = Command::new(command)
        .args(args)
        .envs(env.map(|(name, value)| (name, value.expose())))
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it logs would be between the model's words.
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{command}: {error}"))?;
    let (Some(stdin), Some(stdout)) = (program.stdin.take(), program.stdout.take()) else {
        return Err("it has no streams".to_owned());
    };
    let program = Program(program);
    let service = ().serve((stdout, stdin)).await.map_err(|error| error.to_string())?;
    Ok(Link { service, _program: Some(program) })
}

async fn http(url: &str, headers: &BTreeMap<String, Secret>) -> Result<Link, String> {
    let mut sent = HashMap::new();
    for (name, value) in headers {
        let bad = |_| format!("the value for the header {name:?} is no header");
        let name =
            HeaderName::try_from(name.as_str()).map_err(|_| format!("no header {name:?}"))?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(bad)?;
        value.set_sensitive(true);
        sent.insert(name, value);
    }
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(None)?)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned()).custom_headers(sent);
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let service = ().serve(transport).await.map_err(|error| error.to_string())?;
    Ok(Link { service, _program: None })
}

fn offered(tool: rmcp::model::Tool) -> Offered {
    let schema = Value::Object((*tool.input_schema).clone());
    let fits = schema.to_string().len() <= MAX_SCHEMA_BYTES;
    Offered {
        name: tool.name.into_owned(),
        description: cut(tool.description.unwrap_or_default().into_owned(), MAX_DESCRIPTION_BYTES)
            .0,
        input_schema: if fits { schema } else { json!({"type": "object"}) },
    }
}
