//! The tasks, one file each.

pub(crate) mod bench;
pub(crate) mod component;
pub(crate) mod deploy;
pub(crate) mod dist;
pub(crate) mod sim;
mod spin;
pub(crate) mod test;
mod test_counts;
pub(crate) mod up;
pub(crate) mod upgrade;
