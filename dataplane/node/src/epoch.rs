//! Epochs for the counters of encrypted frames (`docs/protocol/crypto.md`, counters): each is given once, and is in
//! the state directory before.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xtipc_protocol::crypto::EPOCHS;

const FILE: &str = "epoch";
/// 2026-01-01, in seconds since 1970. From then on minutes count the epochs of a state directory that was lost.
const START: u64 = 1_767_225_600;

/// Why there is no epoch.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The state directory cannot be used.
    #[error(
        "cannot {operation} {}: {source}; encryption needs a state_dir that the daemon can write", path.display()
    )]
    System {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what the daemon writes.
    #[error(
        "{} holds no epoch: accepted is a number below {EPOCHS}; remove it only together with all keys", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// All have been given.
    #[error("all {EPOCHS} epochs of {} are used up: set new keys, then remove it", path.display())]
    UsedUp {
        /// The file.
        path: PathBuf,
    },
}

/// Gives epochs.
#[derive(Debug)]
pub struct Epochs {
    directory: PathBuf,
}

impl Epochs {
    /// Epochs that are kept in this directory, which is made when the first is taken.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// An epoch that was never given before.
    pub fn take(&mut self) -> Result<u32, EpochError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        self.take_at(since_1970.unwrap_or_default())
    }

    fn take_at(&mut self, since_1970: Duration) -> Result<u32, EpochError> {
        let path = self.directory.join(FILE);
        let minutes = since_1970.as_secs().saturating_sub(START) / 60;
        let after_last = match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(last) if last < EPOCHS => u64::from(last) + 1,
                _ => return Err(EpochError::Damaged { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => 1,
            Err(source) => return Err(system("read", &path)(source)),
        };
        let epoch = match u32::try_from(after_last.max(minutes)) {
            Ok(epoch) if epoch < EPOCHS => epoch,
            _ => return Err(EpochError::UsedUp { path }),
        };
        self.keep(epoch, &path)?;
        Ok(epoch)
    }

    /// When it returns, the number has reached the disk.
    fn keep(&self, epoch: u32, path: &Path) -> Result<(), EpochError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(&self.directory)
            .map_err(system("make the directory", &self.directory))?;
        let new = self.directory.join("epoch.new");
        let write = || {
            let mut file = File::create(&new)?;
            writeln!(file, "{epoch}")?;
            file.sync_all()
        };
        write().map_err(system("write", &new))?;
        fs::rename(&new, path).map_err(system("replace", path))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(system("sync", &self.directory))
    }
}

fn system(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> EpochError {
    move |source| EpochError::System {
        operation,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Duration {
        Duration::from_secs(START + 60 * minutes)
    }

    #[test]
    fn no_epoch_comes_twice_whatever_the_clock_and_the_directory_do() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("deep/state");
        let mut epochs = Epochs::new(&directory);
        assert_eq!(epochs.take_at(Duration::ZERO).unwrap(), 1, "before 2026");
        assert_eq!(epochs.take_at(at(1000)).unwrap(), 1000);
        assert_eq!(epochs.take_at(at(1000)).unwrap(), 1001);
        assert_eq!(
            Epochs::new(&directory).take_at(at(5)).unwrap(),
            1002,
            "a clock set back"
        );
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(epochs.take_at(at(1003)).unwrap(), 1003, "a lost directory");
        assert!(epochs.take().is_ok());
    }

    #[test]
    fn what_is_no_epoch_and_what_cannot_be_written_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let mut epochs = Epochs::new(base.path());
        fs::write(base.path().join(FILE), "many").unwrap();
        assert!(matches!(
            epochs.take_at(at(1)),
            Err(EpochError::Damaged { .. })
        ));
        fs::write(base.path().join(FILE), (EPOCHS - 1).to_string()).unwrap();
        assert!(matches!(
            epochs.take_at(at(1)),
            Err(EpochError::UsedUp { .. })
        ));
        fs::write(base.path().join("file"), "").unwrap();
        let refused = Epochs::new(&base.path().join("file/state")).take_at(at(1));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("state_dir"), "{text}");
    }
}
