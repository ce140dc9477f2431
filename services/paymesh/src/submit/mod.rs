//! `paymesh submit`: plays a CSV file into the mesh.
//!
//! Promises: lines that name the same user take effect in the file's order; each line happens once however often the file
//! is submitted (`line::request_id`); memory is bounded whatever the file's size; an interrupted run goes on (`resume`).
//! One task owns the schedule and the counts; lines in flight are tasks that only send and answer.

mod line;
mod reader;
mod report;
mod resume;
mod schedule;
mod send;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use paymesh_types::UserId;
use tokio::{sync::mpsc, task::JoinSet};

pub(crate) use self::report::Report;
use self::{
    line::Instruction,
    reader::{Line, Reader},
    report::{Counts, End, Outcome, Tally},
    resume::{Heads, Place, Resume},
    schedule::{Schedule, Ticket},
    send::{LINE_TIME_MAX, Sender},
};
use crate::{
    args::{Setting, SubmitArgs},
    client::Mesh,
    exit::{self, Exit},
    note, output, place,
    progress::Progress,
    up::Interrupts,
};

/// Lines between the first unfinished one and the last one scheduled, at most.
const WINDOW_LINES_MAX: usize = 8_192;
/// How often progress is noted and shown.
const NOTE_INTERVAL: Duration = Duration::from_millis(500);
/// Lines in a row that get no answer before the run stops: by then the mesh is away, and the rest would fare no better.
const UNANSWERED_LINES_MAX: u64 = 64;

/// What to submit, and how.
pub(crate) struct Job {
    /// The CSV file.
    pub(crate) file: PathBuf,
    /// Sets its ids apart.
    pub(crate) namespace: String,
    /// Instructions in flight at most.
    pub(crate) in_flight: usize,
    /// Where progress is noted, if anywhere.
    pub(crate) progress: Option<PathBuf>,
}

/// Why a run ended.
enum Ending {
    /// With the file.
    Finished,
    /// By the operator.
    Interrupted,
    /// Because nothing answers any more.
    Unanswered,
}

/// Runs the command.
pub(crate) async fn run(setting: &Setting, args: SubmitArgs) -> anyhow::Result<Exit> {
    let mesh = Mesh::open(setting)?;
    let progress = match (args.no_progress_file, args.progress) {
        (true, _) => None,
        (false, Some(path)) => Some(path),
        (false, None) => {
            let mut path = args.file.clone().into_os_string();
            path.push(".progress");
            Some(PathBuf::from(path))
        }
    };
    let job = Job { file: args.file, namespace: args.namespace, in_flight: usize::from(args.in_flight), progress };
    let (report, ending) = play(&mesh, &job).await?;
    report.say();
    report.say_declined();
    if let Some(path) = &args.json {
        output::write_json(path, &report)?;
    }
    match ending {
        Ending::Finished => {}
        Ending::Interrupted => note!("paymesh: interrupted; submit the file again to go on"),
        Ending::Unanswered => {
            note!("paymesh: stopped because the mesh does not answer; submit the file again to go on");
            return Ok(Exit::Unreachable);
        }
    }
    // Replays count as well: a strict run that failed fails again.
    let declined = report.tally.declined_ever() > 0;
    let failed = report.tally.failed > 0 || !report.finished || (args.strict && declined);
    Ok(if failed { Exit::Failed } else { Exit::Good })
}

/// Plays a whole file, and reports.
pub(crate) async fn play_all(mesh: &Mesh, job: &Job) -> anyhow::Result<Report> {
    Ok(play(mesh, job).await?.0)
}

async fn play(mesh: &Mesh, job: &Job) -> anyhow::Result<(Report, Ending)> {
    let (identity, lines) = reader::identify(&job.file)?;
    // The header is checked before anything is asked of the mesh.
    let reader = Reader::new(&job.file)?;
    let heads = heads(mesh).await?;
    let resume = Resume::new(job.progress.clone(), identity, job.namespace.clone(), mesh.topology.mesh().to_owned());
    let (start, before, booked) = match resume.load(&heads) {
        Ok(Some(note)) => {
            note!("goes on after line {}, where an earlier run of this file ended", note.done.line);
            (note.done, note.tally, note.heads)
        }
        Ok(None) => Default::default(),
        Err(why) => {
            note!("starts from the first line: {why}");
            Default::default()
        }
    };
    let regions: Vec<_> = mesh.entries().cloned().collect();
    let reader = reader.read(start, job.namespace.clone(), regions.clone())?;
    // Before the first line is sent, so that not being able to write the note stops a run that has changed nothing.
    resume.save(start, &before, &booked)?;

    let mut player = Player {
        sender: Sender::new(mesh, heads),
        schedule: Schedule::new(),
        in_flight: JoinSet::new(),
        in_flight_max: job.in_flight,
        counts: Counts::new(before.clone(), regions.into_iter()),
        checkpoint: (start, before),
        booked,
        unanswered: 0,
        progress: Progress::new("submit", lines.saturating_sub(1)),
        resume,
    };
    let started = Instant::now();
    let ending = player.play(reader).await;
    player.progress.finish();
    let ending = ending?;
    let finished = matches!(ending, Ending::Finished);
    Ok((player.counts.report(finished, started.elapsed()), ending))
}

