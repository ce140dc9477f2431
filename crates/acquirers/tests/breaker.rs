//! Each transition of the breaker, with the time as an argument, and what a gate makes of it under paused time.

#![forbid(unsafe_code)]

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use paymesh_acquirers::{
    Attempt, Breaker, BreakerSettings, BreakerState, Budget, BudgetSettings, Class, Failure, Gate, GateSettings, Health, Permit, Verdict,
};
use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep};

const OPEN: Duration = Duration::from_secs(30);

fn breaker(failures: u32, probes: u32) -> Breaker {
    Breaker::new(BreakerSettings { failures, open_for: OPEN, probes })
}

/// A call that ends at once.
fn call(breaker: &mut Breaker, verdict: Verdict, now: Instant) {
    let permit = breaker.admit(now).expect("leave");
    breaker.report(permit, verdict, now);
}

fn opened(breaker: &mut Breaker, failures: u32, now: Instant) {
    (0..failures).for_each(|_| call(breaker, Verdict::Bad, now));
    assert_eq!(breaker.state(now), BreakerState::Open);
}

#[test]
fn the_defaults_are_five_failures_and_a_minute() {
    assert_eq!(BreakerSettings::default(), BreakerSettings { failures: 5, open_for: Duration::from_secs(60), probes: 1 });
}

#[test]
fn it_opens_at_the_threshold_and_not_before() {
    let (mut breaker, now) = (breaker(3, 1), Instant::now());
    call(&mut breaker, Verdict::Bad, now);
    call(&mut breaker, Verdict::Bad, now);
    assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Closed, 2));
    call(&mut breaker, Verdict::Good, now);
    assert_eq!(breaker.failures(), 0, "one after the other");
    call(&mut breaker, Verdict::Bad, now);
    call(&mut breaker, Verdict::Neither, now);
    call(&mut breaker, Verdict::Bad, now);
    assert_eq!(breaker.state(now), BreakerState::Closed);
    call(&mut breaker, Verdict::Bad, now);
    assert_eq!((breaker.state(now), breaker.opened_at()), (BreakerState::Open, Some(now)));
}

#[test]
fn open_nothing_goes_through_until_its_time_is_over() {
    let (mut breaker, now) = (breaker(2, 1), Instant::now());
    opened(&mut breaker, 2, now);
    let refusal = breaker.admit(now + Duration::from_secs(10)).expect_err("open");
    assert_eq!(refusal.retry_after, Duration::from_secs(20));
    assert!(breaker.admit(now + OPEN - Duration::from_nanos(1)).is_err());
    assert_eq!(breaker.state(now + OPEN), BreakerState::HalfOpen);
    assert!(breaker.admit(now + OPEN).expect("a probe").is_probe());
}

#[test]
fn half_open_lets_exactly_its_probes_through() {
    for probes in 1..=5_u32 {
        let (mut breaker, now) = (breaker(1, probes), Instant::now());
        opened(&mut breaker, 1, now);
        let now = now + OPEN;
        let mut permits: Vec<Permit> = std::iter::from_fn(|| breaker.admit(now).ok()).collect();
        assert_eq!(permits.len(), probes as usize);
        // One that has succeeded makes no room for another.
        breaker.report(permits.remove(0), Verdict::Good, now);
        if probes > 1 {
            assert!(breaker.admit(now).is_err(), "{probes} probes");
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        }
        permits.into_iter().for_each(|permit| breaker.report(permit, Verdict::Good, now));
        assert_eq!((breaker.state(now), breaker.failures()), (BreakerState::Closed, 0), "recovered");
        assert!(!breaker.admit(now).expect("leave").is_probe());
    }
}

#[test]
fn a_probe_that_fails_opens_it_again_for_the_whole_time() {
    let (mut breaker, now) = (breaker(1, 3), Instant::now());
    opened(&mut breaker, 1, now);
    let now = now + OPEN + Duration::from_secs(5);
    let (first, second) = (breaker.admit(now).expect("a probe"), breaker.admit(now).expect("a probe"));
    breaker.report(first, Verdict::Bad, now);
    assert_eq!((breaker.state(now), breaker.opened_at()), (BreakerState::Open, Some(now)));
    breaker.report(second, Verdict::Good, now);
    assert!(breaker.admit(now + OPEN - Duration::from_nanos(1)).is_err(), "a late word changes nothing");
    assert!(breaker.admit(now + OPEN).is_ok());
}

