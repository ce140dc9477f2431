//! The numbers that the industry tests with, what is no number, and what must never be seen of one.

#![forbid(unsafe_code)]

use paymesh_cards::{Brand, Card, CardNumber, Error, Expiry, card_bytes, sealing_context};
use paymesh_types::Timestamp;
use proptest::prelude::*;

/// Published by the schemes and by payment providers for tests, or made of zeros: they belong to nobody.
const KNOWN: &[(&str, Brand, &str, &str)] = &[
    ("4242424242424242", Brand::Visa, "42424242", "4242"),
    ("4111111111111111", Brand::Visa, "41111111", "1111"),
    ("4012888888881881", Brand::Visa, "40128888", "1881"),
    ("4222222222222", Brand::Visa, "422222", "2222"),
    ("5555555555554444", Brand::Mastercard, "55555555", "4444"),
    ("5105105105105100", Brand::Mastercard, "51051051", "5100"),
    ("2223003122003222", Brand::Mastercard, "22230031", "3222"),
    ("2720990000000007", Brand::Mastercard, "27209900", "0007"),
    ("378282246310005", Brand::Amex, "378282", "0005"),
    ("371449635398431", Brand::Amex, "371449", "8431"),
    ("6011111111111117", Brand::Discover, "60111111", "1117"),
    ("6445644564456445", Brand::Discover, "64456445", "6445"),
    ("3056930009020004", Brand::Diners, "30569300", "0004"),
    ("36227206271667", Brand::Diners, "362272", "1667"),
    ("30569309025904", Brand::Diners, "305693", "5904"),
    ("38520000023237", Brand::Diners, "385200", "3237"),
    ("3566002020360505", Brand::Jcb, "35660020", "0505"),
    ("3530111333300000", Brand::Jcb, "35301113", "0000"),
    ("6200000000000005", Brand::UnionPay, "62000000", "0005"),
    ("6205500000000000004", Brand::UnionPay, "62055000", "0004"),
    ("6759649826438453", Brand::Maestro, "67596498", "8453"),
    ("6304000000000000", Brand::Maestro, "63040000", "0000"),
    ("2200000000000004", Brand::Mir, "22000000", "0004"),
    ("6072620000000005", Brand::Other, "60726200", "0005"),
];

#[test]
fn the_well_known_test_numbers_are_of_their_brands() {
    for (digits, brand, bin, last_four) in KNOWN {
        let number = CardNumber::parse(digits).unwrap_or_else(|error| panic!("{digits}: {error}"));
        assert_eq!((number.brand(), number.bin(), number.last_four(), number.expose()), (*brand, *bin, *last_four, *digits));
    }
}

#[test]
fn what_is_no_number_says_why() {
    for (text, why) in [
        ("", Error::Length),
        ("42424242424", Error::Length),
        ("42424242424242424242", Error::Length),
        ("4242 4242 4242 4242", Error::NotDigits),
        ("4242-4242-4242-4242", Error::NotDigits),
        ("٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", Error::NotDigits),
        ("4242424242424241", Error::CheckDigit),
        ("4242424242424224", Error::CheckDigit),
        ("0000000000000001", Error::CheckDigit),
        ("424242424242424", Error::BrandLength(Brand::Visa)),
        ("42424242424242", Error::BrandLength(Brand::Visa)),
        ("55555555555544444", Error::BrandLength(Brand::Mastercard)),
        ("3782822463100056", Error::BrandLength(Brand::Amex)),
        ("601111111111111", Error::BrandLength(Brand::Discover)),
        ("3622720627166", Error::BrandLength(Brand::Diners)),
    ] {
        assert_eq!(CardNumber::parse(text).map(|_| ()), Err(why), "{text}");
    }
}

#[test]
fn a_card_holds_through_the_end_of_its_month_everywhere() {
    let at = |text: &str| Timestamp(u64::try_from(text.parse::<jiff::Timestamp>().expect("a time").as_microsecond()).expect("after 1970"));
    for (month, year, last, first_after) in [
        (12, 2026, "2027-01-01T11:59:59.999999Z", "2027-01-01T12:00:00Z"),
        (11, 2026, "2026-12-01T11:59:59.999999Z", "2026-12-01T12:00:00Z"),
        (2, 2028, "2028-03-01T11:59:59.999999Z", "2028-03-01T12:00:00Z"),
        (2, 2027, "2027-03-01T11:59:59.999999Z", "2027-03-01T12:00:00Z"),
        (12, 2099, "2100-01-01T11:59:59.999999Z", "2100-01-01T12:00:00Z"),
    ] {
        let expiry = Expiry::new(month, year).expect("an expiry");
        assert!(!expiry.is_over(at(last)), "{month}/{year} at {last}");
        assert!(expiry.is_over(at(first_after)), "{month}/{year} at {first_after}");
    }
}

