//! Tests that read like a ledger: commands and what came of them, and in between what accounts and payments look like.
//!
//! Each line is `what | expected`; `#` begins a comment. A user is a name, `ann@1` one whose home is shard 1 (else shard
//! 0); amounts are decimals in the currency's own digits; `_` in numbers is for the eye.
//!
//! ```text
//! enrol ann DE EUR,JPY                   claim ann us            lead 0            (shard 0 begins its next term)
//! open ann EUR        close ann EUR      wait 60                 (seconds)
//! keep ann 8          drop ann 8         ann cards | 8          (payment methods, by what their tokens are made of)
//! deposit ann 1.00 EUR [ref=rent]        withdraw ann 1.00 EUR [ref=rent]
//! pay p1 ann bob 1.00 EUR [hold=60] [ref=rent]
//! card p1 ann bob 1.00 EUR [hold=60] [token=8] [declined=FRAUD] [psd2=yes]    (by card, gateway a first; declined before anybody is asked)
//!     [mandate=recurring | trusted] [under=p1]           (it sets a mandate up, or is made under that of p1)
//! cancel p1                                              (the mandate)
//! acquirer p1 1 done | challenge | declines | wants | left        (what the acquirer made of operation 1; it wants authentication)
//!     [score=0.2] [review=yes] [exempt=500.00/90]     (what fraud detection says; low risks, of 0.2, are exempt up to 500.00 after 90 days)
//! report p1           (it was fraud)      days 90             (days pass)
//! counted 0 | 1.00 in 2, fraud 0.10 in 1   (what shard 0's payments by card come to now, as the fraud rate has it)
//! acquirer p1 1 done | challenge | declines | left        (what the acquirer made of operation 1)
//! confirm p1          capture p1 [1.00]   void p1            refund p1 [1.00]        expire p1         (p1^2: the same number, term 2)
//! carry 0 1           (shard 1 reads one thing in shard 0's journal)
//! carry again 0 1     (and what it read last once more)
//! tell 1 0 bounce p1 1.00 EUR            (shard 1 says so to shard 0, whatever its books say)
//! note 1 0 5 7        (shard 0 notes that shard 1 took in what it sent up to 5, having read shard 1's journal up to 7)
//! ann EUR | 1.00      outside@0 EUR | -1.00       sent 0 1 EUR | 1.00        received 0 1 EUR | -1.00      p1 | captured 1.00 of 1.00
//! ```
//!
//! `=NAME` before a command gives it that request id, so that the same name is the same request again. Each command has
//! one of its own otherwise. [`Network::submit`] checks the books after every line, [`Network::audit`] all
//! of it at the end, when everything has arrived.

use std::collections::BTreeMap;

use paymesh_ledger::{
    Account, Agreement, Authentication, Body, ByCard, Challenge, Command, CreatePayment, Credit, Day, Decision, Effect, Entry, LeftBecause,
    MandateKind, Message, NewPayment, Outcome, Payment, Phase, Reason, Rejection, Request, Risk, RiskAnalysis, differing_field,
};
use paymesh_types::{Currency, Epoch, Money, PaymentId, Position, RequestId, Sequence, ShardRef, UserId, VaultToken};

use super::network::Network;

/// Plays the table, and fails with the lines that came out otherwise.
#[track_caller]
pub(crate) fn check(table: &str) {
    let mut play = Play {
        network: Network::new(["eu", "us", "ap"].map(|zone| ShardRef { zone: zone.parse().expect("a zone"), index: 0 })),
        users: Vec::new(),
        requests: Vec::new(),
        payments: BTreeMap::new(),
        carried: BTreeMap::new(),
    };
    let mut wrong = Vec::new();
    for line in table.lines() {
        let line = line.split('#').next().expect("a split has a first part").trim();
        if line.is_empty() {
            continue;
        }
        let (what, expected) = line.split_once('|').unwrap_or((line, ""));
        let expected = expected.trim().replace('_', "");
        let actual = play.line(&what.split_whitespace().collect::<Vec<_>>());
        if actual.replace('_', "") != expected {
            wrong.push(format!("{} | {actual}\n    and not: {expected}", what.trim_end()));
        }
    }
    assert!(wrong.is_empty(), "these lines come out otherwise:\n{}\n", wrong.join("\n"));
    play.network.settle();
    play.network.check();
    play.network.audit();
}

struct Play {
    network: Network,
    users: Vec<String>,
    requests: Vec<String>,
    /// Home shard and id of each payment that was made.
    payments: BTreeMap<String, (usize, PaymentId)>,
    /// What each shard read last of each other.
    carried: BTreeMap<(usize, usize), Command>,
}

