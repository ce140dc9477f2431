//! Amounts as Stripe counts them (docs.stripe.com/currencies): not everywhere the minor unit of ISO 4217.

use paymesh_types::{Currency, Money};

/// Counted in whole units. Not all have no minor unit in ISO 4217: the ariary has.
const WHOLE: [&str; 15] = ["BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"];
/// Counted in thousandths, of which the last digit is zero.
const THOUSANDTHS: [&str; 5] = ["BHD", "JOD", "KWD", "OMR", "TND"];
/// Counted in hundredths which there are not: whole units only.
const HUNDREDTHS_OF_WHOLE: [&str; 2] = ["ISK", "UGX"];

/// Digits after the point that Stripe counts a currency with.
fn exponent(currency: Currency) -> u32 {
    match currency.code() {
        code if WHOLE.contains(&code) => 0,
        code if THOUSANDTHS.contains(&code) => 3,
        _ => 2,
    }
}

/// The amount in Stripe's units. `None`: it has no such amount.
pub(super) fn to_stripe(amount: Money) -> Option<i64> {
    let currency = amount.currency();
    let stripe = scale(amount.minor(), currency.exponent(), exponent(currency))?;
    let code = currency.code();
    let step = if THOUSANDTHS.contains(&code) {
        10
    } else if HUNDREDTHS_OF_WHOLE.contains(&code) {
        100
    } else {
        1
    };
    (stripe % step == 0).then_some(stripe)
}

/// Stripe's units in minor units. `None`: it is no amount of the currency.
pub(super) fn from_stripe(stripe: i64, currency: Currency) -> Option<i64> {
    scale(stripe, exponent(currency), currency.exponent())
}

fn scale(number: i64, from: u32, to: u32) -> Option<i64> {
    if to >= from {
        return number.checked_mul(10_i64.checked_pow(to - from)?);
    }
    let step = 10_i64.checked_pow(from - to)?;
    (number % step == 0).then_some(number / step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_counted_as_stripe_does() {
        let table = [
            ("12.50", "EUR", Some(1250)),
            ("500", "JPY", Some(500)),
            ("5", "UGX", Some(500)),
            ("5", "ISK", Some(500)),
            ("3.00", "MGA", Some(3)),
            ("3.50", "MGA", None),
            ("1.230", "KWD", Some(1230)),
            ("1.234", "KWD", None),
            ("12.34", "HUF", Some(1234)),
            ("7", "CLP", Some(7)),
        ];
        for (text, code, stripe) in table {
            let amount = Money::parse(text, Currency::from_code(code).expect(code)).expect(text);
            assert_eq!(to_stripe(amount), stripe, "{text} {code}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_comes_back_as_it_went(minor in 1..1_000_000_000_i64, code in prop::sample::select(vec!["EUR", "JPY", "UGX", "ISK", "MGA", "KWD", "HUF", "CLP", "CLF"])) {
            let currency = Currency::from_code(code).expect(code);
            let amount = Money::new(minor, currency).expect("in bounds");
            if let Some(stripe) = to_stripe(amount) {
                prop_assert_eq!(from_stripe(stripe, currency), Some(minor));
            }
        }
    }
}
