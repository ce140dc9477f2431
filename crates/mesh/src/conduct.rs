//! How a connection behaves, seen from its frames, and when it is too much.
//!
//! What makes a node work is meant to be calls, which have bounds of their own. Everything else that HTTP/2 lets the other end do for
//! nothing is bounded here, because h2 does not: pings and settings that each ask for an answer, priorities, windows that grow by one
//! byte, calls that are broken off as soon as they are taken (CVE-2023-44487), and frames and blocks of headers that never end. What h2
//! bounds, such as calls that are broken off before they are taken, CONTINUATION without end (CVE-2024-27316), broken rules (CVE-2025-8671)
//! and empty data, it closes by itself, and says why in its GOAWAY, which is read here to be counted.
//!
//! A node's connection may break off as many calls as its callers do, so it is not held to the bounds of one caller.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Limits,
    http2::{self, Frames},
    patience::Patience,
    usage::Party,
};

/// How many seconds' worth of control frames may come at once.
const CONTROL_SECONDS_AT_ONCE: u32 = 10;
/// How many may come at once at least: what a client begins with.
const CONTROL_AT_ONCE_MIN: u32 = 100;
/// What settings cost: new ones may touch every call of the connection.
const SETTINGS_COST: u32 = 10;
/// How many control frames each frame of an answer allows for: stock clients ping once for each, to measure, and grow two windows.
const CONTROL_FRAMES_PER_ANSWERED: u32 = 4;
/// How often the calls that may be in progress may be broken off at once.
const RESETS_PER_CALL: u32 = 2;

/// What h2 says in a GOAWAY of its own making, and what it counts as.
const SAID_BY_H2: [(&[u8], &str); 5] = [
    (b"too_many_resets", "resets"),
    (b"too_many_internal_resets", "errors"),
    (b"too_many_continuations", "continuations"),
    (b"header_list_way_too_large", "headers"),
    (b"too_many_data_frames", "data"),
];

/// What a connection has done.
#[derive(Debug)]
pub(crate) struct Conduct {
    came: Frames,
    went: Frames,
    /// A block of headers has begun, and its last frame has not come.
    in_headers: bool,
    control: Allowance,
    resets: Allowance,
    patience: Patience,
}

impl Conduct {
    pub(crate) fn new(limits: &Limits) -> Self {
        let control = limits.control_frames_per_second;
        let resets_at_once = limits.connection_calls_max.saturating_mul(RESETS_PER_CALL);
        Self {
            came: Frames::default(),
            went: Frames::default(),
            in_headers: false,
            control: Allowance::new(control.saturating_mul(CONTROL_SECONDS_AT_ONCE).max(CONTROL_AT_ONCE_MIN), control),
            resets: Allowance::new(resets_at_once, limits.resets_per_second),
            patience: Patience::new(limits.arrival_wait),
        }
    }

