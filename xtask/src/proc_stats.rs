//! What Linux says of a process: its CPU time and its largest memory, from `/proc`.

use std::time::Duration;

use anyhow::Context as _;

/// The CPU time that a process has used, its ended threads included.
///
/// # Errors
/// There is no such process.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not as expected: {stat}"))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The most memory that a process has had at once, in bytes.
///
/// # Errors
/// There is no such process.
pub(crate) fn peak_memory_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    high_water_bytes(&status).with_context(|| format!("{path} has no VmHWM"))
}

/// The CPU time of this process.
pub(crate) fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `utime + stime` of `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses, which may hold blanks and parentheses itself.
    let (_, rest) = stat.rsplit_once(") ")?;
    // The third field is the first of the rest; utime and stime are the fields 14 and 15.
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn high_water_bytes(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a (b) c) S 1 4242 4242 0 -1 4194304 2311 0 0 0 157 43 5 6 20 0 9 0 88 1 2 3";

    #[test]
    fn cpu_time_is_user_and_system_without_the_childrens() {
        assert_eq!(cpu_ticks(STAT), Some(200));
        assert_eq!(cpu_ticks("4242 (a) S 1 2"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(high_water_bytes("Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(high_water_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn the_running_test_has_used_memory_and_can_be_asked_for_its_time() {
        let pid = std::process::id();
        assert!(peak_memory_bytes(pid).unwrap() > 100_000);
        assert!(cpu_time(pid).unwrap() <= own_cpu_time() + Duration::from_millis(50));
    }
}