#[test]
fn months_and_years_keep_to_their_bounds() {
    for (month, year, why) in [(0, 2030, Error::Month), (13, 2030, Error::Month), (300, 2030, Error::Month), (1, 30, Error::Year)] {
        assert_eq!(Expiry::new(month, year).map(|_| ()), Err(why));
    }
    assert_eq!(Expiry::new(1, 1999), Err(Error::Year));
    assert_eq!(Expiry::new(1, 2100), Err(Error::Year));
    assert!(Expiry::new(12, 2026).expect("an expiry") < Expiry::new(1, 2027).expect("an expiry"));
}

#[test]
fn bytes_that_are_no_card_are_refused() {
    let card = Card { number: CardNumber::parse("378282246310005").expect("a number"), expiry: Expiry::new(7, 2031).expect("an expiry") };
    let bytes = card_bytes(&card);
    assert_eq!(bytes.len(), paymesh_cards::CARD_BYTES);
    for (place, byte) in [(0, 2), (1, 0), (1, 13), (2, 0), (4, b'x'), (22, b'1'), (6, 0)] {
        let mut changed = bytes.to_vec();
        changed[place] = byte;
        assert!(Card::from_bytes(&changed).is_err(), "byte {place}");
    }
    for length in [0, 1, bytes.len() - 1] {
        assert!(Card::from_bytes(&bytes[..length]).is_err());
    }
}

#[test]
fn what_is_sealed_for_one_user_or_zone_is_not_for_another() {
    let user = |id: u64| id.try_into().expect("a user");
    let zone = |name: &str| name.parse().expect("a zone");
    let all = [
        sealing_context(&zone("eu"), user(1)),
        sealing_context(&zone("eu"), user(2)),
        sealing_context(&zone("eu1"), user(1)),
        sealing_context(&zone("global"), user(1)),
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

/// Digits whose last one fits the others, and whose brand has so many.
fn numbers() -> impl Strategy<Value = String> {
    let first = prop::sample::select(vec!["4", "51", "2221", "34", "36", "6011", "3528", "62", "5018", "2200", "9", "1"]);
    (first, prop::collection::vec(0..10_u8, 18)).prop_filter_map("a length that its brand has", |(first, rest)| {
        (12..=19).find_map(|length: usize| {
            let mut digits: String = first.chars().chain(rest.iter().map(|digit| char::from(b'0' + digit))).take(length - 1).collect();
            (0..10).find_map(|check| {
                digits.push(char::from(b'0' + check));
                let found = CardNumber::parse(&digits).is_ok().then(|| digits.clone());
                digits.pop();
                found
            })
        })
    })
}

proptest! {
    #[test]
    fn no_digit_of_a_number_prints(digits in numbers(), month in 1..=12_u32, year in 2000..=2099_u32) {
        let number = CardNumber::parse(&digits).expect("a number");
        let card = Card { number, expiry: Expiry::new(month, year).expect("an expiry") };
        for printed in [format!("{card:?}"), format!("{card:#?}"), format!("{:?}", card.number), format!("{:?}", card.expiry)] {
            prop_assert!(!printed.contains(|character: char| character.is_ascii_digit()), "{printed}");
        }
        // Nor does an error say any, whatever is wrong.
        for wrong in [digits[..11].to_owned(), format!("{digits}{digits}"), format!("{digits} ")] {
            let error = CardNumber::parse(&wrong).expect_err("too short, too long or no digits");
            let printed = format!("{error:?}");
            prop_assert!(!printed.contains(|character: char| character.is_ascii_digit()), "{printed}");
            prop_assert!(!error.to_string().contains(&wrong));
        }
    }

    #[test]
    fn one_wrong_digit_is_always_found(digits in numbers(), place: prop::sample::Index, by in 1..10_u8) {
        let mut wrong = digits.into_bytes();
        let place = place.index(wrong.len());
        wrong[place] = b'0' + (wrong[place] - b'0' + by) % 10;
        prop_assert!(CardNumber::from_ascii(&wrong).is_err());
    }

    #[test]
    fn a_card_survives_its_bytes(digits in numbers(), month in 1..=12_u32, year in 2000..=2099_u32) {
        let card = Card { number: CardNumber::parse(&digits).expect("a number"), expiry: Expiry::new(month, year).expect("an expiry") };
        let again = Card::from_bytes(&card_bytes(&card)).expect("its bytes");
        prop_assert_eq!(again.number.expose(), digits.as_str());
        prop_assert_eq!(again.expiry, card.expiry);
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = Card::from_bytes(&bytes);
        let _ = CardNumber::from_ascii(&bytes);
    }
}
