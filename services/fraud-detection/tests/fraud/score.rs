//! The score: by tables that can be reckoned by hand, and what holds of all of them.

use paymesh_fraud_detection::score::{Code, Decision, Facts, Family, Listing, score};
use paymesh_topology::{Fraud, Shape, Signal, Window, ZonePolicy};
use paymesh_types::Score;
use proptest::prelude::*;

use crate::support::{RULES, rules, shipped};

/// A signal, its window, and what was measured.
type Value = (Signal, Option<Window>, u64);

fn scored(rules: &Fraud, facts: &Facts) -> u32 {
    score(rules, &ZonePolicy::default(), facts).score.ten_thousandths()
}

fn with(values: &[Value]) -> Facts {
    let mut facts = Facts::default();
    facts.payments = 10;
    values.iter().for_each(|(signal, per, value)| facts.set(*signal, *per, *value));
    facts
}

#[test]
fn scores_are_what_the_formula_says() {
    let rules = rules(RULES);
    let five_minutes = |count| (Signal::UserCount, Some(Window::FiveMinutes), count);
    let hour = |amount| (Signal::UserAmount, Some(Window::Hour), amount);
    let unusual = |percent| (Signal::AmountUnusual, None, percent);
    let abroad = (Signal::CardAbroad, None, 1);
    let table: [(&[Value], u32); 11] = [
        (&[], 0),
        // Up to `from` nothing, from `full` on all of it, half way between half of it.
        (&[five_minutes(2)], 0),
        (&[five_minutes(3)], 4_500),
        (&[five_minutes(4)], 9_000),
        (&[five_minutes(u64::MAX)], 9_000),
        // Of one family the strongest: 0.45, not 1 - 0.55 * 0.5.
        (&[five_minutes(3), hour(150_000)], 4_500),
        (&[five_minutes(3), hour(200_000)], 5_000),
        // Of two families: 1 - 0.55 * 0.6.
        (&[five_minutes(3), abroad], 6_700),
        // 1 - 0.1 * 0.6 * 0.5.
        (&[five_minutes(9), abroad, unusual(400)], 9_700),
        // 1 - 0.9995 (a two-hundredth of 0.5 is 0.0025 of it): rounded down.
        (&[unusual(201)], 25),
        // In another window nothing is asked of it.
        (&[(Signal::UserCount, Some(Window::Day), 1_000)], 0),
    ];
    for (values, wanted) in table {
        assert_eq!(scored(&rules, &with(values)), wanted, "{values:?}");
    }
}

#[test]
fn habits_say_nothing_of_those_who_have_none() {
    let rules = rules(RULES);
    for (payments, wanted) in [(0, 0), (1, 0), (2, 5_000), (3, 5_000)] {
        let mut facts = with(&[(Signal::AmountUnusual, None, 1_000)]);
        facts.payments = payments;
        assert_eq!(scored(&rules, &facts), wanted, "after {payments}");
    }
}

#[test]
fn what_is_above_a_threshold_is_declined_or_looked_at_and_what_is_at_it_is_not() {
    let yaml = |weight: &str| RULES.replace("card_abroad: {weight: 0.4}", &format!("card_abroad: {{weight: {weight}}}"));
    let policy = ZonePolicy::default();
    assert_eq!((policy.decline_above.to_string(), policy.review_above.to_string()), ("0.8000".to_owned(), "0.5000".to_owned()));
    for (weight, wanted) in [
        ("0.5", Decision::Accept),
        ("0.5001", Decision::Review),
        ("0.8", Decision::Review),
        ("0.8001", Decision::Decline),
        ("1", Decision::Decline),
    ] {
        let scored = score(&rules(&yaml(weight)), &policy, &with(&[(Signal::CardAbroad, None, 1)]));
        assert_eq!(scored.decision, wanted, "{weight}: {scored:?}");
    }
}

#[test]
fn what_is_blocked_is_declined_and_what_is_allowed_accepted_and_the_former_wins() {
    let (rules, certain) = (rules(RULES), Some(Window::FiveMinutes));
    // The largest threshold that there can be.
    let policy = ZonePolicy { decline_above: Score::new(9_999).expect("a score"), ..ZonePolicy::default() };
    let mut blocked = Facts::default();
    blocked.blocked = vec![Listing::Payee];
    let scored = score(&rules, &policy, &blocked);
    assert_eq!((scored.score, scored.decision), (Score::ONE, Decision::Decline));
    assert_eq!(scored.reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(), [Code::Blocked(Listing::Payee)]);
    let mut allowed = with(&[(Signal::UserCount, certain, 99)]);
    allowed.allowed = vec![Listing::Card];
    let scored = score(&rules, &policy, &allowed);
    assert_eq!((scored.score, scored.decision), (Score::ZERO, Decision::Accept));
    assert_eq!(scored.reasons.len(), 2, "what would have counted is said all the same: {scored:?}");
    let mut both = allowed;
    both.blocked = vec![Listing::User];
    assert_eq!(score(&rules, &policy, &both).decision, Decision::Decline);
}

