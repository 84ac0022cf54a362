//! `ozma exec`: the harness without a plane and without a container.

mod flags;
mod interrupts;
mod killed;
mod wrong;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use test_support::model::Model;

/// A key that must stand nowhere in what a run leaves.
const KEY: &str = "sk-of-the-test-0123456789";

/// A home, a project and a folder of programs.
struct Rig(TempDir);

impl Rig {
    fn new() -> Self {
        let rig = Self(tempfile::tempdir().unwrap());
        for folder in ["project", "bin", ".config/ozma/models", ".config/ozma/agents"] {
            fs::create_dir_all(rig.path(folder)).unwrap();
        }
        rig
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn program(&self, name: &str, script: &str) {
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        let path = self.path(&format!("bin/{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, args: &[&str], vars: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ozma"));
        command.arg("exec").args(args).current_dir(self.path("project")).env_clear();
        command.env("HOME", self.0.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.envs(vars.iter().copied()).stdin(Stdio::null());
        command
    }

    fn exec(&self, args: &[&str], vars: &[(&str, &str)]) -> Output {
        self.command(args, vars).output().unwrap()
    }

    /// The evidence of the only run.
    fn evidence(&self) -> PathBuf {
        let runs = fs::read_dir(self.path("project/.workbench/runs")).unwrap();
        let runs = runs.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        let runs: Vec<PathBuf> = runs.collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.into_iter().next().unwrap()
    }

    fn summary(&self) -> Value {
        read_json(&self.evidence().join("summary.json"))
    }
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn out(done: &Output) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

fn err(done: &Output) -> String {
    String::from_utf8(done.stderr.clone()).unwrap()
}

fn code(done: &Output) -> i32 {
    done.status.code().unwrap()
}

#[test]
fn a_program_of_a_model_file_gets_the_agents_word_and_the_prompt() {
    let rig = Rig::new();
    rig.write(".config/ozma/models/loud.toml", "command = \"tr\"\nargs = [\"a-z\", \"A-Z\"]\n");
    rig.write(
        "project/.autopilot/agents/shout.md",
        "---\nmodel: loud\noutput_format: answer\n---\nBe loud.\n",
    );
    let done = rig.exec(&["shout", "it's", "$HOME"], &[]);
    assert_eq!((code(&done), out(&done).as_str()), (0, "BE LOUD.\n\nIT'S $HOME\n"), "{done:?}");
    let summary = rig.summary();
    assert_eq!(summary["exit"]["success"], true);
    assert_eq!(summary["complete"], true);
    assert_eq!(summary["provider"], "command");
    let mode = |path: &str| fs::metadata(rig.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("project/.workbench"), 0o700);
    assert_eq!(fs::read_to_string(rig.path("project/.workbench/runs/.gitignore")).unwrap(), "*\n");
}

#[test]
fn the_prompt_is_an_argument_where_the_model_file_says_so() {
    let rig = Rig::new();
    rig.write(
        ".config/ozma/models/said.toml",
        "command = \"printf\"\nargs = [\"<%s>\"]\nprompt_mode = \"arg\"\n",
    );
    rig.write("prompt.txt", "a 'b' $(c)\n\n");
    let file = rig.path("prompt.txt");
    let args = ["-m", "said", "-o", "answer", "-f", file.to_str().unwrap()];
    let done = rig.exec(&args, &[]);
    assert_eq!((code(&done), out(&done).as_str()), (0, "<a 'b' $(c)\n\n>\n"), "{done:?}");
    let long = "x".repeat(130_000);
    rig.write("prompt.txt", &long);
    let done = rig.exec(&args, &[]);
    assert!(code(&done) == 2 && err(&done).contains("prompt_mode"), "{done:?}");
}

#[test]
fn the_file_comes_before_the_arguments_and_those_before_standard_input() {
    let rig = Rig::new();
    rig.write(".config/ozma/models/cat.toml", "command = \"cat\"\n");
    rig.write("file", "of the file");
    rig.write("input", "of the input");
    let file = rig.path("file");
    let answer = |args: &[&str]| {
        let mut command = rig.command(args, &[]);
        command.args(["-m", "cat", "-o", "answer"]);
        let done = command.stdin(fs::File::open(rig.path("input")).unwrap()).output().unwrap();
        assert_eq!(code(&done), 0, "{done:?}");
        out(&done)
    };
    rig.write(".config/ozma/agents/kind.yaml", "id: k\nrole: kind\n");
    assert_eq!(answer(&["-f", file.to_str().unwrap()]), "of the file\n");
    assert_eq!(
        answer(&["k", "argument", "-f", file.to_str().unwrap()]),
        "Your role: kind.\n\nof the file\n"
    );
    assert_eq!(answer(&["two", "arguments"]), "two arguments\n");
    assert_eq!(answer(&[]), "of the input\n");
    assert_eq!(answer(&["kind"]), "Your role: kind.\n\nof the input\n");
    assert_eq!(answer(&["kind", "-"]), "Your role: kind.\n\nof the input\n");
}

#[tokio::test]
async fn the_built_in_agent_changes_a_file_of_the_project_and_leaves_evidence() {
    let rig = Rig::new();
    let model = Model::start().await;
    let vars = [("OPENAI_BASE_URL", model.base_url("file")), ("OPENAI_API_KEY", KEY.to_owned())];
    let vars: Vec<(&str, &str)> =
        vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let args = ["-m", "agent/some-model", "--json", "write", "it"];
    let mut command = tokio::process::Command::from(rig.command(&args, &vars));
    let done = command.output().await.unwrap();
    assert_eq!(code(&done), 0, "{done:?}");
    let written = fs::read_to_string(rig.path("project/hello.txt")).unwrap();
    assert_eq!(written, "written-by-the-model\n");

    let lines: Vec<Value> =
        out(&done).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (outcome, events) = lines.split_last().unwrap();
    assert_eq!((&outcome["kind"], &outcome["exit_code"]), (&"outcome".into(), &0.into()));
    let evidence = rig.evidence();
    assert_eq!(outcome["evidence"], evidence.canonicalize().unwrap().to_str().unwrap());
    let kept = fs::read_to_string(evidence.join("events.jsonl")).unwrap();
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kept, events);
    let numbers: Vec<u64> = kept.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=kept.len() as u64).collect::<Vec<_>>());
    let summary = rig.summary();
    assert_eq!(summary, outcome["summary"]);
    assert_eq!((&summary["provider"], &summary["model"]), (&"agent".into(), &"some-model".into()));
    assert_eq!(summary["tools"]["shell"]["ok"], 1);
    assert!(summary["tokens"]["input"].as_u64().unwrap() > 0, "{summary}");
    for file in fs::read_dir(&evidence).unwrap() {
        let file = file.unwrap().path();
        assert!(
            !fs::read_to_string(&file).unwrap().contains(KEY),
            "the key is in {}",
            file.display()
        );
    }
}

