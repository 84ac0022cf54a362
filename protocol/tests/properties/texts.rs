//! Ids and times: what is taken is safe to hand on, and what is written is read back.

use proptest::prelude::*;
use protocol::{
    api::time::Timestamp,
    ids::{EnvironmentId, ExecutionId, MAX_ID_BYTES, RunId, TenantId, WorkerId},
    run::RunState,
};

use crate::{config, values};

/// Of what can be written with four digits for the year.
const YEARS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_id_that_is_taken_is_one_safe_path_segment(
        text in prop_oneof![values::text(), "[A-Za-z0-9_./ -]{0,140}".boxed()],
    ) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let fits = !text.is_empty() && text.len() <= MAX_ID_BYTES;
        let safe = fits && text.chars().all(plain);
        prop_assert_eq!(text.parse::<RunId>().is_ok(), safe);
        prop_assert_eq!(text.parse::<ExecutionId>().is_ok(), safe);
        prop_assert_eq!(text.parse::<EnvironmentId>().is_ok(), safe);
        prop_assert_eq!(text.parse::<TenantId>().is_ok(), safe && !text.contains(['-', '_']));
        let printable = fits && !text.chars().any(char::is_control);
        prop_assert_eq!(text.parse::<WorkerId>().is_ok(), printable);
        if let Ok(id) = text.parse::<WorkerId>() {
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<WorkerId>(&json).unwrap(), id);
        }
        // By the same door when it comes in a message.
        let quoted = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(serde_json::from_str::<RunId>(&quoted).is_ok(), safe);
    }

    #[test]
    fn a_time_reads_back_and_sorts_as_its_text(one in YEARS, other in YEARS) {
        let (one, other) = (Timestamp(one), Timestamp(other));
        prop_assert_eq!(one.to_string().parse(), Ok(one));
        prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
    }

    #[test]
    fn any_number_has_a_text(ms in any::<i64>()) {
        prop_assert!(Timestamp(ms).to_string().ends_with('Z'));
    }

    #[test]
    fn what_is_no_time_is_refused(text in prop_oneof![
        values::text(),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,40})?([Zz]|[+ -][0-9]{2}:[0-9]{2})?\\PC?".boxed(),
    ]) {
        if let Ok(time) = text.parse::<Timestamp>() && YEARS.contains(&time.as_ms()) {
            // The same moment, in the form that is written.
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn a_state_is_one_of_nine(text in prop_oneof![values::text(), "[A-Z]{5,10}".boxed()]) {
        let known = RunState::ALL.iter().any(|state| state.as_str() == text);
        prop_assert_eq!(text.parse::<RunState>().is_ok(), known);
    }
}
