//! The shared-memory contract between xtipcd and an application.