#[test]
fn reasons_say_what_was_measured_and_how_much_it_counted() {
    let scored = score(
        &rules(RULES),
        &ZonePolicy::default(),
        &with(&[(Signal::CardAbroad, None, 1), (Signal::UserCount, Some(Window::FiveMinutes), 3), (Signal::FirstDevice, None, 0)]),
    );
    let said: Vec<_> = scored
        .reasons
        .iter()
        .map(|reason| (reason.code, reason.weight.ten_thousandths(), reason.strength.ten_thousandths(), reason.value, reason.per))
        .collect();
    let wanted = [
        (Code::Signal(Signal::UserCount), 9_000, 4_500, 3, Some(Window::FiveMinutes)),
        (Code::Signal(Signal::CardAbroad), 4_000, 4_000, 1, None),
    ];
    assert_eq!(said, wanted);
}

/// Any measures, in the windows that their signals have.
fn facts() -> impl Strategy<Value = Facts> {
    let slots: Vec<(Signal, Option<Window>)> = Signal::all()
        .flat_map(|signal| match signal.shape() {
            Shape::Windowed => Window::ALL.map(|window| (signal, Some(window))).to_vec(),
            Shape::Ramp | Shape::Flag => vec![(signal, None)],
        })
        .collect();
    let values = slots.into_iter().map(|(signal, per)| {
        let values = match signal.shape() {
            Shape::Flag => (0..=1_u64).boxed(),
            _ => prop_oneof![0..50_u64, 0..2_000_u64, 0..5_000_000_u64, any::<u64>()].boxed(),
        };
        values.prop_map(move |value| (signal, per, value))
    });
    (values.collect::<Vec<_>>(), 0..20_u32).prop_map(|(values, payments)| {
        let mut facts = with(&values);
        facts.payments = payments;
        facts
    })
}

/// Rules of the shipped shape with any weights.
fn any_rules() -> impl Strategy<Value = Fraud> {
    proptest::collection::vec(0..=10_000_u32, 40).prop_map(|weights| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../region-config/fraud.yaml");
        let text = std::fs::read_to_string(path).expect("it can be read").replace("  global:\n", "  us:\n");
        let mut weights = weights.into_iter().cycle();
        let parts: Vec<&str> = text.split("weight: ").collect();
        let changed: Vec<String> = parts[1..]
            .iter()
            .map(|part| {
                let end = part.find(['}', ',']).expect("a weight ends");
                format!("{}{}", Score::new(weights.next().expect("there are more")).expect("a score"), &part[end..])
            })
            .collect();
        rules(&format!("{}weight: {}", parts[0], changed.join("weight: ")))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_score_is_a_share_and_the_same_every_time(rules in any_rules(), facts in facts()) {
        let one = score(&rules, &ZonePolicy::default(), &facts);
        prop_assert!(one.score <= Score::ONE);
        prop_assert_eq!(&one, &score(&rules, &ZonePolicy::default(), &facts));
        // Each reason alone is no more than all of them together.
        for reason in &one.reasons {
            prop_assert!(reason.strength <= reason.weight);
            prop_assert!(reason.strength <= one.score, "{reason:?} {}", one.score);
        }
        prop_assert!(one.reasons.is_sorted_by(|one, other| one.code < other.code));
    }

    #[test]
    fn a_score_grows_with_every_signal(facts in facts(), more in any::<u64>(), which in any::<prop::sample::Index>()) {
        let rules = shipped();
        let all: Vec<Signal> = Signal::all().collect();
        let signal = *which.get(&all);
        let pers = if signal.shape() == Shape::Windowed { Window::ALL.map(Some).to_vec() } else { vec![None] };
        for per in pers {
            let mut grown = facts.clone();
            let before = facts.value(signal, per);
            grown.set(signal, per, before.saturating_add(more));
            let (less, more) = (scored(&rules, &facts), scored(&rules, &grown));
            prop_assert!(less <= more, "{signal} {per:?} from {before}: {less} {more}");
        }
    }

    /// The formula with all the precision that there is, in whatever order.
    #[test]
    fn a_score_is_that_of_the_formula_in_any_order(rules in any_rules(), facts in facts(), seed in any::<u64>()) {
        let scored = score(&rules, &ZonePolicy::default(), &facts);
        let mut families: Vec<(Family, u128)> = Vec::new();
        for reason in &scored.reasons {
            let Code::Signal(signal) = reason.code else { continue };
            let (family, strength) = (Family::of(signal), u128::from(reason.strength.ten_thousandths()));
            match families.iter_mut().find(|(known, _)| *known == family) {
                Some((_, strongest)) => *strongest = strength.max(*strongest),
                None => families.push((family, strength)),
            }
        }
        if !families.is_empty() {
            let shift = usize::try_from(seed % 97).expect("it is small") % families.len();
            families.rotate_left(shift);
        }
        if seed % 2 == 1 {
            families.reverse();
        }
        let left = families.iter().fold(10_u128.pow(30), |left, (_, strength)| left / 10_000 * (10_000 - strength));
        let exact = 10_000 - i64::try_from(left.div_ceil(10_u128.pow(26))).expect("it is small");
        // What the quotients lose is far less than a step, which it may tip over.
        let scored = i64::from(scored.score.ten_thousandths());
        prop_assert!((exact - scored).abs() <= 1, "{exact} {scored}");
    }
}
