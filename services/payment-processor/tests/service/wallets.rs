//! Accounts, balances and statements.

use paymesh_contract::payments::v1::{PaymentStatus, RefundPaymentRequest};
use paymesh_contract::wallet::v1::{
    CloseAccountRequest, GetBalanceRequest, GetStatementRequest, LineKind, OpenAccountRequest, StatementLine, WithdrawRequest,
    WithdrawalStatus,
};
use prost::Message as _;
use tonic::Code;

use crate::support::{Node, deposit, euro, id, pay, refusal, refused};

fn open(user: u64, code: &str) -> OpenAccountRequest {
    OpenAccountRequest { request_id: id(), user_id: user, currency_code: code.to_owned() }
}

fn close(user: u64, code: &str) -> CloseAccountRequest {
    CloseAccountRequest { request_id: id(), user_id: user, currency_code: code.to_owned() }
}

fn withdraw(user: u64, cents: i64) -> WithdrawRequest {
    WithdrawRequest { request_id: id(), user_id: user, amount: euro(cents), reference: "out".to_owned() }
}

async fn statement(node: &Node, user: u64) -> Vec<StatementLine> {
    let request =
        GetStatementRequest { user_id: user, currency_code: "EUR".to_owned(), page_size: 1_000, page_token: String::new(), read: None };
    node.wallets().get_statement(request).await.expect("a statement").into_inner().lines
}

#[tokio::test]
async fn accounts_are_opened_filled_emptied_and_closed() {
    let node = Node::start().await;
    node.users(&[(5, 0)]).await;
    let mut wallets = node.wallets();
    wallets.open_account(open(5, "CHF")).await.expect("an account");
    assert_eq!(refused(wallets.open_account(open(5, "CHF")).await), refusal(Code::AlreadyExists, "ACCOUNT_EXISTS", ""));
    let balance = wallets.deposit(deposit(5, 700)).await.expect("a deposit").into_inner().balance;
    assert_eq!(balance, euro(700));
    assert_eq!(refused(wallets.close_account(close(5, "EUR")).await), refusal(Code::FailedPrecondition, "ACCOUNT_NOT_EMPTY", ""));
    let declined = wallets.withdraw(withdraw(5, 701)).await.expect("an answer").into_inner();
    assert_eq!((declined.status(), declined.decline_reason.as_str()), (WithdrawalStatus::Declined, "INSUFFICIENT_FUNDS"));
    assert_eq!(declined.balance, euro(700));
    let booked = wallets.withdraw(withdraw(5, 700)).await.expect("an answer").into_inner();
    assert_eq!((booked.status(), booked.balance), (WithdrawalStatus::Booked, euro(0)));
    wallets.close_account(close(5, "EUR")).await.expect("closed");
    let answer = wallets.get_balance(GetBalanceRequest { user_id: 5, read: None }).await.expect("balances").into_inner();
    let balances: Vec<_> = answer.balances.iter().map(|balance| (balance.currency_code.as_str(), balance.closed)).collect();
    assert_eq!(balances, [("CHF", false), ("EUR", true)]);
    assert!(answer.position.is_some());
    node.close().await;
}

#[tokio::test]
async fn what_cannot_be_booked_says_why() {
    let node = Node::start().await;
    node.users(&[(5, 0)]).await;
    let mut wallets = node.wallets();
    let invalid = |field: &str| refusal(Code::InvalidArgument, "INVALID_FIELD", field);
    assert_eq!(refused(wallets.deposit(deposit(5, 0)).await), invalid("amount.minor_units"));
    assert_eq!(refused(wallets.withdraw(withdraw(5, -1)).await), invalid("amount.minor_units"));
    let over = refusal(Code::OutOfRange, "AMOUNT_OUT_OF_RANGE", "amount.minor_units");
    assert_eq!(refused(wallets.deposit(deposit(5, 1_000_000_000_000_001)).await), over);
    wallets.deposit(deposit(5, 1_000_000_000_000_000)).await.expect("the most there can be");
    assert_eq!(refused(wallets.deposit(deposit(5, 1)).await), refusal(Code::OutOfRange, "AMOUNT_OUT_OF_RANGE", ""));
    assert_eq!(refused(wallets.open_account(open(5, "XAU")).await), invalid("currency_code"));
    assert_eq!(refused(wallets.open_account(open(0, "EUR")).await), invalid("user_id"));
    let mut long = deposit(5, 1);
    long.reference = "x".repeat(141);
    assert_eq!(refused(wallets.deposit(long).await), invalid("reference"));
    let mut yen = deposit(5, 1);
    yen.amount.as_mut().expect("set").currency_code = "JPY".to_owned();
    assert_eq!(refused(wallets.deposit(yen).await), refusal(Code::NotFound, "ACCOUNT_NOT_FOUND", ""));
    let unknown = refusal(Code::NotFound, "USER_NOT_FOUND", "user_id");
    assert_eq!(refused(wallets.deposit(deposit(99, 1)).await), unknown);
    assert_eq!(refused(wallets.get_balance(GetBalanceRequest { user_id: 99, read: None }).await), unknown);
    node.close().await;
}

