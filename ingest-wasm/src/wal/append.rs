//! Writes a batch to the edge WAL.
//!
//! Invariant: when [`append`] says that a batch is written, all its pieces are durable and within the bounds, however
//! many write at once; else none of it counts.

use futures::{StreamExt, stream};
use model::Tenant;

use super::key::{PieceKey, Place};
use super::listing::Listing;
use super::piece::{Header, header_bytes, pack};
use crate::budget::Busy;
use crate::config::WalBounds;
use crate::context::Context;
use crate::delivery::Delivery;
use crate::key_value::KeyValueError;
use crate::limits;
use crate::runtime::Runtime;

/// Why a batch is not in the WAL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It holds as much as it may.
    #[error("the edge WAL is full")]
    Full,
    /// There is no room for the copies that are being written.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The store did not take it.
    #[error(transparent)]
    KeyValue(#[from] KeyValueError),
}

/// Writes a batch behind all entries of its partition that `listing` has.
///
/// # Errors
/// When it is not written, or not to stay; what of it is in the store is removed or counts for nothing.
pub async fn append<R: Runtime>(
    context: &Context<'_, R>,
    listing: &Listing,
    bounds: WalBounds,
    delivery: &Delivery,
) -> Result<(), AppendError> {
    let place = Place::after(listing.last_place(delivery.partition), context.now_ms, context.chance());
    let keys = piece_keys(delivery, place);
    let bytes: u64 = keys.iter().map(|key| u64::from(key.bytes)).sum();
    let (entries, occupied) = listing.occupied();
    if entries >= bounds.entries_max || occupied.saturating_add(bytes) > bounds.bytes_max {
        return Err(AppendError::Full);
    }
    // Each piece is copied into its value, and that once more on its way out.
    let mut share = context.budget.share();
    let copies = 2 * limits::WAL_PIECES_AT_ONCE.min(keys.len());
    share.take(copies * limits::WAL_PIECE_BYTES_MAX.min(delivery.lines.len()))?;
    let written = match write(context, delivery, &keys).await {
        // Others may have written since the listing, each within the bounds for itself.
        Ok(()) => fits(context, bounds).await,
        Err(error) => Err(error.into()),
    };
    if written.is_err() {
        // Incomplete, it counts for nothing and is dropped in time; complete, it is a batch that storage may well get.
        remove(context, &keys).await;
    }
    written
}

fn piece_keys(delivery: &Delivery, place: Place) -> Vec<PieceKey> {
    let header = header_bytes(&Tenant::default(), delivery.acks);
    let sizes = delivery.lines.chunks(limits::WAL_PIECE_BYTES_MAX).map(|lines| header + lines.len());
    let sizes: Vec<usize> = sizes.collect();
    // A batch has at most 40 MiB, which are 44 pieces, and 100,000 records.
    let pieces = sizes.len() as u16;
    let key = |(piece, bytes)| PieceKey {
        partition: delivery.partition,
        place,
        id: delivery.id,
        digest: delivery.digest,
        piece,
        pieces,
        bytes: bytes as u32,
        records: delivery.record_count as u32,
    };
    (0..pieces).zip(sizes).map(key).collect()
}

async fn write<R: Runtime>(
    context: &Context<'_, R>,
    delivery: &Delivery,
    keys: &[PieceKey],
) -> Result<(), KeyValueError> {
    let pieces = keys.iter().zip(delivery.lines.chunks(limits::WAL_PIECE_BYTES_MAX));
    let write = |(key, lines): (&PieceKey, &[u8])| {
        let header = Header {
            id: key.id,
            digest: key.digest,
            partition_count: context.config.partitions,
            partition: key.partition,
            records: key.records,
            piece: key.piece,
            pieces: key.pieces,
            acks: delivery.acks,
            tenant: Tenant::default(),
        };
        context.storage.set(key.to_string(), pack(&header, lines))
    };
    let mut writes = stream::iter(pieces).map(write).buffer_unordered(limits::WAL_PIECES_AT_ONCE);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

/// Whether all that is there is within the bounds. Of all who write at once, the last one sees the others: so what is
/// acknowledged is within the bounds, though one or another may be refused for what another one takes back.
async fn fits<R: Runtime>(context: &Context<'_, R>, bounds: WalBounds) -> Result<(), AppendError> {
    let (entries, bytes) = Listing::of(&context.storage.keys().await?).occupied();
    if entries > bounds.entries_max || bytes > bounds.bytes_max { Err(AppendError::Full) } else { Ok(()) }
}

/// Removes pieces, as far as that is possible.
pub(super) async fn remove<R: Runtime>(context: &Context<'_, R>, keys: &[PieceKey]) {
    let removals = stream::iter(keys).map(|key| context.storage.delete(key.to_string()));
    removals.buffer_unordered(limits::WAL_PIECES_AT_ONCE).for_each(|_lost| async {}).await;
}
