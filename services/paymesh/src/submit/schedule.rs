//! Which line may run now: the order of a file where it matters, and concurrency where it does not.
//!
//! Lines that name the same user run one after the other in the file's order; others may run at the same time. Outcomes
//! leave in the file's order. Pure and bounded: the caller stops pushing when [`Schedule::len`] reaches its bound.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Names a line while it is in the schedule.
pub(crate) type Ticket = u64;

/// Keys (users) that one line may name at most.
const KEYS_MAX: usize = 2;

enum Slot<L, O> {
    /// Waits for earlier lines of its keys.
    Waiting(L),
    /// Handed out.
    Running,
    /// Finished; leaves when everything before it has left.
    Done(O),
}

struct Entry<K, L, O> {
    keys: [Option<K>; KEYS_MAX],
    slot: Slot<L, O>,
}

/// The lines between the first unfinished one and the last one read.
pub(crate) struct Schedule<K, L, O> {
    /// Ticket of the first entry.
    base: Ticket,
    entries: VecDeque<Entry<K, L, O>>,
    /// For each key, the unfinished lines that name it, in order. The first of each is running or may run.
    queues: HashMap<K, VecDeque<Ticket>>,
    ready: VecDeque<Ticket>,
}

impl<K: Copy + Eq + Hash, L, O> Schedule<K, L, O> {
    pub(crate) fn new() -> Self {
        Self { base: 0, entries: VecDeque::new(), queues: HashMap::new(), ready: VecDeque::new() }
    }

    /// Lines held: waiting, running, or finished behind one that is not.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds the next line of the file, which names `keys` (each once).
    pub(crate) fn push(&mut self, line: L, keys: [Option<K>; KEYS_MAX]) {
        let ticket = self.base + self.entries.len() as u64;
        self.entries.push_back(Entry { keys, slot: Slot::Waiting(line) });
        for key in keys.into_iter().flatten() {
            self.queues.entry(key).or_default().push_back(ticket);
        }
        self.consider(ticket);
    }

    /// Adds a line that is finished already: one that could not be understood.
    pub(crate) fn push_done(&mut self, outcome: O) {
        self.entries.push_back(Entry { keys: [None; KEYS_MAX], slot: Slot::Done(outcome) });
    }

    /// Hands out a line that may run now.
    pub(crate) fn take_ready(&mut self) -> Option<(Ticket, L)> {
        let ticket = self.ready.pop_front()?;
        let entry = self.entry(ticket);
        match std::mem::replace(&mut entry.slot, Slot::Running) {
            Slot::Waiting(line) => Some((ticket, line)),
            Slot::Running | Slot::Done(_) => unreachable!("only a waiting line is put into `ready`, once"),
        }
    }

    /// A line that was handed out is finished; those that waited for it may become ready.
    pub(crate) fn finish(&mut self, ticket: Ticket, outcome: O) {
        let entry = self.entry(ticket);
        debug_assert!(matches!(entry.slot, Slot::Running), "only a running line finishes");
        entry.slot = Slot::Done(outcome);
        for key in entry.keys.into_iter().flatten() {
            let queue = self.queues.get_mut(&key).expect("an unfinished line is in the queue of each of its keys");
            let first = queue.pop_front();
            debug_assert_eq!(first, Some(ticket), "a line runs only when it is the first of each of its keys");
            match queue.front().copied() {
                Some(next) => self.consider(next),
                None => {
                    self.queues.remove(&key);
                }
            }
        }
    }

    /// Takes the outcome of the first line, if it is finished.
    pub(crate) fn pop_done(&mut self) -> Option<O> {
        match self.entries.pop_front()? {
            Entry { slot: Slot::Done(outcome), .. } => {
                self.base += 1;
                Some(outcome)
            }
            unfinished => {
                self.entries.push_front(unfinished);
                None
            }
        }
    }

    fn entry(&mut self, ticket: Ticket) -> &mut Entry<K, L, O> {
        let index = usize::try_from(ticket - self.base).expect("the schedule is far smaller than memory");
        &mut self.entries[index]
    }

    /// Puts a line into `ready` if it is the first of each of its keys.
    fn consider(&mut self, ticket: Ticket) {
        let keys = self.entry(ticket).keys;
        let first_of_all = keys.into_iter().flatten().all(|key| self.queues.get(&key).and_then(VecDeque::front) == Some(&ticket));
        if first_of_all {
            self.ready.push_back(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

    use super::*;

    #[test]
    fn lines_of_one_user_run_one_after_the_other_and_others_at_once() {
        let mut schedule = Schedule::new();
        schedule.push("1 pays 2", [Some(1), Some(2)]);
        schedule.push("2 pays 3", [Some(2), Some(3)]);
        schedule.push("4 pays 5", [Some(4), Some(5)]);
        let first = schedule.take_ready().expect("the first line");
        let other = schedule.take_ready().expect("a line of other users");
        assert_eq!((first.1, other.1), ("1 pays 2", "4 pays 5"));
        assert!(schedule.take_ready().is_none(), "2 is busy");
        schedule.finish(other.0, "done");
        assert!(schedule.pop_done().is_none(), "outcomes leave in the file's order");
        schedule.finish(first.0, "done");
        assert_eq!(schedule.take_ready().map(|(_, line)| line), Some("2 pays 3"));
        assert_eq!(schedule.pop_done(), Some("done"));
    }

    #[test]
    fn any_order_of_finishing_keeps_the_order_of_every_user() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let lines: Vec<[Option<u8>; 2]> = (0..100)
                .map(|_| {
                    let user = random.random_range(0..8);
                    let other = random.random_range(0..8);
                    [Some(user), (other != user).then_some(other)]
                })
                .collect();
            let mut schedule = Schedule::new();
            let (mut running, mut unread) = (Vec::new(), lines.iter().enumerate());
            let (mut started, mut left) = (HashMap::<u8, Vec<usize>>::new(), Vec::new());
            while left.len() < lines.len() {
                if random.random_bool(0.5) && schedule.len() < 16 {
                    if let Some((number, keys)) = unread.next() {
                        schedule.push(number, *keys);
                    }
                } else if random.random_bool(0.5) {
                    if let Some((ticket, number)) = schedule.take_ready() {
                        for user in lines[number].iter().flatten() {
                            assert!(
                                !running.iter().any(|(_, other): &(Ticket, usize)| lines[*other].contains(&Some(*user))),
                                "seed {seed}"
                            );
                            started.entry(*user).or_default().push(number);
                        }
                        running.push((ticket, number));
                    }
                } else if let Some(finished) = running.choose(&mut random).copied() {
                    running.retain(|line| *line != finished);
                    schedule.finish(finished.0, finished.1);
                }
                left.extend(std::iter::from_fn(|| schedule.pop_done()));
            }
            assert!(left.is_sorted(), "seed {seed}");
            assert!(started.values().all(|numbers| numbers.is_sorted()), "seed {seed}");
            assert!(schedule.queues.is_empty(), "seed {seed}: finished users are forgotten");
        }
    }
}
