//! The key-value store: Spin's SQLite file, behind one connection on one thread of its own.
//!
//! Invariant: when [`KeyValue::set`] or [`KeyValue::delete`] returns, the change is synced to disk. Operations that
//! wait together share one transaction, so they share its syncs; each is still answered for itself.
//! It must not know of components and what they are granted: it takes a label and trusts it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::limits;

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// In this process's memory: gone when it ends.
    Memory,
    /// In this SQLite file, which Spin can use in turn.
    File(PathBuf),
}

impl From<&str> for Location {
    /// `:memory:` or a path.
    fn from(text: &str) -> Self {
        match text {
            ":memory:" => Self::Memory,
            path => Self::File(PathBuf::from(path)),
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum KeyValueError {
    /// SQLite's reason.
    #[error("{0}")]
    Sqlite(String),
    /// A key, value or listing beyond its bound.
    #[error("{what} is larger than {bytes_max} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound.
        bytes_max: usize,
    },
    /// The directory of the file cannot be made.
    #[error("{0}")]
    Directory(String),
    /// The store's thread has ended: the process is shutting down.
    #[error("the key-value store is closed")]
    Closed,
}

impl From<rusqlite::Error> for KeyValueError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error.to_string())
    }
}

/// A handle to the store. Clones share it; the thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    operations: mpsc::Sender<Operation>,
    emptiness: Arc<Emptiness>,
}

/// What is known of stores without keys, which is how they are nearly always, and whose keys are asked for with every
/// request. A store that is known to be empty is so until something is set through this process; what another process
/// sets is found a moment later.
#[derive(Debug, Default)]
struct Emptiness {
    sets_begun: AtomicU64,
    known: Mutex<Option<KnownEmpty>>,
}

#[derive(Debug)]
struct KnownEmpty {
    store: String,
    sets_begun: u64,
    since: Instant,
}

impl Emptiness {
    fn begin_set(&self) {
        self.sets_begun.fetch_add(1, SeqCst);
    }

    fn sets_begun(&self) -> u64 {
        self.sets_begun.load(SeqCst)
    }

