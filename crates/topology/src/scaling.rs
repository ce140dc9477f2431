//! scaling.yaml: how many edges a region has, and when.

use std::{collections::BTreeMap, path::Path};

use paymesh_types::RegionName;

use crate::{
    Errors, Schedule, Topology,
    problem::Problems,
    read,
    region::words,
    topology::{parse_tree, read_text},
};

/// The file, beside regions.yaml.
pub const SCALING_FILE_NAME: &str = "scaling.yaml";

/// How many edges a region has, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scaling {
    /// Where hours of schedules are counted, as the tz database calls it.
    pub(crate) time_zone: String,
    pub(crate) regions: BTreeMap<RegionName, String>,
    /// Seconds until an edge that is asked for takes calls.
    pub start_seconds: u32,
    /// The autoscaler's own.
    pub autoscaler: Autoscaler,
    /// Bounds by the clock, in the order of the file.
    pub scheduled: Vec<Scheduled>,
    /// What adds edges.
    pub scale_up: Vec<Reactive>,
    /// What takes edges away.
    pub scale_down: Vec<Reactive>,
}

/// The autoscaler's bounds, and what it keeps figures at (source document, "Kubernetes HPA Setup").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscaler {
    /// Edges at least.
    pub min: u32,
    /// Edges at most.
    pub max: u32,
    /// Percent of the processor that is asked for.
    pub cpu_percent: u32,
    /// Percent of the memory that is asked for.
    pub memory_percent: u32,
    /// Calls that wait, on average over the edges.
    pub queue_length: u32,
}

/// Bounds that begin at a time, and hold until others do (source document, "Predictive Scaling").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Its name.
    pub name: String,
    /// When it begins.
    pub schedule: Schedule,
    /// Edges at least from then on.
    pub min: u32,
    /// Edges at most.
    pub max: u32,
    /// Edges when it begins.
    pub target: u32,
}

/// What is done when a figure has been past its threshold for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reactive {
    /// The figure.
    pub metric: Metric,
    /// Past it: above, to add; below, to take away.
    pub threshold: u32,
    /// For how long, in seconds.
    pub duration_seconds: u32,
    /// By how many percent of the edges there are.
    pub percent: u32,
}

words!(
    /// A figure that edges are scaled by.
    Metric {
        /// Percent of their processors that edges use, on average.
        Cpu = "CPUUtilization",
        /// Calls that wait, of all edges together.
        QueueLength = "payment_queue_length",
    }
);

impl Scaling {
    /// Reads the file beside regions.yaml.
    ///
    /// # Errors
    /// Every problem of the file; or one, without a line, when it is not there or cannot be read.
    pub fn load(dir_or_file: &Path, topology: &Topology) -> Result<Self, Errors> {
        let folder = if dir_or_file.is_dir() { dir_or_file } else { dir_or_file.parent().unwrap_or(Path::new("")) };
        let file = folder.join(SCALING_FILE_NAME);
        let name = file.display().to_string();
        Self::parse(&name, &read_text(&file, &name)?, topology)
    }

    /// Validates the text of the file. `file_name` is what the errors call it.
    ///
    /// # Errors
    /// Every problem of the text, in the order of the file.
    pub fn parse(file_name: &str, yaml: &str, topology: &Topology) -> Result<Self, Errors> {
        let root = parse_tree(file_name, yaml)?;
        let mut problems = Problems::new(file_name);
        match read::scaling::read(&root, topology, &mut problems) {
            Some(scaling) if problems.is_empty() => Ok(scaling),
            _ => Err(problems.into_errors()),
        }
    }

    /// Where hours of schedules are counted in a region.
    pub fn time_zone(&self, region: &RegionName) -> &str {
        self.regions.get(region).unwrap_or(&self.time_zone)
    }
}
