//! What users do: submit runs until they are told that they are taken, and change their minds.

use control_plane::{
    runs::{self, CancelError, Idempotency, NewRun},
    scope::Scope,
};
use protocol::ids::RunId;

use super::world::{Happening, Ms, World};

#[derive(Debug)]
pub(crate) enum Wish {
    Submit(usize),
    Cancel(RunId),
}

impl World {
    pub(crate) fn plan_wishes(&mut self, within: Ms) {
        self.wishes = usize::try_from(self.chance.within(3..=10)).unwrap_or(3);
        for n in 0..self.wishes {
            let at = self.chance.within(0..=within);
            self.after(at, Happening::Wish(Wish::Submit(n)));
        }
    }

    pub(crate) fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Submit(n) => self.submit(n),
            Wish::Cancel(run) => self.cancel(run),
        }
    }

    /// Over any plane, again and again with the same key, as a client does that got no answer.
    fn submit(&mut self, n: usize) {
        let plane = self.chance.below(self.planes.len());
        let answer = self.planes[plane].core().map(|core| {
            let new = NewRun {
                prompt: format!("run {n}"),
                config: "{}".to_owned(),
                idempotency: Some(Idempotency { key: n.to_string(), request_hash: n.to_string() }),
                ..NewRun::default()
            };
            self.runtime.block_on(runs::submit(&core, &user(n), new))
        });
        let lost = self.chance.one_in(8);
        match answer {
            Some(Ok(submitted)) if !lost => {
                self.trace.name("run ", submitted.run_id.as_str());
                self.note(format_args!("{} is submitted over plane {plane}", submitted.run_id));
                self.wishes -= 1;
                if self.chance.one_in(4) {
                    let wait = self.chance.wait(0..=8_000, 0..=40_000);
                    self.after(wait, Happening::Wish(Wish::Cancel(submitted.run_id.clone())));
                }
                self.truth.accepted.insert(submitted.run_id, n);
            }
            other => {
                if let Some(Err(error)) = other {
                    self.note(format_args!("run {n} is not taken: {error}"));
                }
                let wait = self.chance.within(200..=2_000);
                self.after(wait, Happening::Wish(Wish::Submit(n)));
            }
        }
        self.plane_goes_on(plane);
    }

    fn cancel(&mut self, run: RunId) {
        let plane = self.chance.below(self.planes.len());
        let n = self.truth.accepted.get(&run).copied().unwrap_or_default();
        let answer = self.planes[plane].core().map(|core| {
            self.truth.cancel_asked.insert(run.clone());
            self.runtime.block_on(runs::cancel(&core, &user(n), &run))
        });
        self.note(format_args!("{run} is cancelled over plane {plane}: {answer:?}"));
        match answer {
            Some(Ok(())) => {
                self.truth.cancel_accepted.insert(run);
            }
            Some(Err(CancelError::Terminal)) => {}
            Some(Err(CancelError::NotFound)) => self.wrong(format!("{run} is not found")),
            // Being handed over, or the plane or its database is away.
            _ => {
                let wait = self.chance.within(200..=2_000);
                self.after(wait, Happening::Wish(Wish::Cancel(run)));
            }
        }
        self.plane_goes_on(plane);
    }
}

/// Two tenants, so that each other's runs are in each other's way.
fn user(n: usize) -> Scope {
    Scope::Tenant(format!("tenant{}", n % 2).parse().unwrap())
}
