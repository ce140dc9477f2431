//! How far a long piece of work is: a bar on a terminal, a line every few seconds elsewhere.

use std::{
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::note;

/// Between two lines where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Progress of one piece of work, on standard error.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    done: u64,
    last_line: Instant,
}

impl Progress {
    /// `what` is done `total` times.
    pub(crate) fn new(what: impl Into<String>, total: u64) -> Self {
        let what = what.into();
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:40}] {pos}/{len}  {per_sec}  {eta} left  {msg}")
                .expect("the template is well formed")
                .progress_chars("=> ");
            ProgressBar::new(total).with_style(style).with_prefix(what.clone())
        });
        Self { bar, what, total, done: 0, last_line: Instant::now() }
    }

    /// The work may turn out to be longer than was thought.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// So much is done; `remark` is shown beside it.
    pub(crate) fn set_done(&mut self, done: u64, remark: &str) {
        self.done = done;
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(remark.to_owned());
            }
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                note!("{}: {done} of {}  {remark}", self.what, self.total);
            }
            None => {}
        }
    }

    /// Prints a line without tearing the bar.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note!("{line}")),
            None => note!("{line}"),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
