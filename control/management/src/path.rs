//! Where the sockets of a daemon are.

use std::path::PathBuf;

/// The longest instance name; keeps socket paths far below the 107 octets the kernel allows.
const INSTANCE_NAME_MAX: usize = 32;

/// An instance name that cannot be a directory below `/run/xtipc`, beside the sockets there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid instance name \"{0}\": accepted are 1 to {INSTANCE_NAME_MAX} characters of 0-9 A-Z a-z . _ -, \
     not starting with . or - and not ending in .sock"
)]
pub struct InstanceNameError(pub String);

/// The directory of the sockets: `/run/xtipc`, or `/run/xtipc/NAME` for a named instance.
pub fn runtime_directory(instance: Option<&str>) -> Result<PathBuf, InstanceNameError> {
    let base = PathBuf::from("/run/xtipc");
    let Some(name) = instance else {
        return Ok(base);
    };
    let fits = (1..=INSTANCE_NAME_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !name.starts_with(['.', '-'])
        && !name.ends_with(".sock");
    if fits {
        Ok(base.join(name))
    } else {
        Err(InstanceNameError(name.to_owned()))
    }
}

/// The control socket, which tools connect to.
pub fn control_socket(instance: Option<&str>) -> Result<PathBuf, InstanceNameError> {
    Ok(runtime_directory(instance)?.join("control.sock"))
}

/// The attach socket, which applications connect to.
pub fn attach_socket(instance: Option<&str>) -> Result<PathBuf, InstanceNameError> {
    Ok(runtime_directory(instance)?.join("attach.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_instance_has_its_own_directory() {
        assert_eq!(control_socket(None), Ok("/run/xtipc/control.sock".into()));
        assert_eq!(
            attach_socket(Some("blue")),
            Ok("/run/xtipc/blue/attach.sock".into())
        );
    }

    #[test]
    fn an_instance_name_cannot_leave_the_directory() {
        let long = "x".repeat(33);
        for name in ["", "..", "-a", "a/b", "control.sock", long.as_str()] {
            assert_eq!(
                runtime_directory(Some(name)),
                Err(InstanceNameError(name.to_owned()))
            );
        }
    }
}
