//! Files the environment wants kept, by pattern. Links are never followed, so nothing outside the workspace is.

use std::{fs, io, path::Path};

use super::{
    pattern::Pattern,
    send::{Name, Sender},
};

/// Most entries looked at; then the search ends with a notice.
const MAX_ENTRIES: usize = 500_000;

/// Deepest folder that is entered.
const MAX_DEPTH: usize = 64;

/// Most files kept; then the search ends with a notice.
const MAX_FILES: usize = 200;

pub(super) fn keep(
    workspace: &Path,
    patterns: &[String],
    sender: &mut Sender<'_>,
) -> io::Result<()> {
    let mut search = Search { patterns: Vec::new(), found: Vec::new(), entries: 0, bound: None };
    for text in patterns {
        match Pattern::new(text) {
            Some(pattern) => search.patterns.push(pattern),
            None => sender.notice(format!("artifacts: {text:?} leads out of the workspace"))?,
        }
    }
    search.folder(workspace, &mut Vec::new());
    search.found.sort();
    for path in &search.found {
        let filename = path.rsplit('/').next().unwrap_or(path);
        let name = Name {
            filename,
            filepath: path,
            mime_type: mime_type(filename),
            description: "A file the environment wanted kept",
        };
        sender.file(&workspace.join(path), &name)?;
    }
    if let Some(bound) = search.bound {
        sender.notice(format!("artifacts: the search ended at {bound}"))?;
    }
    Ok(())
}

struct Search {
    patterns: Vec<Pattern>,
    found: Vec<String>,
    entries: usize,
    bound: Option<String>,
}

impl Search {
    fn folder(&mut self, folder: &Path, path: &mut Vec<String>) {
        // A folder that cannot be read holds nothing for us.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                self.bound = Some(format!("{MAX_ENTRIES} entries"));
            }
            if self.found.len() >= MAX_FILES {
                self.bound = Some(format!("{MAX_FILES} files"));
            }
            if self.bound.is_some() {
                return;
            }
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
                continue;
            };
            path.push(name);
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            if kind.is_file() && self.patterns.iter().any(|pattern| pattern.matches(&names)) {
                self.found.push(path.join("/"));
            } else if kind.is_dir()
                && path.len() < MAX_DEPTH
                && self.patterns.iter().any(|pattern| pattern.enters(&names))
            {
                self.folder(&entry.path(), path);
            }
            path.pop();
        }
    }
}

fn mime_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "txt" | "log" | "md" => "text/plain",
        "json" => "application/json",
        "html" => "text/html",
        "csv" => "text/csv",
        "xml" => "application/xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "patch" | "diff" => "text/x-diff",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::Event;

    use super::*;

    #[test]
    fn matching_files_are_kept_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("out/deep")).unwrap();
        fs::write(folder.path().join("out/deep/a.txt"), "a").unwrap();
        std::os::unix::fs::symlink(
            outside.path().join("secret.txt"),
            folder.path().join("out/b.txt"),
        )
        .unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("out/away")).unwrap();
        let mut events = Vec::new();
        let mut say = |event| {
            events.push(event);
            Ok(())
        };
        let patterns = ["out/**/*.txt".to_owned(), "../x".to_owned()];
        keep(folder.path(), &patterns, &mut Sender::new(&mut say)).unwrap();
        let names: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Artifact(artifact) => artifact.filepath.as_deref(),
                _ => None,
            })
            .collect();
        assert_eq!(names, ["out/deep/a.txt"]);
        assert!(matches!(&events[0], Event::Notice { text } if text.contains("../x")));
    }
}
