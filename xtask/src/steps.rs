//! Steps in a row, each with a heading and its time, and a summary of all of them at the end.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How a step that did not fail ended.
pub(crate) enum Outcome {
    /// It found nothing wrong.
    Passed,
    /// It found nothing wrong, and there is something to say.
    PassedWith(String),
    /// It could not run here, and why. The summary shows it, so that nobody takes it for a pass.
    Skipped(String),
}

/// A step's name and its work.
pub(crate) type Step = (&'static str, fn() -> Result<Outcome>);

enum Ended {
    Passed(String),
    Skipped(String),
    Failed(String),
    NotReached,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(note) if note.is_empty() => f.write_str("ok"),
            Self::Passed(note) => write!(f, "ok ({note})"),
            Self::Skipped(why) => write!(f, "SKIPPED: {why}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::NotReached => f.write_str("not reached"),
        }
    }
}

/// Runs the steps in order, up to the first that fails unless `keep_going`.
///
/// # Errors
///
/// A step failed; the summary has been printed and names it.
pub(crate) fn run(steps: &[Step], keep_going: bool) -> Result<()> {
    let begun = Instant::now();
    let mut ends: Vec<(Ended, Duration)> = Vec::new();
    for (number, (name, work)) in steps.iter().enumerate() {
        println!("\n=== {}/{} {name} ===", number + 1, steps.len());
        let start = Instant::now();
        let end = match work() {
            Ok(Outcome::Passed) => Ended::Passed(String::new()),
            Ok(Outcome::PassedWith(note)) => Ended::Passed(note),
            Ok(Outcome::Skipped(why)) => Ended::Skipped(why),
            Err(error) => Ended::Failed(format!("{error:#}")),
        };
        let failed = matches!(end, Ended::Failed(_));
        println!("--- {name}: {end}, {:.1?}", start.elapsed());
        ends.push((end, start.elapsed()));
        if failed && !keep_going {
            break;
        }
    }
    let failed = ends.iter().filter(|(end, _)| matches!(end, Ended::Failed(_))).count();
    let skipped = ends.iter().filter(|(end, _)| matches!(end, Ended::Skipped(_))).count();
    let reached = ends.len();
    ends.resize_with(steps.len(), || (Ended::NotReached, Duration::ZERO));

    println!("\n=== summary ===");
    for ((name, _), (end, time)) in steps.iter().zip(&ends) {
        let time = if matches!(end, Ended::NotReached) { String::new() } else { format!("{time:.1?}") };
        println!("{name:<22} {time:>8}  {end}");
    }
    println!("{reached} of {} steps ran or were tried, {failed} failed, {skipped} skipped, {:.0?} in all", steps.len(), begun.elapsed());
    if failed > 0 {
        bail!("{failed} of {} steps failed", steps.len());
    }
    Ok(())
}
