//! The numbers that make the simulator do something. Those that Stripe's test documentation has mean the same here.

/// What a cardholder answers to a challenge to approve.
pub const CHALLENGE_ANSWER: &str = "123456";

/// A number and what happens with it.
#[derive(Debug, Clone, Copy)]
pub struct TestCard {
    /// The number.
    pub number: &'static str,
    /// What happens.
    pub behavior: Behavior,
    /// In words.
    pub words: &'static str,
}

/// What happens with a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// It is approved.
    Approve,
    /// It is declined, with this code.
    Decline(&'static str),
    /// The cardholder is challenged first, unless it agreed earlier (`recurring`) and that is enough.
    Challenge {
        /// Whether an earlier agreement is enough.
        unless_recurring: bool,
        /// With which code it is declined after the challenge; approved where there is none.
        then: Option<&'static str>,
    },
    /// It is declined for want of authentication, exempt or not, unless the cardholder is to be challenged; approved after the challenge.
    AuthenticationRequired,
    /// It is done, and the answer never comes.
    AnswerLost,
    /// It is done, and the connection is closed instead of an answer.
    Hangup,
    /// It is done, and answered after this time.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// 500, and nothing is done.
    FailBefore,
    /// It is done, and 500.
    FailAfter,
    /// It is done, and the answer is a page of HTML.
    Html,
    /// It is done, and the answer is half of one.
    Truncated,
    /// It is done, and the answer says another amount.
    WrongAmount,
    /// 429, and nothing is done.
    Overloaded,
}

const fn card(number: &'static str, behavior: Behavior, words: &'static str) -> TestCard {
    TestCard { number, behavior, words }
}

/// Every number that is special. All others that are card numbers are approved.
pub const TEST_CARDS: &[TestCard] = &[
    card("4242424242424242", Behavior::Approve, "approved, as every number is that is not listed"),
    card("4000000000000002", Behavior::Decline("generic_decline"), "declined without a reason"),
    card("4000000000009995", Behavior::Decline("insufficient_funds"), "declined: insufficient funds"),
    card("4000000000009987", Behavior::Decline("lost_card"), "declined: lost card"),
    card("4000000000009979", Behavior::Decline("stolen_card"), "declined: stolen card"),
    card("4000000000000069", Behavior::Decline("expired_card"), "declined: expired card"),
    card("4000000000000119", Behavior::Decline("processing_error"), "declined: trouble at the issuer's"),
    card("4000000000006975", Behavior::Decline("card_velocity_exceeded"), "declined: used too often"),
    card("4000002500003155", Behavior::Challenge { unless_recurring: true, then: None }, "a challenge, then approved; none if recurring"),
    card("4000002760003184", Behavior::Challenge { unless_recurring: false, then: None }, "a challenge always, then approved"),
    card(
        "4000008260003178",
        Behavior::Challenge { unless_recurring: false, then: Some("insufficient_funds") },
        "a challenge always, then insufficient funds",
    ),
    card("4000009999000014", Behavior::AnswerLost, "done, and the answer never comes"),
    card("4000009999000022", Behavior::Slow { ms: 3_000 }, "done, and answered after three seconds"),
    card("4000009999000030", Behavior::FailBefore, "500, nothing done"),
    card("4000009999000048", Behavior::FailAfter, "done, and 500"),
    card("4000009999000055", Behavior::Html, "done, and an answer in HTML that repeats the number"),
    card("4000009999000063", Behavior::Truncated, "done, and half of an answer"),
    card("4000009999000071", Behavior::WrongAmount, "done, and an answer with another amount"),
    card("4000009999000089", Behavior::Hangup, "done, and the connection is closed"),
    card("4000009999000097", Behavior::Overloaded, "429, nothing done"),
    card(
        "4000009999000105",
        Behavior::AuthenticationRequired,
        "declined: authentication required; approved after a challenge, if one is asked for",
    ),
];

impl Behavior {
    /// What happens with a number.
    pub fn of(number: &str) -> Self {
        TEST_CARDS.iter().find(|card| card.number == number).map_or(Self::Approve, |card| card.behavior)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use paymesh_cards::CardNumber;

    use super::*;

    #[test]
    fn test_numbers_are_card_numbers_and_each_stands_once() {
        for card in TEST_CARDS {
            assert!(CardNumber::parse(card.number).is_ok(), "{}", card.words);
        }
        assert_eq!(TEST_CARDS.iter().map(|card| card.number).collect::<BTreeSet<_>>().len(), TEST_CARDS.len());
    }
}
