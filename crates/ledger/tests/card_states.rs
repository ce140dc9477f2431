//! The table of states in docs/card-payments.md is what the ledger does: each state is brought about, and each event is tried on it.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use paymesh_ledger::{
    ByCard, Challenge, Command, Context, CreatePayment, Decision, LeftBecause, Missing, OperationKind, Outcome, Payment, Phase, Reason,
    Records, Rejection, Request, State, decide,
};
use paymesh_types::{Currency, Epoch, Money, PaymentId, Position, Sequence, ShardRef, Timestamp, UserId, VaultToken};

const PAGE: &str = include_str!("../../../docs/card-payments.md");
const BEGIN: &str = "<!-- the states: checked by crates/ledger/tests/card_states.rs -->\n";
const END: &str = "<!-- the end of the states -->";

/// What can happen to a payment by card.
#[derive(Clone, Copy, PartialEq)]
enum Event {
    Confirm,
    Capture,
    Void,
    Refund,
    TimeIsUp,
    Done,
    Challenge,
    Declines,
    Left,
    Wants,
    /// Brings states about, and has no column.
    PayeeCloses,
}

const EVENTS: [(Event, &str); 10] = [
    (Event::Confirm, "ConfirmPayment"),
    (Event::Capture, "CapturePayment"),
    (Event::Void, "VoidPayment"),
    (Event::Refund, "RefundPayment"),
    (Event::TimeIsUp, "its time is up"),
    (Event::Done, "acquirer: done"),
    (Event::Challenge, "acquirer: challenge"),
    (Event::Declines, "acquirer: declines"),
    (Event::Left, "acquirer: did nothing"),
    (Event::Wants, "acquirer: wants authentication"),
];

/// What brings each state about, for a payment that is captured at once and for one that is held.
const STATES: [(bool, &[Event]); 18] = [
    (false, &[]),
    (false, &[Event::Wants]),
    (false, &[Event::Challenge]),
    (false, &[Event::Challenge, Event::Void]),
    (true, &[Event::Done]),
    (false, &[Event::Done]),
    (true, &[Event::Done, Event::Capture]),
    (true, &[Event::Done, Event::Void]),
    (true, &[Event::Done, Event::TimeIsUp]),
    (false, &[Event::Done, Event::Done]),
    (false, &[Event::Done, Event::Done, Event::Refund]),
    (false, &[Event::Done, Event::PayeeCloses, Event::Done]),
    (false, &[Event::Done, Event::PayeeCloses, Event::Done, Event::Done]),
    (false, &[Event::Declines]),
    (true, &[Event::Done, Event::Void, Event::Done]),
    (true, &[Event::Done, Event::TimeIsUp, Event::Done]),
    (false, &[Event::Done, Event::Declines]),
    (false, &[Event::Done, Event::Declines, Event::Done]),
];

struct Play {
    state: State,
    now: Timestamp,
    next: Sequence,
    payment: Option<PaymentId>,
}

fn user(number: u64) -> UserId {
    UserId::try_from(number).expect("a user")
}

impl Play {
    fn new(held: bool) -> Self {
        let shard = ShardRef { zone: "eu".parse().expect("a zone"), index: 0 };
        let mut play = Self { state: State::new(shard), now: Timestamp(1_000_000), next: Sequence(1), payment: None };
        let euro = Currency::from_code("EUR").expect("EUR");
        for number in [1, 2] {
            let currencies = std::iter::once(euro).collect();
            let enrol = Command::EnrollUser { user: user(number), country: "DE".parse().expect("a country"), currencies };
            play.submit(enrol).expect("users are enrolled");
        }
        let token = VaultToken::new("eu".parse().expect("a zone"), [7; 16]);
        let card = ByCard {
            token,
            gateway: "a".parse().expect("a gateway"),
            declined: None,
            risk: None,
            psd2: true,
            agreement: None,
            analysis: None,
        };
        let create = CreatePayment {
            payer: user(1),
            payee: user(2),
            payee_shard: None,
            money: Money::new(1_000, euro).expect("an amount"),
            hold_s: if held { 60 } else { 0 },
            reference: String::new(),
            card: Some(card),
        };
        let position = play.context().position(play.state.shard());
        play.payment = Some(PaymentId::from(position));
        play.submit(Command::CreatePayment(create)).expect("a payment is made");
        play
    }

    fn context(&self) -> Context {
        Context { now: self.now, epoch: Epoch(1), next: self.next }
    }

    fn submit(&mut self, command: Command) -> Result<(), Rejection> {
        let request = Request { id: None, command };
        loop {
            let mut missing = Missing::default();
            self.state.missing(&request, &mut missing);
            if missing.is_empty() {
                break;
            }
            self.state.load(&missing, Records::default());
        }
        let context = self.context();
        let Decision::New(entry) = decide(&self.state, context, &request)? else { panic!("nothing has a name here") };
        let position: Position = context.position(self.state.shard());
        self.state.apply(&position, &entry).expect("it follows");
        self.next = self.next.next();
        Ok(())
    }