impl Play {
    fn line(&mut self, words: &[&str]) -> String {
        match words {
            ["wait", seconds] => {
                self.network.now = self.network.now.plus_seconds(number(seconds));
                String::new()
            }
            ["days", days] => {
                self.network.now = self.network.now.plus_seconds(number::<u64>(days) * 24 * 3600);
                String::new()
            }
            ["counted", shard] => {
                let total = self.network.shards[number::<usize>(shard)].state.monitored().total(Day::of(self.network.now));
                let euro = currency("EUR");
                format!(
                    "{} in {}, fraud {} in {}",
                    decimal(total.minor, euro),
                    total.payments,
                    decimal(total.fraud_minor, euro),
                    total.frauds
                )
            }
            ["lead", shard] => {
                let epoch = &mut self.network.shards[number::<usize>(shard)].epoch;
                *epoch = Epoch(epoch.0 + 1);
                String::new()
            }
            ["carry", "again", from, to] => {
                let (from, to) = (number(from), number(to));
                let command = self.carried[&(from, to)].clone();
                self.submit(to, Request { id: None, command })
            }
            ["carry", from, to] => {
                let (from, to) = (number(from), number(to));
                let Some(command) = self.network.read(from, to) else { return "nothing".to_owned() };
                self.carried.insert((from, to), command.clone());
                self.submit(to, Request { id: None, command })
            }
            ["tell", from, to, kind, payment, amount, code] => {
                let (from, to) = (number(from), number(to));
                let command = self.tell(from, to, kind, payment, money(amount, code));
                self.submit(to, Request { id: None, command })
            }
            ["note", from, to, up_to, read_to] => {
                let source = self.network.shards[number::<usize>(from)].state.shard().clone();
                let command = Command::Delivered { to: source, up_to: Sequence(number(up_to)), read_to: Sequence(number(read_to)).into() };
                self.submit(number(to), Request { id: None, command })
            }
            ["sent", from, to, code] => {
                let shard = self.network.shards[number::<usize>(to)].state.shard().clone();
                self.system(number(from), Account::Sent(shard), currency(code))
            }
            ["received", from, to, code] => {
                let shard = self.network.shards[number::<usize>(from)].state.shard().clone();
                self.system(number(to), Account::Received(shard), currency(code))
            }
            ["acquirer", payment, operation, word] => {
                let outcome = match *word {
                    "done" => Outcome::Done { id: "ch_1".parse().expect("a charge's name") },
                    "challenge" => Outcome::Challenged {
                        id: "ch_1".parse().expect("a charge's name"),
                        challenge: Challenge { id: "7".to_owned(), url: Some("http://acquirer/challenges/1".to_owned()) },
                    },
                    "declines" => Outcome::Declined { reason: Reason::CardDeclined },
                    "wants" => Outcome::AuthenticationWanted,
                    "left" => Outcome::Left { to: "b".parse().expect("a gateway's name"), why: LeftBecause::Unreachable },
                    _ => panic!("no such word: {word}"),
                };
                let operation = number(operation);
                let (at, command) = self.of(payment, |payment, _| Command::Settle { payment, operation, outcome });
                self.submit(at, Request { id: None, command })
            }
            [gateway @ ("a" | "b"), code] => self.system(0, Account::Acquirer(gateway.parse().expect("a gateway's name")), currency(code)),
            ["payable@0", code] => self.system(0, Account::RefundsPayable, currency(code)),
            ["outside@0", code] => self.system(0, Account::External, currency(code)),
            ["outside@1", code] => self.system(1, Account::External, currency(code)),
            [user, "cards"] => self.cards(user),
            [payment] if self.payments.contains_key(*payment) => self.standing(payment),
            [user, code] if code.chars().all(|letter| letter.is_ascii_uppercase()) => self.account(user, currency(code)),
            [request, command @ ..] if request.starts_with('=') => {
                let id = self.request(request);
                self.command(id, command)
            }
            command => {
                let id = self.request(&format!("={}", self.requests.len()));
                self.command(id, command)
            }
        }
    }

