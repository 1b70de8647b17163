//! What a daemon leaves for the next start, should it be killed: what it has changed at an interface and has to put back.
//!
//! A file for each kind and interface in the run directory, which is gone after a boot as the changes are; a line for each change, its
//! words parted by spaces.

use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// A change that is noted.
pub(super) trait Noted: Sized {
    /// What files of these begin with.
    const KIND: &'static str;

    fn words(&self) -> [String; 4];
    fn of_words(words: [&str; 4]) -> Option<Self>;
}

/// See the module.
pub(super) struct Note<T> {
    path: PathBuf,
    noted: PhantomData<T>,
}

impl<T: Noted> Note<T> {
    /// About the interface with this index.
    pub(super) fn of(run_dir: &Path, ifindex: u32) -> Self {
        Self {
            path: run_dir.join(format!("{}-{ifindex}", T::KIND)),
            noted: PhantomData,
        }
    }

    /// Before the changes are made.
    pub(super) fn write(&self, changes: &[T]) -> Result<(), String> {
        let lines = changes.iter().map(|change| change.words().join(" ") + "\n");
        fs::write(&self.path, lines.collect::<String>()).map_err(|error| {
            let (kind, path) = (T::KIND, self.path.display());
            format!("cannot note {kind} in {path}: {error}")
        })
    }

    /// Those that were noted; of a line that is none, nothing.
    pub(super) fn read(&self) -> Vec<T> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let parse = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            T::of_words(words.try_into().ok()?)
        };
        text.lines().filter_map(parse).collect()
    }

    /// After they were put back.
    pub(super) fn remove(&self) {
        // Mostly there is none.
        let _ = fs::remove_file(&self.path);
    }
}
