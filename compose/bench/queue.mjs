// A plain job queue doing what a lifecycle of `ozma bench` does, as far as it can: jobs are added one by one with
// add_job and a no-op task writes ten events with one insert. One process adds and executes.
//
// usage: node queue.mjs SECONDS IN_FLIGHT plain|batched    (where PostgreSQL is: PGHOST, PGPORT, …)
// Prints one line of JSON. `batched` is the library's own advice for throughput: a local queue that takes jobs by
// the hundred, and completions written in batches.
import { run } from "graphile-worker";
import pg from "pg";

const [seconds, inFlight, mode] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const pool = new pg.Pool({ max: 32 });
pool.on("error", () => {});
const LINE = JSON.stringify({
    phase: "provider",
    stream: "stdout",
    text: "test tests::store::a_claim_is_one_transaction ... ok, 14 of 212 in 0.31 s, target/debug/deps",
});
const payload = {
    prompt: "Make the claim of a queued run one transaction, keep the lease in the row, and show by a test that two workers never get the same run.",
};
await pool.query(`create table bench_events (job bigint not null, seq int not null,
    at timestamptz not null, kind text not null, data text not null, primary key (job, seq))`);
const EVENTS = `insert into bench_events (job, seq, at, kind, data)
    select $1, n, now(), 'output', $2 from generate_series(1, 10) n`;

let done = 0;
let failed = 0;
let over = false;
const batched = mode === "batched";
const runner = await run({
    noHandleSignals: true,
    preset: {
        worker: {
            pgPool: pool,
            concurrentJobs: 24,
            ...(batched ? { localQueue: { size: 200 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } : {}),
        },
    },
    logger: undefined,
    taskList: {
        life: async (_, helpers) => {
            await helpers.query(EVENTS, [helpers.job.id, LINE]);
        },
    },
});

// A closed loop, like ours: as many under way as `inFlight`, the next is added when one is complete.
let free = inFlight;
const waiting = [];
const take = () => (free > 0 ? (free--, Promise.resolve()) : new Promise((go) => waiting.push(go)));
const give = () => (waiting.length > 0 ? waiting.shift()() : free++);
runner.events.on("job:complete", ({ error }) => {
    error ? failed++ : done++;
    give();
});
const senders = Array.from({ length: 16 }, async () => {
    for (;;) {
        await take();
        if (over) return;
        await pool.query("select graphile_worker.add_job('life', $1::json)", [JSON.stringify(payload)]);
    }
});
const sleep = (ms) => new Promise((go) => setTimeout(go, ms));
await sleep(2000);
const [from, first] = [performance.now(), done];
await sleep(seconds * 1000);
const [took, jobs] = [(performance.now() - from) / 1000, done - first];
over = true;
while (waiting.length > 0) waiting.shift()();
free = senders.length;
await Promise.all(senders);
// What was added is executed, so that the count of events can be checked.
for (let i = 0; i < 600; i++) {
    const { rows } = await pool.query("select count(*)::int as left from graphile_worker.jobs");
    if (rows[0].left === 0) break;
    await sleep(50);
}
await runner.stop();
const { rows } = await pool.query("select count(*)::int as events, count(distinct job)::int as jobs from bench_events");
console.log(JSON.stringify({ jobs, seconds: took, all: done, failed, ...{ events: rows[0].events, stored: rows[0].jobs } }));
await pool.end();
