-- Times are milliseconds since 1970, ids are text, truth values are 0 and 1.
-- The same tables and columns stand in ../postgres/0001_init.sql; a test compares them.

-- One row: something sealed, by which a start with another encryption key is noticed.
create table seals (
    id integer primary key check (id = 1),
    sealed blob not null
) strict;

create table tokens (
    id text primary key,
    hash text not null unique,          -- hex SHA-256 of the token; the token itself is nowhere
    kind text not null,
    owner text not null,
    label text not null,
    created_at integer not null,
    revoked_at integer
) strict;
create index tokens_by_age on tokens (created_at, id);

create table environments (
    id text primary key,
    owner text not null,
    global integer not null,
    name text not null,
    spec text not null,                 -- JSON, without values
    env_sealed blob,                    -- sealed JSON of the values, bound to the id
    created_at integer not null,
    updated_at integer not null
) strict;
create index environments_by_owner on environments (owner, updated_at);
create index environments_global on environments (updated_at) where global = 1;

create table runs (
    id text primary key,
    owner text not null,
    state text not null,
    cancelling integer not null,
    version integer not null,
    attempt integer not null,
    max_attempts integer not null,
    execution_id text,                  -- the current one; null while queued
    worker_id text,
    title text not null,
    name text,
    prompt text not null,
    config text not null,               -- JSON, as the caller sent it
    metadata text not null,             -- JSON object of texts
    source text not null,
    environment_id text,
    model_id text,
    worker_host text,
    parent_run_id text,
    snapshot text not null,             -- JSON: the environment as it was at the request
    env_sealed blob,                    -- its values, still bound to the environment's id
    idempotency_key text,
    request_hash text,
    at_capacity integer not null,
    created_at integer not null,
    updated_at integer not null,
    queued_at integer not null,
    not_before integer not null,
    started_at integer,
    ended_at integer,
    last_seq integer not null,
    phases text not null,               -- JSON object: phase to milliseconds
    reason text,
    message text,
    answer text,
    exit_code integer,
    peak_memory_bytes integer
) strict;
create unique index runs_by_key on runs (owner, idempotency_key) where idempotency_key is not null;
create index runs_by_update on runs (owner, updated_at, id);
create index runs_by_creation on runs (owner, created_at, id);
create index runs_waiting on runs (owner, created_at, id) where state = 'QUEUED';
create index runs_active on runs (owner) where state in ('PENDING', 'CLAIMED', 'INPROGRESS');
create index runs_by_parent on runs (parent_run_id) where parent_run_id is not null;

create table run_metadata (
    run_id text not null references runs (id) on delete cascade,
    key text not null,
    value text not null,
    primary key (run_id, key)
) strict;

create table executions (
    id text primary key,
    run_id text not null references runs (id) on delete cascade,
    attempt integer not null,
    worker_id text not null,
    instance_id text not null,          -- the worker process that holds it
    lease_expires_at integer not null,
    assigned_at integer not null,
    claimed_at integer,
    started_at integer,
    ended_at integer,
    ending text,                        -- reported, declined, lost
    reason text,
    message text,
    exit_code integer,
    peak_memory_bytes integer,
    worker_seq integer not null,
    sidecar_seq integer not null,
    stored_events integer not null,
    stored_bytes integer not null,
    artifact_bytes integer not null
) strict;
create index executions_by_run on executions (run_id, assigned_at);
create index executions_open on executions (lease_expires_at) where ended_at is null;
create index executions_of_instance on executions (instance_id) where ended_at is null;

create table run_events (
    run_id text not null references runs (id) on delete cascade,
    seq integer not null,
    execution_id text,
    at_ms integer not null,
    kind text not null,
    data text not null,                 -- JSON
    primary key (run_id, seq)
) strict;

create table artifacts (
    uid text primary key,
    run_id text not null references runs (id) on delete cascade,
    owner text not null,
    execution_id text not null,
    artifact_type text not null,
    created_at integer not null,
    data text not null                  -- JSON, the artifact event
) strict;
create index artifacts_by_run on artifacts (run_id, created_at);

-- The uid comes from inside a container, so a part belongs to its execution first.
create table artifact_parts (
    execution_id text not null references executions (id) on delete cascade,
    artifact_uid text not null,
    part integer not null,
    content blob not null,
    primary key (execution_id, artifact_uid, part)
) strict;

-- Worker connections of every plane, as they were last heard of; for people and hints.
create table connections (
    id text primary key,
    plane_id text not null,
    worker_id text not null,
    instance_id text not null,
    dialect text not null,
    backend text not null,
    version text not null,
    tags text not null,                 -- JSON array
    capacity integer not null,
    draining integer not null,
    connected_at integer not null,
    last_seen_at integer not null
) strict;
create index connections_by_sight on connections (last_seen_at);