    fn command(&mut self, id: RequestId, words: &[&str]) -> String {
        let (options, words): (Vec<&str>, Vec<&str>) = words.iter().copied().partition(|word: &&str| word.contains('='));
        let option = |name: &str| options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let reference = option("ref").unwrap_or_default().to_owned();
        let (at, command) = match words[..] {
            ["enrol", user, country, ref codes @ ..] => {
                let currencies = codes.iter().flat_map(|codes| codes.split(',')).map(currency).collect();
                (home(user), Command::EnrollUser { user: self.user(user), country: country.parse().expect(country), currencies })
            }
            ["claim", user, zone] => (home(user), Command::ClaimUser { user: self.user(user), zone: zone.parse().expect(zone) }),
            ["open", user, code] => (home(user), Command::OpenAccount { user: self.user(user), currency: currency(code) }),
            ["close", user, code] => (home(user), Command::CloseAccount { user: self.user(user), currency: currency(code) }),
            ["keep", user, card] => (home(user), Command::AddMethod { user: self.user(user), token: token(card) }),
            ["drop", user, card] => (home(user), Command::RemoveMethod { user: self.user(user), token: token(card) }),
            ["deposit", user, amount, code] => {
                (home(user), Command::Deposit { user: self.user(user), money: money(amount, code), reference })
            }
            ["withdraw", user, amount, code] => {
                (home(user), Command::Withdraw { user: self.user(user), money: money(amount, code), reference })
            }
            [how @ ("pay" | "card"), name, payer, payee, amount, code] => {
                let (at, to) = (home(payer), home(payee));
                // What the payment will be called; a request that was made before made another.
                let position = self.network.context(at).position(self.network.shards[at].state.shard());
                self.payments.entry(name.to_owned()).or_insert((at, PaymentId::from(position)));
                let payee_shard = (at != to).then(|| self.network.shards[to].state.shard().clone());
                let (payer, payee) = (self.user(payer), self.user(payee));
                let hold_s = option("hold").map_or(0, number);
                let agreement = match (option("mandate"), option("under")) {
                    (None, None) => None,
                    (Some("recurring"), None) => Some(Agreement::SetUp(MandateKind::Recurring)),
                    (Some("trusted"), None) => Some(Agreement::SetUp(MandateKind::TrustedPayee)),
                    (None, Some(name)) => match self.of(name, |payment, _| Command::CancelMandate { payment }).1 {
                        Command::CancelMandate { payment } => Some(Agreement::Under(payment)),
                        _ => unreachable!("as it was made"),
                    },
                    other => panic!("no such agreement: {other:?}"),
                };
                let card = (how == "card").then(|| ByCard {
                    token: token(option("token").unwrap_or("7")),
                    gateway: "a".parse().expect("a gateway's name"),
                    declined: option("declined").map(|_| Reason::FraudDetected),
                    risk: option("score").map(|score| Risk {
                        score: score.parse().ok(),
                        review: option("review").is_some(),
                        rules: String::new(),
                    }),
                    psd2: option("psd2").is_some(),
                    agreement,
                    analysis: option("exempt").map(|exempt| {
                        let (most, days) = exempt.split_once('/').expect("an amount and days");
                        let exempt_minor_max = minor(most, currency("EUR"));
                        RiskAnalysis { exempt_minor_max, history_days: number(days), score_max: "0.2".parse().expect("a score") }
                    }),
                });
                let create = CreatePayment { payer, payee, payee_shard, money: money(amount, code), hold_s, reference, card };
                (at, Command::CreatePayment(create))
            }
            ["confirm", name] => self.of(name, |payment, _| Command::ConfirmPayment { payment }),
            ["capture", name] => self.of(name, |payment, _| Command::CapturePayment { payment, amount: None }),
            ["capture", name, amount] => {
                self.of(name, |payment, currency| Command::CapturePayment { payment, amount: Some(minor(amount, currency)) })
            }
            ["cancel", name] => self.of(name, |payment, _| Command::CancelMandate { payment }),
            ["report", name] => self.of(name, |payment, _| Command::ReportFraud { payment }),
            ["void", name] => self.of(name, |payment, _| Command::VoidPayment { payment }),
            ["refund", name] => self.of(name, |payment, _| Command::RefundPayment { payment, amount: None }),
            ["refund", name, amount] => {
                self.of(name, |payment, currency| Command::RefundPayment { payment, amount: Some(minor(amount, currency)) })
            }
            ["expire", name] => self.of(name, |payment, _| Command::ExpirePayment { payment: payment.sequence() }),
            _ => panic!("no such command: {words:?}"),
        };
        self.submit(at, Request { id: Some(id), command })
    }

