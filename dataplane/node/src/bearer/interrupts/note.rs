//! What a daemon leaves for the next start, should it be killed: the interrupts that it has moved.
//!
//! A file for each interface in the run directory, which is gone after a boot as their places are. A line is an interrupt: its number,
//! its name, the processors before, and ours.

use std::fs;
use std::path::{Path, PathBuf};

use super::Moved;

/// See the module.
pub(super) struct Note(PathBuf);

impl Note {
    /// About the interface with this index.
    pub(super) fn of(run_dir: &Path, ifindex: u32) -> Self {
        Self(run_dir.join(format!("interrupts-{ifindex}")))
    }

    /// Before they are moved.
    pub(super) fn write(&self, moved: &[Moved]) -> Result<(), String> {
        let lines = moved.iter().map(|moved| {
            let Moved {
                number,
                name,
                before,
                ours,
            } = moved;
            format!("{number} {name} {before} {ours}\n")
        });
        let text: String = lines.collect();
        fs::write(&self.0, text)
            .map_err(|error| format!("cannot note interrupts in {}: {error}", self.0.display()))
    }

    /// Those that were noted; of a line that is none, nothing.
    pub(super) fn read(&self) -> Vec<Moved> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }

    /// After they were put back.
    pub(super) fn remove(&self) {
        // Mostly there is none.
        let _ = fs::remove_file(&self.0);
    }
}

fn parse(line: &str) -> Option<Moved> {
    let mut words = line.split(' ');
    let moved = Moved {
        number: words.next()?.parse().ok()?,
        name: words.next()?.to_owned(),
        before: words.next()?.to_owned(),
        ours: words.next()?.to_owned(),
    };
    words.next().is_none().then_some(moved)
}
