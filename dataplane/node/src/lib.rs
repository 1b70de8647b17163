//! The xtipc daemon: workers, steward, bearers, application boundary.
//!
//! A library so that the bench and tests reach the parts; the program is `main.rs`.

pub(crate) mod bearer;
pub mod clock;
pub(crate) mod complaints;
pub mod config;
pub mod control;
pub(crate) mod crew;
pub(crate) mod door;
pub mod embedded;
pub mod epoch;
pub mod instance;
pub mod mail;
pub mod placement;
pub mod policy;
pub mod privileges;
pub mod secrets;
pub(crate) mod service_manager;
pub mod signals;
pub mod steward;
pub mod wait;
pub mod watchdog;
pub mod worker;
