//! Benchmarks of xtipc.
fn main() {}