#[tokio::test]
async fn a_repeated_deposit_or_withdrawal_gets_the_same_bytes() {
    let node = Node::start().await;
    node.users(&[(5, 0)]).await;
    let mut wallets = node.wallets();
    let (into, out) = (deposit(5, 100), withdraw(5, 30));
    let first = wallets.deposit(into.clone()).await.expect("a deposit").into_inner();
    let second = wallets.withdraw(out.clone()).await.expect("a withdrawal").into_inner();
    assert_eq!(wallets.deposit(into.clone()).await.expect("the same").into_inner().encode_to_vec(), first.encode_to_vec());
    assert_eq!(wallets.withdraw(out).await.expect("the same").into_inner().encode_to_vec(), second.encode_to_vec());
    assert_eq!(node.balance(5).await, (70, 0));
    let other = paymesh_contract::wallet::v1::DepositRequest { amount: euro(101), ..into };
    assert_eq!(refused(wallets.deposit(other).await), refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", "amount"));
    node.close().await;
}

#[tokio::test]
async fn both_statements_show_a_payment_between_shards_and_its_refund() {
    let node = Node::start().await;
    node.users(&[(3, 1_000), (4, 0)]).await;
    let payment = node.payments().create_payment(pay(3, 4, 400)).await.expect("a payment").into_inner().payment.expect("a payment");
    node.until(&payment.payment_id, PaymentStatus::Completed).await;
    let refund = RefundPaymentRequest { request_id: id(), payment_id: payment.payment_id.clone(), amount_minor_units: None };
    node.payments().refund_payment(refund).await.expect("a refund");
    node.until_balance(3, 1_000).await;
    let lines = |lines: Vec<StatementLine>| -> Vec<_> {
        lines.into_iter().map(|line| (line.kind(), line.amount_minor_units, line.balance_minor_units, line.counterparty_user_id)).collect()
    };
    assert_eq!(statement(&node, 3).await[0].payment_id, payment.payment_id);
    assert_eq!(
        lines(statement(&node, 3).await),
        [(LineKind::RefundReceived, 400, 1_000, 4), (LineKind::PaymentSent, -400, 600, 4), (LineKind::Deposit, 1_000, 1_000, 0)]
    );
    assert_eq!(lines(statement(&node, 4).await), [(LineKind::RefundSent, -400, 0, 3), (LineKind::PaymentReceived, 400, 400, 3)]);
    let (sent, received) = (statement(&node, 3).await, statement(&node, 4).await);
    assert_eq!((sent[1].reference.as_str(), received[1].reference.as_str()), ("from 3", ""), "the payer's words are the payer's");
    node.close().await;
}

#[tokio::test]
async fn page_tokens_walk_a_statement_exactly_once() {
    const LINES: i64 = 2_500;
    let node = Node::start().await;
    node.users(&[(3, 1_000_000), (6, 0)]).await;
    let payments: Vec<_> = (0..LINES).map(|_| pay(3, 6, 1)).collect();
    let request = paymesh_contract::payments::v1::CreatePaymentsRequest { payments };
    node.payments().create_payments(request).await.expect("payments");
    for page_size in [0, 999, 1_000] {
        let (mut balances, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = GetStatementRequest { user_id: 6, currency_code: "EUR".to_owned(), page_size, page_token, read: None };
            let page = node.wallets().get_statement(request).await.expect("a page").into_inner();
            assert_eq!(page.lines.len(), 100.max(page_size as usize).min(2_500 - balances.len()));
            balances.extend(page.lines.iter().map(|line| line.balance_minor_units));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(balances, (1..=LINES).rev().collect::<Vec<_>>());
    }
    node.close().await;
}

#[tokio::test]
async fn a_statement_is_its_accounts_own() {
    let node = Node::start().await;
    node.users(&[(3, 100), (6, 100)]).await;
    for _ in 0..3 {
        node.wallets().deposit(deposit(3, 1)).await.expect("a deposit");
    }
    let page = |user_id, code: &str, page_token| GetStatementRequest {
        user_id,
        currency_code: code.to_owned(),
        page_size: 1,
        page_token,
        read: None,
    };
    let token = node.wallets().get_statement(page(3, "EUR", String::new())).await.expect("a page").into_inner().next_page_token;
    assert!(!token.is_empty());
    for wrong in [page(6, "EUR", token), page(3, "EUR", "0".repeat(24)), page(3, "EUR", "ä".to_owned())] {
        assert_eq!(refused(node.wallets().get_statement(wrong).await), refusal(Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token"));
    }
    let none = node.wallets().get_statement(page(3, "JPY", String::new())).await;
    assert_eq!(refused(none), refusal(Code::NotFound, "ACCOUNT_NOT_FOUND", ""));
    node.close().await;
}
