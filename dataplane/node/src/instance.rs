//! The run directory of an instance: who runs here, and the sockets.
//!
//! One daemon holds a run directory by a lock on its pid file; the lock goes with the process, so a crash
//! leaves nothing that stops the next start. Several instances on a host have a directory each. An orderly
//! exit removes sockets, pid file and the directories that are empty then.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::config::Access;

const PID_FILE: &str = "xtipcd.pid";
const BACKLOG: i32 = 128;
/// A pid file can vanish between opening and locking it when its holder leaves, once for each such holder.
const LOCK_ATTEMPTS: usize = 100;
/// The kernel ends the io_uring of a killed process, and with it the listeners that were waited for, only after the
/// process itself is gone.
const LAST_BREATH: Duration = Duration::from_secs(1);
const LAST_BREATH_POLL: Duration = Duration::from_millis(5);

/// Why the instance cannot start here.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another daemon holds the run directory.
    #[error("{} is in use by xtipcd with pid {pid}; accepted: another --instance NAME, or stop that one", run_dir.display())]
    Running {
        /// The directory.
        run_dir: PathBuf,
        /// Its holder, as its pid file says.
        pid: String,
    },
    /// Somebody listens on a socket path outside the run directory.
    #[error("{} is in use by another process; accepted: another --socket PATH", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket stands where a socket is to be.
    #[error("{} is not a socket and is left alone; accepted: a path that is free", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl Fn(E) -> InstanceError {
    move |e| InstanceError::System {
        operation,
        path: path.into(),
        source: e.into(),
    }
}

/// The held run directory. Dropping it removes what it made; a crash leaves files that the next start replaces.
#[derive(Debug)]
pub struct Instance {
    run_dir: PathBuf,
    /// Directories that were not there before, outermost first.
    created: Vec<PathBuf>,
    sockets: Vec<PathBuf>,
    _locked: File,
}

impl Instance {
    /// Creates the directory, locks it and writes the pid file.
    pub fn hold(run_dir: &Path) -> Result<Self, InstanceError> {
        for _ in 0..LOCK_ATTEMPTS {
            let created = create_directory(run_dir)?;
            if let Some(locked) = lock(run_dir)? {
                return Ok(Self {
                    run_dir: run_dir.into(),
                    created,
                    sockets: Vec::new(),
                    _locked: locked,
                });
            }
        }
        let vanished = io::Error::from(io::ErrorKind::ResourceBusy);
        Err(system("lock the pid file in", run_dir)(vanished))
    }

    /// Listens on `path`, which nobody can connect to before its permissions are set. A socket without a
    /// listener is stale and replaced; any other file is left alone.
    pub fn listen(
        &mut self,
        path: &Path,
        socket_type: SocketType,
        access: Access,
    ) -> Result<OwnedFd, InstanceError> {
        remove_stale(path, socket_type)?;
        let address = SocketAddrUnix::new(path).map_err(system("use as a socket", path))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, socket_type, flags, None)
            .map_err(system("make the socket", path))?;
        rustix::net::bind(&socket, &address).map_err(system("bind the socket", path))?;
        self.sockets.push(path.into());
        chown(path, None, access.group).map_err(system("set the group of", path))?;
        fs::set_permissions(path, Permissions::from_mode(access.mode))
            .map_err(system("set the permissions of", path))?;
        // Until here connecting was refused.
        rustix::net::listen(&socket, BACKLOG).map_err(system("listen on", path))?;
        Ok(socket)
    }

    /// The directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }
}

impl Drop for Instance {
    /// Removes in the reverse order of making. What cannot be removed stays: somebody else uses it, or the
    /// next start deals with it.
    fn drop(&mut self) {
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
        let _ = fs::remove_file(self.run_dir.join(PID_FILE));
        let _ = fs::remove_dir(&self.run_dir);
        for directory in self.created.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
        // The base directory was perhaps made by an instance that left before this one.
        let base = self.run_dir.parent();
        if let Some(base) = base.filter(|base| base.ends_with("xtipc")) {
            let _ = fs::remove_dir(base);
        }
    }
}

/// Makes the directory with those above it; returns those that were missing.
fn create_directory(path: &Path) -> Result<Vec<PathBuf>, InstanceError> {
    let missing = path.ancestors().take_while(|p| !p.exists());
    let mut created: Vec<_> = missing.map(Path::to_path_buf).collect();
    created.reverse();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(system("create the directory", path))?;
    // The mode given above was cut by the umask.
    for directory in &created {
        fs::set_permissions(directory, Permissions::from_mode(0o755))
            .map_err(system("set the permissions of", directory))?;
    }
    Ok(created)
}