#[test]
fn a_probe_that_says_nothing_or_never_comes_back_gives_its_place_up() {
    let (mut breaker, now) = (breaker(1, 1), Instant::now());
    opened(&mut breaker, 1, now);
    let now = now + OPEN;
    let gone = breaker.admit(now).expect("a probe");
    breaker.report(gone, Verdict::Neither, now);
    let lost = breaker.admit(now).expect("another, in the place of the one that went away");
    let refusal = breaker.admit(now + Duration::from_secs(1)).expect_err("the place is taken");
    assert_eq!(refusal.retry_after, OPEN - Duration::from_secs(1));
    let next = breaker.admit(now + OPEN).expect("another, in the place of the one that was lost");
    // Its word comes too late.
    breaker.report(lost, Verdict::Bad, now + OPEN);
    assert_eq!(breaker.state(now + OPEN), BreakerState::HalfOpen);
    breaker.report(next, Verdict::Good, now + OPEN);
    assert_eq!(breaker.state(now + OPEN), BreakerState::Closed);
}

#[test]
fn calls_from_before_it_opened_do_not_count_after_it() {
    let (mut breaker, now) = (breaker(2, 1), Instant::now());
    let slow: Vec<Permit> = (0..4).map(|_| breaker.admit(now).expect("leave")).collect();
    opened(&mut breaker, 2, now);
    let now = now + OPEN;
    let probe = breaker.admit(now).expect("a probe");
    slow.into_iter().for_each(|permit| breaker.report(permit, Verdict::Bad, now));
    assert_eq!(breaker.state(now), BreakerState::HalfOpen);
    breaker.report(probe, Verdict::Good, now);
    assert_eq!(breaker.state(now), BreakerState::Closed);
}

proptest! {
    /// Whatever comes in whatever order: nothing goes through while it is open; half open, those under way and those that succeeded are never more than the probes; and
    /// it never locks itself.
    #[test]
    fn it_never_lets_more_through_than_it_may_and_never_locks_itself(
        failures in 1..4_u32,
        probes in 1..4_u32,
        steps in prop::collection::vec((0..5_u8, 0..20_u64, any::<prop::sample::Index>()), 1..300),
    ) {
        let (mut breaker, mut now) = (breaker(failures, probes), Instant::now());
        let mut out: Vec<(Permit, Instant)> = Vec::new();
        // Of this time of being half open: when probes under way began, and how many succeeded.
        let (mut under_way, mut succeeded): (Vec<Instant>, usize) = (Vec::new(), 0);
        for (step, seconds, which) in steps {
            now += Duration::from_secs(seconds);
            if step < 2 {
                let before = breaker.state(now);
                if let Ok(permit) = breaker.admit(now) {
                    prop_assert!(before != BreakerState::Open);
                    prop_assert_eq!(permit.is_probe(), before == BreakerState::HalfOpen);
                    if permit.is_probe() {
                        under_way.retain(|begun| now.duration_since(*begun) < OPEN);
                        under_way.push(now);
                        prop_assert!(under_way.len() + succeeded <= probes as usize);
                    }
                    out.push((permit, now));
                }
            } else if !out.is_empty() {
                let (permit, begun) = out.remove(which.index(out.len()));
                let verdict = [Verdict::Good, Verdict::Bad, Verdict::Neither][usize::from(step) - 2];
                let (probe, opened) = (permit.is_probe(), breaker.opened_at());
                breaker.report(permit, verdict, now);
                // Of this time, and not given up for lost.
                if let Some(at) = under_way.iter().position(|known| probe && *known == begun) {
                    under_way.swap_remove(at);
                    succeeded += usize::from(verdict == Verdict::Good);
                }
                if breaker.state(now) != BreakerState::HalfOpen || breaker.opened_at() != opened {
                    (under_way, succeeded) = (Vec::new(), 0);
                }
            }
        }
        prop_assert!(breaker.admit(now + OPEN * 2).is_ok());
    }
}

fn gate(settings: GateSettings) -> Gate {
    let budget = Budget::new(BudgetSettings { percent: 100, per_second: 1_000 }, Instant::now());
    Gate::new("test", settings, Arc::new(Mutex::new(budget)))
}

