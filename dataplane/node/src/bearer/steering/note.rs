//! What a daemon leaves for the next start, should it be killed: the rules that it has made in a NIC.
//!
//! A file for each interface in the run directory, which is gone after a boot as the rules are. A line is a rule: VLAN, the
//! source's bits, the mask of these, the queue.

use std::fs;
use std::path::{Path, PathBuf};

use xtipc_xsk::flow_rules::Rule;

use crate::bearer::ethernet::ETHERTYPE;

/// See the module.
pub(super) struct Note(PathBuf);

impl Note {
    /// About the interface with this index.
    pub(super) fn of(run_dir: &Path, ifindex: u32) -> Self {
        Self(run_dir.join(format!("steering-{ifindex}")))
    }

    /// Before the rules are made.
    pub(super) fn write(&self, rules: &[Rule]) -> Result<(), String> {
        let lines = rules.iter().map(|rule| {
            let Rule {
                vlan,
                source,
                source_mask,
                queue,
                ..
            } = rule;
            format!("{vlan} {source} {source_mask} {queue}\n")
        });
        let text: String = lines.collect();
        fs::write(&self.0, text)
            .map_err(|error| format!("cannot note rules in {}: {error}", self.0.display()))
    }

    /// Those that were noted; of a line that is none, nothing.
    pub(super) fn read(&self) -> Vec<Rule> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }

    /// After they were removed.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "cannot remove a note of rules");
        }
    }
}

fn parse(line: &str) -> Option<Rule> {
    let mut words = line.split(' ');
    let rule = Rule {
        ethertype: ETHERTYPE,
        vlan: words.next()?.parse().ok()?,
        source: words.next()?.parse().ok()?,
        source_mask: words.next()?.parse().ok()?,
        queue: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(rule)
}
