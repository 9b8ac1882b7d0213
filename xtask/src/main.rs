//! edgelog.
fn main() {}
