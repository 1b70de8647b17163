//! The files that a run writes at its end. That they can be written is known at its beginning, and what was there before
//! stays until all of the new one is.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// The directory of a file that is written beside its place and moved there; `None` for a device or a pipe, which is written to.
fn place(file: &Path) -> Option<&Path> {
    if fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return None;
    }
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    Some(directory.unwrap_or(Path::new(".")))
}

fn cannot(file: &Path) -> String {
    format!("cannot write {}", file.display())
}

/// Fails if the file cannot be written, and leaves nothing.
pub(crate) fn check(file: &Path) -> Result<()> {
    match place(file) {
        None => drop(
            fs::File::options()
                .write(true)
                .open(file)
                .with_context(|| cannot(file))?,
        ),
        Some(_) if file.is_dir() => anyhow::bail!("{}: it is a directory", cannot(file)),
        Some(directory) => drop(NamedTempFile::new_in(directory).with_context(|| cannot(file))?),
    }
    Ok(())
}

/// Writes it as a whole, or leaves what was there.
pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    let Some(directory) = place(file) else {
        return fs::write(file, text).with_context(|| cannot(file));
    };
    let written = || {
        // As any new file is, not only for the own user.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let builder = tempfile::Builder::new()
            .permissions(mode)
            .tempfile_in(directory);
        let mut new = builder?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(file)?;
        anyhow::Ok(())
    };
    written().with_context(|| cannot(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_check_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("run.json");
        check(&file).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        fs::write(&file, "before").unwrap();
        check(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
        write(&file, "after").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_named_and_a_device_stays_one() {
        for file in ["/nonesuch/run.json", "/tmp", "/proc/version"] {
            let error = check(Path::new(file)).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
        }
        assert!(write(Path::new("/dev/full"), "text").is_err());
        write(Path::new("/dev/null"), "text").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
