//! The XDP classifier that steers TIPC frames to xtipc, and its loader.
//!
//! `classifier.bpf.c` runs in the kernel on every frame an interface receives. It redirects to
//! AF_XDP sockets exactly the TIPC frames of the configured VLANs that are for this host, and
//! leaves everything else to the kernel, counted per queue. [`Classifier`] loads it, attaches it
//! to one interface, and changes its maps while it runs.
//!
//! ```no_run
//! use xtipc_ebpf::{AttachMode, Classifier};
//!
//! let mut classifier = Classifier::load()?;
//! classifier.allow_vlan(0)?;
//! // classifier.insert_socket(queue, &socket)? for every receive queue
//! classifier.attach("eth0", AttachMode::Native)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Limits: Linux 5.18 or newer (XDP programs for multi-buffer frames, which jumbo MTUs need); 256
//! receive queues; one 802.1Q tag. An interface has room for one XDP program: an occupied one is
//! named and refused, never taken over. The mode asked for is the mode used; falling from native
//! to generic is the caller's decision. VLAN tags that a network card takes out of the frame are
//! invisible here, see [`rx_vlan_offload`].

#![forbid(unsafe_code)]

mod classifier;
mod error;
mod interface;
pub mod netlink;

pub use classifier::{AttachMode, Classifier, PROGRAM_NAME, QueueCounters};
pub use error::{AttachError, LoadError, UpdateError};
pub use interface::{Interface, Occupant, OccupantMode, rx_vlan_offload};
