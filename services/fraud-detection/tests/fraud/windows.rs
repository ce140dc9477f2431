//! Windows against a list of all payments.

use paymesh_fraud_detection::windows::{BUCKETS, OTHERS_MAX, Others, Windows};
use paymesh_topology::Window;
use proptest::prelude::*;

use crate::support::START;

/// What there was in the seconds (from, to].
fn exact(payments: &[(u64, u64)], from: u64, to: u64) -> (u64, u64) {
    let within = payments.iter().filter(|(at, _)| *at > from && *at <= to);
    within.fold((0, 0), |(count, sum), (_, amount)| (count + 1, sum + amount))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nothing of the window is missed, and nothing is counted that is more than a twentieth of it older.
    #[test]
    fn a_sum_is_that_of_the_window_and_at_most_a_twentieth_more(
        steps in proptest::collection::vec((prop_oneof![0..5_u64, 0..400_u64, 0..5_000_u64, 0..200_000_u64], 1..1_000_u64), 1..80),
        later in 0..100_000_u64,
    ) {
        let (mut windows, mut payments, mut now) = (Windows::default(), Vec::new(), START);
        for (step, amount) in steps {
            now += step;
            windows.add(now, amount);
            payments.push((now, amount));
            for at in [now, now + later] {
                for window in Window::ALL {
                    let (length, slack) = (window.seconds(), window.seconds() / u64::from(BUCKETS));
                    let (count, sum) = windows.sum(window, at);
                    let (least, least_sum) = exact(&payments, at - length, at);
                    let (most, most_sum) = exact(&payments, at - length - slack, at);
                    prop_assert!((least..=most).contains(&count), "{window}: {least} {count} {most}");
                    prop_assert!((least_sum..=most_sum).contains(&sum), "{window}: {least_sum} {sum} {most_sum}");
                }
            }
        }
    }

    #[test]
    fn different_others_are_counted_exactly_up_to_their_bound(steps in proptest::collection::vec((0..2_000_u64, 0..30_u64), 1..100)) {
        let (mut others, mut all, mut now) = (Others::default(), Vec::new(), START);
        for (step, other) in steps {
            now += step;
            others.add(now, other);
            all.push((now, other));
            for window in Window::ALL {
                let mut seen: Vec<u64> = all.iter().filter(|(at, _)| at + window.seconds() > now).map(|(_, other)| *other).collect();
                seen.sort_unstable();
                seen.dedup();
                let exact = seen.len();
                let counted = usize::try_from(others.count_with(window, now, other)).expect("it is small");
                prop_assert_eq!(counted, exact.min(OTHERS_MAX));
            }
        }
    }
}

#[test]
fn a_payment_that_comes_late_is_counted_where_its_window_is_not_over() {
    let mut windows = Windows::default();
    windows.add(START, 100);
    windows.add(START - 200, 10);
    windows.add(START - 4_000, 1);
    assert_eq!(windows.sum(Window::FiveMinutes, START), (2, 110));
    assert_eq!(windows.sum(Window::Hour, START), (2, 110));
    assert_eq!(windows.sum(Window::Day, START), (3, 111));
    assert_eq!(windows.sum(Window::Day, START + 10 * 86_400), (0, 0));
}

#[test]
fn sums_end_at_the_largest_number() {
    let mut windows = Windows::default();
    windows.add(START, u64::MAX);
    windows.add(START + 60, u64::MAX);
    assert_eq!(windows.sum(Window::Hour, START + 60), (2, u64::MAX));
}
