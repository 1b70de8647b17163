//! The xtipc daemon: workers, steward, bearers, application boundary.
fn main() {}
