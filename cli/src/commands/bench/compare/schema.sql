create table bench_jobs (
    id bigserial primary key,
    state text not null default 'queued',
    payload text not null,
    attempt int not null default 0,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz
);
create index bench_jobs_queued on bench_jobs (id) where state = 'queued';
create table bench_events (
    job bigint not null,
    seq int not null,
    at timestamptz not null,
    kind text not null,
    data text not null,
    primary key (job, seq)
);
