//! Files with keys: read only if nobody else can read them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use xtipc_management::{KeyText, wipe};
use xtipc_protocol::crypto::KeyMaterial;

/// A key in hex digits with `0x` and a newline, and room to see that there is more.
const FILE_MAX: u64 = 2 + 2 * 36 + 2;

/// Why a file gives no key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Others can read it.
    #[error("has mode {mode:04o}, owner {owner}")]
    Open {
        /// Permission bits.
        mode: u32,
        /// User id of the owner.
        owner: u32,
    },
    /// What is in it is no key.
    #[error("holds no key of 20, 28 or 36 bytes")]
    NoKey,
}

/// What every refusal of a key file accepts.
pub const ACCEPTED: &str = "a file of root or of the daemon's user, mode 0600 or 0400, with a key of 20, 28 or 36 \
    characters, or 0x and as many pairs of hex digits";

/// Reads a key.
pub fn read_key(path: &Path) -> Result<KeyMaterial, SecretError> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    if about.mode() & 0o077 != 0 || ![0, own].contains(&about.uid()) {
        return Err(SecretError::Open {
            mode: about.mode() & 0o7777,
            owner: about.uid(),
        });
    }
    // As large as it gets, so that nothing of it stays behind in a buffer that was too small.
    let mut bytes = Vec::with_capacity(FILE_MAX as usize + 1);
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    let text = std::str::from_utf8(&bytes).map(|text| KeyText::new(text.trim_end().to_owned()));
    wipe(&mut bytes);
    let key = text.ok().and_then(|text| text.decode().ok());
    key.and_then(|key| KeyMaterial::new(&key).ok())
        .ok_or(SecretError::NoKey)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_private_file_gives_its_key() {
        let key = read_key(file("this_is_a_master_key\n", 0o600).path()).unwrap();
        assert_eq!(key.bytes(), b"this_is_a_master_key");
        let digits = "0x".to_owned() + &"5a".repeat(36);
        let key = read_key(file(&digits, 0o400).path()).unwrap();
        assert_eq!(key.bytes(), [0x5a; 36]);
    }

    #[test]
    fn files_of_others_and_files_without_a_key_are_refused() {
        for mode in [0o640, 0o604, 0o620] {
            let refused = read_key(file("this_is_a_master_key", mode).path());
            assert!(matches!(refused, Err(SecretError::Open { .. })), "{mode:o}");
        }
        for text in ["", "too short", &"a".repeat(200), "0x12"] {
            let refused = read_key(file(text, 0o600).path());
            assert!(matches!(refused, Err(SecretError::NoKey)), "{text}");
        }
        let missing = read_key(Path::new("/nonexistent"));
        assert!(matches!(missing, Err(SecretError::Read(_))));
    }
}
