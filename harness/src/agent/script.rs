//! The scripted model: turns read from a file, for trying Ozma without a key. Every event it leads to is
//! marked, so that nobody takes it for a model's answer.
//!
//! ```json
//! {"name": "demo", "turns": [{"text": "…", "tools": [{"name": "shell", "input": {…}}]}, {"answer": "…"}]}
//! ```

use std::collections::VecDeque;

use protocol::event::Event;
use serde::Deserialize;

use crate::{
    agent::conversation::{Call, Reply},
    feed::Feed,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    turns: VecDeque<Turn>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Turn {
    text: String,
    tools: Vec<Tool>,
    answer: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    name: String,
    input: serde_json::Value,
}

/// What is left of a script. A turn past its end answers with the last text.
#[derive(Debug)]
pub struct Script {
    name: String,
    turns: VecDeque<Turn>,
    prompt: String,
    last_text: String,
    calls: u32,
}

impl Script {
    /// `{{prompt}}` in texts and answers stands for `prompt`.
    ///
    /// # Errors
    /// The text is no script.
    pub fn read(text: &str, prompt: &str) -> Result<Self, serde_json::Error> {
        let File { name, turns } = serde_json::from_str(text)?;
        let prompt = prompt.to_owned();
        Ok(Self { name, turns, prompt, last_text: String::new(), calls: 0 })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn reply(&mut self, feed: &Feed) -> Reply {
        let turn = self
            .turns
            .pop_front()
            .unwrap_or_else(|| Turn { answer: Some(self.last_text.clone()), ..Turn::default() });
        let text = turn.text.replace("{{prompt}}", &self.prompt);
        if !text.is_empty() {
            feed.send(Event::Text { text: text.clone(), scripted: true }).await;
            self.last_text.clone_from(&text);
        }
        let calls = turn.tools.into_iter().map(|tool| {
            self.calls += 1;
            Call {
                id: format!("script_{}", self.calls),
                name: tool.name,
                arguments: tool.input.to_string(),
            }
        });
        let calls = calls.collect();
        match turn.answer {
            Some(answer) => Reply {
                text: answer.replace("{{prompt}}", &self.prompt),
                last: true,
                ..Reply::default()
            },
            None => Reply { text, calls, ..Reply::default() },
        }
    }
}
