//! The node's files, where somebody deletes them under it: it goes on with what it has open, and all of that is lost when it ends.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use paymesh_telemetry::Component;
use tokio::time::MissedTickBehavior;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keeps the component true, for as long as it is polled.
pub(super) async fn watch(data: PathBuf, component: Component) -> anyhow::Result<()> {
    // As the system names open files.
    let data = fs::canonicalize(&data).with_context(|| format!("the data directory {}", data.display()))?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = BTreeSet::new();
    loop {
        looks.tick().await;
        // Where the system does not say, nothing is known to be wrong.
        let deleted = deleted(&data).unwrap_or_default();
        // SQLite deletes files that it is done with just before it closes them.
        match deleted.intersection(&before).next() {
            None => component.healthy(),
            Some(file) => component.unhealthy(format!(
                "{} was deleted under the running node, which goes on with what it has open; that is gone when the node ends. Put it back from \
                 /proc/{}/fd first, unless it is a copy of another region's shard, which is made anew",
                file.display(),
                std::process::id()
            )),
        }
        before = deleted;
    }
}

/// Storage in this directory that this process has open and that has no name any more (proc_pid_fd(5)).
fn deleted(data: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // One that was closed meanwhile is of no interest.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let Some(file) = target.to_str().and_then(|target| target.strip_suffix(" (deleted)")).map(PathBuf::from) else { continue };
        if file.starts_with(data) && file.file_name().is_some_and(|name| name.to_string_lossy().contains(".sqlite")) {
            found.insert(file);
        }
    }
    Ok(found)
}
