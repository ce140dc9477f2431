//! Labelled payments, made up: honest users with habits, and fraud of five patterns. Seeded: the same seed gives the same payments.
//!
//! What is assumed, and none of it was taken from real payments:
//!
//! - **Honest users** (2,000) pay 2 to 30 times in a month. Each has a country, a region to pay by, one or two cards (most of the own country), one or two devices, a
//!   handful of payees, two hours of the day around which most payments fall, and a median amount from 5 to 150 EUR, around which amounts spread by a factor
//!   of 1/3 to 3, and by one of up to 10 for one payment of twenty-five. Now and then they do what fraud does too: 6% of payments go to a payee who is new, 1.5% come from
//!   a new device, 1% are by a new card, 2% are made on a journey (another region, some of them with a card that is of there), 1% are two to six
//!   payments in a few minutes. A fifth of the users come without any history, during the month.
//! - **Card testing**: one account and one device try 8 to 40 stolen cards for 0.50 to 3 EUR within some minutes, at one of few merchants.
//! - **Account takeover**: an honest user's account, from a new device, at any hour, pays one to three new payees 3 to 15 times the user's largest
//!   amount; one in three by way of another region.
//! - **Velocity burst**: a device that the user has used (malware) or a new one sends 8 to 25 payments of usual size within ten minutes, to new payees.
//! - **A stolen card abroad**: somebody's new account pays two to six times 80 to 900 EUR by a card of another country, from a new device; half of them by way of another region. The
//!   account may have paid small amounts before.
//! - **A stolen card that fits**: the same, and the card is of the account's country, by the region that fits: hard to tell from a new customer. It is there so that the
//!   measure says what is missed.
//!
//! Every payment of such a pattern is fraud, the first ones too, of which nothing can be known yet: a pattern is not caught before it shows.

use paymesh_fraud_detection::memory::{Payment, device_hash};
use paymesh_types::{Country, Currency, Money, Timestamp, UserId};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// The first payment's time: an hour of 1 November 2026.
const START_SECONDS: u64 = 1_793_491_200;
const DAY: u64 = 86_400;
const DAYS: u64 = 30;
/// Days whose payments teach what is usual, and are not measured.
pub(crate) const WARM_UP_DAYS: u64 = 5;
const USERS: u64 = 2_000;
const PAYEES: u64 = 400;

/// Which pattern a payment is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label {
    Honest,
    CardTesting,
    AccountTakeover,
    VelocityBurst,
    StolenCardAbroad,
    StolenCardThatFits,
}

impl Label {
    pub(crate) const FRAUD: [Self; 5] =
        [Self::CardTesting, Self::AccountTakeover, Self::VelocityBurst, Self::StolenCardAbroad, Self::StolenCardThatFits];
}

/// A payment and what it is.
pub(crate) struct Labelled {
    pub(crate) payment: Payment,
    pub(crate) label: Label,
    /// Whether it is after the days that teach.
    pub(crate) measured: bool,
}

/// An honest user.
struct Person {
    id: u64,
    country: &'static str,
    region: &'static str,
    cards: Vec<(u64, &'static str)>,
    devices: Vec<u64>,
    payees: Vec<u64>,
    hours: [u64; 2],
    median_minor: u64,
    from_day: u64,
    largest_minor: u64,
}

struct Generator {
    random: StdRng,
    payments: Vec<Labelled>,
    next: u64,
}

const COUNTRIES: [&str; 6] = ["US", "CA", "MX", "BR", "AU", "JP"];
const REGIONS: [&str; 4] = ["us_east", "us_west", "asia_pacific", "eu_west"];

/// All payments of the month, in the order of their times.
pub(crate) fn generate(seed: u64) -> Vec<Labelled> {
    let mut generator = Generator { random: StdRng::seed_from_u64(seed), payments: Vec::new(), next: 1_000_000 };
    let mut people: Vec<Person> = (1..=USERS).map(|id| generator.person(id)).collect();
    for person in &mut people {
        generator.habits(person);
    }
    for _ in 0..40 {
        generator.card_testing();
        generator.velocity_burst(&people);
        generator.stolen_card(true);
        generator.stolen_card(false);
        for _ in 0..3 {
            generator.account_takeover(&people);
        }
    }
    let mut payments = generator.payments;
    payments.sort_by_key(|labelled| labelled.payment.at);
    payments
}

impl Generator {
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One of a hundred times so many.
    fn chance(&mut self, permille: u32) -> bool {
        self.random.random_range(0..1_000) < permille
    }

