//! What a tool answers, within a bound.

use crate::agent::text::cut;

/// Longest result a model is shown, in bytes; what is over it is left out, and the result says how much.
pub(in crate::agent) const MAX_RESULT_BYTES: usize = 48 << 10;

/// What a tool answers. A failed tool does not end the run: the model reads why.
#[derive(Debug)]
pub(in crate::agent) struct Result {
    pub(in crate::agent) ok: bool,
    pub(in crate::agent) output: String,
    pub(in crate::agent) truncated: bool,
}

impl Result {
    pub(super) fn new(ok: bool, output: impl Into<String>) -> Self {
        let (output, truncated) = cut(output.into(), MAX_RESULT_BYTES);
        Self { ok, output, truncated }
    }
}

impl From<std::result::Result<String, String>> for Result {
    fn from(result: std::result::Result<String, String>) -> Self {
        match result {
            Ok(output) => Self::new(true, output),
            Err(why) => Self::new(false, why),
        }
    }
}
