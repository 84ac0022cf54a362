-- One job's life, each statement a durable commit of its own: add, claim, ten events in one insert, complete.
insert into bench_jobs (payload) values ('{"prompt":"Make the claim of a queued run one transaction, keep the lease in the row, and show by a test that two workers never get the same run."}');
with next as (select id from bench_jobs where state = 'queued' order by id for update skip locked limit 1), taken as (update bench_jobs set state = 'running', attempt = attempt + 1, started_at = now() from next where bench_jobs.id = next.id returning bench_jobs.id) select coalesce(min(id), 0) as job from taken \gset
\if :job
insert into bench_events (job, seq, at, kind, data) select :job, n, now(), 'output', '{"phase":"provider","stream":"stdout","text":"test tests::store::a_claim_is_one_transaction ... ok, 14 of 212 in 0.31 s, target/debug/deps"}' from generate_series(1, 10) n;
update bench_jobs set state = 'done', ended_at = now() where id = :job;
\endif