    fn person(&mut self, id: u64) -> Person {
        let country = *COUNTRIES.choose(&mut self.random).expect("there are some");
        let region = match country {
            "AU" | "JP" => "asia_pacific",
            _ => *["us_east", "us_west"].choose(&mut self.random).expect("there are two"),
        };
        let cards = (0..self.random.random_range(1..=2)).map(|_| (self.fresh(), country)).collect();
        let devices = (0..self.random.random_range(1..=2)).map(|_| self.fresh()).collect();
        let payees = (0..self.random.random_range(3..=12)).map(|_| 100_000 + self.random.random_range(0..PAYEES)).collect();
        let hours = [self.random.random_range(0..24), self.random.random_range(0..24)];
        let median_minor = self.random.random_range(500..15_000);
        let from_day = if self.chance(200) { self.random.random_range(0..DAYS - 2) } else { 0 };
        Person { id, country, region, cards, devices, payees, hours, median_minor, from_day, largest_minor: median_minor }
    }

    /// An amount around a median: within a factor of 3 of it, in hundredths of that factor.
    fn around(&mut self, median_minor: u64, factor_max: u64) -> u64 {
        let hundredths = self.random.random_range(100..=factor_max * 100);
        let amount = if self.chance(500) { median_minor * hundredths / 100 } else { median_minor * 100 / hundredths };
        amount.max(50)
    }