/// The head of every shard that is open and answers. None at all: the mesh is not there.
async fn heads(mesh: &Mesh) -> anyhow::Result<BTreeMap<paymesh_types::ShardRef, u64>> {
    let mut heads = BTreeMap::new();
    let (mut reached, mut reason) = (false, String::new());
    for (region, status) in mesh.statuses().await {
        match status {
            Ok(status) => {
                reached = true;
                // A shard that could not be opened does not know its head.
                for shard in status.shards.into_iter().filter(|shard| shard.epoch > 0) {
                    heads.insert(place::shard(shard.shard.as_ref())?, shard.head_sequence);
                }
            }
            Err(status) => {
                reason = crate::client::explain(&status);
                note!("{region}: {reason}");
            }
        }
    }
    if reached { Ok(heads) } else { Err(exit::unreachable(format!("no region answers; is the mesh up? ({reason})"))) }
}

/// One run of a file.
struct Player {
    sender: std::sync::Arc<Sender>,
    schedule: Schedule<UserId, (Instruction, Place), (Outcome, Place)>,
    in_flight: JoinSet<(Ticket, Outcome, Place)>,
    in_flight_max: usize,
    counts: Counts,
    /// How far the file is done, lines that got no answer excepted: those are to be tried again.
    checkpoint: (Place, Tally),
    /// The last position of each shard that a line was answered with.
    booked: Heads,
    /// Lines in a row that got no answer.
    unanswered: u64,
    progress: Progress,
    resume: Resume,
}

impl Player {
    async fn play(&mut self, mut reader: mpsc::Receiver<anyhow::Result<Line>>) -> anyhow::Result<Ending> {
        let mut interrupts = Interrupts::new();
        let mut interrupted = false;
        let mut ticks = tokio::time::interval(NOTE_INTERVAL);
        let mut reading = true;
        let mut ending = Ending::Finished;
        let mut broken = None;
        loop {
            tokio::select! {
                line = reader.recv(), if reading && self.schedule.len() < WINDOW_LINES_MAX => match line {
                    None => reading = false,
                    Some(Err(error)) => {
                        broken = Some(error);
                        reading = false;
                    }
                    Some(Ok(Line { end, instruction: Ok(instruction) })) => {
                        let users = instruction.users();
                        self.schedule.push((instruction, end), users);
                    }
                    Some(Ok(Line { end, instruction: Err(reason) })) => self.schedule.push_done((Outcome::bad_line(reason), end)),
                },
                Some(sent) = self.in_flight.join_next() => {
                    let (ticket, outcome, place) = sent.context("a line's task died")?;
                    self.schedule.finish(ticket, (outcome, place));
                }
                _ = ticks.tick() => self.note()?,
                () = interrupts.next() => {
                    if matches!(ending, Ending::Finished) {
                        ending = Ending::Interrupted;
                        reading = false;
                    }
                    // What is in flight is heard out, once; what waits is not begun.
                    if std::mem::replace(&mut interrupted, true) {
                        break;
                    }
                    self.say_awaited();
                }
            }
            while let Some((outcome, place)) = self.schedule.pop_done() {
                self.count(&outcome, place);
            }
            if matches!(ending, Ending::Finished) && self.unanswered >= UNANSWERED_LINES_MAX {
                ending = Ending::Unanswered;
                reading = false;
            }
            if matches!(ending, Ending::Finished) {
                while self.in_flight.len() < self.in_flight_max
                    && let Some((ticket, (instruction, place))) = self.schedule.take_ready()
                {
                    let sender = self.sender.clone();
                    self.in_flight.spawn(async move { (ticket, sender.send(instruction, place.line).await, place) });
                }
            }
            if !reading && self.in_flight.is_empty() {
                break;
            }
        }
        match (broken, &ending) {
            (Some(error), _) => {
                self.note()?;
                Err(error)
            }
            // Every line has its outcome. Failed ones are tried again by submitting the file again, which starts from its
            // first line and changes nothing for those that were done.
            (None, Ending::Finished) => {
                debug_assert_eq!(self.schedule.len(), 0, "nothing waits when nothing is in flight");
                self.resume.remove();
                Ok(ending)
            }
            (None, _) => {
                self.note()?;
                Ok(ending)
            }
        }
    }

    /// Says what an interrupted run waits for.
    fn say_awaited(&self) {
        let (lines, limit) = (self.in_flight.len(), LINE_TIME_MAX.as_secs());
        if lines > 0 {
            self.progress.note(&format!(
                "paymesh: interrupted; waiting for the answers to {lines} lines in flight, {limit} s at most; Ctrl-C again ends at once, \
                 and changes nothing about where the file goes on"
            ));
        }
    }

    /// Counts a line whose predecessors are all counted.
    fn count(&mut self, outcome: &Outcome, place: Place) {
        self.counts.add(place.line, outcome);
        if let Some(position) = &outcome.position {
            let booked = self.booked.entry(position.shard.to_string()).or_default();
            *booked = position.sequence.0.max(*booked);
        }
        if let End::Failed { reason, unreachable } = &outcome.end {
            self.progress.note(&format!("line {}: {reason}", place.line));
            if *unreachable {
                self.unanswered += 1;
                return;
            }
        }
        // A line that got no answer between others that did has failed for good as far as this run goes.
        self.unanswered = 0;
        self.checkpoint = (place, self.counts.overall());
    }

    fn note(&mut self) -> anyhow::Result<()> {
        let overall = self.counts.overall();
        let remark = if overall.failed > 0 { format!("{} failed", overall.failed) } else { String::new() };
        self.progress.set_done(overall.lines(), &remark);
        self.resume.save(self.checkpoint.0, &self.checkpoint.1, &self.booked)
    }
}
