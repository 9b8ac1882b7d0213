//! `storage import`: appends the records of a plain JSONL file to a partition.
//!
//! Invariants: a file with a line that is no record is refused before anything is written, unless such lines are to
//! be left out; importing the same file again adds nothing, so that an import that was interrupted can be repeated.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use model::{BatchDigest, BatchId, EnrichedLine, Partition, Tenant, ValidBatch, limits};

use super::{Outcome, ToolError};
use crate::clock::unix_now_ms;
use crate::log::{LogOptions, NewBatch, PartitionLog, RealDisk, partition_dir};

/// Records and bytes of one imported batch: as large as ingest makes them.
const BATCH_RECORDS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Bytes that are appended for one sync.
const SYNC_BYTES: usize = 16 << 20;

/// What to import.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// A file with one record on each line
    pub file: PathBuf,
    /// The node's data directory; created if there is none
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// The partition; by default the number in the file's name, as in partition-0.log
    #[arg(long, value_name = "N")]
    pub partition: Option<Partition>,
    /// Leave out lines that are no records, instead of refusing the file
    #[arg(long)]
    pub skip_invalid: bool,
}

pub(super) fn import(args: &ImportArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    let partition = args
        .partition
        .or_else(|| partition_of_file(&args.file))
        .ok_or_else(|| ToolError::NoPartitionNumber(args.file.clone()))?;
    if !args.skip_invalid {
        for line in Lines::open(&args.file)? {
            line?.checked(&args.file)?;
        }
    }
    let dir = partition_dir(&args.into, partition);
    let (log, _) =
        PartitionLog::open(Arc::new(RealDisk), &dir, partition, LogOptions::default(), unix_now_ms())?;
    let mut importer = Importer::new(args, partition, log);
    for line in Lines::open(&args.file)? {
        importer.add(line?)?;
    }
    importer.finish(out).map(|()| Outcome::Sound)
}

/// The number in a name such as `partition-0.log`.
fn partition_of_file(file: &Path) -> Option<Partition> {
    let name = file.file_name()?.to_str()?.strip_prefix("partition-")?;
    let digits = name.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

struct Importer<'a> {
    args: &'a ImportArgs,
    partition: Partition,
    log: PartitionLog,
    /// The lines of the next batch, how many, and where they begin in the file.
    lines: Vec<u8>,
    line_count: usize,
    position: u64,
    /// Batches to be appended with the next sync.
    waiting: Vec<NewBatch>,
    waiting_bytes: usize,
    imported_records: u64,
    known_records: u64,
    skipped_lines: u64,
}

impl<'a> Importer<'a> {
    fn new(args: &'a ImportArgs, partition: Partition, log: PartitionLog) -> Self {
        Self {
            args,
            partition,
            log,
            lines: Vec::new(),
            line_count: 0,
            position: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
            imported_records: 0,
            known_records: 0,
            skipped_lines: 0,
        }
    }

    fn add(&mut self, line: Line) -> Result<(), ToolError> {
        let position = line.position;
        match line.checked(&self.args.file) {
            Ok(Some(text)) => {
                if self.line_count >= BATCH_RECORDS_MAX || self.lines.len() + text.len() > BATCH_BYTES_MAX {
                    self.end_batch()?;
                }
                if self.line_count == 0 {
                    self.position = position;
                }
                self.lines.extend_from_slice(&text);
                self.lines.push(b'\n');
                self.line_count += 1;
            }
            Ok(None) => self.skipped_lines += 1,
            Err(ToolError::InvalidLine { .. }) if self.args.skip_invalid => self.skipped_lines += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), ToolError> {
        if self.line_count == 0 {
            return Ok(());
        }
        self.line_count = 0;
        let lines = std::mem::take(&mut self.lines);
        let digest = BatchDigest::of(&lines);
        let batch = ValidBatch::from_ndjson(lines.into()).map_err(|error| ToolError::InvalidLine {
            path: self.args.file.clone(),
            line: 0,
            position: self.position,
            reason: error.to_string(),
        })?;
        // The same lines at the same place are the same batch, however often they are imported.
        let key = format!("import {} {digest}", self.position);
        let id = BatchId::derive(&Tenant::default(), &key, self.partition);
        if self.log.find_batch(id)?.is_some() {
            self.known_records += u64::from(batch.record_count());
            return Ok(());
        }
        self.imported_records += u64::from(batch.record_count());
        self.waiting_bytes += batch.bytes().len();
        self.waiting.push(NewBatch {
            batch,
            id,
            digest,
            appended_at_ms: unix_now_ms(),
            term: 0,
            log_index: 0,
        });
        if self.waiting_bytes >= SYNC_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        self.log.append(&self.waiting)?;
        self.log.sync()?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(())
    }

    fn finish(mut self, out: &mut dyn Write) -> Result<(), ToolError> {
        self.end_batch()?;
        self.flush()?;
        let next_offset = self.log.written_end();
        self.log.close()?;
        let Self { partition, imported_records, known_records, skipped_lines, .. } = self;
        writeln!(
            out,
            "partition {partition}: {imported_records} records imported, {known_records} were there already, \
             {skipped_lines} lines left out; the next offset is {next_offset}"
        )
        .map_err(ToolError::Output)
    }
}

/// A line of a file.
struct Line {
    text: Vec<u8>,
    number: u64,
    position: u64,
    has_newline: bool,
}

impl Line {
    /// The line, if it is a record; `None` for a last line that was cut off while it was written.
    fn checked(self, file: &Path) -> Result<Option<Vec<u8>>, ToolError> {
        match EnrichedLine::parse(&self.text) {
            Ok(_) if self.text.first() == Some(&b'{') && self.text.last() == Some(&b'}') => {
                Ok(Some(self.text))
            }
            Err(_) if !self.has_newline => Ok(None),
            other => Err(ToolError::InvalidLine {
                path: file.to_owned(),
                line: self.number,
                position: self.position,
                reason: other
                    .err()
                    .map_or_else(|| "white space around the record".to_owned(), |e| e.to_string()),
            }),
        }
    }
}

/// The lines of a file, none longer than a record may be.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    number: u64,
    position: u64,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self, ToolError> {
        let file = File::open(path).map_err(|source| ToolError::Read { path: path.to_owned(), source })?;
        Ok(Self { path, reader: BufReader::with_capacity(1 << 20, file), number: 0, position: 0 })
    }

