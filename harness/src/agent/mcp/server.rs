//! One MCP server: how it is started and spoken to. One that has died is started again by the next call, a few times.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use protocol::{secret::Secret, spec::McpServer};
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResult, ContentBlock, JsonObject, PaginatedRequestParams,
    },
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{agent::text::cut, process::Group, tls};

/// Most tools taken of one server.
const MAX_TOOLS: usize = 128;

/// Longest name of a tool, in bytes; one with a longer name is left out.
const MAX_NAME_BYTES: usize = 128;

/// Longest description of a tool, and largest schema, in bytes; a longer description is cut, a larger schema left out.
const MAX_DESCRIPTION_BYTES: usize = 4 << 10;
const MAX_SCHEMA_BYTES: usize = 32 << 10;

/// How long a server may take, and how often it may die.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) struct Bounds {
    /// From its start to its list of tools.
    pub(in crate::agent) start: Duration,
    /// For one call; then it is a tool error, and the server stays.
    pub(in crate::agent) call: Duration,
    /// How often it is started again after it died.
    pub(in crate::agent) restarts: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { start: Duration::from_secs(30), call: Duration::from_mins(5), restarts: 3 }
    }
}

/// What every server of a run is started with.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) directory: PathBuf,
    pub(super) env: BTreeMap<String, Secret>,
    pub(super) bounds: Bounds,
}

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
    _program: Option<(Group, Child)>,
}

impl Server {
    pub(super) async fn start(how: &McpServer, setting: &Setting) -> Result<Self, String> {
        let (link, tools) = connect(how, setting).await?;
        Ok(Self { how: how.clone(), link: Some(link), tools, restarts: 0 })
    }

    pub(super) fn how(&self) -> &McpServer {
        &self.how
    }

    pub(super) fn tools(&self) -> &[Offered] {
        &self.tools
    }

    pub(super) async fn call(
        &mut self,
        tool: &str,
        arguments: &str,
        setting: &Setting,
    ) -> Result<String, String> {
        let arguments: JsonObject = match arguments.trim() {
            "" => JsonObject::new(),
            text => serde_json::from_str(text)
                .map_err(|error| format!("the arguments are no JSON object: {error}"))?,
        };
        if self.link.is_none() {
            if self.restarts >= setting.bounds.restarts {
                return Err("it has died too often".to_owned());
            }
            self.restarts += 1;
            self.link = Some(connect(&self.how, setting).await?.0);
        }
        let Some(link) = &self.link else { return Err("it does not run".to_owned()) };
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let within = setting.bounds.call;
        match tokio::time::timeout(within, link.service.call_tool(params)).await {
            Err(_) => Err(silent(within)),
            Ok(Ok(result)) => said(&result),
            Ok(Err(ServiceError::McpError(error))) => Err(error.message.into_owned()),
            Ok(Err(error)) => {
                self.link = None;
                Err(format!("it is gone ({error}); the next call starts it again"))
            }
        }
    }
}

fn silent(within: Duration) -> String {
    format!("no answer within {} s", within.as_secs_f32())
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

async fn connect(how: &McpServer, setting: &Setting) -> Result<(Link, Vec<Offered>), String> {
    let connected = async {
        let link = match how {
            McpServer::Stdio { command, args, env: own } => {
                stdio(command, args, &setting.directory, setting.env.iter().chain(own)).await?
            }
            McpServer::Http { url, headers } => http(url, headers).await?,
        };
        let tools = list(&link).await.map_err(|error| error.to_string())?;
        Ok((link, tools))
    };
    let within = setting.bounds.start;
    tokio::time::timeout(within, connected).await.unwrap_or_else(|_| Err(silent(within)))
}

/// Its tools, page by page until there are enough of them. No two have the same name: endpoints take no such list.
async fn list(link: &Link) -> Result<Vec<Offered>, ServiceError> {
    let mut tools = BTreeMap::new();
    let mut cursor = None;
    loop {
        let asked = PaginatedRequestParams::default().with_cursor(cursor);
        let page = link.service.list_tools(Some(asked)).await?;
        for tool in page.tools {
            if tools.len() < MAX_TOOLS && tool.name.len() <= MAX_NAME_BYTES {
                tools.entry(tool.name.clone()).or_insert_with(|| offered(tool));
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() || tools.len() >= MAX_TOOLS {
            return Ok(tools.into_values().collect());
        }
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
    let program = (Group::of(&program), program);
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
    // What is no schema of an object is refused by endpoints, and the run with it.
    let fits = schema["type"] == "object" && schema.to_string().len() <= MAX_SCHEMA_BYTES;
    Offered {
        name: tool.name.into_owned(),
        description: cut(tool.description.unwrap_or_default().into_owned(), MAX_DESCRIPTION_BYTES)
            .0,
        input_schema: if fits { schema } else { json!({"type": "object"}) },
    }
}
