//! What the model wants to say next, whatever the dialect it is said in.

use serde_json::Value;

pub(super) enum Reply {
    Text(String),
    /// Nothing: it is stopped by the vendor's rules.
    Refused,
    /// A call of the tool of this name.
    Call {
        tool: String,
        input: Value,
    },
}