    fn read_line(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        let length_max = limits::RECORD_BYTES_MAX as u64 + 1;
        let count = io::Read::take(&mut self.reader, length_max).read_until(b'\n', &mut text)?;
        if count == 0 {
            return Ok(None);
        }
        let has_newline = text.pop_if(|byte| *byte == b'\n').is_some();
        if !has_newline && count as u64 == length_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {} is too long", self.number + 1),
            ));
        }
        self.number += 1;
        let line = Line { text, number: self.number, position: self.position, has_newline };
        self.position += count as u64;
        Ok(Some(line))
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, ToolError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_line().map_err(|source| ToolError::Read { path: self.path.to_owned(), source }).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{line, run_tool};
    use super::super::{DirArgs, Tool};
    use super::*;

    fn args(file: &Path, into: &Path) -> ImportArgs {
        ImportArgs { file: file.to_owned(), into: into.to_owned(), partition: None, skip_invalid: false }
    }

    #[test]
    fn a_plain_file_is_imported_once_however_often_it_is_tried() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("partition-3.log");
        let text: String = (0..2500).map(line).collect();
        std::fs::write(&file, &text).unwrap();
        let into = temp.path().join("node-1");
        let (outcome, answer) = run_tool(&Tool::Import(args(&file, &into)));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        assert!(answer.contains("partition 3: 2500 records imported, 0 were there already"), "{answer}");
        let (_, answer) = run_tool(&Tool::Import(args(&file, &into)));
        assert!(answer.contains("0 records imported, 2500 were there already"), "{answer}");

        let stored = std::fs::read_to_string(into.join("partition-3/00000000000000000000.jsonl")).unwrap();
        assert_eq!(stored, text);
        let (outcome, _) = run_tool(&Tool::Verify(DirArgs { dir: into, json: false }));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
    }

    #[test]
    fn a_line_that_is_no_record_refuses_the_file_unless_it_is_to_be_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("partition-0.log");
        std::fs::write(&file, format!("{}{{}}\n{}{{\"cut", line(1), line(2))).unwrap();
        let into = temp.path().join("node-1");
        let (outcome, _) = run_tool(&Tool::Import(args(&file, &into)));
        let Err(ToolError::InvalidLine { line: 2, position, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(position as usize, line(1).len());
        assert!(!into.exists());

        let lenient = ImportArgs { skip_invalid: true, ..args(&file, &into) };
        let (outcome, answer) = run_tool(&Tool::Import(lenient));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        assert!(answer.contains("2 records imported, 0 were there already, 2 lines left out"), "{answer}");
    }

    #[test]
    fn the_partition_is_in_the_name_or_has_to_be_said() {
        assert_eq!(partition_of_file(Path::new("x/partition-12.log")), Some(Partition::new(12)));
        assert_eq!(partition_of_file(Path::new("partition-1")), Some(Partition::new(1)));
        assert_eq!(partition_of_file(Path::new("app.log")), None);
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("app.log");
        std::fs::write(&file, line(1)).unwrap();
        let into = temp.path().join("node-1");
        let (outcome, _) = run_tool(&Tool::Import(args(&file, &into)));
        assert!(matches!(outcome, Err(ToolError::NoPartitionNumber(_))));
        let told = ImportArgs { partition: Some(Partition::new(5)), ..args(&file, &into) };
        assert_eq!(run_tool(&Tool::Import(told)).0.unwrap(), Outcome::Sound);
        assert!(into.join("partition-5").is_dir());
    }
}
