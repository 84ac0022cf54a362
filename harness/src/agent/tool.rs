//! A tool as the model is told of it, whoever runs it.

use serde_json::Value;

#[derive(Debug, Clone)]
pub(crate) struct Tool {
    /// As people read it; a server's is `server.tool`.
    pub(crate) name: String,
    /// As endpoints take it: letters, digits, `-` and `_`, at most 64.
    pub(crate) wire_name: String,
    pub(crate) description: String,
    /// A JSON schema of an object.
    pub(crate) input_schema: Value,
}
