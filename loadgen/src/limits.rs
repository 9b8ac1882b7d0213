//! The bounds of a run, each with its reason.

use std::time::Duration;

/// Connections of one run: each holds one batch in memory and one socket.
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// Records of a run with `--verify`: about 30 bytes of memory each while the stored records are compared.
pub(crate) const VERIFY_RECORDS_MAX: u64 = 50_000_000;

/// Attempts of one batch beyond the first that `--retries` may ask for. With the longest waits this is 50 minutes.
pub(crate) const RETRIES_MAX: u32 = 100;

/// Services of a corpus: what each says is rendered once, some 10 kB.
pub(crate) const SERVICES_MAX: u32 = 10_000;

/// Bytes of an answer that is held whole. The ingest lists at most 100 rejected records in one.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The wait before the first retry where the answer does not name one; it doubles from there.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait before a retry where the answer does not name one.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The longest `Retry-After` that is honoured; a longer one is cut to this, or one server could stop the run.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How far behind its rate a run may catch up at once: after a stall of the server, a burst of this length.
pub(crate) const RATE_BURST: Duration = Duration::from_secs(1);

/// Examples that a report shows of each kind of failure.
pub(crate) const EXAMPLES_MAX: usize = 5;

/// Characters of one example.
pub(crate) const EXAMPLE_CHARS_MAX: usize = 400;

/// Different `Durability` headers that are counted apart; edgelog has four levels and a few words on each.
pub(crate) const DURABILITY_KINDS_MAX: usize = 16;

/// The pause between two looks at storage while `--verify` waits for records or for a node.
pub(crate) const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// How long an attempt that is under way may still take after Ctrl-C: an answer that is close is waited for.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(1);
