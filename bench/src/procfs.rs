//! What a process has used, from `/proc`: CPU time of all its threads, and resident memory.

use std::time::Duration;

/// CPU time since the process started, threads that have ended included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub user: Duration,
    pub system: Duration,
}

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub now: u64,
    /// The highest value since the process started.
    pub peak: u64,
}

impl CpuTime {
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(pid: u32) -> Result<Self, String> {
        let text = read(pid, "stat")?;
        Self::parse(&text, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| format!("cannot understand /proc/{pid}/stat"))
    }

    /// The second field is the program's name in parentheses, which may itself hold spaces and
    /// parentheses: fields are counted from the last one.
    fn parse(stat: &str, ticks_per_second: u64) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        // After the name: state is field 3, utime 14 and stime 15 of proc(5).
        let user: u64 = fields.nth(11)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let time = |ticks: u64| {
            let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
            u64::try_from(nanos).ok().map(Duration::from_nanos)
        };
        Some(Self { user: time(user)?, system: time(system)? })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl Memory {
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(pid: u32) -> Result<Self, String> {
        let text = read(pid, "status")?;
        Self::parse(&text).ok_or_else(|| format!("cannot understand /proc/{pid}/status"))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        Some(Self { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    // The name of a program need not be UTF-8.
    let bytes = std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_fields_14_and_15() {
        let stat = "42 (pgherd) S 1 42 42 0 -1 4194560 9 0 0 0 250 75 0 0 20 0 5 0 100 1 2";
        assert_eq!(
            CpuTime::parse(stat, 100),
            Some(CpuTime { user: Duration::from_millis(2500), system: Duration::from_millis(750) })
        );
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) R 1 (b c) S 1 42 42 0 -1 4194560 9 0 0 0 3 4 0 0 20 0 5 0 100 1 2";
        assert_eq!(
            CpuTime::parse(stat, 1000),
            Some(CpuTime { user: Duration::from_millis(3), system: Duration::from_millis(4) })
        );
    }

    #[test]
    fn a_torn_line_is_not_understood() {
        assert_eq!(CpuTime::parse("42 (pgherd) S 1 42", 100), None);
        assert_eq!(CpuTime::parse("", 100), None);
        assert_eq!(CpuTime::parse("42 (x) S 1 1 1 0 -1 0 0 0 0 0 -1 2 0", 100), None);
    }

    #[test]
    fn what_was_used_in_between_is_never_negative() {
        let time = |user, system| CpuTime {
            user: Duration::from_millis(user),
            system: Duration::from_millis(system),
        };
        assert_eq!(time(50, 70).since(time(20, 60)), time(30, 10));
        assert_eq!(time(10, 10).since(time(20, 5)), time(0, 5));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tpgherd\nVmPeak:\t  900 kB\nVmHWM:\t   20 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { now: 12 * 1024, peak: 20 * 1024 }));
    }

    #[test]
    fn a_process_without_memory_is_not_understood() {
        assert_eq!(Memory::parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn our_own_process_can_be_read() {
        let pid = std::process::id();
        assert!(CpuTime::of(pid).is_ok());
        let memory = Memory::of(pid).expect("our own status");
        assert!(memory.now > 0 && memory.peak >= memory.now);
    }
}
