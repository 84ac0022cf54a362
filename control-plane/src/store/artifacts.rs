//! What runs leave behind. The parts come from inside a container: bounded, and shown only once size and
//! digest are right.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use protocol::{
    event::Artifact,
    ids::{ArtifactUid, ExecutionId, RunId},
    limits::{ARTIFACT_PART_BYTES, MAX_ARTIFACT_BYTES, MAX_ARTIFACTS_BYTES},
};
use sha2::{Digest, Sha256};
use sqlx::QueryBuilder;

use super::{
    ExecutionRow, Store, StoreError, Tx, from_json, json, on_pool, on_tx, parse, transitions::Head,
};
use crate::scope::Scope;

/// Artifacts of one execution; a further one is left out, with a notice.
const MAX_ARTIFACTS: u32 = 1_000;

/// What an artifact says of itself, in bytes of JSON; one that says more is left out, with a notice.
const MAX_DESCRIPTION_BYTES: usize = 16 << 10;

/// What a part counts at least, so that rows have a bound as bytes do.
const LEAST_PART_BYTES: u64 = 4 << 10;

/// Where further parts of one execution are thrown away: the bound on content, and the last part of each.
const MAX_PARTS_BYTES: u64 = MAX_ARTIFACTS_BYTES + MAX_ARTIFACTS as u64 * LEAST_PART_BYTES;

/// How much of a name a notice repeats.
const NAME_CHARS: usize = 200;

/// An artifact without its content.
#[derive(Debug, Clone)]
pub struct StoredArtifact {
    pub run_id: RunId,
    pub execution_id: ExecutionId,
    pub created_at: i64,
    pub artifact: Artifact,
}

#[derive(sqlx::FromRow)]
struct Row {
    run_id: String,
    execution_id: String,
    created_at: i64,
    data: String,
}

impl TryFrom<Row> for StoredArtifact {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            run_id: parse(&row.run_id, "run id")?,
            execution_id: parse(&row.execution_id, "execution id")?,
            created_at: row.created_at,
            artifact: from_json(&row.data, "artifact")?,
        })
    }
}

impl Store {
    /// The artifacts of these runs, as far as the caller may see them.
    pub async fn artifacts(
        &self,
        scope: &Scope,
        runs: &[RunId],
    ) -> Result<BTreeMap<RunId, Vec<StoredArtifact>>, StoreError> {
        if runs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows: Vec<Row> = on_pool!(self, |db| {
            let mut query = QueryBuilder::new(
                "select run_id, execution_id, created_at, data from artifacts where (1 = ",
            );
            query.push_bind(scope.sees_all()).push(" or owner = ");
            query.push_bind(scope.owner().as_str()).push(") and run_id in (");
            let mut list = query.separated(", ");
            for run in runs {
                list.push_bind(run.as_str());
            }
            query.push(") order by created_at, uid");
            query.build_query_as().fetch_all(db).await
        })?;
        let mut found: BTreeMap<RunId, Vec<StoredArtifact>> = BTreeMap::new();
        for row in rows {
            let artifact = StoredArtifact::try_from(row)?;
            found.entry(artifact.run_id.clone()).or_default().push(artifact);
        }
        Ok(found)
    }