    fn submit(&mut self, at: usize, request: Request) -> String {
        match self.network.submit(at, &request) {
            Ok(Decision::New(entry)) => self.entry(&entry),
            Ok(Decision::Recorded(sequence)) => {
                let (_, entry) = &self.network.shards[at].journal[sequence.0 as usize - 1];
                match differing_field(entry, &request) {
                    None => format!("recorded: {}", self.entry(entry)),
                    Some(field) => format!("recorded, with another {field}"),
                }
            }
            Err(rejection) => format!("! {}", self.rejection(&rejection, &request.command)),
        }
    }

    /// A payment's home, and a command about it.
    fn of(&mut self, name: &str, command: impl FnOnce(PaymentId, Currency) -> Command) -> (usize, Command) {
        let (name, term) = name.split_once('^').unwrap_or((name, ""));
        let Some((at, id)) = self.payments.get(name).cloned() else {
            // Never made.
            let position = Position { shard: self.network.shards[0].state.shard().clone(), epoch: Epoch(1), sequence: Sequence(999) };
            return (0, command(PaymentId::from(position), currency("EUR")));
        };
        let currency = self.payment(name).map_or(currency("EUR"), |payment| payment.currency);
        let epoch = if term.is_empty() { id.epoch() } else { Epoch(number(term)) };
        (at, command(PaymentId::from(Position { epoch, ..id.position().clone() }), currency))
    }

    fn payment(&self, name: &str) -> Option<Payment> {
        let (at, id) = &self.payments[name];
        self.network.shards[*at].state.records().payments.into_iter().find(|payment| payment.sequence == id.sequence())
    }

    fn tell(&mut self, from: usize, to: usize, kind: &str, name: &str, money: Money) -> Command {
        let payment = self.payment(name).expect(name);
        let credit = Credit { payment: self.payments[name].1.clone(), payer: payment.payer, payee: payment.payee, money, reason: None };
        let message = match kind {
            "pay" => Message::Pay(credit),
            "bounce" => Message::Bounce(credit),
            "ask" => Message::AskRefund(credit),
            "paid" => Message::RefundPaid(credit),
            "refused" => Message::RefundRefused(credit),
            _ => panic!("no such message: {kind}"),
        };
        let source = self.network.shards[from].state.shard().clone();
        Command::Receive { at: self.network.shards[to].state.inbox(&source).next().into(), source, message }
    }

    fn account(&mut self, user: &str, currency: Currency) -> String {
        let id = self.user(user);
        let Some(wallet) = self.network.shards[home(user)].state.wallet(id, currency) else { return "no account".to_owned() };
        let mut text = decimal(wallet.balance, currency);
        if wallet.held != 0 {
            text += &format!(" held {}", decimal(wallet.held, currency));
        }
        if wallet.closed {
            text += " closed";
        }
        if wallet.exempted.payments != 0 {
            text += &format!(" exempted {} of {}", wallet.exempted.payments, decimal(wallet.exempted.minor, currency));
        }
        text
    }

    fn cards(&mut self, user: &str) -> String {
        let id = self.user(user);
        let methods = self.network.shards[home(user)].state.records().methods;
        let cards = methods.iter().filter(|(of, _)| *of == id).map(|(_, method)| method.token.as_bytes()[0].to_string());
        cards.collect::<Vec<_>>().join(" ")
    }

    fn system(&self, at: usize, account: Account, currency: Currency) -> String {
        let mut accounts = self.network.shards[at].state.system();
        let balance = accounts.find(|(which, of, _)| **which == account && *of == currency).map_or(0, |(_, _, balance)| balance);
        decimal(balance, currency)
    }

    fn standing(&self, name: &str) -> String {
        let Some(payment) = self.payment(name) else { return "no payment".to_owned() };
        let mut text = format!("{} {}", phase(payment.phase), decimal(payment.captured, payment.currency));
        text += &format!(" of {}", decimal(payment.amount, payment.currency));
        if payment.refunded != 0 {
            text += &format!(" refunded {}", decimal(payment.refunded, payment.currency));
        }
        if let Some(charge) = &payment.card {
            text += &format!(" at {}", charge.gateway);
            charge.operations.iter().for_each(|operation| {
                text +=
                    &format!(" {}:{:?} {}", operation.number, operation.kind, decimal(operation.amount, payment.currency)).to_lowercase();
            });
        }
        payment.reason.iter().for_each(|reason| text += &format!(" {}", reason.as_str()));
        if let Some(charge) = payment.card.as_deref().filter(|charge| charge.turned_down.is_some()) {
            let said = |owed: Authentication| owed.article().unwrap_or(owed.as_str());
            text += &format!(" {} after {}", charge.article().unwrap_or("required"), charge.turned_down.map_or("", said));
        }
        if let Some((kind, standing)) = payment.mandate() {
            text += &format!(" {} {}", kind.as_str(), standing.as_str());
        }
        text
    }

