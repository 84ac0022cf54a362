//! The command-line providers without their programs: scripts that stand in for them, and none at all.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use protocol::{
    event::Event,
    failure::FailureReason as R,
    secret::Secret,
    sidecar::TRANSCRIPT_FILE,
    spec::{Endpoint, HttpEndpoint, McpServer, ProviderKind},
};

use test_support::wait::eventually;

use crate::run::Run;

const ALL: [ProviderKind; 4] =
    [ProviderKind::Claude, ProviderKind::Codex, ProviderKind::Opencode, ProviderKind::Gemini];

/// The provider's own word of success, and before it `lines`.
fn success(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::Claude => r#"{"type":"result","subtype":"success","result":"done"}"#,
        ProviderKind::Codex => r#"{"type":"turn.completed","usage":{}}"#,
        ProviderKind::Opencode => r#"{"type":"step_finish","part":{"reason":"stop"}}"#,
        _ => r#"{"type":"result","status":"success"}"#,
    }
}

/// A run whose program is `script`, found on a search path of its own.
pub(crate) fn stub(provider: ProviderKind, script: &str) -> Run {
    let mut run = Run::new(provider);
    let http = HttpEndpoint {
        base_url: "http://127.0.0.1:9".to_owned(),
        api_key: Some(Secret::new("marked-key")),
        model: "m".to_owned(),
        ..HttpEndpoint::default()
    };
    run.launch.harness.endpoint = Some(match provider {
        ProviderKind::Claude => Endpoint::Anthropic(http),
        ProviderKind::Codex => Endpoint::OpenaiResponses(http),
        ProviderKind::Opencode => Endpoint::OpenaiChat(http),
        _ => Endpoint::Gemini(http),
    });
    let bin = run.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let program = bin.join(provider.as_str());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    run.launch.env.insert("PATH".to_owned(), Secret::new(path));
    let home = run.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    run.launch.env.insert("HOME".to_owned(), Secret::new(home.display().to_string()));
    run
}

fn with_servers(run: &mut Run) {
    let stdio = McpServer::Stdio {
        command: "server".to_owned(),
        args: vec!["--flag".to_owned()],
        env: [("TOKEN".to_owned(), Secret::new("planted-in-env"))].into(),
    };
    let http = McpServer::Http {
        url: "http://127.0.0.1:9/mcp".to_owned(),
        headers: [("x-token".to_owned(), Secret::new("planted-in-header"))].into(),
    };
    run.launch.harness.mcp_servers = [("local".to_owned(), stdio), ("web".to_owned(), http)].into();
}

/// Every file below a folder, links not followed.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            found.push((entry.path().display().to_string(), text));
        }
    }
    found
}

