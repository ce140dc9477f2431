//! Payments counted and added up over sliding windows, in bounded memory. Pure: time is an argument.
//!
//! Each window is a row of buckets of a twentieth of its length. A sum takes in every bucket that has any part of the window, so it never misses a payment of the
//! window, and takes in at most those of one more twentieth before it: of five minutes, what is 300 to 315 seconds old; of an hour, 60 to 63 minutes; of a
//! day, 24 to 25.2 hours. Only buckets with payments are kept, 21 at most for each window. A payment that comes so late that its bucket would be
//! older than the newest's window is not counted there.

use paymesh_topology::Window;

/// Buckets that a window is parted into.
pub const BUCKETS: u32 = 20;
/// Others that are remembered of each key: past that, the one seen longest ago goes.
pub const OTHERS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// Lengths of a bucket since 1970.
    index: u32,
    count: u32,
    amount: u64,
}

/// Payments of one key: a user, a card, a device or a payee.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    rows: [Vec<Bucket>; Window::ALL.len()],
}

fn index(window: Window, at_seconds: u64) -> u32 {
    // The shortest have 15 seconds: numbers last for two thousand years.
    u32::try_from(at_seconds / (window.seconds() / u64::from(BUCKETS))).unwrap_or(u32::MAX)
}

impl Windows {
    /// Counts a payment.
    pub fn add(&mut self, at_seconds: u64, amount: u64) {
        for window in Window::ALL {
            let row = &mut self.rows[window as usize];
            let index = index(window, at_seconds);
            let newest = row.last().map_or(index, |bucket| bucket.index.max(index));
            let is_over = |index: u32| index.saturating_add(BUCKETS) < newest;
            if is_over(index) {
                continue;
            }
            let place = row.partition_point(|bucket| bucket.index < index);
            match row.get_mut(place).filter(|bucket| bucket.index == index) {
                Some(bucket) => {
                    bucket.count = bucket.count.saturating_add(1);
                    bucket.amount = bucket.amount.saturating_add(amount);
                }
                None => row.insert(place, Bucket { index, count: 1, amount }),
            }
            let over = row.partition_point(|bucket| is_over(bucket.index));
            row.drain(..over);
        }
    }

    /// How many there were in a window that ends at this time, and what they come to.
    pub fn sum(&self, window: Window, at_seconds: u64) -> (u64, u64) {
        let last = index(window, at_seconds);
        let within =
            self.rows[window as usize].iter().filter(|bucket| bucket.index <= last && bucket.index.saturating_add(BUCKETS) >= last);
        within.fold((0, 0), |(count, amount), bucket| (count + u64::from(bucket.count), amount.saturating_add(bucket.amount)))
    }
}

/// The others that a key was lately seen with: the cards of a user, the users of a device. The last sixteen, by when they were last seen; so a count of
/// them is exact up to sixteen, and never more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Others {
    /// In no order.
    seen: Vec<(u64, u64)>,
}

impl Others {
    /// Notes that one was seen.
    pub fn add(&mut self, at_seconds: u64, other: u64) {
        if let Some((_, at)) = self.seen.iter_mut().find(|(known, _)| *known == other) {
            *at = at_seconds.max(*at);
            return;
        }
        if self.seen.len() == OTHERS_MAX
            && let Some(oldest) = (0..OTHERS_MAX).min_by_key(|place| self.seen[*place].1)
        {
            self.seen.swap_remove(oldest);
        }
        self.seen.push((other, at_seconds));
    }

    /// How many different ones there are within a window that ends at this time, with `other`.
    pub fn count_with(&self, window: Window, at_seconds: u64, other: u64) -> u64 {
        let within = |at: u64| at.saturating_add(window.seconds()) > at_seconds;
        let others = self.seen.iter().filter(|(known, at)| *known != other && within(*at)).count();
        u64::try_from(others).unwrap_or(u64::MAX).saturating_add(1)
    }
}