fn settings() -> GateSettings {
    GateSettings {
        breaker: BreakerSettings { failures: 3, open_for: OPEN, probes: 2 },
        timeout: Duration::from_secs(2),
        calls_in_flight: 4,
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn ends(gate: &Gate, result: Result<(), Failure>) -> Result<(), Failure> {
    gate.call(Attempt::First, later(), |_| async { result }).await
}

#[tokio::test(start_paused = true)]
async fn a_gate_counts_what_is_against_the_gateway_and_no_declines() {
    let gate = gate(settings());
    for class in Class::ALL {
        let before = gate.snapshot().failures;
        let _ = ends(&gate, Err(Failure::unknown(class, "test"))).await;
        let counted = gate.snapshot().failures > before;
        assert_eq!(counted, class.is_against_the_gateway(), "{class:?}");
        // An answer, be it a no.
        ends(&gate, Ok(())).await.expect("it goes through");
        assert_eq!(gate.snapshot().failures, 0);
    }
    assert!(!Class::Refused.is_against_the_gateway() && Class::Timeout.is_against_the_gateway());
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_is_open_calls_nobody_and_recovers_by_its_probes() {
    let gate = gate(settings());
    for _ in 0..3 {
        ends(&gate, Err(Failure::unknown(Class::ServerError, "test"))).await.expect_err("it fails");
    }
    assert_eq!((gate.snapshot().state, gate.health()), (BreakerState::Open, Health::Open));
    let called = AtomicUsize::new(0);
    let count = || {
        gate.call(Attempt::First, later(), |_| async {
            called.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    };
    let failure = count().await.expect_err("open");
    assert_eq!((failure.class, failure.is_certain(), called.load(Ordering::Relaxed)), (Class::Open, true, 0), "{failure}");
    advance(OPEN - Duration::from_millis(1)).await;
    count().await.expect_err("still open");
    advance(Duration::from_millis(1)).await;
    assert_eq!(gate.health(), Health::Probing);
    // Both probes hang, and there is no room for a third.
    let hanging = async {
        tokio::join!(
            gate.call(Attempt::First, later(), |_| pending::<Result<(), Failure>>()),
            gate.call(Attempt::First, later(), |_| pending::<Result<(), Failure>>())
        )
    };
    let third = async {
        sleep(Duration::from_millis(10)).await;
        count().await
    };
    let ((first, second), third) = tokio::join!(hanging, third);
    assert_eq!(third.expect_err("no probe is left").class, Class::Open);
    for hung in [first, second] {
        let failure = hung.expect_err("it hangs");
        assert_eq!((failure.class, failure.is_certain()), (Class::Timeout, false));
    }
    assert_eq!((gate.snapshot().state, called.load(Ordering::Relaxed)), (BreakerState::Open, 0));
    advance(OPEN).await;
    count().await.expect("a probe");
    assert_eq!(gate.snapshot().state, BreakerState::HalfOpen);
    count().await.expect("a probe");
    assert_eq!((gate.snapshot().state, gate.health()), (BreakerState::Closed, Health::Good));
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_goes_away_leaves_its_place() {
    let gate = gate(GateSettings { breaker: BreakerSettings { failures: 1, open_for: OPEN, probes: 1 }, ..settings() });
    ends(&gate, Err(Failure::unknown(Class::Broken, "test"))).await.expect_err("it fails");
    advance(OPEN).await;
    let gone = tokio::time::timeout(Duration::from_millis(5), gate.call(Attempt::First, later(), |_| pending::<Result<(), Failure>>()));
    gone.await.expect_err("the caller goes away");
    assert_eq!(gate.snapshot().calls_in_flight, 0);
    ends(&gate, Ok(())).await.expect("another probe");
    assert_eq!(gate.snapshot().state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn deadlines_places_and_retries_are_bounded() {
    let gate = gate(settings());
    // The earlier of the two deadlines.
    let begun = Instant::now();
    let given = gate.call(Attempt::First, later(), |deadline| async move { Ok(deadline) }).await.expect("a deadline");
    assert_eq!(given - begun, Duration::from_secs(2));
    let hurried = begun + Duration::from_millis(100);
    let given = gate.call(Attempt::First, hurried, |deadline| async move { Ok(deadline) }).await.expect("a deadline");
    assert_eq!(given, hurried);
    // A caller in a hurry says nothing about the gateway.
    let hung = gate.call(Attempt::First, hurried, |_| pending::<Result<(), Failure>>()).await.expect_err("it hangs");
    assert_eq!((hung.class, gate.snapshot().failures), (Class::Timeout, 0));
    let late = gate.call(Attempt::First, begun, |_| async { Ok(()) }).await.expect_err("too late");
    assert_eq!((late.class, late.is_certain()), (Class::Late, true));
    // Four at once.
    let call = || {
        gate.call(Attempt::First, later(), |_| async {
            sleep(Duration::from_millis(50)).await;
            Ok(())
        })
    };
    let (a, b, c, d, e) = tokio::join!(call(), call(), call(), call(), call());
    assert!([a, b, c, d].iter().all(Result::is_ok));
    assert_eq!(e.expect_err("no place").class, Class::Full);
    assert_eq!(gate.snapshot().calls_in_flight, 0);
    // No budget, no retry.
    let poor =
        Gate::new("poor", settings(), Arc::new(Mutex::new(Budget::new(BudgetSettings { percent: 50, per_second: 0 }, Instant::now()))));
    let again = || poor.call(Attempt::Again, later(), |_| async { Ok(()) });
    assert_eq!(again().await.expect_err("none").class, Class::Spent);
    ends(&poor, Ok(())).await.expect("earns a half");
    ends(&poor, Ok(())).await.expect("earns a half");
    again().await.expect("one is paid for");
    assert_eq!(again().await.expect_err("none").class, Class::Spent);
}
