//! Lines for a reader who may stop reading: written by a thread of their own, and dropped when too many wait.
//!
//! A terminal that is paused, or a pipe whose other end hangs, holds whoever writes to it. A node that waits for it would
//! not serve. So whoever has a line never waits: what finds no room is dropped, counted, and told of once lines flow again.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes of lines that wait to be written at most; as many may be being written.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// How long [`Lines::flush`] waits.
const FLUSH_WAIT_MAX_MS: u64 = 1_000;

pub(crate) const DROPPED: &str = "paymesh_log_lines_dropped_total";

/// Lines on their way to one reader. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is something to write, or all of it is written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    /// Lines, since the beginning.
    dropped: u64,
}

impl Lines {
    /// Lines to `reader`. When some were dropped and it reads again, `tell` is called with how many that are since the
    /// beginning; it may write lines. The thread that writes ends with the process.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to(mut reader: impl Write + Send + 'static, tell: impl Fn(&Self, u64) + Send + 'static) -> io::Result<Self> {
        let lines = Self { shared: Arc::default() };
        let this = lines.clone();
        std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
            let mut told = 0;
            loop {
                let bytes = this.take();
                // A reader that is gone is no reason to stop: the lines are nobody's then.
                let _ = reader.write_all(&bytes).and_then(|()| reader.flush());
                if let Some(dropped) = this.dropped().filter(|dropped| *dropped > told) {
                    told = dropped;
                    tell(&this, dropped);
                }
            }
        })?;
        Ok(lines)
    }

    /// Hands in one or more whole lines, with their ends. What finds no room is dropped and counted as one.
    pub fn push(&self, line: &[u8]) {
        {
            let mut state = self.state();
            if state.waiting.len() + line.len() <= WAITING_BYTES_MAX {
                state.waiting.extend_from_slice(line);
                self.shared.changed.notify_all();
                return;
            }
            state.dropped += 1;
        }
        metrics::counter!(DROPPED).increment(1);
    }

    /// Waits until what was handed in is written, for one second at most.
    pub fn flush(&self) {
        let wait = Duration::from_millis(FLUSH_WAIT_MAX_MS);
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        // Whether it was in time makes no difference: whoever flushes is about to leave.
        drop(self.shared.changed.wait_timeout_while(self.state(), wait, busy));
    }

    /// What waits, once there is something.
    fn take(&self) -> Vec<u8> {
        let mut state = self.state();
        state.writing = false;
        self.shared.changed.notify_all();
        state = self.shared.changed.wait_while(state, |state| state.waiting.is_empty()).unwrap_or_else(PoisonError::into_inner);
        state.writing = true;
        std::mem::take(&mut state.waiting)
    }

    /// The lines dropped so far, if there is room to tell of them.
    fn dropped(&self) -> Option<u64> {
        let state = self.state();
        (state.waiting.len() < WAITING_BYTES_MAX / 2).then_some(state.dropped)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is a whole line or a number: a panic elsewhere leaves nothing half done.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each write is taken for one line.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    /// Does nothing: whoever logs does not wait. See [`Lines::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, SyncSender, sync_channel},
        time::Instant,
    };

    use super::*;

    /// A reader that takes one write for each word it is given to go on.
    struct Slow {
        go_on: Receiver<()>,
        read: SyncSender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go_on.recv().map_err(io::Error::other)?;
            self.read.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_told_of_once_they_flow_again() {
        let ((release, go_on), (read, written)) = (sync_channel(8), sync_channel(8));
        let lines = Lines::to(Slow { go_on, read }, |lines, dropped| lines.push(format!("{dropped} dropped\n").as_bytes()));
        let lines = lines.expect("a thread");
        let kilobyte = [&[b'x'; 1_023][..], b"\n"].concat();
        let began = Instant::now();
        // What is being written, what waits, and as much again.
        for _ in 0..3 * 1_024 {
            lines.push(&kilobyte);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for the reader");
        lines.flush();
        assert!(began.elapsed() < Duration::from_secs(10), "nor does the end of the process for ever");
        let mut text = Vec::new();
        while !text.ends_with(b"dropped\n") {
            release.send(()).expect("it writes");
            text.extend(written.recv_timeout(Duration::from_secs(10)).expect("it flows again"));
        }
        let text = String::from_utf8(text).expect("lines are UTF-8");
        let (whole, last) = (text.lines().count() - 1, text.lines().last().expect("a line"));
        let dropped: usize = last.split(' ').next().expect("a word").parse().expect("a number");
        assert!((1..=2 * 1_024).contains(&dropped), "{dropped}");
        assert_eq!(whole + dropped, 3 * 1_024, "each line is whole or counted");
        assert!(text.lines().rev().skip(1).all(|line| line.len() == 1_023), "no line is cut");
    }

    #[test]
    fn what_was_handed_in_is_written_before_the_process_ends() {
        let (read, written) = sync_channel(8);
        let (release, go_on) = sync_channel(8);
        release.send(()).expect("a word to go on");
        let lines = Lines::to(Slow { go_on, read }, |_, _| {}).expect("a thread");
        lines.push(b"the last words\n");
        lines.flush();
        assert_eq!(written.try_recv().as_deref(), Ok(&b"the last words\n"[..]));
    }
}
