//! Where a run may go: the worker it names and the tags it asks for. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What a run asks of its worker. As text it is canonical, so that runs with the same wishes share a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// The worker's id, exactly; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_host: Option<String>,
    /// The worker must have all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub worker_tags: BTreeSet<String>,
}

impl Placement {
    /// The form of the column: empty for a run that any worker may take.
    pub fn to_text(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        serde_json::to_string(self).expect("a placement is plain data")
    }

    /// Reads the form of the column.
    ///
    /// # Errors
    /// No placement of this build.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        if text.is_empty() { Ok(Self::default()) } else { serde_json::from_str(text) }
    }

    /// Whether a worker of this name and with these tags may take the run.
    pub fn fits(&self, worker_id: &str, tags: &[String]) -> bool {
        self.worker_host.as_deref().is_none_or(|host| host == worker_id)
            && self.worker_tags.iter().all(|tag| tags.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_wishes_are_the_same_text() {
        let tagged = |tags: &[&str]| Placement {
            worker_host: None,
            worker_tags: tags.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(tagged(&["gpu", "eu"]).to_text(), tagged(&["eu", "gpu", "eu"]).to_text());
        assert_eq!(tagged(&[]).to_text(), "");
        let named = Placement { worker_host: Some("box \"1\"".to_owned()), ..tagged(&["gpu"]) };
        assert_eq!(Placement::from_text(&named.to_text()).unwrap(), named);
        // What the migration writes for runs of an older plane.
        let old = Placement::from_text(r#"{"worker_host":"box1"}"#).unwrap();
        assert_eq!(old.to_text(), r#"{"worker_host":"box1"}"#);
    }

    #[test]
    fn a_worker_fits_by_name_and_all_tags() {
        let wish = Placement::from_text(r#"{"worker_host":"a","worker_tags":["gpu"]}"#).unwrap();
        let tags = ["gpu".to_owned(), "eu".to_owned()];
        assert!(wish.fits("a", &tags));
        assert!(!wish.fits("b", &tags));
        assert!(!wish.fits("a", &tags[1..]));
        assert!(Placement::default().fits("anything", &[]));
    }
}
