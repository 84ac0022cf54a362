//! A run's events, as a page or as a stream of server-sent events. Ours.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{lists::PageInfo, time::Timestamp};
use crate::{
    event::{Event, EventLine},
    ids::ExecutionId,
};

/// One event of a run: `id`, `event` and `data` of the stream are its `seq`, its `kind` and all of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// From 1, without gaps, within the run.
    pub seq: u64,
    pub at: Timestamp,
    /// Absent for what the plane says of the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// `state`, `phase_started`, `output`, `text`, `tool_call`, `answer`, `exit`, …
    pub kind: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Box<RawValue>,
}

impl EventView {
    /// The event itself; `None` for a kind or a form this build does not know.
    pub fn event(&self) -> Option<Event> {
        let (kind, data) = (self.kind.clone(), self.data.clone());
        EventLine { seq: self.seq, at_ms: self.at.as_ms(), kind, data }.event()
    }
}

/// One page of events. `next_cursor` is there whenever the page holds an event: new ones may follow it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    pub events: Vec<EventView>,
    pub page_info: PageInfo,
}
