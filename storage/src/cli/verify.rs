//! `storage verify`: reads everything, and names what is not as it was written.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::{DirArgs, Outcome, ToolError, partitions_in, write_json};
use crate::log::{Damage, LogSnapshot, RealDisk};

/// What is sound of a partition, and what is not.
#[derive(Debug, Serialize)]
struct PartitionReport {
    partition: u16,
    directory: String,
    batches: u64,
    records: u64,
    bytes: u64,
    damage: Vec<Place>,
    lost_records: u64,
    altered_headers: u32,
    torn_bytes: u64,
    next_offset: u64,
}

/// A damaged place.
#[derive(Debug, Serialize)]
struct Place {
    segment: u64,
    position: u64,
    first_offset: u64,
    end_offset: u64,
    what: String,
}

pub(super) fn verify(args: &DirArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    let mut reports = Vec::new();
    for (partition, dir) in partitions_in(&args.dir)? {
        let snapshot = LogSnapshot::open(Arc::new(RealDisk), &dir, partition)?;
        let report = PartitionReport::of(&snapshot, &dir)?;
        if !args.json {
            // Reading it all takes a while: each partition is told when it is done.
            write!(out, "{report}").map_err(ToolError::Output)?;
        }
        reports.push(report);
    }
    if args.json {
        write_json(out, &reports)?;
    }
    let is_sound = reports
        .iter()
        .all(|report| report.damage.is_empty() && report.lost_records == 0 && report.altered_headers == 0);
    Ok(if is_sound { Outcome::Sound } else { Outcome::Damaged })
}

impl PartitionReport {
    fn of(snapshot: &LogSnapshot, dir: &Path) -> Result<Self, ToolError> {
        let found = snapshot.verify()?;
        let recovery = snapshot.recovery();
        Ok(Self {
            partition: snapshot.reader().partition().get(),
            directory: dir.display().to_string(),
            batches: found.batches,
            records: found.records,
            bytes: found.bytes,
            damage: found.damage.iter().map(Place::of).collect(),
            lost_records: recovery.lost_records,
            altered_headers: recovery.altered.cut,
            torn_bytes: recovery.torn_bytes,
            next_offset: recovery.next_offset.get(),
        })
    }
}

impl Place {
    fn of(damage: &Damage) -> Self {
        Self {
            segment: damage.segment.get(),
            position: damage.position,
            first_offset: damage.first_offset.get(),
            end_offset: damage.end_offset.get(),
            what: damage.kind.to_string(),
        }
    }
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, directory, batches, records, bytes, .. } = self;
        writeln!(f, "partition {partition}: {batches} batches, {records} records, {bytes} bytes are sound")?;
        for Place { segment, position, first_offset, end_offset, what } in &self.damage {
            writeln!(
                f,
                "{directory}: damaged: segment {segment:020} at byte {position}, \
                 offsets {first_offset} to {end_offset}: {what}"
            )?;
        }
        if self.lost_records > 0 {
            let (lost, from) = (self.lost_records, self.next_offset);
            writeln!(f, "{directory}: damaged: {lost} flushed records from offset {from} on are gone")?;
        }
        if self.altered_headers > 0 {
            let altered = self.altered_headers;
            writeln!(
                f,
                "{directory}: damaged: {altered} headers at the end are not what was written, and no records are left \
                 of what they stood for"
            )?;
        }
        if self.torn_bytes > 0 {
            let torn = self.torn_bytes;
            writeln!(
                f,
                "{directory}: {torn} bytes of a torn batch at the end; they are cut at the next start"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tool;
    use super::super::tests::{data_dir, run_tool};
    use super::*;

    #[test]
    fn a_sound_directory_is_said_to_be_sound() {
        let temp = data_dir(&[5, 3]);
        let (outcome, text) = run_tool(&Tool::Verify(DirArgs { dir: temp.path().to_owned(), json: false }));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        assert!(text.contains("partition 1: 3 batches, 3 records"), "{text}");
    }

    #[test]
    fn the_exact_place_of_damage_is_named_and_the_exit_code_says_so() {
        let temp = data_dir(&[5]);
        let victim = temp.path().join("partition-0/00000000000000000000.jsonl");
        let mut data = std::fs::read(&victim).unwrap();
        let second_line = data.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        data[second_line + 20] ^= 1;
        std::fs::write(&victim, &data).unwrap();
        let (outcome, text) = run_tool(&Tool::Verify(DirArgs { dir: temp.path().to_owned(), json: false }));
        assert_eq!(outcome.unwrap(), Outcome::Damaged);
        let place =
            format!("segment 00000000000000000000 at byte {second_line}, offsets 1 to 2: the bytes do not");
        assert!(text.contains(&place), "{text}");
        assert!(text.contains("4 batches, 4 records"), "{text}");
    }

    #[test]
    fn a_torn_tail_is_no_damage() {
        let temp = data_dir(&[5]);
        let partition = temp.path().join("partition-0");
        std::fs::remove_file(partition.join("closed")).unwrap();
        let victim = partition.join("00000000000000000000.jsonl");
        let mut data = std::fs::read(&victim).unwrap();
        data.extend_from_slice(b"{\"half");
        std::fs::write(&victim, &data).unwrap();
        let (outcome, text) = run_tool(&Tool::Verify(DirArgs { dir: partition, json: false }));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        assert!(text.contains("6 bytes of a torn batch at the end"), "{text}");
        assert_eq!(std::fs::read(&victim).unwrap(), data, "looking changes nothing");
    }

    #[test]
    fn json_names_the_same_places() {
        let temp = data_dir(&[5]);
        let partition = temp.path().join("partition-0");
        let victim = partition.join("00000000000000000000.jsonl");
        let mut data = std::fs::read(&victim).unwrap();
        data[20] ^= 1;
        std::fs::write(&victim, &data).unwrap();
        let args = DirArgs { dir: temp.path().to_owned(), json: true };
        let (outcome, text) = run_tool(&Tool::Verify(args));
        assert_eq!(outcome.unwrap(), Outcome::Damaged);
        let reports: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(reports[0]["records"], 4);
        assert_eq!(reports[0]["damage"][0]["position"], 0);
        assert_eq!(reports[0]["damage"][0]["end_offset"], 1);
    }

    #[test]
    fn flushed_records_that_are_gone_are_damage() {
        let temp = data_dir(&[5]);
        let victim = temp.path().join("partition-0/00000000000000000000.jsonl");
        let data = std::fs::read(&victim).unwrap();
        std::fs::write(&victim, &data[..data.len() / 2]).unwrap();
        let args = DirArgs { dir: temp.path().to_owned(), json: false };
        let (outcome, text) = run_tool(&Tool::Verify(args));
        assert_eq!(outcome.unwrap(), Outcome::Damaged);
        assert!(text.contains("3 flushed records from offset 2 on are gone"), "{text}");
    }
}
