//! What edgelog's daemons say of themselves, the same way in each: metrics of the process and the build, the text of
//! `/metrics`, and the log on standard error.
//!
//! Invariant: nothing here fails because the system does not tell something; it is left out then. Must not know what
//! the daemons do: their own metrics are theirs.

pub mod log;
pub mod process;
pub mod reference;
pub mod text;