/// A Claude Code that says what it was asked, and its key, as a model that lists its environment would.
const CLAUDE: &str = r#"
prompt=$(cat)
echo '{"type":"system","subtype":"init","session_id":"0b3f6f0e-6f2e-4b7e-9c55-0d7b8f1c2a3d","model":"m","tools":[],"mcp_servers":[]}'
echo '{"type":"assistant","message":{"content":[{"type":"text","text":"'"$prompt $ANTHROPIC_API_KEY"'"}]}}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"'"$prompt"'","num_turns":1,"usage":{"input_tokens":3,"output_tokens":4}}'
"#;

#[test]
fn a_provider_is_driven_and_its_transcript_kept_without_the_key() {
    let rig = Rig::new();
    rig.program("claude", CLAUDE);
    let none = rig.exec(&["hello"], &[]);
    assert_eq!(code(&none), 1, "{none:?}");
    assert!(out(&none).contains("ANTHROPIC_API_KEY"), "the places are not named: {none:?}");
    fs::remove_dir_all(rig.path("project/.workbench")).unwrap();

    let done = rig.exec(&["-o", "answer", "hello"], &[("ANTHROPIC_API_KEY", KEY)]);
    assert_eq!((code(&done), out(&done).as_str()), (0, "hello\n"), "{done:?}");
    let evidence = rig.evidence();
    let transcript = fs::read_to_string(evidence.join("transcript.jsonl")).unwrap();
    assert_eq!(transcript.lines().count(), 3);
    let summary = rig.summary();
    assert_eq!(summary["session_id"], "0b3f6f0e-6f2e-4b7e-9c55-0d7b8f1c2a3d");
    assert_eq!(summary["artifacts"][0]["name"], "transcript.jsonl");
    assert_eq!(summary["artifacts"][0]["bytes"], transcript.len());
    for file in fs::read_dir(&evidence).unwrap() {
        let file = file.unwrap().path();
        assert!(
            !fs::read_to_string(&file).unwrap().contains(KEY),
            "the key is in {}",
            file.display()
        );
    }
}
