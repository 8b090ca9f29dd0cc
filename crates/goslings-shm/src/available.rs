//! How much memory there is: the system gives shared memory away beyond that, and then ends processes to have it.

use std::fs::read_to_string;

/// Smaller pieces are not worth a look.
pub(crate) const LOOK_FROM: usize = 1 << 20;

/// About how many bytes of memory can still be had, here and within the limits of a container. None: nobody knows.
pub(crate) fn available() -> Option<u64> {
    let system = read_to_string("/proc/meminfo").ok().and_then(|text| in_meminfo(&text));
    let container = left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
    let older =
        left("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes");
    [system, container, older].into_iter().flatten().min()
}

fn in_meminfo(text: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("MemAvailable:")? + kib("SwapFree:").unwrap_or(0)).saturating_mul(1024))
}

/// What a limit leaves. None: there is none ("max", or no such file).
fn left(limit: &str, used: &str) -> Option<u64> {
    let number = |path| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Some(number(limit)?.saturating_sub(number(used)?))
}

#[cfg(test)]
mod tests {
    use super::in_meminfo;

    #[test]
    fn what_the_system_tells_is_understood() {
        let text = "MemTotal:  100 kB\nMemFree:   5 kB\nMemAvailable:  40 kB\nSwapFree:   2 kB\n";
        assert_eq!(in_meminfo(text), Some(42 * 1024));
        assert_eq!(in_meminfo("MemTotal: 100 kB\n"), None);
        assert_eq!(in_meminfo("MemAvailable: lots\n"), None);
    }

    #[cfg(not(miri))]
    #[test]
    fn there_is_some() {
        assert!(super::available().is_none_or(|bytes| bytes > 1 << 20));
    }
}
