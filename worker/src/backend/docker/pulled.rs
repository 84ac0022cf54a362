//! Which images this worker pulled itself, noted in its state folder: when the disk is full, the one that was
//! unused for longest goes first. An image that was there before, or that somebody made, is never removed.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};

use crate::sync::lock;

/// Images remembered; those used longest ago are forgotten beyond it, and stay.
const MAX_IMAGES: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) id: String,
}

#[derive(Debug, Default)]
struct Known {
    /// The one used last at the end.
    images: Vec<Image>,
    /// By name, how many executions are on their way to a container of it.
    uses: HashMap<String, usize>,
}

#[derive(Debug)]
pub(in crate::backend) struct Pulled {
    path: PathBuf,
    known: Mutex<Known>,
}

/// Keeps an image from being removed. Once there is a container of it, the engine does.
pub(crate) struct Using<'a> {
    pulled: &'a Pulled,
    name: String,
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        let mut known = lock(&self.pulled.known);
        if let Some(uses) = known.uses.get_mut(&self.name) {
            *uses -= 1;
            if *uses == 0 {
                known.uses.remove(&self.name);
            }
        }
    }
}

impl Pulled {
    /// With what an earlier life noted; nothing, should that be unreadable.
    pub(super) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("images.json");
        let images = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = Known { images: images.unwrap_or_default(), uses: HashMap::new() };
        Self { path, known: Mutex::new(known) }
    }

    pub(in crate::backend) fn using(&self, name: &str) -> Using<'_> {
        let mut known = lock(&self.known);
        *known.uses.entry(name.to_owned()).or_default() += 1;
        if let Some(at) = known.images.iter().position(|image| image.name == name) {
            let image = known.images.remove(at);
            known.images.push(image);
        }
        Using { pulled: self, name: name.to_owned() }
    }

    pub(super) fn note(&self, name: &str, id: &str) {
        let mut known = lock(&self.known);
        known.images.retain(|image| image.name != name);
        known.images.push(Image { name: name.to_owned(), id: id.to_owned() });
        if known.images.len() > MAX_IMAGES {
            known.images.remove(0);
        }
        self.save(&known);
    }

    pub(super) fn forget(&self, image: &Image) {
        let mut known = lock(&self.known);
        known.images.retain(|known| known != image);
        self.save(&known);
    }

    /// Without it an image only stays longer than it has to.
    fn save(&self, known: &Known) {
        let fresh = self.path.with_extension("new");
        let text = serde_json::to_vec(&known.images).unwrap_or_default();
        let saved = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.path));
        if let Err(error) = saved {
            tracing::warn!(error = %error, "which images were pulled could not be noted");
        }
    }

    pub(super) fn unused(&self) -> Vec<Image> {
        let known = lock(&self.known);
        let unused = known.images.iter().filter(|image| !known.uses.contains_key(&image.name));
        unused.cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<(String, String)> {
        let known = lock(&self.known);
        known.images.iter().map(|image| (image.name.clone(), image.id.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let pulled = Pulled::open(folder.path());
        for name in ["a", "b", "c"] {
            pulled.note(name, name);
        }
        drop(pulled.using("a"));
        let _using = pulled.using("b");
        let names = |pulled: &Pulled| -> Vec<String> {
            pulled.unused().into_iter().map(|image| image.name).collect()
        };
        assert_eq!(names(&pulled), ["c", "a"]);
        pulled.forget(&Image { name: "c".to_owned(), id: "c".to_owned() });
        assert_eq!(names(&Pulled::open(folder.path())), ["a", "b"]);
    }
}
