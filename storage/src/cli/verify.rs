//! `storage verify`: reads everything, and names what is not as it was written.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Outcome, ToolError, partitions_in};
use crate::log::{LogSnapshot, RealDisk};

/// What to verify.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// A node's data directory, or one partition's
    pub dir: PathBuf,
}

pub(super) fn verify(args: &VerifyArgs, out: &mut dyn Write) -> Result<Outcome, ToolError> {
    let mut outcome = Outcome::Sound;
    for (partition, dir) in partitions_in(&args.dir)? {
        let snapshot = LogSnapshot::open(Arc::new(RealDisk), &dir, partition)?;
        let found = snapshot.verify()?;
        let recovery = snapshot.recovery();
        let mut answer = format!(
            "partition {partition}: {} batches, {} records, {} bytes are sound\n",
            found.batches, found.records, found.bytes
        );
        for damage in &found.damage {
            answer.push_str(&format!("{}: damaged: {damage}\n", dir.display()));
            outcome = Outcome::Damaged;
        }
        if recovery.lost_records > 0 {
            answer.push_str(&format!(
                "{}: damaged: {} flushed records before offset {} are gone\n",
                dir.display(),
                recovery.lost_records,
                recovery.next_offset.plus(recovery.lost_records)
            ));
            outcome = Outcome::Damaged;
        }
        if recovery.torn_bytes > 0 {
            answer.push_str(&format!(
                "{}: {} bytes of a batch that was never acknowledged at the end; cut at the next start\n",
                dir.display(),
                recovery.torn_bytes
            ));
        }
        out.write_all(answer.as_bytes()).map_err(ToolError::Output)?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::super::Tool;
    use super::super::tests::{data_dir, run_tool};
    use super::*;

    #[test]
    fn a_sound_directory_is_said_to_be_sound() {
        let temp = data_dir(&[5, 3]);
        let (outcome, text) = run_tool(&Tool::Verify(VerifyArgs { dir: temp.path().to_owned() }));
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
        let (outcome, text) = run_tool(&Tool::Verify(VerifyArgs { dir: temp.path().to_owned() }));
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
        let (outcome, text) = run_tool(&Tool::Verify(VerifyArgs { dir: partition }));
        assert_eq!(outcome.unwrap(), Outcome::Sound);
        assert!(text.contains("6 bytes of a batch that was never acknowledged"), "{text}");
        assert_eq!(std::fs::read(&victim).unwrap(), data, "looking changes nothing");
    }
}
