//! What a run's end means for the exit code and for people.

use protocol::run::RunState;

use crate::failure::code;

/// The exit code of `ozma run` for a run that ended in `state`.
pub(crate) fn exit_code(state: RunState) -> u8 {
    match state {
        RunState::Succeeded => code::SUCCESS,
        RunState::Failed | RunState::Blocked => code::FAILED,
        RunState::Cancelled => code::CANCELLED,
        // Not ended is not success: whoever asks for the code of such a run lost sight of it.
        RunState::Error
        | RunState::Queued
        | RunState::Pending
        | RunState::Claimed
        | RunState::Inprogress => code::PLATFORM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_code() {
        let table: Vec<_> =
            RunState::ALL.into_iter().map(|state| (state.as_str(), exit_code(state))).collect();
        assert_eq!(
            table,
            [
                ("QUEUED", 3),
                ("PENDING", 3),
                ("CLAIMED", 3),
                ("INPROGRESS", 3),
                ("SUCCEEDED", 0),
                ("FAILED", 1),
                ("ERROR", 3),
                ("BLOCKED", 1),
                ("CANCELLED", 130),
            ]
        );
    }
}
