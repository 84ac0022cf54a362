//! Ctrl-C: the provider is asked to stop, the second one leaves it, and the exit code says 130.

use std::{fs, path::Path, process::Command};

use rustix::process::{Pid, Signal, kill_process};
use test_support::{process::Process, wait::eventually};

use super::{KEY, Rig};

const VARS: [(&str, &str); 1] = [("ANTHROPIC_API_KEY", KEY)];

/// Waits for ever, in the shell itself: one that is just starting a program may lose a signal.
const HELD: &str = "mkfifo held\necho $$ >pid\nread line <>held";

/// Starts `ozma exec` with a provider that runs `script`; gives the provider's process once it runs.
async fn begin(rig: &Rig, args: &[&str], script: &str) -> (Process, String) {
    for name in ["slow", "claude"] {
        rig.program(name, &format!("{script}\n{HELD}"));
    }
    rig.write(".config/ozma/models/slow.toml", "command = \"slow\"\n");
    let exec = Process::start("exec", rig.command(args, &VARS));
    let file = rig.path("project/pid");
    let pid = eventually("the provider runs", || async {
        fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    (exec, pid.trim().to_owned())
}

fn send(exec: &Process, signal: Signal) {
    let pid = Pid::from_raw(exec.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
async fn an_interrupt_is_the_providers_first_and_ends_with_130() {
    for (signal, args) in [
        (Signal::INT, &["-m", "slow", "wait"][..]),
        (Signal::TERM, &["-m", "slow", "wait"]),
        (Signal::INT, &["-m", "claude", "--json", "wait"]),
        (Signal::INT, &["-m", "claude", "-o", "answer", "wait"]),
    ] {
        let rig = Rig::new();
        let script = "trap 'echo stopped >stopped; exit 7' TERM INT";
        let (mut exec, pid) = begin(&rig, args, script).await;
        send(&exec, signal);
        let status = exec.ended().await;
        assert_eq!(status.code(), Some(130), "{args:?}: {}", exec.log());
        assert!(rig.path("project/stopped").exists(), "{args:?}: it was not asked to stop");
        assert!(!Path::new("/proc").join(&pid).exists(), "{args:?}: the provider lives on");
        assert_eq!(rig.summary()["exit"]["reason"], "task_cancelled", "{args:?}");
        assert!(exec.log().contains("CANCELLED"), "{args:?}: {}", exec.log());
        if args.contains(&"--json") {
            exec.line("the outcome", |line| {
                let said: serde_json::Value = serde_json::from_str(line).ok()?;
                let wanted = said["kind"] == "outcome" && said["exit_code"] == 130;
                wanted.then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn the_second_interrupt_leaves_a_provider_that_does_not_stop() {
    let rig = Rig::new();
    let (mut exec, pid) = begin(&rig, &["-m", "claude", "wait"], "trap '' TERM INT").await;
    send(&exec, Signal::INT);
    exec.line("what a second one does", |line| line.contains("Ctrl-C again").then_some(())).await;
    send(&exec, Signal::INT);
    let status = exec.ended().await;
    assert_eq!(status.code(), Some(130), "{}", exec.log());
    exec.line("where the evidence is", |line| {
        (line.contains("hint: ") && line.contains(".workbench")).then_some(())
    })
    .await;
    eventually("the provider ends", || async {
        (!Path::new("/proc").join(&pid).exists()).then_some(())
    })
    .await;
    // Nothing of what it was handed stays.
    let left = fs::read_dir(rig.path(".local/state/ozma/exec")).unwrap();
    assert_eq!(left.count(), 1, "there is more than the lock");
}

/// The same command, begun with SIGHUP as `how` says: `default` or `ignore`.
fn with_hangup(command: &Command, how: &str) -> Command {
    let mut wrapped = Command::new("env");
    wrapped.arg(format!("--{how}-signal=HUP")).arg(command.get_program()).args(command.get_args());
    wrapped.env_clear().current_dir(command.get_current_dir().unwrap());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

#[tokio::test]
async fn nothing_goes_on_when_its_terminal_is_gone_unless_that_was_wanted() {
    for (how, last) in [("default", Signal::HUP), ("ignore", Signal::INT)] {
        let rig = Rig::new();
        rig.program("slow", HELD);
        rig.write(".config/ozma/models/slow.toml", "command = \"slow\"\n");
        let command = with_hangup(&rig.command(&["-m", "slow", "wait"], &VARS), how);
        let mut exec = Process::start("exec", command);
        let file = rig.path("project/pid");
        eventually("the provider runs", || async { file.exists().then_some(()) }).await;
        send(&exec, Signal::HUP);
        // Where it is ignored, this one ends it.
        send(&exec, last);
        assert_eq!(exec.ended().await.code(), Some(130), "{how}: {}", exec.log());
    }
}

#[tokio::test]
async fn a_program_that_does_not_stop_is_killed_in_the_end() {
    let rig = Rig::new();
    let (mut exec, pid) = begin(&rig, &["-m", "slow", "wait"], "trap '' TERM INT").await;
    send(&exec, Signal::INT);
    let status = exec.ended().await;
    assert_eq!(status.code(), Some(130), "{}", exec.log());
    assert!(exec.log().contains("was killed"), "{}", exec.log());
    assert_eq!(rig.summary()["exit"]["reason"], "task_cancelled");
    eventually("the program is gone", || async {
        (!Path::new("/proc").join(&pid).exists()).then_some(())
    })
    .await;
}