    fn entry(&self, entry: &Entry) -> String {
        let amount = |payment: &Payment, amount: i64| decimal(amount, payment.currency);
        match &entry.body {
            Body::UserEnrolled { .. } => "enrolled".to_owned(),
            Body::UserClaimed { zone, .. } => format!("claimed by {zone}"),
            Body::AccountOpened { .. } => "opened".to_owned(),
            Body::AccountClosed { .. } => "closed".to_owned(),
            Body::MethodAdded { .. } => "kept".to_owned(),
            Body::MethodRemoved { method, .. } => format!("dropped, kept by {}", method.added),
            Body::Deposited { money, .. } => format!("deposited {money}"),
            Body::Withdrawn { declined: Some(reason), .. } => format!("declined {}", reason.as_str()),
            Body::Withdrawn { money, .. } => format!("withdrawn {money}"),
            Body::PaymentCreated(NewPayment { declined: None, card: Some(card), .. }) => match card.authentication {
                Authentication::NotRequired => format!("asks {}", card.gateway),
                owed => format!("asks {}, {} by {}", card.gateway, owed.as_str().to_lowercase(), owed.article().expect("it is by one")),
            },
            Body::PaymentCreated(new) => match (new.declined, &new.payee_shard, new.hold_s) {
                (Some(reason), ..) => format!("declined {}", reason.as_str()),
                (None, None, 0) => "paid".to_owned(),
                (None, Some(shard), 0) => format!("sent to {shard}"),
                (None, ..) => "authorized".to_owned(),
            },
            Body::Card { .. } => entry.kind().replace('_', " "),
            Body::PaymentCaptured { payment, .. } => match &payment.payee_shard {
                None => format!("captured {}", amount(payment, payment.captured)),
                Some(shard) => format!("captured {}, sent to {shard}", amount(payment, payment.captured)),
            },
            Body::PaymentVoided { .. } => "voided".to_owned(),
            Body::PaymentExpired { .. } => "expired".to_owned(),
            Body::RefundCompleted { payment, amount: refund, .. } => format!("refunded {}", amount(payment, *refund)),
            Body::RefundRequested { payment, amount: refund, .. } => format!("refund of {} asked for", amount(payment, *refund)),
            Body::Received { effect, .. } => match effect {
                Effect::Credited(credit) => format!("credited {}", credit.money),
                Effect::Bounced(credit) => format!("bounced {} {}", credit.money, credit.reason.map_or("", |reason| reason.as_str())),
                Effect::RefundPaid(credit) => format!("refund of {} paid", credit.money),
                Effect::RefundRefused(credit) => {
                    format!("refund of {} refused {}", credit.money, credit.reason.map_or("", |reason| reason.as_str()))
                }
                Effect::PaymentReturned(payment) => format!("returned {}", amount(payment, payment.captured)),
                Effect::RefundReceived { payment, amount: refund } => format!("refund of {} received", amount(payment, *refund)),
                Effect::RefundFailed { payment, amount: refund, reason } => {
                    format!("refund of {} failed {}", amount(payment, *refund), reason.map_or("", |reason| reason.as_str()))
                }
            },
            Body::Delivered { to, up_to, .. } => format!("delivered to {to} up to {up_to}"),
        }
    }