    /// One the caller may see.
    pub async fn artifact(
        &self,
        scope: &Scope,
        uid: &ArtifactUid,
    ) -> Result<StoredArtifact, StoreError> {
        const SQL: &str = "select run_id, execution_id, created_at, data from artifacts
             where uid = $1 and ($2 = 1 or owner = $3)";
        on_pool!(self, |db| sqlx::query_as::<_, Row>(SQL)
            .bind(uid.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_optional(db)
            .await)?
        .ok_or(StoreError::NotFound)?
        .try_into()
    }

    /// Its content, at most [`MAX_ARTIFACT_BYTES`]; empty for what has none.
    pub async fn artifact_content(
        &self,
        scope: &Scope,
        uid: &ArtifactUid,
    ) -> Result<Vec<u8>, StoreError> {
        const SQL: &str = "select p.content from artifact_parts p
             join artifacts a on a.uid = p.artifact_uid and a.execution_id = p.execution_id
             where a.uid = $1 and ($2 = 1 or a.owner = $3) order by p.part";
        let parts: Vec<Vec<u8>> = on_pool!(self, |db| sqlx::query_scalar(SQL)
            .bind(uid.as_str())
            .bind(scope.sees_all())
            .bind(scope.owner().as_str())
            .fetch_all(db)
            .await)?;
        Ok(parts.concat())
    }
}

impl Tx {
    /// Keeps a part. One that is too large, too far on or over the execution's bound is thrown away; the
    /// artifact it belongs to will not have the right digest.
    pub(super) async fn keep_part(
        &mut self,
        execution: &mut ExecutionRow,
        uid: &ArtifactUid,
        index: u32,
        base64: &str,
    ) -> Result<(), StoreError> {
        const SQL: &str = "insert into artifact_parts (execution_id, artifact_uid, part, content)
             values ($1, $2, $3, $4) on conflict do nothing";
        let Ok(content) = STANDARD.decode(base64) else { return Ok(()) };
        let size = (content.len() as u64).max(LEAST_PART_BYTES);
        let parts = MAX_ARTIFACT_BYTES.div_ceil(ARTIFACT_PART_BYTES as u64);
        if content.len() > ARTIFACT_PART_BYTES
            || u64::from(index) >= parts
            || execution.artifact_bytes + size > MAX_PARTS_BYTES
        {
            return Ok(());
        }
        let kept = on_tx!(self, |db| sqlx::query(SQL)
            .bind(execution.id.as_str())
            .bind(uid.as_str())
            .bind(i64::from(index))
            .bind(content)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        execution.artifact_bytes += size * kept;
        Ok(())
    }

    /// Makes an artifact visible, or says why not.
    pub(super) async fn keep_artifact(
        &mut self,
        head: &Head,
        execution: &ExecutionRow,
        artifact: &Artifact,
        now: i64,
    ) -> Result<Result<(), String>, StoreError> {
        const COUNT: &str = "select count(*) from artifacts where execution_id = $1";
        const TAKEN: &str = "select count(*) from artifacts where uid = $1";
        const INSERT: &str = "insert into artifacts
             (uid, run_id, owner, execution_id, artifact_type, created_at, data)
             values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing";
        let left_out = |why: &str| {
            let name = artifact.filename.as_deref().unwrap_or(artifact.artifact_uid.as_str());
            let name: String = name.chars().take(NAME_CHARS).collect();
            Ok(Err(format!("artifact {name} left out: {why}")))
        };
        let data = json(artifact);
        if data.len() > MAX_DESCRIPTION_BYTES {
            return left_out("what it says of itself is too long");
        }
        let uid = artifact.artifact_uid.as_str();
        let (count, taken): (i64, i64) = on_tx!(self, |db| (
            sqlx::query_scalar(COUNT).bind(execution.id.as_str()).fetch_one(&mut *db).await?,
            sqlx::query_scalar(TAKEN).bind(uid).fetch_one(db).await?,
        ));
        if count >= i64::from(MAX_ARTIFACTS) {
            return left_out("there are too many");
        }
        if taken > 0 {
            return left_out("its uid is taken");
        }
        match artifact.artifact_type.as_str() {
            "FILE" if artifact.filename.is_none() => return left_out("it has no name"),
            "FILE" => {
                if !self.is_whole(execution, artifact).await? {
                    return left_out("its content did not arrive whole");
                }
            }
            "PULL_REQUEST" if artifact.url.is_some() && artifact.branch.is_some() => {}
            _ => return left_out("its type is not known or lacks something"),
        }
        let kept = on_tx!(self, |db| sqlx::query(INSERT)
            .bind(uid)
            .bind(head.id.as_str())
            .bind(head.owner.as_str())
            .bind(execution.id.as_str())
            .bind(&artifact.artifact_type)
            .bind(now)
            .bind(data)
            .execute(db)
            .await
            .map(|done| done.rows_affected()))?;
        if kept == 1 { Ok(Ok(())) } else { left_out("its uid is taken") }
    }

    /// Whether the parts add up to the content promised. Parts that do not are thrown away, so that nobody can
    /// have the same ones read again and again.
    async fn is_whole(
        &mut self,
        execution: &ExecutionRow,
        artifact: &Artifact,
    ) -> Result<bool, StoreError> {
        const SIZE: &str = "select cast(coalesce(sum(length(content)), 0) as bigint)
             from artifact_parts where execution_id = $1 and artifact_uid = $2";
        const DROP: &str =
            "delete from artifact_parts where execution_id = $1 and artifact_uid = $2";
        let (id, uid) = (execution.id.as_str(), artifact.artifact_uid.as_str());
        let size: i64 =
            on_tx!(self, |db| sqlx::query_scalar(SIZE).bind(id).bind(uid).fetch_one(db).await)?;
        if artifact.size_bytes == u64::try_from(size).ok()
            && artifact.sha256.as_ref() == Some(&self.digest(execution, uid).await?)
        {
            return Ok(true);
        }
        on_tx!(self, |db| sqlx::query(DROP).bind(id).bind(uid).execute(db).await.map(|_| ()))?;
        Ok(false)
    }

    /// Hex SHA-256 of the parts in order, one part in memory at a time.
    async fn digest(&mut self, execution: &ExecutionRow, uid: &str) -> Result<String, StoreError> {
        use futures_util::TryStreamExt;
        const SQL: &str = "select content from artifact_parts
             where execution_id = $1 and artifact_uid = $2 order by part";
        let mut hash = Sha256::new();
        on_tx!(self, |db| {
            let mut parts = sqlx::query_scalar::<_, Vec<u8>>(SQL)
                .bind(execution.id.as_str())
                .bind(uid)
                .fetch(db);
            while let Some(part) = parts.try_next().await? {
                hash.update(&part);
            }
        });
        Ok(hex::encode(hash.finalize()))
    }
}