    /// Takes note of bytes that came. An error is why the connection is to be closed. Nodes are believed; what edges break off are their callers' calls, of
    /// which many share a connection, and nothing else is forgiven them.
    pub(crate) fn came(&mut self, bytes: &[u8], party: Party) -> Result<(), &'static str> {
        let Self { came, in_headers, control, resets, patience, .. } = self;
        patience.came();
        let mut wrong = None;
        came.take(bytes, |head, _| {
            let (allowance, cost, why) = match head.kind {
                http2::HEADERS | http2::PUSH_PROMISE | http2::CONTINUATION => {
                    *in_headers = !head.ends_headers();
                    return;
                }
                // h2 bounds those that are empty or nearly so, and calls have bounds of their own.
                http2::DATA => return,
                http2::RST_STREAM => (&mut *resets, 1, "resets"),
                kind => (&mut *control, cost(kind), name(kind)),
            };
            let forgiven = party == Party::Node || (party == Party::Edge && head.kind == http2::RST_STREAM);
            if !allowance.take(cost) && !forgiven {
                wrong.get_or_insert(why);
            }
        });
        if !self.is_amid() {
            self.patience.renew();
        }
        wrong.map_or(Ok(()), Err)
    }

    /// To be called when nothing has come. Ready once what has begun took too long: why the connection is to be closed.
    pub(crate) fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        if !self.is_amid() {
            return Poll::Pending;
        }
        let of_headers = self.in_headers || matches!(self.came.kind(), Some(http2::HEADERS | http2::CONTINUATION));
        self.patience.poll_spent(cx).map(|()| if of_headers { "slow_headers" } else { "slow_frame" })
    }

    /// Takes note of bytes that went. Some: h2 closes the connection, and why.
    pub(crate) fn went(&mut self, bytes: &[u8]) -> Option<&'static str> {
        let Self { went, control, .. } = self;
        let mut closes = None;
        went.take(bytes, |head, kept| match head.kind {
            http2::HEADERS | http2::DATA => control.give(CONTROL_FRAMES_PER_ANSWERED),
            http2::GOAWAY => closes = closes.or_else(|| said(kept)),
            _ => {}
        });
        closes
    }

    /// Whether a frame of our own could go between those that went.
    pub(crate) fn may_speak(&self) -> bool {
        self.went.is_between()
    }

    fn is_amid(&self) -> bool {
        self.in_headers || !self.came.is_between()
    }

    pub(crate) fn arrival_wait(&self) -> Duration {
        self.patience.wait()
    }
}

fn cost(kind: u8) -> u32 {
    if kind == http2::SETTINGS { SETTINGS_COST } else { 1 }
}

fn name(kind: u8) -> &'static str {
    match kind {
        http2::PING => "pings",
        http2::SETTINGS => "settings",
        http2::PRIORITY => "priorities",
        http2::WINDOW_UPDATE => "windows",
        _ => "control",
    }
}

/// Why h2 closes a connection, by the GOAWAY that it writes. None: because it is asked to.
fn said(payload: &[u8]) -> Option<&'static str> {
    let (code, words) = http2::goaway(payload)?;
    let known = SAID_BY_H2.iter().find(|(said, _)| *said == words);
    (code != 0).then(|| known.map_or("protocol", |(_, why)| why))
}

/// So many at once, and so many a second in the long run.
#[derive(Debug)]
struct Allowance {
    left: u32,
    max: u32,
    per_second: u32,
    filled: Instant,
}

impl Allowance {
    fn new(max: u32, per_second: u32) -> Self {
        Self { left: max, max, per_second, filled: Instant::now() }
    }

    /// Takes so many. False: they are not there.
    fn take(&mut self, cost: u32) -> bool {
        // The clock is asked by those who have used up what there was.
        if self.left < cost {
            self.fill();
        }
        let taken = self.left.checked_sub(cost);
        self.left = taken.unwrap_or_default();
        taken.is_some()
    }

    fn give(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(self.max);
    }

