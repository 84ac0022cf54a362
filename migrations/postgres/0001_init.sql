-- Times are milliseconds since 1970, ids are text, truth values are 0 and 1.
-- The same tables and columns stand in ../sqlite/0001_init.sql; a test compares them.

-- One row: something sealed, by which a start with another encryption key is noticed.
create table seals (
    id bigint primary key check (id = 1),
    sealed bytea not null
);

create table tokens (
    id text primary key,
    hash text not null unique,          -- hex SHA-256 of the token; the token itself is nowhere
    kind text not null,
    owner text not null,
    label text not null,
    created_at bigint not null,
    revoked_at bigint
);
create index tokens_by_age on tokens (created_at, id);

create table environments (
    id text primary key,
    owner text not null,
    global bigint not null,
    name text not null,
    spec text not null,                 -- JSON, without values
    env_sealed bytea,                    -- sealed JSON of the values, bound to the id
    created_at bigint not null,
    updated_at bigint not null
);
create index environments_by_owner on environments (owner, updated_at);
create index environments_global on environments (updated_at) where global = 1;

create table runs (
    id text primary key,
    owner text not null,
    state text not null,
    cancelling bigint not null,
    version bigint not null,
    attempt bigint not null,
    max_attempts bigint not null,
    execution_id text,                  -- the current one; null while queued
    worker_id text,
    title text collate "C" not null,    -- sorted and searched by bytes, as SQLite does
    name text collate "C",
    prompt text collate "C" not null,
    config text not null,               -- JSON, as the caller sent it
    metadata text not null,             -- JSON object of texts
    source text not null,
    environment_id text,
    model_id text,
    worker_host text,
    parent_run_id text,
    snapshot text not null,             -- JSON: the environment as it was at the request
    env_sealed bytea,                    -- its values, still bound to the environment's id
    idempotency_key text,
    request_hash text,
    at_capacity bigint not null,
    created_at bigint not null,
    updated_at bigint not null,
    queued_at bigint not null,
    not_before bigint not null,
    started_at bigint,
    ended_at bigint,
    last_seq bigint not null,
    phases text not null,               -- JSON object: phase to milliseconds
    reason text,
    message text,
    answer text,
    exit_code bigint,
    peak_memory_bytes bigint
);
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
);

create table executions (
    id text primary key,
    run_id text not null references runs (id) on delete cascade,
    attempt bigint not null,
    worker_id text not null,
    instance_id text not null,          -- the worker process that holds it
    lease_expires_at bigint not null,
    assigned_at bigint not null,
    claimed_at bigint,
    started_at bigint,
    ended_at bigint,
    ending text,                        -- reported, declined, lost
    reason text,
    message text,
    exit_code bigint,
    peak_memory_bytes bigint,
    worker_seq bigint not null,
    sidecar_seq bigint not null,
    stored_events bigint not null,
    stored_bytes bigint not null,
    artifact_bytes bigint not null
);
create index executions_by_run on executions (run_id, assigned_at);
create index executions_open on executions (lease_expires_at) where ended_at is null;
create index executions_of_instance on executions (instance_id) where ended_at is null;

create table run_events (
    run_id text not null references runs (id) on delete cascade,
    seq bigint not null,
    execution_id text,
    at_ms bigint not null,
    kind text not null,
    data text not null,                 -- JSON
    primary key (run_id, seq)
);

create table artifacts (
    uid text primary key,
    run_id text not null references runs (id) on delete cascade,
    owner text not null,
    execution_id text not null,
    artifact_type text not null,
    created_at bigint not null,
    data text not null                  -- JSON, the artifact event
);
create index artifacts_by_run on artifacts (run_id, created_at);

-- The uid comes from inside a container, so a part belongs to its execution first.
create table artifact_parts (
    execution_id text not null references executions (id) on delete cascade,
    artifact_uid text not null,
    part bigint not null,
    content bytea not null,
    primary key (execution_id, artifact_uid, part)
);

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
    capacity bigint not null,
    draining bigint not null,
    connected_at bigint not null,
    last_seen_at bigint not null
);
create index connections_by_sight on connections (last_seen_at);