    fn is_known(&self, store: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|known| {
            known.store == store
                && known.sets_begun == self.sets_begun()
                && known.since.elapsed() < limits::KEY_VALUE_EMPTY_TIME
        })
    }

    /// Notes that a listing which was asked for at `since`, when so many sets had begun, found no key.
    fn note(&self, store: &str, sets_begun: u64, since: Instant) {
        let known = KnownEmpty { store: store.to_owned(), sets_begun, since };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

impl KeyValue {
    /// Opens (and if need be creates) the store and starts its thread. It blocks for as long as that takes.
    ///
    /// # Errors
    /// [`KeyValueError`] when the file cannot be opened or is no such store.
    pub(crate) fn open(location: &Location) -> Result<Self, KeyValueError> {
        let connection = connect(location)?;
        let (operations, received) = mpsc::channel(limits::KEY_VALUE_QUEUE);
        std::thread::Builder::new()
            .name("key-value".to_owned())
            .spawn(move || serve(connection, received))
            .map_err(|error| KeyValueError::Sqlite(error.to_string()))?;
        Ok(Self { operations, emptiness: Arc::default() })
    }

    /// The value of a key, if it has one.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub(crate) async fn get(&self, store: &str, key: String) -> Result<Option<Vec<u8>>, KeyValueError> {
        check_size("the key", key.len(), limits::KEY_BYTES_MAX)?;
        self.call(store, |reply| Action::Get { key, reply }).await
    }

    /// Sets the value of a key, durably.
    ///
    /// # Errors
    /// [`KeyValueError`]; the old value is then still there, or, if the sync failed, either may be.
    pub(crate) async fn set(&self, store: &str, key: String, value: Vec<u8>) -> Result<(), KeyValueError> {
        check_size("the key", key.len(), limits::KEY_BYTES_MAX)?;
        check_size("the value", value.len(), limits::VALUE_BYTES_MAX)?;
        self.emptiness.begin_set();
        self.call(store, |reply| Action::Set { key, value, reply }).await
    }

    /// Removes a key, durably. A key that is not there is no error.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub(crate) async fn delete(&self, store: &str, key: String) -> Result<(), KeyValueError> {
        check_size("the key", key.len(), limits::KEY_BYTES_MAX)?;
        self.call(store, |reply| Action::Delete { key, reply }).await
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// [`KeyValueError`].
    pub(crate) async fn exists(&self, store: &str, key: String) -> Result<bool, KeyValueError> {
        check_size("the key", key.len(), limits::KEY_BYTES_MAX)?;
        self.call(store, |reply| Action::Exists { key, reply }).await
    }

    /// All keys, in order.
    ///
    /// # Errors
    /// [`KeyValueError::TooLarge`] when they exceed the bound of a listing.
    pub(crate) async fn keys(&self, store: &str) -> Result<Vec<String>, KeyValueError> {
        if self.emptiness.is_known(store) {
            return Ok(Vec::new());
        }
        let (sets_begun, since) = (self.emptiness.sets_begun(), Instant::now());
        let keys = self.call(store, |reply| Action::Keys { reply }).await?;
        if keys.is_empty() {
            self.emptiness.note(store, sets_begun, since);
        }
        Ok(keys)
    }

    async fn call<T>(
        &self,
        store: &str,
        action: impl FnOnce(oneshot::Sender<Result<T, KeyValueError>>) -> Action,
    ) -> Result<T, KeyValueError> {
        let (reply, answer) = oneshot::channel();
        let operation = Operation { store: store.to_owned(), action: action(reply) };
        self.operations.send(operation).await.map_err(|_| KeyValueError::Closed)?;
        answer.await.map_err(|_| KeyValueError::Closed)?
    }
}

#[derive(Debug)]
struct Operation {
    store: String,
    action: Action,
}

type Reply<T> = oneshot::Sender<Result<T, KeyValueError>>;

#[derive(Debug)]
enum Action {
    Get { key: String, reply: Reply<Option<Vec<u8>>> },
    Set { key: String, value: Vec<u8>, reply: Reply<()> },
    Delete { key: String, reply: Reply<()> },
    Exists { key: String, reply: Reply<bool> },
    Keys { reply: Reply<Vec<String>> },
}

/// An answer that must not leave before its transaction is on disk. It is called with the commit's outcome.
type Answer = Box<dyn FnOnce(Result<(), KeyValueError>)>;

fn connect(location: &Location) -> Result<Connection, KeyValueError> {
    let connection = match location {
        Location::Memory => Connection::open_in_memory()?,
        Location::File(path) => {
            if let Some(directory) = path.parent().filter(|path| *path != Path::new("")) {
                std::fs::create_dir_all(directory)
                    .map_err(|error| KeyValueError::Directory(format!("{}: {error}", directory.display())))?;
            }
            Connection::open(path)?
        }
    };
    // Spin may have the same file open for a moment (a restart): wait for it rather than fail.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Spin's own schema, so that either runtime can go on where the other stopped.
    connection.execute(
        "CREATE TABLE IF NOT EXISTS spin_key_value (
            store TEXT NOT NULL,
            key   TEXT NOT NULL,
            value BLOB NOT NULL,
            PRIMARY KEY (store, key)
        )",
        [],
    )?;
    Ok(connection)
}

fn serve(mut connection: Connection, mut operations: mpsc::Receiver<Operation>) {
    let mut group = Vec::with_capacity(limits::KEY_VALUE_GROUP_MAX);
    while operations.blocking_recv_many(&mut group, limits::KEY_VALUE_GROUP_MAX) > 0 {
        apply(&mut connection, group.drain(..));
    }
}

