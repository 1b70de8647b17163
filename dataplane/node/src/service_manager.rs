//! What the service manager is told: sd_notify(3).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Tells the service manager that started this process, if one did.
pub(crate) fn tell(state: NotifyState<'_>) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    // The crate takes a name without a place in the file system for a path.
    let Some(name) = socket.as_bytes().strip_prefix(b"@") else {
        return sd_notify::notify(&[state]);
    };
    let manager = UnixDatagram::unbound()?;
    manager.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    manager.send(format!("{state}\n").as_bytes()).map(|_| ())
}
