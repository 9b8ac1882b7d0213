//! The library's own suite for log stores and state machines.

use std::path::Path;
use std::sync::Arc;

use model::Partition;
use openraft::testing::{StoreBuilder, Suite};

use super::super::types::StorageError;
use super::super::{FoundLog, LogStore, StateMachine, TypeConfig};
use crate::log::tests::sim_disk::SimDisk;
use crate::log::{LogOptions, PartitionLog};
use crate::metrics::Metrics;
use crate::partition::{self, PartitionHandle, QueueLimits};

struct Builder;

/// Ends the actor when the store's test is over.
struct Open(PartitionHandle);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Open> for Builder {
    async fn build(&self) -> Result<(Open, LogStore, StateMachine), StorageError> {
        let number = Partition::new(0);
        let (mut log, report) = PartitionLog::open(
            Arc::new(SimDisk::new()),
            Path::new("/data/partition-0"),
            number,
            LogOptions::default(),
            0,
        )
        .unwrap();
        let found = FoundLog::prepare(&mut log, &report).unwrap();
        let limits = QueueLimits { bytes_max: 1 << 20, requests_max: 100 };
        let metrics = Metrics::new().of_partition(number);
        let (handle, _thread) = partition::start(number, log, limits, metrics).unwrap();
        let store = LogStore::new(number, found, handle.log_access());
        let machine = StateMachine::new(&store);
        Ok((Open(handle), store, machine))
    }
}

#[test]
fn the_store_passes_the_librarys_suite() {
    Suite::test_all(Builder).unwrap();
}