    fn habits(&mut self, person: &mut Person) {
        let payments = self.random.random_range(2..=30) * (DAYS - person.from_day) / DAYS;
        for _ in 0..payments.max(1) {
            let day = self.random.random_range(person.from_day..DAYS);
            let hour = if self.chance(850) {
                let usual = person.hours[usize::from(self.chance(500))];
                (usual + self.random.random_range(0..=2) + 23) % 24
            } else {
                self.random.random_range(7..24)
            };
            let at = START_SECONDS + day * DAY + hour * 3_600 + self.random.random_range(0..3_600);
            let (mut region, mut card) = (person.region, *person.cards.choose(&mut self.random).expect("a card"));
            let mut device = *person.devices.choose(&mut self.random).expect("a device");
            if self.chance(15) {
                device = self.fresh();
                person.devices.push(device);
            }
            if self.chance(10) {
                card = (self.fresh(), person.country);
                person.cards.push(card);
            }
            if self.chance(20) {
                region = *REGIONS.choose(&mut self.random).expect("there are some");
                if self.chance(300) {
                    card = (self.fresh(), *["GB", "FR", "US", "JP"].choose(&mut self.random).expect("there are some"));
                }
            }
            let times = if self.chance(10) { self.random.random_range(2..=6) } else { 1 };
            for time in 0..times {
                let payee = if self.chance(60) {
                    100_000 + self.random.random_range(0..PAYEES)
                } else {
                    *person.payees.choose(&mut self.random).expect("a payee")
                };
                let factor = if self.chance(40) { 10 } else { 3 };
                let amount = self.around(person.median_minor, factor);
                person.largest_minor = person.largest_minor.max(amount);
                let known = (person.id, person.country);
                self.pay(Label::Honest, known, payee, amount, at + time * 40, region, Some(card), device);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a payment has")]
    fn pay(
        &mut self,
        label: Label,
        (payer, country): (u64, &'static str),
        payee: u64,
        minor: u64,
        at: u64,
        region: &str,
        card: Option<(u64, &'static str)>,
        device: u64,
    ) {
        let parse = |code: &str| -> Country { code.parse().expect("a country") };
        let user = |id: u64| UserId::try_from(id).expect("a user");
        let hash = |number: u64| device_hash(&number.to_string());
        let amount = Money::new(i64::try_from(minor).expect("an amount"), Currency::from_code("EUR").expect("EUR")).expect("an amount");
        let payment = Payment {
            at: Timestamp(at * 1_000_000),
            payer: user(payer),
            payee: user(payee),
            amount,
            card: card.map(|(card, _)| hash(card)),
            bin: None,
            card_country: card.map(|(_, country)| parse(country)),
            device: Some(hash(device)),
            region: region.parse().expect("a region"),
            enters_abroad: region == "eu_west",
            residence: Some(parse(country)),
        };
        self.payments.push(Labelled { payment, label, measured: at >= START_SECONDS + WARM_UP_DAYS * DAY });
    }

    fn some_time(&mut self) -> u64 {
        START_SECONDS + WARM_UP_DAYS * DAY + self.random.random_range(0..(DAYS - WARM_UP_DAYS) * DAY)
    }

    fn merchant(&mut self) -> u64 {
        100_000 + self.random.random_range(0..PAYEES)
    }

    fn card_testing(&mut self) {
        let (payer, device, payee, mut at) = (self.fresh(), self.fresh(), self.merchant(), self.some_time());
        for _ in 0..self.random.random_range(8..=40) {
            let card = (self.fresh(), *COUNTRIES.choose(&mut self.random).expect("there are some"));
            let amount = self.random.random_range(50..=300);
            self.pay(Label::CardTesting, (payer, "US"), payee, amount, at, "us_east", Some(card), device);
            at += self.random.random_range(2..30);
        }
    }

    fn account_takeover(&mut self, people: &[Person]) {
        let person = people.iter().filter(|person| person.from_day == 0).collect::<Vec<_>>();
        let person = *person.choose(&mut self.random).expect("there are some");
        let (device, mut at) = (self.fresh(), self.some_time());
        let region = if self.chance(333) { *REGIONS.choose(&mut self.random).expect("there are some") } else { person.region };
        for _ in 0..self.random.random_range(1..=3) {
            let amount = person.largest_minor * self.random.random_range(3..=15);
            let (payee, card) = (self.fresh(), person.cards[0]);
            self.pay(Label::AccountTakeover, (person.id, person.country), payee, amount, at, region, Some(card), device);
            at += self.random.random_range(30..600);
        }
    }

    fn velocity_burst(&mut self, people: &[Person]) {
        let person = people.choose(&mut self.random).expect("there are some");
        let device = if self.chance(500) { person.devices[0] } else { self.fresh() };
        let (mut at, many) = (self.some_time(), self.random.random_range(8..=25));
        for _ in 0..many {
            let (payee, amount) = (self.fresh(), self.around(person.median_minor, 2));
            self.pay(Label::VelocityBurst, (person.id, person.country), payee, amount, at, person.region, Some(person.cards[0]), device);
            at += self.random.random_range(5..=600 / many);
        }
    }

    fn stolen_card(&mut self, abroad: bool) {
        let (payer, device, mut at) = (self.fresh(), self.fresh(), self.some_time());
        let (label, card_country) = if abroad { (Label::StolenCardAbroad, "GB") } else { (Label::StolenCardThatFits, "US") };
        let region = if abroad && self.chance(500) { "eu_west" } else { "us_east" };
        // Some accounts are grown first, by small payments that nobody minds.
        if self.chance(400) {
            let own = (self.fresh(), "US");
            for day in 1..=self.random.random_range(1..=5) {
                let payee = self.merchant();
                self.pay(Label::Honest, (payer, "US"), payee, 900, at.saturating_sub(day * DAY), "us_east", Some(own), device);
            }
        }
        let (card, device) = ((self.fresh(), card_country), if abroad { self.fresh() } else { device });
        for _ in 0..self.random.random_range(2..=6) {
            let (payee, amount) = (self.merchant(), self.random.random_range(8_000..=90_000));
            self.pay(label, (payer, "US"), payee, amount, at, region, Some(card), device);
            at += self.random.random_range(60..3_600);
        }
    }
}