/// Applies a group in one transaction and answers after its commit.
fn apply(connection: &mut Connection, group: impl Iterator<Item = Operation>) {
    // The transaction takes its locks when its first statement needs them: a group of reads syncs nothing.
    let transaction = match connection.transaction() {
        Ok(transaction) => transaction,
        Err(error) => {
            let error = KeyValueError::from(error);
            for operation in group {
                operation.action.fail(error.clone());
            }
            return;
        }
    };
    let answers: Vec<Answer> = group.map(|operation| operation.run(&transaction)).collect();
    let committed = transaction.commit().map_err(KeyValueError::from);
    if let Err(error) = &committed {
        tracing::error!(%error, "the key-value store could not commit");
    }
    for answer in answers {
        answer(committed.clone());
    }
}

impl Operation {
    fn run(self, transaction: &Transaction<'_>) -> Answer {
        let store = &self.store;
        match self.action {
            Action::Get { key, reply } => answer_after_commit(reply, get(transaction, store, &key)),
            Action::Set { key, value, reply } => {
                answer_after_commit(reply, set(transaction, store, &key, &value))
            }
            Action::Delete { key, reply } => answer_after_commit(reply, delete(transaction, store, &key)),
            Action::Exists { key, reply } => answer_after_commit(reply, exists(transaction, store, &key)),
            Action::Keys { reply } => answer_after_commit(reply, keys(transaction, store)),
        }
    }
}

impl Action {
    fn fail(self, error: KeyValueError) {
        match self {
            Self::Get { reply, .. } => send(reply, Err(error)),
            Self::Set { reply, .. } | Self::Delete { reply, .. } => send(reply, Err(error)),
            Self::Exists { reply, .. } => send(reply, Err(error)),
            Self::Keys { reply } => send(reply, Err(error)),
        }
    }
}

fn answer_after_commit<T: 'static>(reply: Reply<T>, result: Result<T, KeyValueError>) -> Answer {
    Box::new(move |committed| send(reply, committed.and(result)))
}

fn send<T>(reply: Reply<T>, result: Result<T, KeyValueError>) {
    // A caller that has gone (its instance was dropped) wants no answer.
    drop(reply.send(result));
}

fn get(transaction: &Transaction<'_>, store: &str, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
    let mut statement =
        transaction.prepare_cached("SELECT value FROM spin_key_value WHERE store = ?1 AND key = ?2")?;
    Ok(statement.query_row((store, key), |row| row.get(0)).optional()?)
}

fn set(transaction: &Transaction<'_>, store: &str, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (store, key) DO UPDATE SET value = excluded.value",
    )?;
    statement.execute((store, key, value))?;
    Ok(())
}

fn delete(transaction: &Transaction<'_>, store: &str, key: &str) -> Result<(), KeyValueError> {
    let mut statement =
        transaction.prepare_cached("DELETE FROM spin_key_value WHERE store = ?1 AND key = ?2")?;
    statement.execute((store, key))?;
    Ok(())
}

fn exists(transaction: &Transaction<'_>, store: &str, key: &str) -> Result<bool, KeyValueError> {
    let mut statement =
        transaction.prepare_cached("SELECT 1 FROM spin_key_value WHERE store = ?1 AND key = ?2")?;
    Ok(statement.exists((store, key))?)
}

fn keys(transaction: &Transaction<'_>, store: &str) -> Result<Vec<String>, KeyValueError> {
    let mut statement =
        transaction.prepare_cached("SELECT key FROM spin_key_value WHERE store = ?1 ORDER BY key")?;
    let mut listed = Vec::new();
    let mut bytes = 0;
    for key in statement.query_map([store], |row| row.get::<_, String>(0))? {
        let key = key?;
        bytes += key.len();
        check_size("the list of keys", bytes, limits::KEY_LISTING_BYTES_MAX)?;
        listed.push(key);
    }
    Ok(listed)
}

