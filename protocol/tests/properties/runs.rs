//! Histories of a run: whatever facts come in whatever order, the rules hold.

use proptest::{collection::vec, prelude::*, sample::select};
use protocol::{
    failure::FailureReason,
    retry::{FailureClass, MAX_ATTEMPTS, RetryPolicy},
    run::{Fact, RunState, Standing},
};

use crate::config;

fn fact() -> impl Strategy<Value = Fact> {
    let plain = vec![
        Fact::Assigned,
        Fact::Assigned,
        Fact::Claimed,
        Fact::Started,
        Fact::Succeeded,
        Fact::Declined,
        Fact::CancelRequested,
        Fact::Stopped,
        Fact::WaitedTooLong,
    ];
    let failed = (select(FailureReason::ALL), any::<bool>())
        .prop_map(|(reason, again)| Fact::Failed { reason, again });
    prop_oneof![6 => select(plain), 1 => failed]
}

fn policy() -> impl Strategy<Value = RetryPolicy> {
    let on = prop::sample::subsequence(&FailureClass::ALL[..], 0..=FailureClass::ALL.len());
    (prop::option::of(1..=MAX_ATTEMPTS), prop::option::of(on))
        .prop_map(|(max_attempts, on)| RetryPolicy { max_attempts, on })
}

/// Whether somebody holds the run.
fn is_held(state: RunState) -> bool {
    matches!(state, RunState::Pending | RunState::Claimed | RunState::Inprogress)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_run_ends_once_and_for_a_reason(facts in vec(fact(), 0..60)) {
        let mut now = Standing::QUEUED;
        let (mut asked_to_stop, mut ends) = (false, 0);
        for fact in facts {
            let before = now;
            let Ok(after) = before.apply(fact) else {
                // Refused: a copy cannot have changed, and asking again gives the same answer.
                prop_assert!(before.apply(fact).is_err());
                continue;
            };
            prop_assert!(!before.state.is_terminal(), "{:?} moved a run that was over", fact);
            ends += u32::from(after.state.is_terminal());
            if fact == Fact::CancelRequested {
                asked_to_stop = true;
            }
            match after.state {
                // Stopped, on the user's word; not merely asked to stop.
                RunState::Cancelled => {
                    prop_assert!(asked_to_stop);
                    prop_assert!(before.state == RunState::Queued || before.cancelling);
                }
                // Silence is not success, and neither is an end while it was being cancelled.
                RunState::Succeeded => {
                    prop_assert_eq!(fact, Fact::Succeeded);
                    prop_assert!(is_held(before.state) && !before.cancelling);
                }
                RunState::Failed | RunState::Error => {
                    let said = matches!(fact, Fact::Failed { again: false, .. } | Fact::WaitedTooLong);
                    prop_assert!(said, "{:?} is no failure", fact);
                    prop_assert!(!before.cancelling, "a cancelled run failed");
                }
                _ => {}
            }
            // The wish lasts as long as the execution, and not a moment longer.
            if before.cancelling && is_held(after.state) {
                prop_assert!(after.cancelling, "{:?} forgot the wish to stop", fact);
            }
            prop_assert!(!after.cancelling || is_held(after.state));
            // A run that is to stop is never tried again.
            if before.cancelling {
                prop_assert_ne!(after.state, RunState::Queued);
            }
            if after.state == RunState::Queued {
                asked_to_stop = false;
            }
            now = after;
        }
        prop_assert!(ends <= 1, "it ended {} times", ends);
        prop_assert_eq!(ends == 1, now.state.is_terminal());
    }

    /// A fact of an attempt that is over is refused before it comes here; what is left is who says first how the
    /// present one ended.
    #[test]
    fn of_two_ends_the_first_counts(
        before in vec(fact(), 0..20), first in fact(), others in vec(fact(), 0..20),
    ) {
        let standing = before.into_iter().fold(Standing::QUEUED, |now, fact| now.apply(fact).unwrap_or(now));
        if let Ok(ended) = standing.apply(first) && ended.state.is_terminal() {
            let last = others.into_iter().fold(ended, |now, fact| now.apply(fact).unwrap_or(now));
            prop_assert_eq!(last, ended);
        }
    }

    #[test]
    fn every_run_can_be_brought_to_an_end(facts in vec(fact(), 0..40)) {
        let now = facts.into_iter().fold(Standing::QUEUED, |now, fact| now.apply(fact).unwrap_or(now));
        let lost = Fact::Failed { reason: FailureReason::WorkerLost, again: false };
        let ways = [Fact::CancelRequested, Fact::Succeeded, lost];
        let open = ways.into_iter().any(|fact| now.apply(fact).is_ok());
        prop_assert_eq!(open, !now.state.is_terminal());
    }

    #[test]
    fn a_policy_reads_back_and_never_covers_a_cancel(policy in policy(), other in policy()) {
        let text = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(&serde_json::from_str::<RetryPolicy>(&text).unwrap(), &policy);
        prop_assert!(!policy.covers(FailureReason::TaskCancelled));
        for reason in FailureReason::ALL {
            let listed = match (&policy.on, reason.class()) {
                (_, None) => false,
                (Some(on), Some(class)) => on.contains(&class),
                (None, Some(class)) => RetryPolicy::DEFAULT_ON.contains(&class),
            };
            prop_assert_eq!(policy.covers(*reason), listed);
        }
        // What is said wins over what is only the plane's choice.
        let both = policy.clone().or(other.clone());
        prop_assert_eq!(both.max_attempts, policy.max_attempts.or(other.max_attempts));
        prop_assert_eq!(both.on, policy.on.or(other.on));
    }
}
