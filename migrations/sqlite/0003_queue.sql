-- Dispatch: a lane says by itself which of its runs are ready, and cancels are found without looking at every run.
-- The same tables and columns stand in ../postgres/0003_queue.sql; a test compares them.

-- Hand-overs of the present wait that no worker took.
alter table runs add column declines integer not null default 0;

-- With the state, though it is always the same: then no row has to be read for it.
drop index runs_lanes;
create index runs_lanes on runs (owner, placement, priority desc, created_at, id, not_before, state)
    where state = 'QUEUED';
create index runs_cancelling on runs (id) where cancelling = 1;
