//! Each option of `ozma exec`, and what comes before what.

use std::{fs, process::Stdio};

use serde_json::Value;
use test_support::model::{MCP_TEXT, Model, RESULT_TEXT};

use super::{KEY, Rig, code, err, out};

/// A rig with programs that say what they were given.
fn rig() -> Rig {
    let rig = Rig::new();
    for (name, text) in [
        ("cat", "command = \"cat\"\n"),
        ("pwd", "command = \"pwd\"\n"),
        ("fails", "command = \"sh\"\nargs = [\"-c\", \"echo tried; exit 7\"]\n"),
    ] {
        rig.write(&format!(".config/ozma/models/{name}.toml"), text);
    }
    rig
}

/// What a run answers that must succeed.
fn answer(rig: &Rig, args: &[&str]) -> String {
    let done = rig.exec(&[args, &["-o", "answer"]].concat(), &[]);
    assert_eq!(code(&done), 0, "{args:?}: {done:?}");
    out(&done)
}

#[test]
fn the_project_is_where_the_provider_works_and_agents_are_found() {
    let rig = rig();
    rig.write("other/.autopilot/agents/near.md", "---\nmodel: cat\n---\nOf the other.\n");
    rig.write("project/.autopilot/agents/near.md", "---\nmodel: cat\n---\nOf the project.\n");
    let other = fs::canonicalize(rig.path("other")).unwrap();
    assert_eq!(
        answer(&rig, &["-p", "../other", "-m", "pwd", "x"]).trim_end(),
        other.to_str().unwrap()
    );
    assert_eq!(answer(&rig, &["--project", "../other", "near", "x"]), "Of the other.\n\nx\n");
    assert!(rig.path("other/.workbench/runs").is_dir());
    assert!(!rig.path("project/.workbench").exists(), "evidence is beside the project");
    assert_eq!(answer(&rig, &["near", "x"]), "Of the project.\n\nx\n");
    // A prompt's file and an agent's are of the folder one stands in.
    rig.write("project/prompt.txt", "of the file");
    rig.write("project/a.md", "---\nmodel: cat\n---\nHere.\n");
    let args = ["-p", "../other", "-a", "a.md", "-f", "prompt.txt"];
    assert_eq!(answer(&rig, &args), "Here.\n\nof the file\n");
}

#[test]
fn the_agent_that_is_named_takes_no_word_of_the_prompt() {
    let rig = rig();
    rig.write("an agent.md", "---\nmodel: cat\ndescription: x\n---\nOf a file.\n");
    rig.write(".config/ozma/agents/kind.md", "---\nmodel: cat\n---\nBe kind.\n");
    rig.write(".config/ozma/agents/x.yaml", "id: 7\nname: Seven\nrole: tester\nmodel: cat\n");
    for (args, expected) in [
        (&["-a", "../an agent.md", "kind", "words"][..], "Of a file.\n\nkind words\n"),
        (&["--agent", "kind", "kind", "words"], "Be kind.\n\nkind words\n"),
        (&["kind", "words"], "Be kind.\n\nwords\n"),
        (&["-a", "7", "words"], "Your role: tester.\n\nwords\n"),
        (&["7", "words"], "Your role: tester.\n\nwords\n"),
    ] {
        assert_eq!(answer(&rig, args), expected, "{args:?}");
    }
}

#[test]
fn folders_that_are_named_come_in_place_of_the_usual_ones() {
    let rig = rig();
    rig.write(".config/ozma/agents/a.md", "---\nmodel: cat\n---\nUsual.\n");
    rig.write("agents/a.md", "---\nmodel: cat\n---\nNamed.\n");
    rig.write("project/.autopilot/agents/b.md", "---\nmodel: cat\n---\nOf the project.\n");
    rig.write("models/cat.toml", "command = \"tr\"\nargs = [\"a-z\", \"A-Z\"]\n");
    for (args, expected) in [
        (&["a", "x"][..], "Usual.\n\nx\n"),
        (&["--agents-dir", "../agents", "a", "x"], "Named.\n\nx\n"),
        // A word that names nobody there is a word of the prompt.
        (&["--agents-dir", "../agents", "-m", "cat", "b", "x"], "b x\n"),
        (&["--models-dir", "../models", "a", "x"], "USUAL.\n\nX\n"),
        (&["--models-dir", "../models", "-m", "cat", "x"], "X\n"),
    ] {
        assert_eq!(answer(&rig, args), expected, "{args:?}");
    }
}

