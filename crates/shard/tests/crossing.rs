//! Money between shards: exactly once, whatever stops in between.

#![forbid(unsafe_code)]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use paymesh_journal::{
    Chain, SegmentBuilder,
    memory::{Dice, Faults, MemoryStore},
};
use paymesh_ledger::{Account, Body, Command, Credit, Effect, Entry, Phase, Request};
use paymesh_shard::{Answer, Error, Options, Shard, Shards, verify};
use paymesh_types::{Currency, Epoch, PaymentId, Position, Sequence, ShardRef};
use support::{
    Disk, Time, all, ask, balance, currency, deposit, effects, enrol, enrol_with, eu, identity, journal, money, pay_to, payment_of,
    problems, proven, user, withdraw,
};
use tokio::task::JoinSet;

type Inboxes = JoinSet<(ShardRef, ShardRef, String)>;

fn follow(shards: &[&Shard]) -> Inboxes {
    let set = shards.iter().map(|shard| (shard.reference().clone(), Ok((*shard).clone()))).collect();
    Shards::new(set).follow_each_other()
}

/// The balances of a shard's clearing accounts and its cursors.
async fn clearing(shard: &Shard) -> (BTreeMap<(Account, Currency), i64>, BTreeMap<ShardRef, Sequence>) {
    let (books, _) = shard.books().await.expect("it serves");
    (books.system.into_iter().collect(), books.inbox.into_iter().map(|(source, read)| (source, read.sequence)).collect())
}

/// Whether all that one sent the other has taken in, both ways.
async fn mirrored(one: &Shard, other: &Shard) -> bool {
    let ((ours, _), (theirs, _)) = (clearing(one).await, clearing(other).await);
    let of = |books: &BTreeMap<(Account, Currency), i64>, account: Account| -> BTreeMap<Currency, i64> {
        books.iter().filter(|((each, _), _)| *each == account).map(|((_, currency), balance)| (*currency, *balance)).collect()
    };
    let minus =
        |sums: BTreeMap<Currency, i64>| -> BTreeMap<Currency, i64> { sums.into_iter().map(|(currency, sum)| (currency, -sum)).collect() };
    of(&ours, Account::Sent(other.reference().clone())) == minus(of(&theirs, Account::Received(one.reference().clone())))
        && of(&theirs, Account::Sent(one.reference().clone())) == minus(of(&ours, Account::Received(other.reference().clone())))
}

