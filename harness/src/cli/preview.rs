//! See [`crate::preview`].

use super::Cli;
use crate::preview::Preview;

impl Cli {
    pub(crate) fn preview(&self) -> Preview {
        Preview {
            arguments: self.plan.args.clone(),
            variables: self.plan.env.keys().map(ToString::to_string).collect(),
            files: self.plan.files.iter().map(|(path, _)| path.clone()).collect(),
        }
    }
}
