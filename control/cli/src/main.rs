//! The xtipc command: operate a node as with the tipc tool.
fn main() {}
