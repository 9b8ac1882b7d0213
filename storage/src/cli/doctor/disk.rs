//! The data directory: whether it can be written and synced, how fast, and how much room there is.

use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Finding, in_ms};
use crate::config::Config;
use crate::log::{self, Disk, OpenMode, RealDisk};

/// The doctor's own file. It is no name of the log's, which leaves it alone should it stay.
const PROBE: &str = "doctor.probe";
/// Syncs that are timed.
const SYNCS: u32 = 8;
/// A disk that takes longer limits a partition to fewer than 50 group commits a second.
const SYNC_TIME_MAX: Duration = Duration::from_millis(20);
/// Less free room than that is worth a warning, whatever the size.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// A share of the file system below which there is a warning, in percent.
const FREE_PERCENT_MIN: u64 = 10;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h: what lies there is gone with the power.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Looks at the data directory, or at the one above it that there is.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let dir = match existing(&config.data) {
        Ok(dir) => dir,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![permissions(config, &dir)];
    if findings.iter().all(|finding| finding.state == super::State::Ok) {
        findings.push(sync(&dir));
    }
    findings.push(room(&dir));
    findings.push(kind(&dir));
    findings
}

/// The data directory, or the nearest above it that exists: there it would be made.
fn existing(data: &Path) -> Result<PathBuf, Finding> {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    for dir in absolute.ancestors() {
        match fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => return Ok(dir.to_owned()),
            Ok(_) => {
                let seen = format!("{} is no directory", dir.display());
                return Err(Finding::failure("directory", seen, "remove it, or choose another --data"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused(dir, &error)),
        }
    }
    Err(Finding::failure("directory", format!("{} cannot be found", data.display()), "choose another --data"))
}

fn refused(path: &Path, error: &io::Error) -> Finding {
    let user = rustix::process::geteuid().as_raw();
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "give it to the user that runs the daemon: `chown -R {user} {}` (this is user {user})",
            path.display()
        ),
        io::ErrorKind::StorageFull => "make room, or shorten retention".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it for writing; `dmesg` tells whether the disk failed".to_owned()
        }
        _ => "look at `dmesg`".to_owned(),
    };
    Finding::failure("directory", format!("{}: {error}", path.display()), advice)
}

/// Whether files can be made there, and those that are there can be read and written.
fn permissions(config: &Config, dir: &Path) -> Finding {
    let probe = dir.join(PROBE);
    if let Err(error) = RealDisk.open(&probe, OpenMode::Create).and_then(|_| RealDisk.remove(&probe)) {
        return refused(dir, &error);
    }
    for partition in config.partitions_sorted() {
        let partition_dir = log::partition_dir(&config.data, partition);
        let files = match RealDisk.list(&partition_dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return refused(&partition_dir, &error),
        };
        for file in files {
            let path = partition_dir.join(&file.name);
            match RealDisk.open(&path, OpenMode::Write) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return refused(&path, &error),
                // One that was removed since it was listed: a daemon is at work.
                _ => {}
            }
        }
    }
    let made = if dir == config.data { "" } else { " (the data directory would be made in it)" };
    Finding::ok("directory", format!("{} can be written{made}", dir.display()))
}

/// Whether a sync works, and how long it takes.
fn sync(dir: &Path) -> Finding {
    let probe = dir.join(PROBE);
    let timed = || -> io::Result<Duration> {
        let file = RealDisk.open(&probe, OpenMode::Create)?;
        let started = Instant::now();
        for number in 0..SYNCS {
            file.write_at(&[IoSlice::new(&[b'x'; 4096])], u64::from(number) * 4096)?;
            file.sync_data()?;
        }
        RealDisk.sync_dir(dir)?;
        Ok(started.elapsed() / SYNCS)
    };
    let timed = timed();
    // It was made a moment ago by this process.
    RealDisk.remove(&probe).ok();
    match timed {
        Err(error) => refused(dir, &error),
        Ok(time) if time > SYNC_TIME_MAX => Finding::warning(
            "fsync",
            format!("a sync takes {}", in_ms(time)),
            "every acknowledgement waits for one: use a local SSD, or expect large batches to be needed",
        ),
        Ok(time) => Finding::ok("fsync", format!("a sync takes {}", in_ms(time))),
    }
}

fn room(dir: &Path) -> Finding {
    let stat = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => return refused(dir, &error.into()),
    };
    let (free, size) =
        (stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize));
    let percent = if size == 0 { 0 } else { u128::from(free) * 100 / u128::from(size) };
    let seen = format!("{} MiB of {} MiB free ({percent} %)", free >> 20, size >> 20);
    if stat.f_files > 0 && stat.f_favail == 0 {
        return Finding::failure(
            "room",
            "no file can be made: no inodes are left",
            "remove files, or make the file system anew",
        );
    }
    if free == 0 {
        return Finding::failure("room", seen, "make room, or shorten --retention-bytes and --retention-age");
    }
    if free < FREE_BYTES_MIN || percent < u128::from(FREE_PERCENT_MIN) {
        return Finding::warning(
            "room",
            seen,
            "make room, or set --retention-bytes: a full disk refuses appends (507)",
        );
    }
    Finding::ok("room", seen)
}

fn kind(dir: &Path) -> Finding {
    match rustix::fs::statfs(dir) {
        Ok(stat) if MEMORY_FILE_SYSTEMS.contains(&u64::try_from(stat.f_type).unwrap_or_default()) => {
            Finding::warning(
                "file system",
                format!("{} is in memory", dir.display()),
                "what is acknowledged there is lost with the power: put --data on a disk",
            )
        }
        Ok(stat) => Finding::ok("file system", format!("type {:#x}", stat.f_type)),
        Err(error) => refused(dir, &error.into()),
    }
}
