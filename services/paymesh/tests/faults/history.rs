//! Do the final statements tell what the callers were told?
//!
//! Every payment that was acknowledged is there once, at the payer and at the payee or back at the payer; every refund too; every
//! line follows from the one before it; and there is no line that nobody asked for.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::StreamExt as _;
use paymesh_contract::{
    common::v1::{ReadLevel, ReadOptions},
    payments::v1::{ListPaymentsRequest, PaymentStatus, payment_service_client::PaymentServiceClient},
    wallet::v1::{GetBalanceRequest, GetStatementRequest, LineKind, StatementLine, wallet_service_client::WalletServiceClient},
};
use tokio::time::Instant;
use tonic::{Response, Status, transport::Channel};

use crate::{
    load::{Paid, Record, User, is_worth_another_try},
    world::REGIONS,
};

/// Lines and payments that are asked for at once.
const PAGE: u32 = 1_000;
/// How long a question may go unanswered, and between two tries.
const ANSWERED_MAX: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);
/// Differences that are told; all are counted.
const TOLD_MAX: usize = 20;

/// What the statements say of one payment, in minor units.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    sent: Vec<(u64, i64)>,
    received: Vec<(u64, i64)>,
    returned: Vec<(u64, i64)>,
    /// What refunds took from the payee, and brought the payer.
    given_back: Vec<i64>,
    got_back: Vec<i64>,
}

/// Compares. Returns how many lines there were.
///
/// # Panics
///
/// With what differs.
pub(crate) async fn check(entries: &[Channel], record: &Record) -> usize {
    let mut wrong: Vec<String> = Vec::new();
    let mut of_payment: HashMap<String, Lines> = HashMap::new();
    let mut count = 0;
    let looks = User::all().flat_map(|user| user.openings().into_iter().map(move |(currency, opening)| (user, currency, opening)));
    let looks = looks.enumerate().map(|(number, (user, currency, opening))| {
        let entry = entries[number % entries.len()].clone();
        async move { (user, currency, opening, statement(&entry, user, currency).await, balance(&entry, user, currency).await) }
    });
    let mut looks = std::pin::pin!(futures::stream::iter(looks).buffer_unordered(8));
    while let Some((user, currency, opening, lines, balance)) = looks.next().await {
        count += lines.len();
        let name = format!("user {} in {currency}", user.0);
        running(&name, &lines, balance, &mut wrong);
        let mut deposits = Vec::new();
        for line in lines {
            let lines = of_payment.entry(line.payment_id.clone()).or_default();
            match line.kind() {
                LineKind::Deposit => deposits.push(line.amount_minor_units),
                LineKind::PaymentSent => lines.sent.push((user.0, line.amount_minor_units)),
                LineKind::PaymentReceived => lines.received.push((user.0, line.amount_minor_units)),
                LineKind::PaymentReturned => lines.returned.push((user.0, line.amount_minor_units)),
                LineKind::RefundSent => lines.given_back.push(-line.amount_minor_units),
                LineKind::RefundReceived => lines.got_back.push(line.amount_minor_units),
                LineKind::Withdrawal | LineKind::Unspecified => wrong.push(format!("{name}: nobody asked for {line:?}")),
            }
        }
        if deposits.iter().sum::<i64>() != opening || deposits.len() > 1 {
            wrong.push(format!("{name}: deposits of {deposits:?} instead of {opening}"));
        }
    }
    of_payment.remove("");
    compare(record, of_payment, &mut wrong);
    lists(entries, record, &mut wrong).await;
    copies(entries, &mut wrong).await;
    let told = wrong.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} differences between what was acknowledged and what is there:\n{told}", wrong.len());
    count
}

/// Each line is the one before it and its amount; nothing is overdrawn; the last is the balance.
fn running(name: &str, lines: &[StatementLine], balance: i64, wrong: &mut Vec<String>) {
    let mut last = (0, 0);
    for line in lines {
        let (minor, sequence) = last;
        if line.balance_minor_units != minor + line.amount_minor_units || line.balance_minor_units < 0 || line.sequence <= sequence {
            wrong.push(format!("{name}: after {minor} at entry {sequence} comes {line:?}"));
        }
        last = (line.balance_minor_units, line.sequence);
    }
    if last.0 != balance {
        wrong.push(format!("{name}: the balance is {balance}, the statement ends at {}", last.0));
    }
}

