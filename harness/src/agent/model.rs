//! Who answers: one model of several kinds.

use crate::{
    agent::{
        conversation::{Message, Reply},
        remote::Remote,
        script::Script,
        tool::Tool,
    },
    failure::Failure,
    feed::Feed,
};

/// Who answers. A closed set: an enum says so.
pub(crate) enum Model {
    Remote(Box<Remote>),
    Scripted(Script),
}

impl Model {
    pub(crate) fn dialect(&self) -> &'static str {
        match self {
            Self::Remote(model) => model.wire().as_str(),
            Self::Scripted(_) => "scripted",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Remote(model) => model.name(),
            Self::Scripted(script) => script.name(),
        }
    }

    /// Whether no model made what comes from here; every event it leads to says so.
    pub(crate) fn scripted(&self) -> bool {
        matches!(self, Self::Scripted(_))
    }

    /// The next answer. Its text goes to `feed` while it comes.
    pub(crate) async fn reply(
        &mut self,
        conversation: &[Message],
        tools: &[Tool],
        feed: &Feed,
    ) -> Result<Reply, Failure> {
        match self {
            Self::Remote(model) => model.reply(conversation, tools, feed).await,
            Self::Scripted(script) => Ok(script.reply(feed).await),
        }
    }
}