    fn payment(&self) -> Payment {
        let sequence = self.payment.as_ref().expect("it was made").sequence();
        self.state.records().payments.into_iter().find(|payment| payment.sequence == sequence).expect("it is there")
    }

    fn happens(&mut self, event: Event) -> Result<(), Rejection> {
        let payment = self.payment.clone().expect("it was made");
        let settle = |play: &Self, outcome| {
            let charge = play.payment().card.expect("by card");
            let operation = charge.operations.first().map_or(charge.next_operation, |operation| operation.number);
            Command::Settle { payment: payment.clone(), operation, outcome }
        };
        let id = || "ch_1".parse().expect("a charge's name");
        let command = match event {
            Event::Confirm => Command::ConfirmPayment { payment },
            Event::Capture => Command::CapturePayment { payment, amount: None },
            Event::Void => Command::VoidPayment { payment },
            Event::Refund => Command::RefundPayment { payment, amount: Some(400) },
            Event::TimeIsUp => {
                self.now = self.payment().expires_at.unwrap_or(self.now);
                Command::ExpirePayment { payment: payment.sequence() }
            }
            Event::PayeeCloses => Command::CloseAccount { user: user(2), currency: Currency::from_code("EUR").expect("EUR") },
            Event::Done => settle(self, Outcome::Done { id: id() }),
            Event::Challenge => settle(self, Outcome::Challenged { id: id(), challenge: Challenge { id: "1".to_owned(), url: None } }),
            Event::Declines => settle(self, Outcome::Declined { reason: Reason::CardDeclined }),
            Event::Wants => settle(self, Outcome::AuthenticationWanted),
            Event::Left => settle(self, Outcome::Left { to: "b".parse().expect("a gateway"), why: LeftBecause::Unreachable }),
        };
        self.submit(command)
    }

    /// The state as the page calls it: the contract's status, and what the acquirer is asked for.
    fn name(&self) -> String {
        let payment = self.payment();
        let status = match payment.phase {
            Phase::Pending => "PENDING",
            Phase::ActionRequired => "REQUIRES_ACTION",
            Phase::Authorized => "AUTHORIZED",
            Phase::Captured => "COMPLETED",
            Phase::Returned => "RETURNED",
            Phase::Declined => "DECLINED",
            Phase::Voided => "VOIDED",
            Phase::Expired => "EXPIRED",
        };
        let charge = payment.card.expect("by card");
        // Nobody captures it: that is asked for by itself.
        let status = if payment.phase == Phase::Authorized && charge.hold_s == 0 { "AUTHORIZED at once" } else { status };
        let asked = charge.operations.first().map(|operation| match operation.kind {
            OperationKind::Authorize if charge.turned_down.is_some() => "AUTHORIZE again",
            OperationKind::Authorize => "AUTHORIZE",
            OperationKind::Capture => "CAPTURE",
            OperationKind::Void => "VOID",
            OperationKind::Expire => "EXPIRE",
            OperationKind::Refund => "REFUND",
        });
        asked.map_or_else(|| status.to_owned(), |asked| format!("{status}, {asked}"))
    }
}

fn table() -> String {
    let mut table = String::from("\n| state |");
    EVENTS.iter().for_each(|(_, name)| write!(table, " {name} |").expect("a string"));
    table.push_str("\n|---|");
    EVENTS.iter().for_each(|_| table.push_str("---|"));
    table.push('\n');
    let mut seen = Vec::new();
    for (held, way) in STATES {
        let arrive = || {
            let mut play = Play::new(held);
            way.iter().for_each(|event| play.happens(*event).expect("it can be brought about"));
            play
        };
        let name = arrive().name();
        let row = EVENTS.map(|(event, _)| {
            let mut play = arrive();
            match play.happens(event) {
                Ok(()) => play.name(),
                Err(Rejection::OperationInProgress) => "busy".to_owned(),
                Err(_) => "-".to_owned(),
            }
        });
        let line = format!("| {name} | {} |\n", row.join(" | "));
        if !seen.contains(&line) {
            table.push_str(&line);
            seen.push(line);
        }
    }
    table.push('\n');
    table
}

#[test]
fn the_page_has_the_states_that_the_ledger_has() {
    let (_, rest) = PAGE.split_once(BEGIN).expect("the page has the table's beginning");
    let (found, _) = rest.split_once(END).expect("the page has the table's end");
    assert_eq!(found, table(), "docs/card-payments.md is to have this table:\n{}", table());
}