#[test]
fn of_several_providers_the_first_that_is_here_or_the_agents_is_taken() {
    let rig = rig();
    let entry = |name: &str, command: &str| {
        format!(
            "[[providers]]\nname = \"{name}\"\ncommand = \"{command}\"\nmodel = \"m-{name}\"\n\
             args = [\"{{model}}/{{variant}}\"]\nprompt_mode = \"arg\"\n"
        )
    };
    let several = ["gone", "first", "second"].map(|name| entry(name, &format!("say-{name}")));
    rig.write(".config/ozma/models/any.toml", &several.concat());
    for name in ["first", "second"] {
        rig.program(&format!("say-{name}"), &format!("printf '%s\\n' {name} \"$@\""));
    }
    for (agent, fields) in [
        ("any", "model: any\nvariant: high\n"),
        ("chosen", "model: any\nprovider: second\n"),
        // One that no entry is named by leaves the choice as it is.
        ("elsewhere", "model: any\nprovider: codex\n"),
    ] {
        rig.write(&format!(".config/ozma/agents/{agent}.yaml"), fields);
    }
    assert_eq!(answer(&rig, &["-m", "any", "x y"]), "first\nm-first/\nx y\n");
    assert_eq!(answer(&rig, &["any", "x"]), "first\nm-first/high\nx\n");
    assert_eq!(answer(&rig, &["chosen", "x"]), "second\nm-second/\nx\n");
    assert_eq!(answer(&rig, &["elsewhere", "x"]), "first\nm-first/\nx\n");
    // Who asks for a model by hand has chosen its provider as well.
    assert_eq!(answer(&rig, &["chosen", "x", "-m", "any"]), "first\nm-first/\nx\n");
}

#[test]
fn what_is_printed_is_the_command_lines_word_then_the_agents() {
    let rig = rig();
    for format in ["text", "json", "answer"] {
        let agent = format!("---\nmodel: cat\noutput_format: {format}\n---\n");
        rig.write(&format!(".config/ozma/agents/{format}.md"), &agent);
    }
    let kind = |args: &[&str]| {
        let done = rig.exec(&[args, &["hello"]].concat(), &[]);
        assert_eq!(code(&done), 0, "{args:?}: {done:?}");
        let said = out(&done);
        let lines: Result<Vec<Value>, _> = said.lines().map(serde_json::from_str).collect();
        match lines {
            Ok(lines) if lines.last().is_some_and(|line| line["kind"] == "outcome") => "json",
            _ if said == "hello\n" => "answer",
            _ if said.starts_with("run ") && said.contains("evidence in ") => "text",
            _ => panic!("{args:?}: {said}"),
        }
    };
    for (args, expected) in [
        (&["-m", "cat"][..], "text"),
        (&["text"], "text"),
        (&["json"], "json"),
        (&["answer"], "answer"),
        (&["answer", "--json"], "json"),
        (&["json", "-o", "answer"], "answer"),
        (&["json", "--output", "text"], "text"),
    ] {
        assert_eq!(kind(args), expected, "{args:?}");
    }
}

#[test]
fn a_program_that_fails_ends_with_1_in_every_format() {
    for format in ["text", "json", "answer"] {
        let rig = rig();
        let done = rig.exec(&["-m", "fails", "-o", format, "x"], &[]);
        assert_eq!(code(&done), 1, "{done:?}");
        assert!(format!("{}{}", out(&done), err(&done)).contains("FAILED"), "{done:?}");
        if format == "json" {
            let said = out(&done);
            let outcome: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
            assert_eq!((&outcome["state"], &outcome["exit_code"]), (&"FAILED".into(), &1.into()));
            assert_eq!(outcome["summary"]["exit"]["code"], 7);
        } else {
            assert!(out(&done).contains("tried"), "{done:?}");
        }
        assert_eq!(rig.summary()["exit"]["reason"], "agent_exit");
    }
}

#[tokio::test]
async fn servers_of_a_file_are_offered_to_the_provider() {
    const OF_SERVER: &str = "key-of-the-server-0123456789";
    let rig = rig();
    let flow = concat!(env!("CARGO_MANIFEST_DIR"), "/../test-support/mcp/flow.pl");
    let server = serde_json::json!({"mcpServers": {
        "flow": {"command": "perl", "args": [flow], "env": {"TOKEN": OF_SERVER}}}});
    rig.write("project/mcp.json", &server.to_string());
    let model = Model::start().await;
    let vars = [("OPENAI_BASE_URL", model.base_url("mcp")), ("OPENAI_API_KEY", KEY.to_owned())];
    let vars: Vec<(&str, &str)> =
        vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let args = ["-m", "agent/some-model", "--mcp", "mcp.json", "-o", "answer", "use it"];
    let mut command = tokio::process::Command::from(rig.command(&args, &vars));
    let done = command.stdin(Stdio::null()).output().await.unwrap();
    assert_eq!(code(&done), 0, "{done:?}");
    assert!(out(&done).starts_with(RESULT_TEXT) && out(&done).contains(MCP_TEXT), "{done:?}");
    assert_eq!(rig.summary()["tools"]["flow.echo"]["ok"], 1, "{}", rig.summary());
    for file in fs::read_dir(rig.evidence()).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(OF_SERVER) && !text.contains(KEY), "{text}");
    }
    // To a program that knows none they are not given, and it is said.
    let done = rig.exec(&["-m", "cat", "--mcp", "mcp.json", "x"], &[]);
    assert!(code(&done) == 0 && err(&done).contains("gets no MCP servers"), "{done:?}");
}