/// Waits until nothing is on its way between the two.
async fn settle(one: &Shard, other: &Shard) {
    let mut still = 0;
    let mut before = None;
    for _ in 0..20_000 {
        let heads = (one.status().head, other.status().head);
        still = if before == Some(heads) && mirrored(one, other).await { still + 1 } else { 0 };
        if still == 5 {
            return;
        }
        before = Some(heads);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the two never come to rest: {:?} {:?}", one.status(), other.status());
}

#[tokio::test]
async fn a_payment_to_another_shard_is_in_transit_until_it_is_taken_in() {
    for (disk, other) in Disk::each().into_iter().zip([Disk::memory(&eu(1)), Disk::sqlite()]) {
        let (payers, payees) = (disk.open(&eu(0)).await, other.open(&eu(1)).await);
        all(&payers, [enrol(4), deposit(4, 1_000)]).await;
        all(&payees, [enrol(5)]).await;
        let answers =
            all(&payers, [pay_to(4, 5, Some(eu(1)), 100, 0), pay_to(4, 9, Some(eu(1)), 50, 0), pay_to(4, 5, Some(eu(1)), 10, 60)]).await;
        let view = async |answer: &Answer| payers.payment(&payment_of(answer)).await.expect("it serves").expect("it is there").0;
        assert!(view(&answers[0]).await.in_transit && view(&answers[1]).await.in_transit);
        assert!(!view(&answers[2]).await.in_transit, "what is held is with the payer");
        let refund = Command::RefundPayment { payment: payment_of(&answers[0]), amount: None };
        let early = payers.submit(Request { id: None, command: refund.clone() }).await;
        assert!(matches!(early, Err(Error::Rejected(paymesh_ledger::Rejection::NotRefundable { .. }))), "{early:?}");
        assert_eq!((balance(&payers, 4).await, balance(&payees, 5).await), (850, 0));

        let inboxes = follow(&[&payers, &payees]);
        settle(&payers, &payees).await;
        let arrived = view(&answers[0]).await;
        assert!(!arrived.in_transit && arrived.row.payment.phase == Phase::Captured);
        // Nobody of that number is there: the money comes back.
        let returned = view(&answers[1]).await;
        assert!(!returned.in_transit && returned.row.payment.phase == Phase::Returned);
        assert_eq!((balance(&payers, 4).await, balance(&payees, 5).await), (900, 100));
        all(&payers, [refund]).await;
        settle(&payers, &payees).await;
        assert_eq!((balance(&payers, 4).await, balance(&payees, 5).await), (1_000, 0));
        let lines = |shard: &Shard, number: u64| {
            let shard = shard.clone();
            async move {
                let page =
                    shard.statement(user(number), support::euro(), None, 100).await.expect("it serves").expect("there is an account");
                page.items.iter().rev().map(|line| (line.kind, line.amount)).collect::<Vec<_>>()
            }
        };
        use paymesh_journal::LineKind::{Deposit, PaymentReceived, PaymentReturned, PaymentSent, RefundReceived, RefundSent};
        let payer = [(Deposit, 1_000), (PaymentSent, -100), (PaymentSent, -50), (PaymentReturned, 50), (RefundReceived, 100)];
        assert_eq!(lines(&payers, 4).await, payer);
        assert_eq!(lines(&payees, 5).await, [(PaymentReceived, 100), (RefundSent, -100)]);
        drop(inboxes);
        proven(&payers).await;
        proven(&payees).await;
    }
}

/// A shard that was away for long finds more than a segment holds.
#[tokio::test]
async fn however_much_waits_in_the_other_journal_it_is_taken_in() {
    let (disk, other) = (Disk::memory(&eu(0)), Disk::memory(&eu(1)));
    let payers = disk.open(&eu(0)).await;
    all(&payers, [enrol(4), deposit(4, 1_000_000)]).await;
    for _ in 0..5 {
        all(&payers, (0..8_000).map(|_| pay_to(4, 5, Some(eu(1)), 1, 0))).await;
    }
    payers.close().await;
    let (payers, payees) = (disk.open(&eu(0)).await, other.open(&eu(1)).await);
    all(&payees, [enrol(5)]).await;
    let inboxes = follow(&[&payers, &payees]);
    for _ in 0..600 {
        if balance(&payees, 5).await == 40_000 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(balance(&payees, 5).await, 40_000);
    drop(inboxes);
    payees.close().await;
    let payees = other.open(&eu(1)).await;
    proven(&payees).await;
    assert_eq!(balance(&payees, 5).await, 40_000);
}

#[tokio::test]
async fn a_journal_that_has_lost_its_end_is_not_followed_and_named() {
    let (disk, other) = (Disk::memory(&eu(0)), Disk::memory(&eu(1)));
    let (payers, payees) = (disk.open(&eu(0)).await, other.open(&eu(1)).await);
    all(&payers, [enrol(4), deposit(4, 1_000), pay_to(4, 5, Some(eu(1)), 100, 0)]).await;
    all(&payees, [enrol(5)]).await;
    let inboxes = follow(&[&payers, &payees]);
    settle(&payers, &payees).await;
    drop(inboxes);
    let read = clearing(&payees).await.1[&eu(0)];
    // What was put back ends before what the payee's shard has taken in: entries of the same numbers would be passed over.
    let put_back = Disk::memory(&eu(0)).open(&eu(0)).await;
    all(&put_back, [enrol(4), deposit(4, 1_000)]).await;
    let mut inboxes = follow(&[&put_back, &payees]);
    let stopped = tokio::time::timeout(Duration::from_secs(20), inboxes.join_next()).await.expect("an inbox stops");
    let (from, to, why) = stopped.expect("there are two").expect("it did not die");
    assert_eq!((from, to), (eu(0), eu(1)));
    let said = format!("the journal of eu/0 ends at 2, and eu/1 has taken in entries up to {read}: the journal has lost its end");
    assert_eq!(why, said);
    all(&put_back, (0..10).map(|_| pay_to(4, 5, Some(eu(1)), 10, 0))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(balance(&payees, 5).await, 100, "nothing more is taken in from it");
}

/// A journal in which `extra` follows what an honest leader of eu/0 wrote, and honest entries follow that.
async fn poisoned(extra: Entry) -> (Disk, Sequence) {
    let disk = Disk::memory(&eu(0));
    let shard = disk.open(&eu(0)).await;
    all(&shard, [enrol(4), deposit(4, 1_000), pay_to(4, 5, Some(eu(1)), 100, 0)]).await;
    shard.close().await;
    let store = disk.store(&eu(0)).await.expect("it opens");
    let (segments, _) = journal(&store, &eu(0)).await;
    let mut chain = Chain::start(eu(0));
    segments.iter().for_each(|segment| chain.link(segment).expect("it follows"));
    let epoch = store.journal.lead().await.expect("a term begins");
    let mut builder = SegmentBuilder::new(eu(0), epoch, chain.last().next(), chain.hash(), [5; 32]);
    builder.push(&extra);
    let poison = chain.last().next();
    store.journal.append(&builder.finish()).await.expect("it is appended");
    let shard = disk.open(&eu(0)).await;
    all(&shard, [pay_to(4, 5, Some(eu(1)), 30, 0)]).await;
    shard.close().await;
    (disk, poison)
}

#[tokio::test]
async fn an_entry_that_cannot_be_taken_in_stops_its_inbox_and_nothing_else() {
    // A refund of a payment that the other shard never made.
    let payment = PaymentId::from(Position { shard: eu(1), epoch: Epoch(1), sequence: Sequence(77) });
    let credit = Credit { payment, payer: user(5), payee: user(4), money: money(40), reason: None };
    let body = Body::Received { source: eu(1), at: Sequence(1).into(), effect: Effect::RefundPaid(credit) };
    let entry = Entry { at: support::START, request_id: None, body, postings: Default::default(), reference: String::new() };
    let (disk, poison) = poisoned(entry).await;

    let (payee_disk, third_disk) = (Disk::memory(&eu(1)), Disk::memory(&eu(2)));
    for round in 0..3 {
        let (bad, payees, third) = (disk.open(&eu(0)).await, payee_disk.open(&eu(1)).await, third_disk.open(&eu(2)).await);
        if round == 0 {
            all(&payees, [enrol(5)]).await;
            all(&third, [enrol(6), deposit(6, 1_000)]).await;
        }
        let mut inboxes = follow(&[&bad, &payees, &third]);
        let (source, shard, why) = tokio::time::timeout(Duration::from_secs(30), inboxes.join_next())
            .await
            .expect("it stops")
            .expect("one ends")
            .expect("no panic");
        assert_eq!((&source, &shard), (&eu(0), &eu(1)));
        assert!(why.contains(&format!("entry {poison} of eu/0")), "{why}");
        // What came before is here, what comes after is not: it waits behind what cannot be taken in.
        all(&third, [pay_to(6, 5, Some(eu(1)), 7, 0)]).await;
        settle(&third, &payees).await;
        assert_eq!(balance(&payees, 5).await, 100 + 7 * (round + 1), "round {round}");
        let (_, cursors) = clearing(&payees).await;
        assert!(cursors[&eu(0)] < poison, "round {round}: the cursor passed what did not take effect");
        assert_eq!(payees.status().problem, None);
        all(&payees, [deposit(5, 1), withdraw(5, 1)]).await;
        proven(&payees).await;
        drop(inboxes);
        for shard in [bad, payees, third] {
            shard.close().await;
        }
    }
}

/// Two shards over storage that fails and machines that stop, callers that ask again until they are answered, and inboxes
/// that begin again: at rest the books are right to the cent.
#[tokio::test(start_paused = true)]
async fn money_crosses_exactly_once_whatever_stops_and_when() {
    let seeds = std::env::var("PAYMESH_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(25);
    for seed in 0..seeds {
        Crossing::new(seed).await.run().await;
    }
}

const USERS: u64 = 8;
const COMMANDS: usize = 160;
/// The commands that every run begins with: an enrolment and a deposit of each user but one.
const FIRST: usize = 2 * (USERS as usize - 1);

struct Side {
    name: ShardRef,
    store: MemoryStore,
    shard: Shard,
}

struct Crossing {
    seed: u64,
    dice: Dice,
    time: Time,
    sides: Vec<Side>,
    inboxes: Inboxes,
    pending: Vec<(usize, Request)>,
    answered: Vec<(usize, Request, Answer)>,
    payments: Vec<PaymentId>,
    made: usize,
    crashes: u32,
}

fn options() -> Options {
    Options { records_max: 8, ..Options::default() }
}

async fn reopen(store: &mut MemoryStore, name: &ShardRef, time: &Time) -> Shard {
    for _ in 0..1_000 {
        match Disk::Memory(store.clone()).try_open(name, options(), time).await {
            Ok(shard) => return shard,
            Err(Error::Storage { source, .. }) if source.is_retryable() => {}
            Err(other) => panic!("opening came to {other}"),
        }
        if store.is_down() {
            *store = store.crash();
        }
    }
    panic!("it never opens");
}

impl Crossing {
    async fn new(seed: u64) -> Self {
        let time = Time::new();
        let mut sides = Vec::new();
        for index in 0..2 {
            let name = eu(index);
            let faults = Faults {
                seed: seed * 2 + u64::from(index),
                appends_per_mille: 60,
                projections_per_mille: 60,
                reads_per_mille: 15,
                power_cuts_per_mille: 80,
            };
            let mut store = MemoryStore::with_faults(&identity(&name), faults);
            let shard = reopen(&mut store, &name, &time).await;
            sides.push(Side { name, store, shard });
        }
        let inboxes = follow(&[&sides[0].shard, &sides[1].shard]);
        let mut this = Self {
            seed,
            dice: Dice::new(seed ^ 0xc0ffee),
            time,
            sides,
            inboxes,
            pending: Vec::new(),
            answered: Vec::new(),
            payments: Vec::new(),
            made: 0,
            crashes: 0,
        };
        // The last user's home never hears of them: payments to them come back.
        for number in 1..USERS {
            this.make(home(number), enrol_with(number, &["EUR", "CZK"]));
        }
        for number in 1..USERS {
            this.make(home(number), deposit(number, 200));
        }
        this
    }

    fn make(&mut self, at: usize, command: Command) {
        self.made += 1;
        self.pending.push((at, ask(self.made as u128, command)));
    }

    fn invent(&mut self) {
        let amount = 1 + self.dice.below(120) as i64;
        let number = 1 + self.dice.below(USERS - 1);
        let payment = self.dice.pick(&self.payments).cloned();
        match (self.dice.below(10), payment) {
            (0, _) => self.make(home(number), deposit(number, amount)),
            (1, _) => self.make(home(number), withdraw(number, amount)),
            (2, Some(payment)) => {
                let amount = (self.dice.below(2) == 0).then_some(amount);
                self.make(payment.shard().index.into(), Command::CapturePayment { payment, amount });
            }
            (3, Some(payment)) => self.make(payment.shard().index.into(), Command::VoidPayment { payment }),
            (4 | 5, Some(payment)) => {
                let amount = (self.dice.below(2) == 0).then_some(amount);
                self.make(payment.shard().index.into(), Command::RefundPayment { payment, amount });
            }
            _ => {
                let payee = (number + self.dice.below(USERS - 1)) % USERS + 1;
                if payee == number {
                    return;
                }
                let shard = (home(payee) != home(number)).then(|| self.sides[home(payee)].name.clone());
                let hold_s = if self.dice.happens(300) { 30 } else { 0 };
                self.make(home(number), pay_to(number, payee, shard, amount, hold_s));
            }
        }
    }

    async fn run(mut self) {
        let seed = self.seed;
        let mut rounds = 0;
        while self.made < COMMANDS || !self.pending.is_empty() {
            rounds += 1;
            assert!(rounds < 20_000, "seed {seed}: the commands are never all answered");
            while self.made < COMMANDS && self.answered.len() >= FIRST && self.pending.len() < 6 {
                self.invent();
            }
            self.round().await;
            if self.dice.happens(100) {
                tokio::time::sleep(Duration::from_millis(self.dice.below(3_000))).await;
                self.time.pass_seconds(self.dice.below(20));
            }
        }
        assert!(self.crashes > 0, "seed {seed}: nothing ever stopped");
        self.finish().await;
    }

    /// Some callers ask at once, and meanwhile or afterwards machines stop.
    async fn round(&mut self) {
        let seed = self.seed;
        let count = self.pending.len().min(1 + self.dice.below(5) as usize);
        let asked: Vec<_> = self.pending.drain(..count).collect();
        let calls =
            asked.iter().map(|(at, request)| tokio::time::timeout(Duration::from_secs(600), self.sides[*at].shard.submit(request.clone())));
        let answers = futures::future::join_all(calls).await;
        for ((at, request), answer) in asked.into_iter().zip(answers) {
            match answer.unwrap_or_else(|_| {
                panic!("seed {seed}: {request:?} is never answered: {:?} {:?}", self.sides[0].shard.status(), self.sides[1].shard.status())
            }) {
                Ok(answer) => {
                    if matches!(answer.entry.body, Body::PaymentCreated(_)) {
                        self.payments.push(payment_of(&answer));
                    }
                    self.answered.push((at, request, answer));
                }
                Err(Error::NotServing { .. } | Error::Storage { .. }) => self.pending.push((at, request)),
                // The user is still to be enrolled.
                Err(Error::Rejected(_)) if self.answered.len() < FIRST => self.pending.push((at, request)),
                Err(Error::Rejected(_)) => {}
                Err(other) => panic!("seed {seed}: {request:?} came to {other}"),
            }
        }
        let mut stopped = Vec::new();
        for at in 0..2 {
            if self.sides[at].store.is_down() || self.dice.happens(15) {
                stopped.push(at);
            } else {
                let problem = self.sides[at].shard.status().problem;
                assert_eq!(problem, None, "seed {seed}: {} stopped, and its storage works", self.sides[at].name);
            }
        }
        if !stopped.is_empty() {
            self.restart(&stopped).await;
        }
    }

    async fn restart(&mut self, stopped: &[usize]) {
        self.crashes += 1;
        for at in stopped {
            let side = &mut self.sides[*at];
            let mut found = side.store.crash();
            side.shard.close().await;
            side.shard = reopen(&mut found, &side.name, &self.time).await;
            side.store = found;
        }
        // An inbox that ended by itself ended because its shard did, or for a reason that must not be.
        while let Some(ended) = self.inboxes.try_join_next() {
            let (source, shard, why) = ended.expect("no panic");
            assert!(!why.contains("cannot be taken in"), "seed {}: {source} to {shard}: {why}", self.seed);
        }
        self.inboxes.shutdown().await;
        self.inboxes = follow(&[&self.sides[0].shard, &self.sides[1].shard]);
    }

    async fn finish(mut self) {
        let seed = self.seed;
        for side in &self.sides {
            side.store.set_faults(Faults::none());
        }
        self.restart(&[0, 1]).await;
        self.time.pass_seconds(3_600);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (one, other) = (&self.sides[0].shard, &self.sides[1].shard);
        settle(one, other).await;

        let mut owned = BTreeMap::<Currency, i128>::new();
        let mut expected = BTreeMap::<(u64, Currency), i128>::new();
        for side in &self.sides {
            assert_eq!(problems(&side.shard).await, Vec::<String>::new(), "seed {seed}: {}", side.name);
            let (_, entries) = journal(side.shard.store(), &side.name).await;
            effects(&entries);
            let mut payments = Vec::new();
            for (_, entry) in &entries {
                match &entry.body {
                    Body::Deposited { user, money } => {
                        *expected.entry((user.get(), money.currency())).or_default() += i128::from(money.minor())
                    }
                    Body::Withdrawn { user, money, declined: None } => {
                        *expected.entry((user.get(), money.currency())).or_default() -= i128::from(money.minor());
                    }
                    Body::PaymentCreated(_) => payments.push(()),
                    _ => {}
                }
            }
            let mut listed = 0;
            for number in (1..USERS).filter(|number| self.sides[home(*number)].name == side.name) {
                let page = side.shard.payments(user(number), None, 1_000).await.expect("it serves").expect("it is a list");
                listed += page.items.len();
                for view in page.items {
                    let payment = view.row.payment;
                    assert!(!view.in_transit, "seed {seed}: {payment:?} is on its way, and nothing is");
                    assert_ne!(payment.phase, Phase::Authorized, "seed {seed}: its hold ran out long ago");
                    if payment.phase == Phase::Captured {
                        let amount = i128::from(payment.captured - payment.refunded);
                        *expected.entry((payment.payer.get(), payment.currency)).or_default() -= amount;
                        *expected.entry((payment.payee.get(), payment.currency)).or_default() += amount;
                    }
                }
            }
            assert_eq!(listed, payments.len(), "seed {seed}: each payment is listed with its payer");
        }
        for number in 1..USERS {
            let shard = &self.sides[home(number)].shard;
            let (wallets, _) = shard.wallets(user(number)).await.expect("it serves").expect("the user is enrolled");
            for (currency, wallet) in wallets {
                let statement =
                    shard.statement(user(number), currency, None, 1_000).await.expect("it serves").expect("there is an account");
                let lines: i64 = statement.items.iter().map(|line| line.amount).sum();
                assert_eq!((wallet.balance, wallet.held), (lines, 0), "seed {seed}: user {number} in {currency}");
                let due = expected.remove(&(number, currency)).unwrap_or(0);
                assert_eq!(i128::from(wallet.balance), due, "seed {seed}: user {number} in {currency}, by the payments as they stand");
                *owned.entry(currency).or_default() += i128::from(wallet.balance);
            }
        }
        expected.retain(|_, sum| *sum != 0);
        assert!(expected.is_empty(), "seed {seed}: money of nobody: {expected:?}");
        // What users have is what came in from outside.
        for side in &self.sides {
            for ((account, currency), balance) in clearing(&side.shard).await.0 {
                if account == Account::External {
                    *owned.entry(currency).or_default() += i128::from(balance);
                }
            }
        }
        assert!(owned.values().all(|sum| *sum == 0), "seed {seed}: {owned:?}");
        for (at, request, answer) in &self.answered {
            let again = self.sides[*at].shard.submit(request.clone()).await.expect("it is the same again");
            assert_eq!((&again.position, again.replayed, &again.entry), (&answer.position, true, &answer.entry), "seed {seed}");
        }
        // Each side proves what it had sent by the entry that the other read to.
        for (sender, receiver) in [(one, other), (other, one)] {
            let (books, cursors) = clearing(receiver).await;
            let read_to = cursors.get(sender.reference()).copied().unwrap_or_default();
            let report = verify(sender, &[(receiver.reference().clone(), read_to)], |_, _| {}).await.expect("the storage is read");
            let sent = report.sent_by.get(&(receiver.reference().clone(), currency("EUR"))).copied().unwrap_or(0);
            let received = books.get(&(Account::Received(sender.reference().clone()), currency("EUR"))).copied().unwrap_or(0);
            assert_eq!(sent, -received, "seed {seed}: {} to {}", sender.reference(), receiver.reference());
        }
        self.inboxes.shutdown().await;
    }
}

/// The shard of a user, of two.
fn home(number: u64) -> usize {
    usize::try_from(number % 2).expect("small")
}

// The clock of a shard is an argument, so that none of the above depends on the time of day.
const _: fn(&Time) -> Arc<dyn Fn() -> paymesh_types::Timestamp + Send + Sync> = Time::clock;
