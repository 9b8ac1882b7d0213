//! `storage inspect`: what lies in a data directory.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{DirArgs, Outcome, ToolError, partitions_in, write_json};
use crate::log::{LogSnapshot, RealDisk, SegmentStatus};

/// A partition's state.
#[derive(Debug, Serialize)]
struct PartitionReport {
    partition: u16,
    first_offset: u64,
    next_offset: u64,
    closed_cleanly: bool,
    torn_bytes: u64,
    lost_records: u64,
    altered_headers: u32,
    rebuilt_indexes: usize,
    damage: Vec<String>,
    segments: Vec<SegmentReport>,
}

/// A segment's state.
#[derive(Debug, Serialize)]
struct SegmentReport {
    base_offset: u64,
    end_offset: u64,
    batches: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time: Option<String>,
    data_bytes: u64,
    stored_bytes: u64,
    index_bytes: u64,
    state: &'static str,
    damaged_places: u64,
}

pub(super) fn inspect(args: &DirArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    let mut reports = Vec::new();
    for (partition, dir) in partitions_in(&args.dir)? {
        let snapshot = LogSnapshot::open(Arc::new(RealDisk), &dir, partition)?;
        reports.push(PartitionReport::of(&snapshot));
    }
    if args.json {
        write_json(out, &reports)?;
    } else {
        reports.iter().try_for_each(|report| write!(out, "{report}")).map_err(ToolError::Output)?;
    }
    let is_damaged = reports
        .iter()
        .any(|report| !report.damage.is_empty() || report.lost_records > 0 || report.altered_headers > 0);
    Ok(if is_damaged { Outcome::Damaged } else { Outcome::Sound })
}

impl PartitionReport {
    fn of(snapshot: &LogSnapshot) -> Self {
        let (status, recovery) = (snapshot.status(), snapshot.recovery());
        Self {
            partition: status.partition.get(),
            first_offset: status.first_offset.get(),
            next_offset: recovery.next_offset.get(),
            closed_cleanly: recovery.was_closed,
            torn_bytes: recovery.torn_bytes,
            lost_records: recovery.lost_records,
            altered_headers: recovery.altered.cut,
            rebuilt_indexes: recovery.rebuilt_indexes,
            damage: status.damage().map(ToString::to_string).collect(),
            segments: status.segments.iter().map(SegmentReport::of).collect(),
        }
    }
}

impl SegmentReport {
    fn of(segment: &SegmentStatus) -> Self {
        Self {
            base_offset: segment.base_offset.get(),
            end_offset: segment.end_offset.get(),
            batches: segment.batch_count,
            first_time: segment.timestamp_min_ms.map(time_text),
            last_time: segment.timestamp_max_ms.map(time_text),
            data_bytes: segment.data_bytes,
            stored_bytes: segment.stored_bytes,
            index_bytes: segment.index_bytes,
            state: match (segment.sealed, segment.compressed) {
                (false, _) => "active",
                (true, false) => "sealed",
                (true, true) => "compressed",
            },
            damaged_places: segment.damage_count,
        }
    }
}

/// A timestamp as RFC 3339; beyond the year 9999 as the number it is.
fn time_text(timestamp_ms: u64) -> String {
    let timestamp = i64::try_from(timestamp_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| timestamp_ms.to_string(), |timestamp| format!("{timestamp:.3}"))
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, first_offset, next_offset, .. } = self;
        writeln!(f, "partition {partition}: offsets {first_offset} to {next_offset}, {}", self.health())?;
        for damage in &self.damage {
            writeln!(f, "  damaged: {damage}")?;
        }
        writeln!(
            f,
            "  {:>20}  {:>20}  {:>8}  {:>14}  {:>14}  {:<10}  {:<24}  last record",
            "segment", "end", "batches", "bytes", "on disk", "state", "first record"
        )?;
        for segment in &self.segments {
            writeln!(
                f,
                "  {:020}  {:>20}  {:>8}  {:>14}  {:>14}  {:<10}  {:<24}  {}",
                segment.base_offset,
                segment.end_offset,
                segment.batches,
                segment.data_bytes,
                segment.stored_bytes + segment.index_bytes,
                segment.state,
                segment.first_time.as_deref().unwrap_or("-"),
                segment.last_time.as_deref().unwrap_or("-"),
            )?;
        }
        Ok(())
    }
}

impl PartitionReport {
    fn health(&self) -> String {
        let mut health = vec![match self.damage.len() {
            0 => "sound as far as it was read".to_owned(),
            1 => "damaged in one place".to_owned(),
            places => format!("damaged in {places} places"),
        }];
        if !self.closed_cleanly {
            health.push("not closed cleanly".to_owned());
        }
        let counts = [
            (self.torn_bytes, "bytes of a torn batch at the end"),
            (self.lost_records, "flushed records gone at the end"),
            (self.altered_headers.into(), "altered headers at the end, without records"),
            (self.rebuilt_indexes as u64, "missing indexes, made from the records at the next start"),
        ];
        health.extend(
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        health.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{data_dir, run_tool};
    use super::super::{Outcome, Tool};
    use super::*;

    #[test]
    fn a_table_and_json_show_partitions_segments_times_and_sizes() {
        let temp = data_dir(&[5, 3]);
        let args = |json| Tool::Inspect(DirArgs { dir: temp.path().to_owned(), json });
        let (outcome, text) = run_tool(&args(false));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        assert!(text.contains("partition 0: offsets 0 to 5, sound"), "{text}");
        assert!(text.contains("1970-01-01T00:00:01.000Z"), "{text}");

        let (outcome, json) = run_tool(&args(true));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        let reports: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(reports.len(), 2);
        assert_eq!(reports[1]["next_offset"], 3);
        assert_eq!(reports[1]["segments"][0]["batches"], 3);
        assert_eq!(reports[1]["segments"][0]["state"], "active");
    }

    #[test]
    fn a_directory_without_partitions_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (outcome, _) = run_tool(&Tool::Inspect(DirArgs { dir: temp.path().to_owned(), json: false }));
        assert!(matches!(outcome, Err(ToolError::NoPartitions(_))));
    }
}
