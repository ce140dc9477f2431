//! `paymesh plan simulate`: scaling policies played against a traffic curve.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use paymesh_planning::{
    chart,
    simulation::{self, Date, Minute, Play, Summary},
};
use paymesh_topology::{Scaling, Topology};
use serde::Serialize;

use crate::{
    args::Setting,
    exit::{Exit, unusable},
    note,
    output::{Table, say_json},
    say,
};

/// Bytes of a trace at most: a line for each minute of a month, and comments.
const TRACE_BYTES_MAX: u64 = 4 << 20;

/// `paymesh plan simulate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The trace is CSV: the heading `minute,tps`, then a minute from the start and the
payments a second then; between two lines the rate goes evenly, and the last is the
end. It is played minute by minute against scaling.yaml: what is scheduled begins,
edges that are asked for take calls start_seconds later, what comes is served as far
as the edges reach, waits for 30 seconds at most (the deadline of a call that asks for
none), and is dropped beyond that; the rules of reactive_scaling act within the bounds
of then. Of the autoscaler it takes the bounds: its own targets are Kubernetes' to
keep. A region's node is taken to carry what its edges do: `plan capacity --profile
measured` says whether it can.

Examples:
  paymesh plan simulate --trace examples/traffic/day.csv
  paymesh plan simulate --trace examples/traffic/black-friday.csv --svg black-friday.svg
  paymesh plan simulate --trace mine.csv --edge-tps 450 --date 2026-12-24 --json

Exit codes:
  0  it is played, and nothing was dropped
  1  it is played, and something was
  2  the trace, scaling.yaml or an option cannot be used")]
pub(crate) struct SimulateArgs {
    /// The traffic
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,

    /// The day of its first minute, by the clock of the region
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2026-11-27", value_parser = date)]
    date: Date,

    /// Payments a second of one edge (source document, "Traffic Estimation": 100)
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=simulation::TPS_MAX))]
    edge_tps: u64,

    /// A picture of it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// As JSON, every minute
    #[arg(long)]
    json: bool,
}

fn date(text: &str) -> Result<Date, String> {
    let parts: Vec<Option<u32>> =
        text.split('-').map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()).collect();
    let found = match parts[..] {
        [Some(year), Some(month), Some(day)] if text.len() == 10 => Date::new(year, month, day),
        _ => None,
    };
    found.ok_or_else(|| "must be a day such as 2026-11-27".to_owned())
}

/// Plays it.
pub(crate) fn run(setting: &Setting, args: &SimulateArgs) -> anyhow::Result<Exit> {
    let topology = Topology::load(&setting.config).map_err(unusable)?;
    let scaling = Scaling::load(&setting.config, &topology).map_err(unusable)?;
    let name = args.trace.display();
    let trace = simulation::read_trace(&read(&args.trace)?).map_err(|why| unusable(format!("{name}: {why}")))?;
    let minutes = simulation::play(&Play { scaling: &scaling, edge_tps: args.edge_tps, start: args.date }, &trace).map_err(unusable)?;
    let summary = simulation::summary(&minutes);
    if let Some(svg) = &args.svg {
        let title =
            format!("{}: {} payments a second of an edge", args.trace.file_name().unwrap_or_default().to_string_lossy(), args.edge_tps);
        let picture = chart::svg(&title, args.edge_tps, &minutes);
        // An option that cannot be used: 1 would say that something was dropped.
        fs::write(svg, picture).map_err(|error| unusable(format!("--svg: {} cannot be written: {error}", svg.display())))?;
        note!("the picture is {}", svg.display());
    }
    if args.json {
        say_json(&Report::new(&summary, &minutes))?;
    } else {
        print(&minutes, &summary);
    }
    Ok(if summary.dropped > 0 { Exit::Failed } else { Exit::Good })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let cannot = |error: std::io::Error| unusable(format!("{}: cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(TRACE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > TRACE_BYTES_MAX {
        return Err(unusable(format!("{}: is larger than {TRACE_BYTES_MAX} bytes", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| unusable(format!("{}: is not UTF-8", path.display())))
}

fn print(minutes: &[Minute], summary: &Summary) {
    let mut table = Table::new(["hour", "came/s at most", "edges", "of at least", "and at most", "busy %", "waited at most", "dropped"]);
    for (hour, part) in minutes.chunks(60).enumerate() {
        let most = |of: fn(&Minute) -> u64| part.iter().map(of).max().unwrap_or_default();
        let last = part.last().map_or((0, 0), |minute| minute.bounds);
        table.row([
            format!("{hour:02}:00"),
            (most(|minute| minute.offered) / 60).to_string(),
            most(|minute| u64::from(minute.edges)).to_string(),
            last.0.to_string(),
            last.1.to_string(),
            (part.iter().map(|minute| minute.utilisation_percent).sum::<u64>() / part.len() as u64).to_string(),
            most(|minute| minute.queued).to_string(),
            part.iter().map(|minute| minute.dropped).sum::<u64>().to_string(),
        ]);
    }
    say!("{table}");
    let Summary { offered, served, dropped, edges_peak, edge_minutes, utilisation_percent, minutes_dropping, .. } = summary;
    say!("");
    say!("{offered} payments came, {served} were served, {dropped} dropped ({}), in {minutes_dropping} minutes", share(*dropped, *offered));
    say!("{edges_peak} edges at most, {} edge-hours, busy to {utilisation_percent} % on average", edge_minutes / 60);
    if *dropped > 0 {
        say!(
            "what is dropped was more than the edges that the policies allow can carry, or came before they had started: raise max_capacity, or begin earlier"
        );
    }
}

/// A share in percent, to a hundredth.
fn share(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[derive(Serialize)]
struct Report {
    offered: u64,
    served: u64,
    dropped: u64,
    queued: u64,
    edges_peak: u32,
    edge_minutes: u64,
    utilisation_percent: u64,
    minutes_dropping: u64,
    minutes: Vec<MinuteReport>,
}

#[derive(Serialize)]
struct MinuteReport {
    minute: usize,
    offered: u64,
    served: u64,
    dropped: u64,
    queued: u64,
    edges: u32,
    wanted: u32,
    min: u32,
    max: u32,
    utilisation_percent: u64,
}

impl Report {
    fn new(summary: &Summary, minutes: &[Minute]) -> Self {
        let of = |(minute, now): (usize, &Minute)| MinuteReport {
            minute,
            offered: now.offered,
            served: now.served,
            dropped: now.dropped,
            queued: now.queued,
            edges: now.edges,
            wanted: now.wanted,
            min: now.bounds.0,
            max: now.bounds.1,
            utilisation_percent: now.utilisation_percent,
        };
        Self {
            offered: summary.offered,
            served: summary.served,
            dropped: summary.dropped,
            queued: summary.queued,
            edges_peak: summary.edges_peak,
            edge_minutes: summary.edge_minutes,
            utilisation_percent: summary.utilisation_percent,
            minutes_dropping: summary.minutes_dropping,
            minutes: minutes.iter().enumerate().map(of).collect(),
        }
    }
}