    fn fill(&mut self) {
        let earned = self.filled.elapsed().as_millis().saturating_mul(u128::from(self.per_second)) / 1_000;
        if earned > 0 {
            self.give(u32::try_from(earned).unwrap_or(u32::MAX));
            self.filled = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a small payload");
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(payload);
        frame
    }

    fn conduct() -> Conduct {
        Conduct::new(&Limits { connection_calls_max: 50, resets_per_second: 10, control_frames_per_second: 20, ..Limits::default() })
    }

    /// How many of these frames are taken, one after the other.
    fn taken(conduct: &mut Conduct, frame: &[u8]) -> usize {
        (0..100_000).find(|_| conduct.came(frame, Party::Anybody).is_err()).expect("there is a bound")
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_frames_that_are_no_part_of_a_call_are_taken_at_once_and_so_many_a_second() {
        for (kind, payload, why, cost) in [
            (http2::PING, &[0; 8][..], "pings", 1),
            (http2::SETTINGS, &[], "settings", 10),
            (http2::PRIORITY, &[0; 5], "priorities", 1),
            (http2::WINDOW_UPDATE, &[0; 4], "windows", 1),
            (77, &[], "control", 1),
        ] {
            let (mut conduct, frame) = (conduct(), frame(kind, 0, payload));
            assert_eq!(taken(&mut conduct, &frame), 200 / cost, "{why}");
            assert_eq!(conduct.came(&frame, Party::Anybody), Err(why));
            assert_eq!(conduct.came(&frame, Party::Edge), Err(why), "an edge is not");
            assert_eq!(conduct.came(&frame, Party::Node), Ok(()), "a node is believed");
            advance(Duration::from_secs(1)).await;
            assert_eq!(taken(&mut conduct, &frame), 20 / cost, "{why}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_allow_for_the_pings_and_windows_of_those_who_read_them() {
        let mut conduct = conduct();
        let (ping, window) = (frame(http2::PING, 0, &[0; 8]), frame(http2::WINDOW_UPDATE, 0, &[0; 4]));
        for _ in 0..10_000 {
            assert_eq!(conduct.went(&frame(http2::DATA, 0, b"answer")), None);
            for frame in [&ping, &window, &window] {
                assert_eq!(conduct.came(frame, Party::Anybody), Ok(()));
            }
        }
        // The answers to pings and settings do not.
        assert!(taken(&mut conduct, &ping) <= 200);
        for _ in 0..10_000 {
            conduct.went(&frame(http2::PING, 1, &[0; 8]));
        }
        assert_eq!(taken(&mut conduct, &ping), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_may_be_broken_off_twice_over_at_once_and_so_many_a_second() {
        let (mut conduct, reset) = (conduct(), frame(http2::RST_STREAM, 0, &[0; 4]));
        assert_eq!(taken(&mut conduct, &reset), 100);
        assert_eq!(conduct.came(&reset, Party::Anybody), Err("resets"));
        // Those of an edge are its callers'.
        assert_eq!(conduct.came(&reset, Party::Edge), Ok(()));
        advance(Duration::from_secs(3)).await;
        assert_eq!(taken(&mut conduct, &reset), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_what_they_bring_cost_nothing() {
        let mut conduct = conduct();
        for _ in 0..10_000 {
            for frame in
                [frame(http2::HEADERS, 0x4, b"x"), frame(http2::DATA, 0, b"x"), frame(http2::DATA, 1, b""), frame(http2::DATA, 0, b"")]
            {
                assert_eq!(conduct.came(&frame, Party::Anybody), Ok(()));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_must_be_whole_in_time_and_what_has_not_may_wait() {
        let wait = Limits::default().arrival_wait;
        let headers = frame(http2::HEADERS, 0, b"x");
        for (bytes, why) in [
            (&headers[..], "slow_headers"),
            (&headers[..9], "slow_headers"),
            (&headers[..3], "slow_frame"),
            (&[headers.clone(), frame(http2::CONTINUATION, 0, b"x")].concat(), "slow_headers"),
            (&frame(http2::DATA, 0, b"xyz")[..10], "slow_frame"),
        ] {
            let mut conduct = conduct();
            conduct.came(bytes, Party::Anybody).expect("nothing is wrong yet");
            let began = Instant::now();
            assert_eq!(poll_fn(|cx| conduct.poll_slow(cx)).await, why, "{bytes:?}");
            assert_eq!(began.elapsed(), wait, "{bytes:?}");
        }
        let mut conduct = conduct();
        conduct.came(&[headers, frame(http2::CONTINUATION, 0x4, b"x")].concat(), Party::Anybody).expect("whole");
        assert!(timeout(10 * wait, poll_fn(|cx| conduct.poll_slow(cx))).await.is_err());
    }

    #[test]
    fn what_h2_says_when_it_closes_a_connection_is_counted_by_why() {
        let goaway = |code: u8, words: &[u8]| frame(http2::GOAWAY, 0, &[&[0, 0, 0, 9, 0, 0, 0, code][..], words].concat());
        for (said, why) in SAID_BY_H2 {
            assert_eq!(conduct().went(&goaway(0xb, said)), Some(why));
        }
        assert_eq!(conduct().went(&goaway(1, b"")), Some("protocol"));
        assert_eq!(conduct().went(&goaway(0, b"")), None, "the node stops, or nobody calls");
    }
}