    fn rejection(&self, rejection: &Rejection, command: &Command) -> String {
        let name = |user: &UserId| &self.users[user.get() as usize - 1];
        let shown = |minor: i64| match command {
            Command::CapturePayment { payment, .. } | Command::RefundPayment { payment, .. } => {
                let made = self.payments.iter().find(|(_, (_, id))| id == payment);
                made.and_then(|(name, _)| self.payment(name)).map_or(minor.to_string(), |payment| decimal(minor, payment.currency))
            }
            _ => minor.to_string(),
        };
        match rejection {
            Rejection::UserExists { user } => format!("UserExists {}", name(user)),
            Rejection::UserNotFound { user } => format!("UserNotFound {}", name(user)),
            Rejection::UserInAnotherZone { user, zone } => format!("UserInAnotherZone {} {zone}", name(user)),
            Rejection::AccountExists { user, currency } => format!("AccountExists {} {currency}", name(user)),
            Rejection::AccountNotFound { user, currency } => format!("AccountNotFound {} {currency}", name(user)),
            Rejection::AccountClosed { user, currency } => format!("AccountClosed {} {currency}", name(user)),
            Rejection::AccountNotEmpty { user, currency } => format!("AccountNotEmpty {} {currency}", name(user)),
            Rejection::MethodExists { user } => format!("MethodExists {}", name(user)),
            Rejection::MethodNotFound { user } => format!("MethodNotFound {}", name(user)),
            Rejection::TooManyMethods { user } => format!("TooManyMethods {}", name(user)),
            Rejection::OutOfRange => "OutOfRange".to_owned(),
            Rejection::ClearingFull { to, currency } => format!("ClearingFull {to} {currency}"),
            Rejection::PaymentNotFound => "PaymentNotFound".to_owned(),
            Rejection::NotAuthorized { phase: at } => format!("NotAuthorized {}", phase(*at)),
            Rejection::NoActionRequired { phase: at } => format!("NoActionRequired {}", phase(*at)),
            Rejection::OperationInProgress => "OperationInProgress".to_owned(),
            Rejection::MandateNotFound => "MandateNotFound".to_owned(),
            Rejection::MandateNotAuthenticated => "MandateNotAuthenticated".to_owned(),
            Rejection::MandateCancelled => "MandateCancelled".to_owned(),
            Rejection::MandateEnded => "MandateEnded".to_owned(),
            Rejection::MandateDiffers { field } => format!("MandateDiffers {field}"),
            Rejection::TooManyRefunds => "TooManyRefunds".to_owned(),
            Rejection::HoldExpired => "HoldExpired".to_owned(),
            Rejection::NothingCaptured => "NothingCaptured".to_owned(),
            Rejection::FraudReported => "FraudReported".to_owned(),
            Rejection::NotRefundable { why } => format!("NotRefundable {why}"),
            Rejection::ExceedsAuthorization { asked, authorized } => {
                format!("ExceedsAuthorization {} of {}", shown(*asked), shown(*authorized))
            }
            Rejection::ExceedsCapture { asked, left } => format!("ExceedsCapture {} of {}", shown(*asked), shown(*left)),
            Rejection::PayeeInsufficientFunds => "PayeeInsufficientFunds".to_owned(),
            Rejection::RequestIdReused { field } => format!("RequestIdReused {field}"),
            Rejection::NotExpiredYet => "NotExpiredYet".to_owned(),
            Rejection::AlreadyReceived { sequence } => format!("AlreadyReceived {sequence}"),
            Rejection::NothingNew => "NothingNew".to_owned(),
            Rejection::Implausible { what } => format!("Implausible {what}"),
        }
    }

    fn user(&mut self, name: &str) -> UserId {
        UserId::try_from(index(&mut self.users, name)).expect("counted from one")
    }

    fn request(&mut self, name: &str) -> RequestId {
        let number = index(&mut self.requests, name);
        RequestId::from_slice(&u128::from(number).to_be_bytes()).expect("counted from one")
    }
}

/// The number of the name, from 1: its place among those seen.
fn index(names: &mut Vec<String>, name: &str) -> u64 {
    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    at as u64 + 1
}

fn home(user: &str) -> usize {
    user.split_once('@').map_or(0, |(_, shard)| number(shard))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn token(card: &str) -> VaultToken {
    VaultToken::new("eu".parse().expect("a zone"), [number(card); 16])
}

fn currency(code: &str) -> Currency {
    Currency::from_code(code).expect(code)
}

fn money(amount: &str, code: &str) -> Money {
    Money::parse(&amount.replace('_', ""), currency(code)).expect(amount)
}

/// Minor units of a decimal; unlike [`Money`], of none and less as well.
fn minor(text: &str, currency: Currency) -> i64 {
    let text = text.replace('_', "");
    let digits = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    assert_eq!(digits, currency.exponent() as usize, "{text} in {currency}");
    number(&text.replace('.', ""))
}

fn decimal(minor: i64, currency: Currency) -> String {
    let scale = 10_u64.pow(currency.exponent());
    let (sign, minor, width) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs(), currency.exponent() as usize);
    if width == 0 { format!("{sign}{minor}") } else { format!("{sign}{}.{:0width$}", minor / scale, minor % scale) }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Authorized => "authorized",
        Phase::Captured => "captured",
        Phase::Returned => "returned",
        Phase::Declined => "declined",
        Phase::Voided => "voided",
        Phase::Expired => "expired",
        Phase::Pending => "pending",
        Phase::ActionRequired => "action required",
    }
}