fn check_size(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), KeyValueError> {
    if bytes > bytes_max {
        return Err(KeyValueError::TooLarge { what, bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{KeyValue, KeyValueError, Location};
    use crate::limits;

    fn memory() -> KeyValue {
        KeyValue::open(&Location::Memory).unwrap()
    }

    fn key(text: &str) -> String {
        text.to_owned()
    }

    #[tokio::test]
    async fn what_was_set_is_read_back_until_it_is_deleted() {
        let store = memory();
        assert_eq!(store.get("default", key("a")).await.unwrap(), None);
        store.set("default", key("a"), vec![1]).await.unwrap();
        store.set("default", key("a"), vec![0, 2]).await.unwrap();
        assert_eq!(store.get("default", key("a")).await.unwrap(), Some(vec![0, 2]));
        assert!(store.exists("default", key("a")).await.unwrap());
        store.delete("default", key("a")).await.unwrap();
        store.delete("default", key("a")).await.unwrap();
        assert!(!store.exists("default", key("a")).await.unwrap());
    }

    #[tokio::test]
    async fn keys_are_listed_in_order_and_stores_are_apart() {
        let store = memory();
        for name in ["b", "", "a/1"] {
            store.set("default", key(name), vec![]).await.unwrap();
        }
        store.set("other", key("c"), vec![]).await.unwrap();
        assert_eq!(store.keys("default").await.unwrap(), ["", "a/1", "b"]);
        assert_eq!(store.keys("other").await.unwrap(), ["c"]);
        assert!(!store.exists("other", key("b")).await.unwrap());
    }

    #[tokio::test]
    async fn a_store_that_was_found_empty_is_looked_at_again_after_a_set() {
        let store = memory();
        let clone = store.clone();
        for round in 0..3 {
            assert!(store.keys("default").await.unwrap().is_empty());
            assert!(store.keys("default").await.unwrap().is_empty());
            clone.set("default", key("a"), vec![round]).await.unwrap();
            assert_eq!(store.keys("default").await.unwrap(), ["a"]);
            assert!(store.keys("other").await.unwrap().is_empty());
            clone.delete("default", key("a")).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_another_process_sets_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().join("kv.db"));
        let (ours, theirs) = (KeyValue::open(&location).unwrap(), KeyValue::open(&location).unwrap());
        assert!(ours.keys("default").await.unwrap().is_empty());
        theirs.set("default", key("a"), vec![1]).await.unwrap();
        let found = async {
            while ours.keys("default").await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(limits::KEY_VALUE_EMPTY_TIME * 20, found).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_set_is_there_after_a_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().join(".spin/sqlite_key_value.db"));
        let store = KeyValue::open(&location).unwrap();
        let sets = (0..100u8).map(|n| store.set("default", format!("{n}"), vec![n; 1000]));
        for set in futures::future::join_all(sets).await {
            set.unwrap();
        }
        // The first handle is still open: a crash would not have closed it either.
        let reopened = KeyValue::open(&location).unwrap();
        for n in 0..100u8 {
            let value = reopened.get("default", format!("{n}")).await.unwrap();
            assert_eq!(value, Some(vec![n; 1000]));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused() {
        let store = memory();
        let long_key = "k".repeat(limits::KEY_BYTES_MAX + 1);
        let refused = store.get("default", long_key).await;
        assert!(matches!(refused, Err(KeyValueError::TooLarge { .. })));
        let refused = store.set("default", key("k"), vec![0; limits::VALUE_BYTES_MAX + 1]).await;
        assert!(matches!(refused, Err(KeyValueError::TooLarge { .. })));
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not.db");
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        let refused = KeyValue::open(&Location::File(path));
        assert!(matches!(refused, Err(KeyValueError::Sqlite(_))));
    }

    #[test]
    fn memory_has_a_name_of_its_own() {
        assert_eq!(Location::from(":memory:"), Location::Memory);
        assert_eq!(Location::from("a.db"), Location::File("a.db".into()));
    }
}
