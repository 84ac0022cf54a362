//! What the command-line providers are told of their endpoint, and what becomes of a run whose endpoint wants to be
//! left alone. Scripts stand in for them.

use std::fs;

use protocol::{
    failure::FailureReason as R,
    secret::Secret,
    spec::{Auth, Endpoint, HttpEndpoint, ProviderKind},
};

use crate::{cli::stub, run::Run};

const HEADER: &str = "planted-in-a-header";

type Wire = fn(HttpEndpoint) -> Endpoint;

fn with(run: &mut Run, endpoint: Wire, auth: Auth) {
    run.launch.harness.endpoint = Some(endpoint(HttpEndpoint {
        base_url: "http://127.0.0.1:9".to_owned(),
        api_key: Some(Secret::new("marked-key")),
        auth,
        headers: [("x-team".to_owned(), Secret::new(HEADER))].into(),
        model: "m".to_owned(),
    }));
}

/// Headers and the kind of the key, by the names that each really reads.
#[tokio::test]
async fn headers_and_the_kind_of_the_key_arrive() {
    use Endpoint::{Anthropic, Gemini, OpenaiChat, OpenaiResponses};
    use ProviderKind as P;
    let cases: [(_, Wire, _, &[&str]); 9] = [
        (P::Claude, Anthropic, Auth::ApiKey, &["ANTHROPIC_API_KEY=marked-key"]),
        (P::Claude, Anthropic, Auth::Bearer, &["ANTHROPIC_AUTH_TOKEN=marked-key"]),
        (P::Claude, Anthropic, Auth::Oauth, &["CLAUDE_CODE_OAUTH_TOKEN=marked-key"]),
        (P::Codex, OpenaiResponses, Auth::Bearer, &["OZMA_MODEL_KEY=marked-key"]),
        (P::Opencode, OpenaiChat, Auth::Bearer, &[r#""apiKey":"{env:OZMA_MODEL_KEY}""#]),
        (P::Opencode, Anthropic, Auth::Bearer, &[r#""authToken":"{env:OZMA_MODEL_KEY}""#]),
        (
            P::Opencode,
            Gemini,
            Auth::Bearer,
            &[
                r#""apiKey":"{env:OZMA_MODEL_KEY}""#,
                r#""Authorization":"Bearer {env:OZMA_MODEL_KEY}""#,
            ],
        ),
        (P::Gemini, Gemini, Auth::ApiKey, &["GEMINI_API_KEY=marked-key"]),
        (P::Gemini, Gemini, Auth::Bearer, &["GEMINI_API_KEY_AUTH_MECHANISM=bearer"]),
    ];
    for (provider, endpoint, auth, expected) in cases {
        let script = "#!/bin/sh\nenv > seen; cat \"$CODEX_HOME/config.toml\" >> seen 2>/dev/null\n";
        let mut run = stub(provider, script);
        with(&mut run, endpoint, auth);
        run.finish().await;
        let seen = fs::read_to_string(run.folder.path().join("seen")).unwrap();
        let header = match provider {
            P::Claude => format!("ANTHROPIC_CUSTOM_HEADERS=x-team: {HEADER}"),
            P::Codex => format!("x-team = \"{HEADER}\""),
            P::Opencode => format!(r#""x-team":"{HEADER}""#),
            _ => format!("GEMINI_CLI_CUSTOM_HEADERS=x-team: {HEADER}"),
        };
        for expected in expected.iter().copied().chain([header.as_str()]) {
            assert!(seen.contains(expected), "{provider:?} {auth:?}: no {expected} in {seen}");
        }
    }
}

#[tokio::test]
async fn what_a_provider_cannot_be_told_is_refused_before_it_starts() {
    let begun = "#!/bin/sh\ntouch begun\n";
    let mut oauth = stub(ProviderKind::Gemini, begun);
    with(&mut oauth, Endpoint::Gemini, Auth::Oauth);
    let mut header = stub(ProviderKind::Gemini, begun);
    with(&mut header, Endpoint::Gemini, Auth::ApiKey);
    if let Some(Endpoint::Gemini(http)) = &mut header.launch.harness.endpoint {
        http.headers.insert("x-list".to_owned(), Secret::new("hidden, hidden: hidden"));
    }
    for (run, named) in [(oauth, "auth = \"oauth\""), (header, "x-list")] {
        let (_, exit) = run.finish().await;
        assert_eq!(exit.reason, Some(R::AgentInvocation));
        assert!(exit.message.contains(named) && !exit.message.contains("hidden"), "{exit:?}");
        assert!(!run.folder.path().join("begun").exists());
    }
}

/// As Claude Code and Codex were seen to say it, before an endless pause.
#[tokio::test]
async fn silence_after_a_rate_limit_is_a_rate_limit() {
    let claude = r#"{"type":"system","subtype":"api_retry","attempt":1,"retry_delay_ms":60000,"error_status":429,"error":"rate_limit"}"#;
    let codex =
        |why: &str| format!(r#"{{"type":"error","message":"Reconnecting... 1/3 ({why})"}}"#);
    let limit = codex("exceeded retry limit, last status: 429 Too Many Requests");
    let broken = codex("stream disconnected before completion: error sending request");
    let after = format!("{limit}'; echo '{}", r#"{"type":"turn.started"}"#);
    for (provider, line, reason, wait) in [
        (ProviderKind::Claude, claude, R::RateLimit, Some(60_000)),
        (ProviderKind::Codex, &limit, R::RateLimit, None),
        (ProviderKind::Codex, &broken, R::NetworkError, None),
        (ProviderKind::Codex, &after, R::AgentLimit, None),
        // The other two say nothing of it while they wait.
        (ProviderKind::Opencode, "{}", R::AgentLimit, None),
        (ProviderKind::Gemini, "{}", R::AgentLimit, None),
    ] {
        let mut run = stub(provider, &format!("#!/bin/sh\necho '{line}'\nexec sleep 600\n"));
        run.launch.harness.idle_secs = Some(1);
        let (_, exit) = run.finish().await;
        assert_eq!((exit.reason, exit.retry_after_ms), (Some(reason), wait), "{line}: {exit:?}");
        assert!(exit.message.contains("said nothing for 1 s"), "{exit:?}");
    }
}

/// Claude Code tells of an account's limit when it ends.
#[tokio::test]
async fn an_accounts_limit_says_how_long() {
    let end = r#"{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"limit"}"#;
    for (resets_at, within) in [
        ("$(($(date +%s) + 1000))", 1..=1_000_000),
        ("$(($(date +%s) - 1))", 0..=0),
        ("$(($(date +%s) * 2))", 1..=8 * 24 * 3_600_000),
        ("18446744073709551615", 0..=0),
    ] {
        let script = format!(
            "#!/bin/sh\ncat <<END\n\
             {{\"type\":\"rate_limit_event\",\"rate_limit_info\":{{\"status\":\"rejected\",\"resetsAt\":{resets_at}}}}}\n\
             {end}\nEND\nexit 1\n"
        );
        let (_, exit) = stub(ProviderKind::Claude, &script).finish().await;
        assert_eq!(exit.reason, Some(R::QuotaExhausted), "{exit:?}");
        assert!(within.contains(&exit.retry_after_ms.unwrap_or_default()), "{resets_at}: {exit:?}");
    }
}
