//! The processes that have a copy of a socket's descriptor. The daemon knows those that have called for it; who inherited or
//! received one and has not called yet is found by the descriptor, among the processes that the system shows to this user.

use std::collections::HashMap;
use std::path::Path;

use xtipc_management::SocketInfo;

/// Adds to each socket with details those who have its descriptor.
pub(crate) fn complete(sockets: &mut [SocketInfo]) {
    let described = sockets.iter().enumerate().filter_map(|(index, socket)| {
        let descriptor = socket.details.as_ref()?.descriptor?;
        Some((format!("socket:[{descriptor}]"), index))
    });
    let described: HashMap<String, usize> = described.collect();
    if described.is_empty() {
        return;
    }
    for pid in numbers_in(Path::new("/proc")) {
        let directory = format!("/proc/{pid}/fd");
        for fd in numbers_in(Path::new(&directory)) {
            let target = std::fs::read_link(format!("{directory}/{fd}"));
            let target = target
                .ok()
                .and_then(|target| target.into_os_string().into_string().ok());
            if let Some(index) = target.and_then(|target| described.get(&target)) {
                add(&mut sockets[*index], pid);
            }
        }
    }
}

/// The names in a directory that are numbers; those of a process that ends meanwhile, or is somebody else's, are none.
fn numbers_in(directory: &Path) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn add(socket: &mut SocketInfo, pid: u32) {
    let Some(details) = &mut socket.details else {
        return;
    };
    let Some(first) = socket.pid else {
        socket.pid = Some(pid);
        return;
    };
    if details.holders.is_empty() && first != pid {
        details.holders.push(first);
    }
    if first != pid && !details.holders.contains(&pid) {
        details.holders.push(pid);
        details.holders.sort_unstable();
    }
}
