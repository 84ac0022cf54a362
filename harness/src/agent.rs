//! The built-in agent: a model, its tools, and a loop between them, bounded by turns and tokens.
//! The loop is the same for every model; only `model::Model` knows where answers come from.

pub(crate) mod conversation;
pub(crate) mod draft;
mod endpoint;
mod mcp;
mod model;
mod remote;
pub mod script;
mod session;
pub(crate) mod sse;
mod text;
pub(crate) mod tool;
pub(crate) mod tools;
pub(crate) mod wire;

use std::{path::Path, time::Instant};

use protocol::{
    event::{Event, Exit},
    failure::FailureReason,
    sidecar::Launch,
    spec::AgentBounds,
};
use tokio_util::sync::CancellationToken;

use crate::{
    adapter::Adapter,
    agent::{
        conversation::{Call, Message, Reply, Usage},
        model::Model,
        session::Session,
        text::MAX_TEXT_EVENT_BYTES,
        tools::Tools,
    },
    failure::Failure,
    feed::Feed,
    secrets::Secrets,
};

pub(crate) use self::text::shown;

pub(crate) struct Agent {
    model: Model,
    tools: Tools,
    bounds: AgentBounds,
    conversation: Vec<Message>,
    /// None where nothing is kept.
    session: Option<Session>,
    /// What a person should know before it begins.
    notices: Vec<String>,
    secrets: Secrets,
}

impl Agent {
    /// # Errors
    /// No endpoint, no credential, no model named, a script that cannot be read, or a session that is gone.
    pub(crate) fn new(launch: Launch) -> Result<Self, Failure> {
        let chosen = crate::endpoint::choose(&launch)?;
        let secrets = Secrets::of(&launch, chosen.http());
        let model = endpoint::model(&launch, chosen)?;
        let mut system = launch.harness.base_prompt.unwrap_or_default();
        if !system.is_empty() {
            system.push_str("\n\n");
        }
        system.push_str(&instructions(&launch.directory));
        let mut conversation = vec![Message::System(system)];
        let mut notices = Vec::new();
        let folder = Path::new(&launch.session_directory);
        let session = match &launch.harness.resume {
            Some(id) => {
                let (session, said) = Session::resume(folder, id)?;
                conversation.extend(said);
                Some(session)
            }
            None if launch.session_directory.is_empty() => None,
            None => Session::begin(folder)
                .map_err(|error| notices.push(format!("the conversation is not kept: {error}")))
                .ok(),
        };
        conversation.push(Message::User(launch.prompt));
        Ok(Self {
            model,
            tools: Tools::new(
                &launch.directory,
                launch.env,
                launch.harness.mcp_servers,
                launch.registry,
            ),
            bounds: launch.harness.bounds,
            conversation,
            session,
            notices,
            secrets,
        })
    }
}

fn instructions(directory: &str) -> String {
    format!(
        "You are a coding agent. You work in {directory}, on a machine where only what the task needs may be touched. Paths of your \
         tools are relative to it. Nobody can answer questions: decide yourself and go on. Look at the code \
         before you change it, and run what proves your change. When you are done, answer with a short \
         summary and call no tool."
    )
}

impl Adapter for Agent {
    async fn run(mut self, feed: Feed, cancel: CancellationToken) -> Result<Exit, Failure> {
        let feed = feed.hiding(std::mem::take(&mut self.secrets));
        let scripted = self.model.scripted();
        feed.send(Event::Model {
            dialect: self.model.dialect().to_owned(),
            model: self.model.name().to_owned(),
            scripted,
        })
        .await;
        for text in std::mem::take(&mut self.notices) {
            feed.send(Event::Notice { text }).await;
        }
        if let Some(session) = &self.session {
            feed.send(session.event()).await;
        }
        if let Some(prompt) = self.conversation.pop() {
            self.say(prompt, &feed).await;
        }
        tokio::select! {
            () = self.tools.connect(&feed) => {}
            () = cancel.cancelled() => return Err(Failure::cancelled()),
        }
        let mut used = Usage::default();
        for turn in 1..=self.bounds.max_turns {
            let reply = tokio::select! {
                reply = self.model.reply(&self.conversation, self.tools.offered(), &feed) => reply?,
                () = cancel.cancelled() => return Err(Failure::cancelled()),
            };
            used.add(reply.usage);
            feed.send(Event::Usage {
                input_tokens: used.input_tokens,
                output_tokens: used.output_tokens,
                cached_input_tokens: used.cached_input_tokens,
                turns: turn,
                cost_usd: None,
                scripted,
            })
            .await;
            if reply.last {
                let words = Message::Assistant { text: reply.text.clone(), calls: Vec::new() };
                self.say(words, &feed).await;
                let (text, _) = text::cut(reply.text, MAX_TEXT_EVENT_BYTES);
                feed.send(Event::Answer { text, scripted }).await;
                return Ok(answered(turn));
            }
            if used.total() > self.bounds.max_tokens {
                return Err(limit(&format!("tokens ({})", self.bounds.max_tokens)));
            }
            self.act(reply, &feed, &cancel).await?;
        }
        Err(limit(&format!("turns ({})", self.bounds.max_turns)))
    }
}

impl Agent {
    /// Runs the tools the model called, in order, and puts call and result into the conversation.
    async fn act(
        &mut self,
        reply: Reply,
        feed: &Feed,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let calls = reply.calls.clone();
        self.say(Message::Assistant { text: reply.text, calls: reply.calls }, feed).await;
        for call in calls {
            let running = self.tools.running();
            let output = {
                let mut ended = std::pin::pin!(self.call(&call, feed));
                tokio::select! {
                    output = &mut ended => output,
                    () = cancel.cancelled() => {
                        running.interrupt(ended).await;
                        return Err(Failure::cancelled());
                    }
                }
            };
            self.say(Message::Tool { id: call.id, output }, feed).await;
        }
        Ok(())
    }

    /// Puts a message into the conversation, and where that is kept.
    async fn say(&mut self, message: Message, feed: &Feed) {
        if let Some(event) = self.session.as_mut().and_then(|session| session.keep(&message)) {
            feed.send(event).await;
        }
        self.conversation.push(message);
    }

    async fn call(&mut self, call: &Call, feed: &Feed) -> String {
        let scripted = self.model.scripted();
        feed.send(Event::ToolCall {
            id: call.id.clone(),
            name: self.tools.shown_name(&call.name).to_owned(),
            input: shown(&call.input()),
            scripted,
        })
        .await;
        let started = Instant::now();
        let result = self.tools.run(&call.name, &call.arguments).await;
        feed.send(Event::ToolResult {
            id: call.id.clone(),
            name: self.tools.shown_name(&call.name).to_owned(),
            ok: result.ok,
            output: result.output.clone(),
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            truncated: result.truncated,
            scripted,
        })
        .await;
        result.output
    }
}

fn answered(turns: u32) -> Exit {
    Exit {
        success: true,
        exit_code: Some(0),
        message: format!("the agent answered after {turns} turns"),
        ..Exit::default()
    }
}

fn limit(what: &str) -> Failure {
    Failure::new(FailureReason::AgentLimit, format!("the agent reached its bound on {what}"))
}
