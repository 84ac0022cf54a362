//! The two ways out that are no link.

/// A word for the container's log.
#[expect(clippy::print_stderr, reason = "the container's log is all that is left to say it to")]
pub(crate) fn say(text: &str) {
    // A fuzz target would say nothing else.
    if !cfg!(fuzzing) {
        eprintln!("ozma-sidecar: {text}");
    }
}

/// The answer of a mode whose answer is text.
#[expect(clippy::print_stdout, reason = "what this mode is asked for")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}
