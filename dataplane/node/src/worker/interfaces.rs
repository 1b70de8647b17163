//! What the kernel tells of interfaces, so that one that goes down is looked at when it does.

use std::os::fd::{AsFd, BorrowedFd};

use xtipc_ebpf::netlink::Netlink;

/// `RTMGRP_LINK` of `linux/rtnetlink.h`.
const LINKS: u32 = 0x1;

/// See the module.
pub(super) struct InterfaceNews(Netlink);

impl InterfaceNews {
    /// Of the calling thread's network namespace.
    pub(super) fn follow() -> Option<Self> {
        match Netlink::following(LINKS) {
            Ok(netlink) => Some(Self(netlink)),
            Err(error) => {
                tracing::warn!(%error, "interfaces that go down are noticed a second late");
                None
            }
        }
    }

    /// That there are news is all that counts: the bearers ask for what they need.
    pub(super) fn take(&self) {
        // Lost messages are news as well.
        let _ = self.0.take(&mut [0; 64], |_| ());
    }
}

impl AsFd for InterfaceNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
