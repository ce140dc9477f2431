//! What is known of users, cards and devices.

use paymesh_fraud_detection::memory::{Memory, Payment};
use paymesh_topology::{Signal, Window};
use paymesh_types::{Currency, Money, Timestamp};

use crate::support::{RULES, START, payment, rules, user};

fn learn(memory: &mut Memory, payment: &Payment, accepted: bool) {
    let reference = rules(RULES).to_reference(payment.amount);
    memory.learn(&payment.seen(reference, accepted));
}

fn value(memory: &Memory, payment: &Payment, signal: Signal, per: Option<Window>) -> u64 {
    memory.facts(&rules(RULES), payment).value(signal, per)
}

#[test]
fn payments_are_counted_by_user_card_device_and_payee() {
    let mut memory = Memory::new(100);
    let by = |payer, payee, card: u8, device: u8, after| Payment {
        card: Some([card; 16]),
        device: Some([device; 16]),
        ..payment(payer, payee, 1_000, after)
    };
    for (payer, payee, card, device, after) in [(1, 9, 1, 1, 0), (1, 9, 2, 1, 10), (2, 9, 1, 1, 20), (3, 8, 3, 3, 30)] {
        learn(&mut memory, &by(payer, payee, card, device, after), true);
    }
    let now = by(1, 9, 1, 1, 40);
    let hour = |signal| value(&memory, &now, signal, Some(Window::Hour));
    for (count, amount, wanted) in [
        (Signal::UserCount, Signal::UserAmount, 3),
        (Signal::CardCount, Signal::CardAmount, 3),
        (Signal::DeviceCount, Signal::DeviceAmount, 4),
        (Signal::PayeeCount, Signal::PayeeAmount, 4),
    ] {
        assert_eq!((hour(count), hour(amount)), (wanted, wanted * 1_000), "{count}: with this one");
    }
    assert_eq!((hour(Signal::UserCards), hour(Signal::CardUsers), hour(Signal::DeviceUsers)), (2, 2, 2));
    let another = by(4, 7, 1, 1, 40);
    let of_another = |signal| value(&memory, &another, signal, Some(Window::Hour));
    assert_eq!((of_another(Signal::UserCount), of_another(Signal::CardUsers), of_another(Signal::DeviceUsers)), (1, 3, 3));
    let from_wallet = payment(1, 9, 1_000, 40);
    for signal in [Signal::CardCount, Signal::DeviceCount, Signal::UserCards, Signal::CardUsers, Signal::DeviceUsers] {
        assert_eq!(value(&memory, &from_wallet, signal, Some(Window::Hour)), 0, "{signal}: nothing is known of no card");
    }
}

#[test]
fn to_look_is_not_to_learn() {
    let mut memory = Memory::new(100);
    learn(&mut memory, &payment(1, 9, 1_000, 0), true);
    let facts = memory.facts(&rules(RULES), &payment(1, 9, 1_000, 1));
    for _ in 0..10 {
        assert_eq!(memory.facts(&rules(RULES), &payment(1, 9, 1_000, 1)), facts);
    }
}

#[test]
fn habits_are_learnt_from_what_was_not_declined() {
    let mut memory = Memory::new(100);
    let usual = Payment { device: Some([1; 16]), card: Some([1; 16]), ..payment(1, 9, 1_000, 0) };
    let first = |memory: &Memory, payment: &Payment| {
        let is = |signal| value(memory, payment, signal, None) == 1;
        [Signal::FirstPayment, Signal::FirstCard, Signal::FirstDevice, Signal::FirstPayee, Signal::FirstRegion].map(is)
    };
    assert_eq!(first(&memory, &usual), [true, false, false, false, false], "of who has never paid it is said once");
    learn(&mut memory, &usual, true);
    assert_eq!(first(&memory, &usual), [false; 5]);
    let stolen =
        Payment { device: Some([2; 16]), card: Some([2; 16]), region: "us_east".parse().expect("a region"), ..payment(1, 66, 50_000, 10) };
    assert_eq!(first(&memory, &stolen), [false, true, true, true, true]);
    assert_eq!(value(&memory, &stolen, Signal::AmountUnusual, None), 5_000);
    learn(&mut memory, &stolen, false);
    assert_eq!(first(&memory, &stolen), [false, true, true, true, true], "an attempt that was declined teaches nothing");
    assert_eq!(value(&memory, &stolen, Signal::AmountUnusual, None), 5_000);
    assert_eq!(value(&memory, &stolen, Signal::UserCount, Some(Window::Hour)), 3, "and is counted");
    learn(&mut memory, &stolen, true);
    assert_eq!(first(&memory, &stolen), [false; 5]);
}