fn compare(record: &Record, mut of_payment: HashMap<String, Lines>, wrong: &mut Vec<String>) {
    let mut refunds: HashMap<&str, (Vec<i64>, Vec<i64>)> = HashMap::new();
    for refund in &record.refunded {
        let (taken, refused) = refunds.entry(&refund.payment_id).or_default();
        if refund.taken { taken } else { refused }.push(refund.minor);
    }
    for paid in &record.paid {
        let mut found = of_payment.remove(&paid.payment_id).unwrap_or_default();
        let (taken, refused) = refunds.remove(paid.payment_id.as_str()).unwrap_or_default();
        let returns = !User(paid.payee).takes(&paid.currency);
        let mut expected = Lines::default();
        if !paid.declined {
            expected.sent.push((paid.payer, -paid.minor));
            let (who, lines) = if returns { (paid.payer, &mut expected.returned) } else { (paid.payee, &mut expected.received) };
            lines.push((who, paid.minor));
        }
        // What was refused may have been taken all the same, by a try that came late: then both sides have it.
        for minor in refused {
            let place = |lines: &[i64]| lines.iter().position(|line| *line == minor);
            let more = found.given_back.len() > taken.len() && found.got_back.len() > taken.len();
            if let (true, Some(given), Some(got)) = (more, place(&found.given_back), place(&found.got_back)) {
                found.given_back.swap_remove(given);
                found.got_back.swap_remove(got);
            }
        }
        (expected.given_back, expected.got_back) = (taken.clone(), taken);
        for refunds in [&mut found.given_back, &mut found.got_back, &mut expected.given_back, &mut expected.got_back] {
            refunds.sort_unstable();
        }
        if found != expected {
            wrong.push(format!("{paid:?}: the statements have {found:?} instead of {expected:?}"));
        }
    }
    wrong.extend(of_payment.into_iter().map(|(payment_id, lines)| format!("nobody asked for {payment_id}: {lines:?}")));
}

/// Each payer's list has each payment once, as it ended, and no other.
async fn lists(entries: &[Channel], record: &Record, wrong: &mut Vec<String>) {
    let mut expected: BTreeMap<u64, HashMap<&str, &Paid>> = BTreeMap::new();
    for paid in &record.paid {
        if let Some(twice) = expected.entry(paid.payer).or_default().insert(&paid.payment_id, paid) {
            wrong.push(format!("two requests were answered with one payment: {twice:?}, {paid:?}"));
        }
    }
    for (number, user) in User::all().enumerate() {
        let mut expected = expected.remove(&user.0).unwrap_or_default();
        let mut client = PaymentServiceClient::new(entries[number % entries.len()].clone());
        let mut page_token = String::new();
        loop {
            let request = ListPaymentsRequest { payer_id: user.0, page_size: PAGE, page_token, read: None };
            let page = ask(async || client.list_payments(request.clone()).await).await;
            for payment in page.payments {
                let Some(paid) = expected.remove(payment.payment_id.as_str()) else {
                    wrong.push(format!("nobody asked for this, or it is listed twice: {payment:?}"));
                    continue;
                };
                let status = match (paid.declined, User(paid.payee).takes(&paid.currency)) {
                    (true, _) => PaymentStatus::Declined,
                    (false, true) => PaymentStatus::Completed,
                    (false, false) => PaymentStatus::Returned,
                };
                if payment.status() != status {
                    wrong.push(format!("{paid:?} is {:?} instead of {status:?}", payment.status()));
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        wrong.extend(expected.values().map(|paid| format!("it was acknowledged and is not listed: {paid:?}")));
    }
}

/// What copies answer that lack nothing is what the home answers.
async fn copies(entries: &[Channel], wrong: &mut Vec<String>) {
    let mut answered = 0;
    for user in User::all() {
        let mut balances = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let mut client = WalletServiceClient::new(entry.clone());
            let read = ReadOptions { level: ReadLevel::Local.into(), max_staleness_ms: Some(0), at_least: Vec::new() };
            let request = GetBalanceRequest { user_id: user.0, read: Some(read) };
            let answer = ask(async || client.get_balance(request.clone()).await).await;
            let region = answer.source.unwrap_or_default().region;
            answered += usize::from(region == REGIONS[number] && region != user.home());
            balances.push((region, answer.balances));
        }
        if balances.iter().any(|(_, found)| *found != balances[0].1) {
            wrong.push(format!("user {}: regions answer with different balances: {balances:?}", user.0));
        }
    }
    // Each zone has a region that does not lead them.
    assert!(answered >= User::all().count(), "{answered} answers from copies");
}

/// A whole statement, oldest line first.
async fn statement(entry: &Channel, user: User, currency: &str) -> Vec<StatementLine> {
    let mut client = WalletServiceClient::new(entry.clone());
    let (mut lines, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = GetStatementRequest { user_id: user.0, currency_code: currency.to_owned(), page_size: PAGE, page_token, read: None };
        let page = ask(async || client.get_statement(request.clone()).await).await;
        lines.extend(page.lines);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    lines.reverse();
    lines
}

async fn balance(entry: &Channel, user: User, currency: &str) -> i64 {
    let request = GetBalanceRequest { user_id: user.0, read: None };
    let mut client = WalletServiceClient::new(entry.clone());
    let answer = ask(async || client.get_balance(request.clone()).await).await;
    answer.balances.iter().find(|balance| balance.currency_code == currency).unwrap().booked_minor_units
}

/// Asks until it is answered: connections from before may still be given up.
async fn ask<R>(mut send: impl AsyncFnMut() -> Result<Response<R>, Status>) -> R {
    let until = Instant::now() + ANSWERED_MAX;
    loop {
        match send().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert!(is_worth_another_try(status.code()) && Instant::now() < until, "{status}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
