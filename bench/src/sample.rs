//! What the kernel says about a process, and about the machine that the numbers come from.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;

/// Ticks of `utime` and `stime` a second: USER_HZ, which is 100 on every Linux architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// Time spent on measuring the disk, in milliseconds.
const DISK_MS: u64 = 300;

/// Bytes written before each `fdatasync` when measuring the disk: a page.
const DISK_WRITE_BYTES: usize = 4_096;

/// A process at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Process {
    /// User and system time since it started, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The most resident memory that it ever had (VmHWM), in bytes.
    pub(crate) peak_bytes: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Process {
    /// Reads /proc of a process, by its id or `self`.
    pub(crate) fn of(pid: &str) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has the process ended?"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        // The name in parentheses may hold spaces; fields are counted after it: utime is the 12th, stime the 13th.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| -> anyhow::Result<f64> {
            fields.get(index).and_then(|field| field.parse().ok()).context("/proc/PID/stat is not as proc(5) says")
        };
        let value = |key: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.trim_start_matches(':').split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .with_context(|| format!("/proc/PID/status has no {key}"))
        };
        Ok(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            peak_bytes: value("VmHWM")? * 1_024,
            threads: value("Threads")?,
        })
    }
}

impl Process {
    /// A process and its children, those that have ended included: a server of many processes as if it were one. The memory is the
    /// largest of any, as they share most of it.
    pub(crate) fn family(pid: u32) -> anyhow::Result<Self> {
        let mut family = Self::of(&pid.to_string())?;
        family.cpu_seconds += ended_children_cpu_seconds(pid)?;
        for entry in fs::read_dir("/proc").context("cannot read /proc")?.filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(child) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
            // Who ends meanwhile is its parent's next time.
            if parent(child) != Some(pid) {
                continue;
            }
            let Ok(child) = Self::of(child) else { continue };
            family.cpu_seconds += child.cpu_seconds;
            family.threads += child.threads;
            family.peak_bytes = family.peak_bytes.max(child.peak_bytes);
        }
        Ok(family)
    }
}

/// What a server keeps on its disk, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stored {
    /// The files of journals, without their write-ahead logs, which are used again and again.
    pub(crate) journals: u64,
    /// All files.
    pub(crate) all: u64,
}

impl Stored {
    /// Looks through a folder and those in it. A file that is gone meanwhile counts nothing.
    pub(crate) fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let Ok((entry, metadata)) = entry.and_then(|entry| entry.metadata().map(|metadata| (entry, metadata))) else { continue };
            if metadata.is_dir() {
                let Self { journals, all } = Self::in_folder(&entry.path())?;
                sum = Self { journals: sum.journals + journals, all: sum.all + all };
                continue;
            }
            sum.all += metadata.len();
            if entry.file_name() == "journal.sqlite" {
                sum.journals += metadata.len();
            }
        }
        Ok(sum)
    }
}

/// The fields of /proc/PID/stat that come after the name, which may hold spaces: the state, the parent, …
fn after_name(pid: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(')').next()?.split_whitespace().map(str::to_owned).collect())
}

fn parent(pid: &str) -> Option<u32> {
    after_name(pid)?.get(1)?.parse().ok()
}

fn ended_children_cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let fields = after_name(&pid.to_string()).with_context(|| format!("process {pid} has ended"))?;
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    // cutime is the 14th after the name, cstime the 15th.
    let (user, system) = ticks(13).zip(ticks(14)).context("/proc/PID/stat is not as proc(5) says")?;
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Time that this thread has spent on a processor, in seconds: what it waited for others is not in it.
pub(crate) fn thread_cpu_seconds() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("cannot read /proc/thread-self/schedstat")?;
    let nanoseconds: f64 =
        text.split_whitespace().next().and_then(|first| first.parse().ok()).context("schedstat is not as the kernel says")?;
    Ok(nanoseconds / 1e9)
}

/// Load average of the last minute: what else the machine was doing.
pub(crate) fn load_average() -> f64 {
    fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// The machine, as far as it explains the numbers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory_bytes: u64,
    kernel: String,
    /// File system of the data folder.
    file_system: String,
    /// Writes of 4 KiB followed by `fdatasync`, a second, into the data folder: the ceiling of one commit a transaction.
    fdatasync_rate: f64,
}

impl Machine {
    /// Looks around, and measures the disk under `data` for a moment.
    pub(crate) fn look(data: &Path) -> anyhow::Result<Self> {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            text.lines().find(|line| line.starts_with(key)).and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = value(&text("/proc/meminfo"), "MemTotal").and_then(|kib| kib.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Self {
            cpu: value(&text("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.unwrap_or_default() * 1_024,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&data.canonicalize()?),
            fdatasync_rate: fdatasync_rate(data)?,
        })
    }

    /// One line for the table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} x {}, {} MiB, Linux {}, {} at {:.0} fdatasync/s",
            self.cores,
            self.cpu,
            self.memory_bytes >> 20,
            self.kernel,
            self.file_system,
            self.fdatasync_rate
        )
    }

    /// Whether what is "durable" there would survive a power cut.
    pub(crate) fn keeps_data(&self) -> bool {
        !matches!(self.file_system.as_str(), "tmpfs" | "ramfs")
    }
}

/// The type of the file system with the longest mount point above `path`.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

fn fdatasync_rate(data: &Path) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(data).with_context(|| format!("cannot write into {}", data.display()))?;
    let (began, mut writes) = (Instant::now(), 0.0);
    while began.elapsed() < Duration::from_millis(DISK_MS) {
        file.write_all(&[0; DISK_WRITE_BYTES])?;
        file.sync_data()?;
        writes += 1.0;
    }
    Ok(writes / began.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_and_memory() {
        let process = Process::of("self").expect("proc");
        assert!(process.threads >= 1 && process.peak_bytes > 1 << 20, "{process:?}");
    }

    #[test]
    fn the_root_has_a_file_system() {
        assert_ne!(file_system(Path::new("/")), "unknown");
    }
}