/// `None`: the file was removed by its holder while we came; try again.
fn lock(run_dir: &Path) -> Result<Option<File>, InstanceError> {
    let path = run_dir.join(PID_FILE);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(system("open", &path)(e)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = match pid.trim() {
                "" => "unknown".to_owned(),
                pid => pid.to_owned(),
            };
            let run_dir = run_dir.into();
            return Err(InstanceError::Running { run_dir, pid });
        }
        Err(e) => return Err(system("lock", &path)(e)),
    }
    let inode = |m: fs::Metadata| (m.dev(), m.ino());
    let ours = file
        .metadata()
        .map(inode)
        .map_err(system("look at", &path))?;
    if fs::metadata(&path).map(inode).ok() != Some(ours) {
        return Ok(None);
    }
    write_pid(&mut file).map_err(system("write", &path))?;
    Ok(Some(file))
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// Removes a socket without a listener, waiting for one that was just killed.
fn remove_stale(path: &Path, socket_type: SocketType) -> Result<(), InstanceError> {
    let end = Instant::now() + LAST_BREATH;
    loop {
        match try_remove_stale(path, socket_type) {
            Err(InstanceError::SocketInUse { .. }) if Instant::now() < end => {
                std::thread::sleep(LAST_BREATH_POLL);
            }
            done => return done,
        }
    }
}

fn try_remove_stale(path: &Path, socket_type: SocketType) -> Result<(), InstanceError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(system("look at", path)(e)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(InstanceError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
    }
    let address = SocketAddrUnix::new(path).map_err(system("use as a socket", path))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, socket_type, flags, None)
        .map_err(system("make a socket to try", path))?;
    match rustix::net::connect(&probe, &address) {
        // Nobody listens: what is left of a daemon that was killed.
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(system("remove", path)),
        // A listener, with a full backlog, or of another socket type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(InstanceError::SocketInUse { path: path.into() })
        }
        Err(e) => Err(system("try the socket", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Access = Access {
        mode: 0o660,
        group: None,
    };

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap())?;
        Ok(socket)
    }

    #[test]
    fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
        let base = tempfile::tempdir().unwrap();
        let run_dir = base.path().join("red");
        let first = Instance::hold(&run_dir).unwrap();
        let refusal = Instance::hold(&run_dir).unwrap_err().to_string();
        let expected = format!("is in use by xtipcd with pid {}", std::process::id());
        assert!(refusal.contains(&expected), "{refusal}");
        drop(first);
        Instance::hold(&run_dir).unwrap();
    }

    #[test]
    fn instances_stand_side_by_side_and_leave_nothing_behind() {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("xtipc");
        let red = Instance::hold(&run.join("red")).unwrap();
        let blue = Instance::hold(&run.join("blue")).unwrap();
        assert_eq!(mode_of(&run), 0o755);
        assert_eq!(mode_of(blue.run_dir()), 0o755);
        drop(red);
        assert!(!run.join("red").exists() && run.join("blue").exists());
        drop(blue);
        assert!(!run.exists());
    }

    #[test]
    fn a_directory_that_was_there_before_stays() {
        let base = tempfile::tempdir().unwrap();
        let run_dir = base.path().join("red");
        fs::create_dir(&run_dir).unwrap();
        fs::write(run_dir.join("notes"), "").unwrap();
        drop(Instance::hold(&run_dir).unwrap());
        assert!(run_dir.join("notes").exists());
        assert!(!run_dir.join(PID_FILE).exists());
    }

    #[test]
    fn a_socket_has_its_permissions_and_goes_with_the_instance() {
        let base = tempfile::tempdir().unwrap();
        let mut instance = Instance::hold(base.path()).unwrap();
        let path = base.path().join("attach.sock");
        let access = Access {
            mode: 0o606,
            group: Some(fs::metadata(base.path()).unwrap().gid()),
        };
        let listener = instance
            .listen(&path, SocketType::SEQPACKET, access)
            .unwrap();
        assert_eq!(mode_of(&path), 0o606);
        connect(&path).unwrap();
        rustix::net::accept(&listener).unwrap();
        drop(instance);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_one_in_use_and_other_files_are_not() {
        let base = tempfile::tempdir().unwrap();
        let mut instance = Instance::hold(&base.path().join("run")).unwrap();
        let path = base.path().join("a.sock");
        let live = instance.listen(&path, SocketType::SEQPACKET, OWN).unwrap();
        for socket_type in [SocketType::SEQPACKET, SocketType::STREAM] {
            assert!(matches!(
                instance.listen(&path, socket_type, OWN),
                Err(InstanceError::SocketInUse { .. })
            ));
        }
        drop(live); // as after a crash: the file is there, nobody listens
        instance.listen(&path, SocketType::SEQPACKET, OWN).unwrap();
        let file = base.path().join("precious");
        fs::write(&file, "data").unwrap();
        assert!(matches!(
            instance.listen(&file, SocketType::SEQPACKET, OWN),
            Err(InstanceError::NotASocket { .. })
        ));
        assert_eq!(fs::read(&file).unwrap(), b"data");
    }

    #[test]
    fn a_listener_that_ends_a_moment_after_its_process_is_waited_for() {
        let base = tempfile::tempdir().unwrap();
        let mut instance = Instance::hold(&base.path().join("run")).unwrap();
        let path = base.path().join("attach.sock");
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(LAST_BREATH / 10);
            drop(socket);
        });
        instance.listen(&path, SocketType::SEQPACKET, OWN).unwrap();
        ending.join().unwrap();
    }
}
