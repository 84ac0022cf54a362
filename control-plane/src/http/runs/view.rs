//! From a stored run to the SDKs' `RunItem`.

use protocol::{
    api::{
        artifacts::{ArtifactItem, FileData, PullRequestData},
        config::AgentConfig,
        runs::{FailedAttempt, RunItem, RunPolicy, StatusMessage},
        time::Timestamp,
    },
    failure::FailureReason,
    retry::FailureClass,
    run::RunState,
};

use crate::{
    environments::EnvironmentSpec,
    http::{
        download::{content_type, file_name},
        error::ApiError,
    },
    runs::{Attempt, Run, StoredArtifact},
};

pub(super) fn item(
    run: Run,
    artifacts: Vec<StoredArtifact>,
    attempts: Vec<Attempt>,
    now: i64,
) -> Result<RunItem, ApiError> {
    let config: AgentConfig = serde_json::from_str(&run.config).map_err(|error| {
        ApiError::Internal(anyhow::Error::new(error).context("read a run's config"))
    })?;
    let status_message = status_message(&run);
    let time = |at: Option<i64>| at.map(Timestamp);
    Ok(RunItem {
        task_id: run.id.clone(),
        run_id: run.id,
        title: run.title,
        state: run.state,
        prompt: run.prompt,
        created_at: Timestamp(run.created_at),
        updated_at: Timestamp(run.updated_at),
        started_at: run.started_at.map(Timestamp),
        status_message,
        agent_config: Some(config),
        artifacts: artifacts.into_iter().filter_map(artifact_item).collect(),
        parent_run_id: run.parent_run_id,
        conversation_id: Some(run.conversation_id),
        // The SDKs read a UUID here.
        session_id: run.session_id.filter(|id| uuid::Uuid::try_parse(id).is_ok()),
        metadata: (!run.metadata.is_empty()).then_some(run.metadata),
        source: Some(run.source),
        execution_location: Some("REMOTE".to_owned()),
        is_sandbox_running: Some(run.state == RunState::Inprogress),
        is_run_type_cancellable: Some(true),
        run_time: run.started_at.map(|from| duration(run.ended_at.unwrap_or(now) - from)),
        attempt: run.attempt,
        cancelling: run.cancelling,
        phases: run.phases,
        exit_code: run.exit_code,
        peak_memory_bytes: run.peak_memory_bytes,
        execution_id: run.execution_id,
        worker_host: run.worker_id.map(String::from),
        attempts: attempts.into_iter().filter_map(failed).collect(),
        max_attempts: run.max_attempts,
        next_attempt_at: time(run.next_attempt_at),
        queue_until: time(run.queue_until),
        priority: run.priority,
        policy: None,
    })
}

/// What holds for a run, from the copy it keeps of its environment.
pub(super) fn policy(spec: EnvironmentSpec) -> RunPolicy {
    let timeouts = spec.timeouts.resolved();
    let retry_on = FailureClass::ALL.into_iter();
    RunPolicy {
        timeout_secs: timeouts.run_secs,
        setup_timeout_secs: timeouts.setup_secs,
        image_timeout_secs: timeouts.image_secs,
        queue_timeout_secs: timeouts.queue_secs,
        retry_on: retry_on.filter(|class| spec.retry.includes(*class)).collect(),
        worker_tags: spec.worker_tags,
    }
}

/// The answer of a run that went well, and why another did not.
fn status_message(run: &Run) -> Option<StatusMessage> {
    let failed = matches!(run.state, RunState::Failed | RunState::Error);
    let message = match run.state {
        RunState::Succeeded => run.answer.clone().or_else(|| run.message.clone()),
        _ => run.message.clone().or_else(|| run.reason.map(|reason| reason.to_string())),
    };
    Some(StatusMessage {
        message: message?,
        error_code: run.reason.filter(|_| failed).map(|reason| reason.error_code().to_owned()),
        retryable: run.reason.filter(|_| failed).map(FailureReason::retryable),
    })
}

fn failed(attempt: Attempt) -> Option<FailedAttempt> {
    Some(FailedAttempt {
        attempt: attempt.attempt,
        reason: attempt.reason?.to_string(),
        message: attempt.message.unwrap_or_default(),
        execution_id: Some(attempt.execution_id),
        worker_host: Some(attempt.worker_id.into()),
        assigned_at: Some(Timestamp(attempt.assigned_at)),
        ended_at: Some(Timestamp(attempt.ended_at)),
        exit_code: attempt.exit_code,
        peak_memory_bytes: attempt.peak_memory_bytes,
    })
}

/// `None` for a type the SDKs do not know.
pub(in crate::http) fn artifact_item(stored: StoredArtifact) -> Option<ArtifactItem> {
    let created_at = Timestamp(stored.created_at);
    let artifact = stored.artifact;
    match artifact.artifact_type.as_str() {
        "FILE" => {
            let filename = file_name(artifact.filename.as_deref());
            let data = FileData {
                artifact_uid: artifact.artifact_uid,
                filepath: artifact.filepath.unwrap_or_else(|| filename.clone()),
                filename,
                mime_type: content_type(artifact.mime_type.as_deref()).to_owned(),
                description: artifact.description,
                size_bytes: artifact.size_bytes,
            };
            Some(ArtifactItem::File { created_at, data })
        }
        "PULL_REQUEST" => {
            let data =
                PullRequestData { url: artifact.url?, branch: artifact.branch.unwrap_or_default() };
            Some(ArtifactItem::PullRequest { created_at, data })
        }
        _ => None,
    }
}

/// An ISO 8601 duration: `PT1H2M3.456S`.
fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let (hours, minutes) = (ms / 3_600_000, ms / 60_000 % 60);
    let (seconds, milli) = (ms / 1_000 % 60, ms % 1_000);
    let part = |n: i64, unit: &str| if n == 0 { String::new() } else { format!("{n}{unit}") };
    format!("PT{}{}{seconds}.{milli:03}S", part(hours, "H"), part(minutes, "M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_without_folders_and_typed_plainly() {
        let artifact = serde_json::json!({"artifact_uid": "u", "artifact_type": "FILE",
            "filename": "../../etc/a\r\nb", "mime_type": "text/html\r\nX: y"});
        let stored = StoredArtifact {
            run_id: "r".parse().unwrap(),
            execution_id: "e".parse().unwrap(),
            created_at: 0,
            artifact: serde_json::from_value(artifact).unwrap(),
        };
        let Some(ArtifactItem::File { data, .. }) = artifact_item(stored) else { panic!("a file") };
        assert_eq!(
            (data.filename.as_str(), data.mime_type.as_str()),
            ("ab", "application/octet-stream")
        );
    }

    #[test]
    fn a_run_time_is_an_iso_duration() {
        assert_eq!(duration(150_500), "PT2M30.500S");
        assert_eq!(duration(3_600_000), "PT1H0.000S");
        assert_eq!(duration(-1), "PT0.000S");
    }
}