#[test]
fn an_amount_is_compared_with_the_largest_of_the_last_sixteen() {
    let mut memory = Memory::new(100);
    let percent = |memory: &Memory, minor| value(memory, &payment(1, 9, minor, 100), Signal::AmountUnusual, None);
    learn(&mut memory, &payment(1, 9, 90_000, 0), true);
    for step in 1..=15 {
        learn(&mut memory, &payment(1, 9, 1_000, step), true);
    }
    assert_eq!(percent(&memory, 90_000), 100);
    learn(&mut memory, &payment(1, 9, 2_000, 16), true);
    assert_eq!(percent(&memory, 90_000), 4_500, "the seventeenth has taken the place of the first");
    let unrated = Payment { amount: Money::new(500, Currency::from_code("GBP").expect("GBP")).expect("an amount"), ..payment(1, 9, 1, 20) };
    learn(&mut memory, &unrated, true);
    assert_eq!(percent(&memory, 2_000), 100, "what has no rate is not compared");
    assert_eq!(value(&memory, &unrated, Signal::AmountUnusual, None), 0);
    assert_eq!(value(&memory, &unrated, Signal::CurrencyUnrated, None), 1);
    let dollars = Payment { amount: Money::new(4_000, Currency::from_code("USD").expect("USD")).expect("an amount"), ..unrated };
    assert_eq!(value(&memory, &dollars, Signal::AmountUnusual, None), 100);
}

#[test]
fn an_hour_is_unusual_by_the_users_own_hours() {
    let mut memory = Memory::new(100);
    let midnight = START - START % 86_400;
    let at = |hour: u64| Payment { at: Timestamp((midnight + hour * 3_600) * 1_000_000), ..payment(1, 9, 1_000, 0) };
    for hour in [23, 0, 0, 12] {
        learn(&mut memory, &at(hour), true);
    }
    let away = |hour| value(&memory, &at(hour), Signal::HourUnusual, None);
    assert_eq!((away(0), away(1), away(22), away(21)), (250, 250, 250, 750), "two hours around, past midnight too");
    assert_eq!((away(10), away(14), away(6), away(18)), (750, 750, 1_000, 1_000));
}

#[test]
fn lists_have_payers_payees_cards_devices_first_digits_and_countries() {
    use paymesh_fraud_detection::score::Listing::{Bin, Card, Country, Device, Payee, User};
    let yaml = format!(
        "{}block: {{users: [66], cards: ['{}'], devices: ['{}'], bins: ['400000'], countries: [KP]}}\nallow: {{users: [77]}}\n",
        RULES.split("block:").next().expect("a beginning"),
        "01".repeat(16),
        "02".repeat(16)
    );
    let (rules, memory) = (rules(&yaml), Memory::new(100));
    let country = |code: &str| Some(code.parse().expect("a country"));
    let usual = payment(1, 2, 100, 0);
    for (payment, blocked, allowed) in [
        (usual.clone(), vec![], vec![]),
        (payment(66, 2, 100, 0), vec![User], vec![]),
        (payment(1, 66, 100, 0), vec![Payee], vec![]),
        (payment(77, 66, 100, 0), vec![Payee], vec![User]),
        (payment(1, 77, 100, 0), vec![], vec![]),
        (Payment { card: Some([1; 16]), device: Some([2; 16]), ..usual.clone() }, vec![Card, Device], vec![]),
        (Payment { card: Some([2; 16]), device: Some([1; 16]), ..usual.clone() }, vec![], vec![]),
        (Payment { bin: Some("40000012".to_owned()), ..usual.clone() }, vec![Bin], vec![]),
        (Payment { bin: Some("400001".to_owned()), ..usual.clone() }, vec![], vec![]),
        (Payment { card_country: country("KP"), ..usual.clone() }, vec![Country], vec![]),
        (Payment { residence: country("KP"), card_country: country("DE"), ..usual }, vec![Country], vec![]),
    ] {
        let facts = memory.facts(&rules, &payment);
        assert_eq!((facts.blocked, facts.allowed), (blocked, allowed), "{payment:?}");
    }
}

#[test]
fn countries_that_are_not_known_do_not_differ() {
    let country = |code: &str| Some(code.parse().expect("a country"));
    let memory = Memory::new(100);
    for (card, residence, differ) in [
        (country("FR"), country("DE"), 1),
        (country("DE"), country("DE"), 0),
        (None, country("DE"), 0),
        (country("DE"), None, 0),
        (None, None, 0),
    ] {
        let payment = Payment { card_country: card, residence, ..payment(1, 2, 100, 0) };
        assert_eq!(value(&memory, &payment, Signal::CardAbroad, None), differ);
    }
}

#[test]
fn who_was_let_go_of_has_no_history_and_whoever_pays_keeps_it() {
    let mut memory = Memory::new(50);
    for step in 0..1_000 {
        learn(&mut memory, &payment(1_000 + step, 9, 1_000, step), true);
        learn(&mut memory, &payment(1, 9, 1_000, step), true);
    }
    assert_eq!(value(&memory, &payment(1, 9, 1_000, 1_000), Signal::FirstPayment, None), 0);
    assert_eq!(value(&memory, &payment(1_999, 9, 1_000, 1_000), Signal::FirstPayment, None), 0);
    assert_eq!(value(&memory, &payment(1_000, 9, 1_000, 1_000), Signal::FirstPayment, None), 1);
    assert_eq!(memory.facts(&rules(RULES), &payment(user(1_000).get(), 9, 1_000, 1_000)).payments, 0);
}
