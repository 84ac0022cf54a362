//! What both ways of cloning without git need: a check-out, and errors in one line.

use std::sync::atomic::AtomicBool;

use gix::{bstr::BStr, progress::Discard};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An error and its causes, each said once.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Checks out what `HEAD` is to be in a repository that has its objects already.
pub(super) fn check_out(
    repository: &gix::Repository,
    commit: gix::ObjectId,
) -> Result<(), Failure> {
    let tree = repository.find_commit(commit)?.tree_id()?;
    let mut index = repository.index_from_tree(&tree)?;
    let attributes = gix::worktree::stack::state::attributes::Source::IdMapping;
    let mut options = repository.checkout_options(attributes)?;
    options.destination_is_initially_empty = true;
    let folder = repository.workdir().ok_or("no work tree")?;
    let objects = repository.objects.clone().into_arc()?;
    let never = AtomicBool::new(false);
    gix::worktree::state::checkout(
        &mut index, folder, objects, &Discard, &Discard, &never, options,
    )?;
    index.write(gix::index::write::Options::default())?;
    Ok(())
}

/// A name that git takes for a ref.
pub(super) fn full_name(prefix: &str, name: &str) -> Result<gix::refs::FullName, Failure> {
    let name = format!("{prefix}{name}");
    let name: &BStr = name.as_str().into();
    Ok(gix::refs::FullName::try_from(name.to_owned())?)
}
