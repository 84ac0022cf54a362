//! The envelope `{"type": …, "data": …}` that every message of ours and of the stock worker wears.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// A message that could not be read. It is logged and ignored, never a reason to disconnect.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("not a JSON object with a \"type\"")]
    Envelope(#[source] serde_json::Error),
    #[error("the data of {kind:?} does not have the right form")]
    Data {
        kind: String,
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// A message taken apart, its data not yet read.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    pub data: &'a str,
}

/// The type of a message and its data. Missing data reads as an empty object.
///
/// # Errors
/// The text is no envelope.
pub fn split(text: &str) -> Result<(Cow<'_, str>, Parts<'_>), FrameError> {
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(FrameError::Envelope)?;
    let data = envelope.data.map_or("{}", RawValue::get);
    Ok((envelope.kind, Parts { data }))
}

impl Parts<'_> {
    /// The data, read as what the type says it is.
    ///
    /// # Errors
    /// The data has another form.
    pub fn read<T: DeserializeOwned>(&self, kind: &str) -> Result<T, FrameError> {
        serde_json::from_str(self.data)
            .map_err(|source| FrameError::Data { kind: kind.to_owned(), source })
    }
}

/// A message of which only the type is left.
#[derive(Serialize)]
pub(crate) struct Bare<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
}

/// # Panics
/// Never: every message of ours is plain data and serialises.
pub(crate) fn write<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).expect("a message is plain data")
}

/// Declares an enum of messages that reads and writes itself, keeping the type of what it does not know.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident($body:ty) = $kind:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Serialize)]
        #[serde(tag = "type", content = "data")]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $kind)] $variant($body),)*
            /// A message this build does not know, by its type: log and ignore.
            #[serde(skip)]
            Unknown(String),
        }

        impl $name {
            /// Reads one message.
            ///
            /// # Errors
            /// The text is no message, or a known one with data of another form.
            pub fn parse(text: &str) -> Result<Self, $crate::frame::FrameError> {
                let (kind, parts) = $crate::frame::split(text)?;
                Ok(match kind.as_ref() {
                    $($kind => Self::$variant(parts.read($kind)?),)*
                    other => Self::Unknown(other.to_owned()),
                })
            }

            /// One line of JSON, without a newline. Of a message this build does not know only the type is left.
            pub fn to_json(&self) -> String {
                match self {
                    Self::Unknown(kind) => $crate::frame::write(&$crate::frame::Bare { kind }),
                    known => $crate::frame::write(known),
                }
            }

            /// The type as it stands on the wire, for logs.
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $kind,)*
                    Self::Unknown(kind) => kind,
                }
            }
        }
    };
}

pub(crate) use messages;
