//! Zstandard bodies. Frames may follow one another; those to be skipped are. A frame's checksum and its announced
//! size are checked, where it has them.

use std::io::{self, Write};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::DecodeError;
use crate::budget::{Budget, Busy, Metered};
use crate::limits;

/// Bytes that are decoded between two looks at the limit. The format's blocks are no larger.
const STEP_BYTES: usize = 128 << 10;

pub(super) fn decode<'b>(
    body: &[u8],
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<Metered<'b>, DecodeError> {
    // What the decoder keeps for itself: its window, and a block on top of it.
    let mut window = budget.share();
    window.take(limits::ZSTD_WINDOW_BYTES_MAX)?;
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(limits::ZSTD_WINDOW_BYTES_MAX as u64);
    let mut out = Limited { bytes: Metered::new(budget), bytes_max, stopped: None };
    let mut rest = body;
    if rest.is_empty() {
        return Err(damaged("it is empty"));
    }
    while !rest.is_empty() {
        match decoder.reset(&mut rest) {
            Ok(()) => decode_frame(&mut decoder, &mut rest, &mut out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let skipped = usize::try_from(length).ok().and_then(|length| rest.get(length..));
                rest = skipped.ok_or_else(|| damaged("a skippable frame is cut short"))?;
            }
            Err(error) => return Err(damaged(&error.to_string())),
        }
    }
    Ok(out.bytes)
}

fn decode_frame(
    decoder: &mut FrameDecoder,
    rest: &mut &[u8],
    out: &mut Limited<'_>,
) -> Result<(), DecodeError> {
    let start = out.bytes.bytes().len();
    // Zero also when the frame does not say.
    let announced = decoder.content_size();
    if announced > out.room() as u64 {
        return Err(DecodeError::TooLarge(out.bytes_max));
    }
    while !decoder.is_finished() {
        decoder
            .decode_blocks(&mut *rest, BlockDecodingStrategy::UptoBytes(STEP_BYTES))
            .map_err(|error| damaged(&error.to_string()))?;
        if decoder.can_collect() > out.room() {
            return Err(DecodeError::TooLarge(out.bytes_max));
        }
        decoder.collect_to_writer(&mut *out).map_err(|error| out.why(&error))?;
    }
    let length = (out.bytes.bytes().len() - start) as u64;
    if announced != 0 && announced != length {
        return Err(damaged("a frame has another size than it announces"));
    }
    if decoder.get_checksum_from_data().is_some_and(|sum| decoder.get_calculated_checksum() != Some(sum)) {
        return Err(damaged("a frame's checksum does not match"));
    }
    Ok(())
}

/// The decoded bytes, which end at the limit.
struct Limited<'b> {
    bytes: Metered<'b>,
    bytes_max: usize,
    stopped: Option<Busy>,
}

impl Limited<'_> {
    fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes.bytes().len())
    }

    /// Why writing failed.
    fn why(&self, error: &io::Error) -> DecodeError {
        match self.stopped {
            Some(busy) => busy.into(),
            None => damaged(&error.to_string()),
        }
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if let Err(busy) = self.bytes.reserve(piece.len(), self.bytes_max) {
            self.stopped = Some(busy);
            return Err(io::Error::other(busy));
        }
        self.bytes.bytes_mut().extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn damaged(reason: &str) -> DecodeError {
    DecodeError::Damaged { encoding: "zstd", reason: reason.to_owned() }
}
