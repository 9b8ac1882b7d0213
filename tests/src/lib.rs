//! edgelog.
