//! `ozma exec` that dies without a word: the next one removes what it left, and nothing of the user's has changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use test_support::{process::Process, wait::eventually};

use super::{KEY, Rig, code};

/// In the configuration that is made for a provider.
const OF_SERVER: &str = "key-of-the-server-0123456789";

/// Each provider, the variable of its key, and whether its servers are written into a file.
const PROVIDERS: [(&str, &str, bool); 4] = [
    ("claude", "ANTHROPIC_API_KEY", true),
    ("codex", "CODEX_API_KEY", true),
    ("opencode", "OPENAI_API_KEY", false),
    ("gemini", "GEMINI_API_KEY", true),
];

/// Changes the configuration it finds as the real ones do, and goes on for as long as it has a parent.
const PROVIDER: &str = r#"
for file in "$CODEX_HOME/config.toml" "$GEMINI_CLI_HOME/.gemini/settings.json"; do
    [ -f "$file" ] && echo >>"$file"
done
echo $$ >pid
while [ -d /proc/$PPID ]; do sleep 0.05; done
"#;

/// What users keep in their homes, and a provider could change.
const OF_THE_USER: [(&str, &str); 8] = [
    (".claude.json", "{}"),
    (".claude/settings.json", "{}"),
    (".codex/auth.json", "{\"OPENAI_API_KEY\": \"of the user\"}"),
    (".codex/config.toml", "model = \"of-the-user\"\n"),
    (".codex/sessions/2026/11/21/rollout.jsonl", "{}\n"),
    (".config/opencode/opencode.json", "{}"),
    (".gemini/settings.json", "{\"ui\": {\"theme\": \"Default\"}}"),
    (".gemini/GEMINI.md", "Of the user.\n"),
];

#[tokio::test]
async fn what_a_killed_run_left_is_removed_by_the_next_and_the_home_is_as_it_was() {
    let rig = Rig::new();
    let servers = format!(
        r#"{{"s": {{"command": "true", "env": {{"K": "{OF_SERVER}"}}}}, "w": {{"url": "http://127.0.0.1:9", "headers": {{"k": "{OF_SERVER}"}}}}}}"#
    );
    rig.write("project/mcp.json", &servers);
    rig.write(".config/ozma/models/cat.toml", "command = \"cat\"\n");
    for (file, text) in OF_THE_USER {
        rig.write(file, text);
    }
    for (provider, _, _) in PROVIDERS {
        rig.program(provider, PROVIDER);
    }
    fs::create_dir_all(rig.path(".local/state")).unwrap();
    let before = home(&rig);
    let states = rig.path(".local/state/ozma/exec");
    for (provider, variable, writes) in PROVIDERS {
        let model = format!("{provider}/some-model");
        let args = ["-m", model.as_str(), "--mcp", "mcp.json", "wait"];
        let mut exec = Process::start("exec", rig.command(&args, &[(variable, KEY)]));
        let file = rig.path("project/pid");
        let pid = eventually("the provider runs", || async {
            fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        })
        .await;
        fs::remove_file(&file).unwrap();
        let left = folders(&states);
        assert_eq!(left.len(), 1, "{provider}: {left:?}");
        let secret = |path: &Path| {
            path.is_file() && fs::read_to_string(path).is_ok_and(|text| text.contains(OF_SERVER))
        };
        let mut below = BTreeMap::new();
        list(&left[0], &mut below);
        assert_eq!(below.keys().any(|path| secret(path)), writes, "{provider}: {below:?}");
        for path in [&states, &left[0]].into_iter().chain(below.keys().filter(|p| secret(p))) {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{provider}: others may look into {}", path.display());
        }

        // Another run leaves alone what is in use, and removes what is not.
        let another = || rig.exec(&["-m", "cat", "another"], &[]);
        assert_eq!(code(&another()), 0);
        assert_eq!(folders(&states), left, "{provider}");
        exec.kill();
        assert_eq!(folders(&states), left, "{provider}");
        assert_eq!(code(&another()), 0);
        assert!(folders(&states).is_empty(), "{provider}: {:?}", folders(&states));
        eventually("the provider ends", || async {
            (!Path::new("/proc").join(pid.trim()).exists()).then_some(())
        })
        .await;
        assert_eq!(home(&rig), before, "{provider}");
    }
}

/// Folders of runs that are there.
fn folders(states: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(states).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Everything in the home, byte for byte, but the project and what is ours.
fn home(rig: &Rig) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    list(rig.0.path(), &mut found);
    found.retain(|path, _| {
        !path.starts_with(rig.path("project")) && !path.starts_with(rig.path(".local/state/ozma"))
    });
    found
}

/// Every path below; with its content, where it is a file.
fn list(folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        found.insert(path.clone(), kind.is_file().then(|| fs::read(&path).unwrap()));
        if kind.is_dir() {
            list(&path, found);
        }
    }
}