fn transcript(run: &Run) -> String {
    let path = Path::new(&run.launch.state_directory).join(TRANSCRIPT_FILE);
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

#[tokio::test]
async fn a_missing_program_says_how_to_have_it() {
    for provider in ALL {
        let name = provider.as_str();
        let mut run = stub(provider, "");
        run.launch.env.insert("PATH".to_owned(), Secret::new("/nowhere"));
        let (_, exit) = run.finish().await;
        assert_eq!(exit.reason, Some(R::AgentInvocation));
        let fix = format!("`ozma harness build {name}`");
        assert!(exit.message.contains("not on its PATH") && exit.message.contains(&fix));

        let run = stub(provider, "#!/nowhere/node\n");
        let (_, exit) = run.finish().await;
        assert_eq!(exit.reason, Some(R::AgentInvocation));
        assert!(exit.message.contains("its interpreter") && exit.message.contains(&fix));

        let run = stub(provider, "#!/bin/sh\nexec node-of-nowhere\n");
        let (_, exit) = run.finish().await;
        assert_eq!(exit.reason, Some(R::AgentInvocation), "{}", exit.message);
        assert!(exit.message.contains("not found"), "{}", exit.message);

        let mut run = stub(provider, "#!/bin/sh\n");
        run.launch.directory = "/nowhere".to_owned();
        let (_, exit) = run.finish().await;
        assert!(exit.message.contains("there is no folder /nowhere"), "{}", exit.message);
    }
}

#[tokio::test]
async fn what_is_printed_is_kept_without_secrets() {
    for provider in ALL {
        let script = format!(
            "#!/bin/sh\necho '{{\"type\":\"new\",\"key\":\"marked-key\"}}'\necho 'a marked-key' >&2\n\
             printf 'half \\377 planted-in-env'\necho\necho '{}'\n",
            success(provider)
        );
        let mut run = stub(provider, &script);
        with_servers(&mut run);
        let (events, exit) = run.finish().await;
        assert!(exit.success, "{exit:?} {events:?}");
        let kept = transcript(&run);
        let expected = format!(
            "{{\"type\":\"new\",\"key\":\"[secret]\"}}\nhalf \u{fffd} [secret]\n{}\n",
            success(provider)
        );
        assert_eq!(kept, expected);
        let told = serde_json::to_string(&events).unwrap();
        assert!(!told.contains("marked-key") && told.contains("a [secret]"), "{told}");
        assert!(events.iter().any(|event| matches!(event, Event::Raw { .. })), "{told}");
    }
}

#[tokio::test]
async fn secrets_are_no_arguments_and_leave_with_the_run() {
    for provider in ALL {
        // What it finds it writes down where the test looks, past everything that hides secrets.
        let script = format!(
            "#!/bin/sh\nfor arg; do echo \"$arg\"; done > args\nenv > env\n\
             mkdir -p seen; cp -r state/{name}/. seen/ 2>/dev/null\necho '{}'\n",
            success(provider),
            name = provider.as_str(),
        );
        let mut run = stub(provider, &script);
        with_servers(&mut run);
        let folder = run.folder.path().to_owned();
        run.launch.session_directory = folder.join("kept").display().to_string();
        let own = folder.join("state").join(provider.as_str());
        // As a harness that was killed leaves it.
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("mcp.json"), "planted-in-env of another run").unwrap();
        let (events, exit) = run.finish().await;
        assert!(exit.success, "{exit:?} {events:?}");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let args = read("args");
        assert!(!args.contains("planted") && !args.contains("marked-key"), "{args}");
        let given = [read("env"), format!("{:?}", files(&folder.join("seen")))].concat();
        for secret in ["planted-in-env", "planted-in-header", "marked-key"] {
            assert!(given.contains(secret), "{provider:?} is not given {secret}");
        }
        assert!(!given.contains("of another run"));
        assert!(!own.exists(), "{provider:?}");
        for (path, text) in files(&folder.join("state")).iter().chain(&files(&folder.join("kept")))
        {
            assert!(!text.contains("planted") && !text.contains("marked"), "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn sessions_are_in_the_kept_folder_and_found_there_again() {
    for (provider, place) in [
        (ProviderKind::Claude, "$CLAUDE_CONFIG_DIR/projects/p"),
        (ProviderKind::Codex, "$CODEX_HOME/sessions/p"),
        (ProviderKind::Opencode, "${OPENCODE_DB%/*}/p"),
        (ProviderKind::Gemini, "$GEMINI_CLI_HOME/.gemini/tmp/p"),
    ] {
        let script = format!(
            "#!/bin/sh\ncat {place} 2>/dev/null >> found\necho \"kept by $0\" > {place}\n\
             case \"$*\" in *the-session*) echo resumed >> found;; esac\necho '{}'\n",
            success(provider)
        );
        let mut run = stub(provider, &script);
        let folder = run.folder.path().to_owned();
        run.launch.session_directory = folder.join("kept").display().to_string();
        assert!(run.finish().await.1.success);
        assert_eq!(files(&folder.join("kept")).len(), 1, "{provider:?}");
        // Another container: another folder for everything else.
        run.launch.state_directory = folder.join("state-2").display().to_string();
        run.launch.harness.resume = Some("the-session".to_owned());
        assert!(run.finish().await.1.success);
        let found = fs::read_to_string(folder.join("found")).unwrap();
        assert!(found.contains("kept by") && found.contains("resumed"), "{provider:?}: {found}");
    }
}

#[tokio::test]
async fn a_users_own_configuration_is_seen_and_never_changed() {
    for (provider, file, seen) in [
        (ProviderKind::Claude, ".claude/CLAUDE.md", "$CLAUDE_CONFIG_DIR/CLAUDE.md"),
        (ProviderKind::Codex, ".codex/AGENTS.md", "$CODEX_HOME/AGENTS.md"),
        (ProviderKind::Codex, ".codex/config.toml", "$CODEX_HOME/config.toml"),
        (ProviderKind::Gemini, ".gemini/GEMINI.md", "$GEMINI_CLI_HOME/.gemini/GEMINI.md"),
    ] {
        let script = format!("#!/bin/sh\ncat {seen} > seen\nexec sleep 600\n");
        let mut run = stub(provider, &script);
        with_servers(&mut run);
        let folder = run.folder.path().to_owned();
        run.launch.session_directory = folder.join("kept").display().to_string();
        let own = folder.join("home").join(file);
        fs::create_dir_all(own.parent().unwrap()).unwrap();
        let text = "# ours = \"é\"\nmine = 1\n";
        fs::write(&own, text).unwrap();
        // Ended in the middle of the run, as far as the harness can be.
        let cancel = run.cancel.clone();
        let look = async {
            eventually("it looks", async || {
                fs::read_to_string(folder.join("seen")).ok().filter(|seen| !seen.is_empty())
            })
            .await;
            assert_eq!(fs::read_to_string(&own).unwrap(), text);
            cancel.cancel();
        };
        let ((_, exit), ()) = tokio::join!(run.finish(), look);
        assert_eq!(exit.reason, Some(R::TaskCancelled));
        let seen = fs::read_to_string(folder.join("seen")).unwrap();
        assert!(seen.contains("mine = 1"), "{provider:?}: {seen}");
        assert_eq!(fs::read_to_string(&own).unwrap(), text);
        assert_eq!(files(&folder.join("home")).len(), 1);
    }
}

#[tokio::test]
async fn one_that_is_silent_or_left_behind_is_ended() {
    let mut run = stub(ProviderKind::Claude, "#!/bin/sh\nexec sleep 600\n");
    run.launch.harness.idle_secs = Some(1);
    let (_, exit) = run.finish().await;
    assert_eq!(exit.reason, Some(R::AgentLimit));
    assert!(exit.message.contains("said nothing for 1 s"), "{}", exit.message);
    // One that has given its final word and does not go.
    let script = format!("#!/bin/sh\necho '{}'\nexec sleep 600\n", success(ProviderKind::Claude));
    let mut run = stub(ProviderKind::Claude, &script);
    run.launch.harness.idle_secs = Some(1);
    let (_, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    // A child in a group of its own that holds its output and talks without a pause.
    let script = format!(
        "#!/bin/sh\nsetsid sh -c 'echo $$ > pid; while :; do echo flood; done' &\n\
         while [ ! -s pid ]; do :; done\necho '{}'\n",
        success(ProviderKind::Claude)
    );
    let run = stub(ProviderKind::Claude, &script);
    let (_, exit) = run.finish().await;
    let pid = fs::read_to_string(run.folder.path().join("pid")).unwrap();
    let group = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    // Its next word may have ended it already: nobody holds the other end.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    assert!(exit.success, "{exit:?}");
}

#[tokio::test]
async fn nothing_goes_on_when_a_run_is_dropped_in_the_middle() {
    let command = "sleep 600 & echo $! > child; mv child pid; wait";
    let runs =
        [stub(ProviderKind::Claude, &format!("#!/bin/sh\n{command}\n")), Run::command(command)];
    for run in runs {
        let pid = run.folder.path().join("pid");
        let (sender, _events) = tokio::sync::mpsc::channel(64);
        tokio::select! {
            exit = harness::run(run.launch.clone(), sender, run.cancel.clone()) => panic!("{exit:?}"),
            () = eventually("it sleeps", async || pid.exists().then_some(())) => {}
        }
        let pid = fs::read_to_string(&pid).unwrap();
        // Whoever is gone and not yet waited for has no command line either.
        let line = format!("/proc/{}/cmdline", pid.trim());
        let lives = || fs::read(&line).is_ok_and(|line| !line.is_empty());
        eventually("its child is gone", async || (!lives()).then_some(())).await;
    }
}

#[tokio::test]
async fn its_own_interrupt_comes_first() {
    // A loop of short programs would not do: a shell that is just starting one may lose the signal.
    let script = "#!/bin/sh\ntrap 'echo interrupted > word; exit 0' INT\nsleep 600 >/dev/null 2>&1 &\n\
                  echo '{\"type\":\"x\"}'\nwait\n";
    for provider in ALL {
        let run = stub(provider, script);
        let cancel = run.cancel.clone();
        // Its own word, which it says when it is ready: a notice of ours may come before.
        let spoke = |event: &Event| matches!(event, Event::Raw { .. } | Event::Output { .. });
        let (_, exit) = run
            .watch(|event| {
                if spoke(event) {
                    cancel.cancel();
                }
            })
            .await;
        assert_eq!(exit.reason, Some(R::TaskCancelled));
        let word = fs::read_to_string(run.folder.path().join("word")).unwrap();
        assert_eq!(word, "interrupted\n");
    }
}

#[tokio::test]
async fn a_session_that_would_be_an_option_is_gone() {
    for provider in ALL {
        for session in ["--mcp-config=x", "", "a b", "../x"] {
            let mut run = stub(provider, "#!/bin/sh\ntouch begun\n");
            run.launch.harness.resume = Some(session.to_owned());
            let (_, exit) = run.finish().await;
            assert_eq!(exit.reason, Some(R::SessionGone), "{session}");
            assert!(!run.folder.path().join("begun").exists());
        }
    }
}

/// What each says of a session it does not have, as it was seen.
#[tokio::test]
async fn a_session_the_provider_does_not_have_is_gone() {
    for (provider, script) in [
        (
            ProviderKind::Claude,
            "echo '{\"type\":\"result\",\"subtype\":\"error_during_execution\",\"is_error\":true,\
             \"errors\":[\"No conversation found with session ID: x\"]}'; exit 1",
        ),
        (
            ProviderKind::Codex,
            "echo 'Error: thread/resume failed: no rollout found for thread id x' >&2; exit 1",
        ),
        (ProviderKind::Opencode, "echo 'Error: Session not found' >&2; exit 1"),
        (
            ProviderKind::Gemini,
            "echo 'Error resuming session: No previous sessions found for this project.' >&2; exit 42",
        ),
    ] {
        let mut run = stub(provider, &format!("#!/bin/sh\n{script}\n"));
        run.launch.harness.resume = Some("01a1fcc8-3f69-7d02-9c96-f09539a8f01f".to_owned());
        let (_, exit) = run.finish().await;
        assert_eq!(exit.reason, Some(R::SessionGone), "{exit:?}");
    }
}

/// The name of the smaller runner for it.
#[tokio::test]
async fn claude_code_in_place_of_the_agent() {
    let script = format!(
        "#!/bin/sh\necho \"$ANTHROPIC_BASE_URL $ANTHROPIC_API_KEY $*\" > called\necho '{}'\n",
        success(ProviderKind::Claude)
    );
    let mut run = stub(ProviderKind::Claude, &script);
    run.launch.harness.provider = ProviderKind::Agent;
    // The worker's own for the agent, which must not be lent.
    run.launch.harness.endpoint = Some(Endpoint::OpenaiChat(HttpEndpoint {
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        api_key: Some(Secret::new("marked-key")),
        ..HttpEndpoint::default()
    }));
    for (name, value) in [
        ("WORKBENCH_PROVIDER", "claude-code"),
        ("WORKBENCH_ANTHROPIC_API_KEY", "own-key"),
        ("WORKBENCH_CLAUDE_MODEL", "opus"),
    ] {
        run.launch.env.insert(name.to_owned(), Secret::new(value));
    }
    let (_, exit) = run.finish().await;
    assert!(exit.success, "{exit:?}");
    let called = fs::read_to_string(run.folder.path().join("called")).unwrap();
    assert!(called.starts_with("https://api.anthropic.com own-key "), "{called}");
    assert!(called.contains("--model opus") && !called.contains("marked-key"), "{called}");
}
