//! How many tests ran, read from what the test runners print.

use std::fmt;
use std::ops::AddAssign;

/// Tests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCounts {
    /// They passed.
    pub(crate) passed: u64,
    /// They did not.
    pub(crate) failed: u64,
    /// They were not run.
    pub(crate) skipped: u64,
}

impl TestCounts {
    /// The counts in a line of nextest's, libtest's or Node's output, if it is one that sums up.
    pub(crate) fn in_line(line: &str) -> Option<Self> {
        let plain = without_colours(line);
        if let Some(counts) = plain.strip_prefix("# ").and_then(Self::of_node) {
            return Some(counts);
        }
        let nextest = plain.trim_start().strip_prefix("Summary [").and_then(|rest| rest.split_once("run:"));
        let libtest = plain.strip_prefix("test result: ");
        let list = match (&nextest, libtest) {
            (Some((_, list)), _) => list,
            (None, Some(list)) => list,
            (None, None) => return None,
        };
        let mut counts = Self::default();
        // Both write `12 passed`, `3 failed` and so on, between commas, semicolons and parentheses.
        let words: Vec<&str> =
            list.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match *what {
                "passed" => counts.passed = number,
                // nextest tells those that ran out of time from those that failed.
                "failed" | "timed" | "exec" => counts.failed += number,
                "skipped" | "ignored" => counts.skipped = number,
                _ => {}
            }
        }
        Some(counts)
    }

    /// Node sums up on several lines, one a kind: `# pass 12`.
    fn of_node(text: &str) -> Option<Self> {
        let (what, number) = text.trim_end().split_once(' ')?;
        let number = number.parse().ok()?;
        let none = Self::default();
        match what {
            "pass" => Some(Self { passed: number, ..none }),
            "fail" | "cancelled" => Some(Self { failed: number, ..none }),
            "skipped" | "todo" => Some(Self { skipped: number, ..none }),
            _ => None,
        }
    }
}

impl AddAssign for TestCounts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for TestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// `line` without the escapes that colour it: `ESC [ … m`.
fn without_colours(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, text)| text));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Option<TestCounts> {
        Some(TestCounts { passed, failed, skipped })
    }

    #[test]
    fn nextests_summary_is_read() {
        let line = "     Summary [  12.345s] 27 tests run: 25 passed (2 slow), 2 failed, 3 skipped";
        assert_eq!(TestCounts::in_line(line), counts(25, 2, 3));
        let line = "     Summary [   0.005s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(TestCounts::in_line(line), counts(1, 0, 0));
        let line = "     Summary [   0.5s] 3/9 tests run: 1 passed, 1 failed, 1 timed out, 0 skipped";
        assert_eq!(TestCounts::in_line(line), counts(1, 2, 0));
        let coloured = "\x1b[32;1m     Summary\x1b[0m [   0.005s] \x1b[1m2\x1b[0m tests run: \x1b[1m2\x1b[0m \x1b[32;1mpassed\x1b[0m, \x1b[1m4\x1b[0m \x1b[33;1mskipped\x1b[0m";
        assert_eq!(TestCounts::in_line(coloured), counts(2, 0, 4));
    }

    #[test]
    fn libtests_results_are_read() {
        let line =
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.02s";
        assert_eq!(TestCounts::in_line(line), counts(12, 0, 1));
        let line = "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(TestCounts::in_line(line), counts(1, 1, 0));
    }

    #[test]
    fn nodes_summary_is_read_line_by_line() {
        let text = "1..5\n# tests 12\n# suites 0\n# pass 7\n# fail 1\n# cancelled 2\n# skipped 3\n# todo 0\n# duration_ms 5.5";
        let mut sum = TestCounts::default();
        text.lines().filter_map(TestCounts::in_line).for_each(|counts| sum += counts);
        assert_eq!(Some(sum), counts(7, 3, 3));
    }

    #[test]
    fn other_lines_are_not_counted() {
        for line in [
            "",
            "test a ... ok",
            "    Starting 27 tests across 3 binaries",
            "running 3 tests",
            "# Subtest: 3",
        ] {
            assert_eq!(TestCounts::in_line(line), None, "{line:?}");
        }
    }
}
