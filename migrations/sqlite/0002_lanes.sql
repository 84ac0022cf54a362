-- Lanes, priorities, limits, drains, and the bounds of waiting.
-- The same tables and columns stand in ../postgres/0002_lanes.sql; a test compares them.

alter table runs add column priority integer not null default 0;
-- '' for any worker, else JSON: the worker's name and the tags it must have. With the owner it is a lane.
alter table runs add column placement text not null default '';
-- How long one wait may last, and until when the present one may; null without a bound.
alter table runs add column queue_ms integer;
alter table runs add column queue_until integer;
-- JSON: the run's retry policy; '' for the plane's.
alter table runs add column retry text not null default '';

drop index runs_waiting;
create index runs_lanes on runs (owner, placement, priority desc, created_at, id)
    where state = 'QUEUED';
create index runs_queue_until on runs (queue_until) where state = 'QUEUED' and queue_until is not null;
create index runs_by_end on runs (ended_at) where ended_at is not null;

-- What an admin allows one tenant; the plane's settings hold for what is null.
create table tenant_limits (
    owner text primary key,
    max_queued integer,
    max_running integer,
    updated_at integer not null
) strict;

-- Workers that are to take nothing new, on whichever plane they are.
create table worker_drains (
    worker_id text primary key,
    since integer not null
) strict;

alter table connections add column disk_bytes integer;
alter table connections add column disk_limit_bytes integer;

-- Runs that are not over keep the worker they asked for.
update runs set placement = json_object('worker_host', worker_host)
    where ended_at is null and worker_host is not null;
