//! Payments by card, as ledgers to be read: what callers ask for, and what acquirers make of it. The notation is in `support/table.rs`.

#![forbid(unsafe_code)]

mod support;

use support::table::check;

#[test]
fn a_card_is_authorized_and_captured_and_the_payee_has_the_money_once_the_acquirer_has_it() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 10.00 EUR   | asks a
        p1                          | pending 0.00 of 10.00 at a 1:authorize 10.00
        bob EUR                     | 0.00
        acquirer p1 1 done          | payment authorized
        p1                          | authorized 0.00 of 10.00 at a 2:capture 10.00
        bob EUR                     | 0.00
        acquirer p1 2 done          | payment captured
        p1                          | captured 10.00 of 10.00 at a
        bob EUR                     | 10.00
        ann EUR                     | 0.00
        a EUR                       | -10.00
        # The acquirer's word a second time, as after a crash.
        acquirer p1 2 done          | ! NothingNew
        acquirer p1 1 declines      | ! NothingNew
        bob EUR                     | 10.00
        ",
    );
}

#[test]
fn a_hold_on_a_card_is_captured_in_part_voided_or_expires() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 10.00 EUR hold=60 | asks a
        capture p1                  | ! NotAuthorized pending
        void p1                     | ! NotAuthorized pending
        expire p1                   | ! NotExpiredYet
        acquirer p1 1 done          | payment authorized
        p1                          | authorized 0.00 of 10.00 at a
        capture p1 10.01            | ! ExceedsAuthorization 10.01 of 10.00
        capture p1 0.00             | ! ExceedsAuthorization 0.00 of 10.00
        =c1 capture p1 4.00         | capture asked
        p1                          | authorized 0.00 of 10.00 at a 2:capture 4.00
        capture p1 4.00             | ! OperationInProgress
        void p1                     | ! OperationInProgress
        =c1 capture p1 4.00         | recorded: capture asked
        =c1 capture p1 5.00         | recorded, with another amount_minor_units
        =c1 void p1                 | recorded, with another request
        acquirer p1 2 done          | payment captured
        p1                          | captured 4.00 of 10.00 at a
        bob EUR                     | 4.00
        void p1                     | ! NotAuthorized captured
        card p2 ann bob 10.00 EUR hold=60 | asks a
        acquirer p2 1 done          | payment authorized
        =v1 void p2                 | void asked
        capture p2                  | ! OperationInProgress
        # The hold is there until the acquirer says that it is gone.
        acquirer p2 2 declines      | ! Implausible an acquirer that does not let go of what it holds
        p2                          | authorized 0.00 of 10.00 at a 2:void 10.00
        acquirer p2 2 done          | payment voided
        =v1 void p2                 | recorded: void asked
        p2                          | voided 0.00 of 10.00 at a
        card p3 ann bob 10.00 EUR hold=60 | asks a
        wait 1000
        # It begins when it is there.
        acquirer p3 1 done          | payment authorized
        wait 59
        expire p3                   | ! NotExpiredYet
        wait 1
        capture p3                  | ! HoldExpired
        expire p3                   | expiry asked
        expire p3                   | ! OperationInProgress
        acquirer p3 2 done          | payment expired
        p3                          | expired 0.00 of 10.00 at a
        a EUR                       | -4.00
        ",
    );
}

#[test]
fn what_nobody_is_asked_for_is_declined_and_so_is_what_the_acquirer_declines() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE                | enrolled
        enrol cid DE EUR            | enrolled
        card p1 ann cid 10.00 EUR declined=FRAUD | declined FRAUD_DETECTED
        p1                          | declined 0.00 of 10.00 at a FRAUD_DETECTED
        acquirer p1 1 done          | ! NothingNew
        card p2 ann bob 10.00 EUR   | declined PAYEE_ACCOUNT_NOT_FOUND
        card p3 bob ann 10.00 EUR   | ! AccountNotFound bob EUR
        =p4 card p4 ann cid 10.00 EUR | asks a
        =p4 card p4 ann cid 10.00 EUR token=8 | recorded, with another card
        =p4 pay p4 ann cid 10.00 EUR | recorded, with another card
        acquirer p4 1 declines      | payment declined
        p4                          | declined 0.00 of 10.00 at a CARD_DECLINED
        refund p4                   | ! NotRefundable declined
        close ann EUR               | closed
        card p5 ann cid 10.00 EUR   | declined ACCOUNT_CLOSED
        a EUR                       | 0.00
        ",
    );
}

#[test]
fn the_next_gateway_is_asked_where_the_one_before_did_nothing_and_not_for_ever() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 10.00 EUR   | asks a
        acquirer p1 1 left          | gateway left
        p1                          | pending 0.00 of 10.00 at b 1:authorize 10.00
        acquirer p1 1 done          | payment authorized
        acquirer p1 2 left          | ! Implausible an acquirer's word that does not answer what it was asked for
        acquirer p1 2 done          | payment captured
        a EUR                       | 0.00
        b EUR                       | -10.00
        card p2 ann bob 10.00 EUR   | asks a
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | gateway left
        acquirer p2 1 left          | payment declined
        p2                          | declined 0.00 of 10.00 at b GATEWAY_UNAVAILABLE
        ",
    );
}

#[test]
fn a_cardholder_is_waited_for_and_not_for_ever() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 10.00 EUR   | asks a
        confirm p1                  | ! NoActionRequired pending
        acquirer p1 1 challenge     | payment challenged
        p1                          | action required 0.00 of 10.00 at a
        capture p1                  | ! NotAuthorized action required
        =k1 confirm p1              | payment confirmed
        =k1 confirm p1              | recorded: payment confirmed
        confirm p1                  | ! NoActionRequired pending
        # Whoever challenged has the charge.
        acquirer p1 2 left          | ! Implausible a gateway that is left while it has the charge
        acquirer p1 2 challenge     | payment challenged
        confirm p1                  | payment confirmed
        acquirer p1 3 done          | payment authorized
        acquirer p1 4 done          | payment captured
        bob EUR                     | 10.00
        card p2 ann bob 10.00 EUR   | asks a
        acquirer p2 1 challenge     | payment challenged
        wait 899
        expire p2                   | ! NotExpiredYet
        wait 1
        confirm p2                  | ! HoldExpired
        expire p2                   | expiry asked
        acquirer p2 2 done          | payment expired
        card p3 ann bob 10.00 EUR   | asks a
        acquirer p3 1 challenge     | payment challenged
        confirm p3                  | payment confirmed
        acquirer p3 2 declines      | payment declined
        card p4 ann bob 10.00 EUR   | asks a
        acquirer p4 1 challenge     | payment challenged
        void p4                     | void asked
        confirm p4                  | ! OperationInProgress
        acquirer p4 2 done          | payment voided
        ",
    );
}

#[test]
fn a_capture_that_is_refused_leaves_a_hold_that_somebody_lets_go_of() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 10.00 EUR hold=60 | asks a
        acquirer p1 1 done          | payment authorized
        capture p1                  | capture asked
        acquirer p1 2 declines      | capture refused
        p1                          | authorized 0.00 of 10.00 at a CAPTURE_REFUSED
        capture p1 5.00             | capture asked
        acquirer p1 3 done          | payment captured
        p1                          | captured 5.00 of 10.00 at a
        # Nobody waits for one that is captured at once.
        card p2 ann bob 10.00 EUR   | asks a
        acquirer p2 1 done          | payment authorized
        acquirer p2 2 declines      | capture refused
        p2                          | authorized 0.00 of 10.00 at a 3:void 10.00 CAPTURE_REFUSED
        acquirer p2 3 done          | payment voided
        p2                          | voided 0.00 of 10.00 at a CAPTURE_REFUSED
        bob EUR                     | 5.00
        ",
    );
}

#[test]
fn refunds_of_a_card_never_exceed_what_was_captured_and_wait_for_the_acquirer() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 100.00 EUR  | asks a
        acquirer p1 1 done          | payment authorized
        acquirer p1 2 done          | payment captured
        refund p1 60.00             | refund asked
        refund p1 60.00             | ! ExceedsCapture 60.00 of 40.00
        refund p1 30.00             | refund asked
        p1                          | captured 100.00 of 100.00 refunded 90.00 at a 3:refund 60.00 4:refund 30.00
        bob EUR                     | 10.00
        payable@0 EUR               | 90.00
        acquirer p1 4 done          | refund completed
        payable@0 EUR               | 60.00
        a EUR                       | -70.00
        # What the acquirer does not send back, the payer has.
        acquirer p1 3 declines      | refund refused
        ann EUR                     | 60.00
        payable@0 EUR               | 0.00
        withdraw bob 5.00 EUR       | withdrawn 5.00 EUR
        refund p1                   | ! PayeeInsufficientFunds
        refund p1 5.00              | refund asked
        ",
    );
}

#[test]
fn money_that_a_payee_cannot_have_goes_back_to_the_card() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 10.00 EUR   | asks a
        acquirer p1 1 done          | payment authorized
        close bob EUR               | closed
        acquirer p1 2 done          | capture returned
        p1                          | returned 10.00 of 10.00 at a 3:refund 10.00 PAYEE_ACCOUNT_CLOSED
        a EUR                       | -10.00
        payable@0 EUR               | 10.00
        refund p1                   | ! NotRefundable returned
        acquirer p1 3 done          | refund completed
        a EUR                       | 0.00
        # Known before it is taken.
        enrol cid DE EUR            | enrolled
        card p2 ann cid 10.00 EUR   | asks a
        close cid EUR               | closed
        acquirer p2 1 done          | payment authorized
        p2                          | authorized 0.00 of 10.00 at a 2:void 10.00 PAYEE_ACCOUNT_CLOSED
        acquirer p2 2 done          | payment voided
        enrol eve DE EUR            | enrolled
        card p3 ann eve 10.00 EUR hold=60 | asks a
        acquirer p3 1 done          | payment authorized
        close eve EUR               | closed
        capture p3                  | ! AccountClosed eve EUR
        void p3                     | void asked
        acquirer p3 2 done          | payment voided
        ",
    );
}

#[test]
fn a_payee_of_another_shard_is_paid_and_pays_back_through_the_clearing_accounts() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob@1 US EUR          | enrolled
        card p1 ann bob@1 10.00 EUR | asks a
        carry 0 1                   | nothing
        acquirer p1 1 done          | payment authorized
        carry 0 1                   | nothing
        acquirer p1 2 done          | payment captured
        carry 0 1                   | credited 10.00 EUR
        bob@1 EUR                   | 10.00
        refund p1                   | ! NotRefundable still in transit
        carry 1 0                   | delivered to us/0 up to 4
        refund p1 4.00              | refund of 4.00 asked for
        p1                          | captured 10.00 of 10.00 refunded 4.00 at a
        carry 0 1                   | refund of 4.00 EUR paid
        carry 1 0                   | refund of 4.00 received
        p1                          | captured 10.00 of 10.00 refunded 4.00 at a 3:refund 4.00
        payable@0 EUR               | 4.00
        ann EUR                     | 0.00
        acquirer p1 3 done          | refund completed
        a EUR                       | -6.00
        payable@0 EUR               | 0.00
        # One that the payee cannot pay is not asked of the acquirer, and does not count.
        withdraw bob@1 6.00 EUR     | withdrawn 6.00 EUR
        refund p1 6.00              | refund of 6.00 asked for
        carry 1 0                   | delivered to us/0 up to 6
        carry 0 1                   | delivered to eu/0 up to 3
        carry 0 1                   | refund of 6.00 EUR refused PAYEE_INSUFFICIENT_FUNDS
        carry 1 0                   | refund of 6.00 failed PAYEE_INSUFFICIENT_FUNDS
        p1                          | captured 10.00 of 10.00 refunded 4.00 at a
        ",
    );
}

#[test]
fn what_another_shard_cannot_credit_comes_back_to_the_card_or_else_to_the_payers_account() {
    check(
        "
        enrol ann DE EUR            | enrolled
        card p1 ann zoe@1 5.00 EUR  | asks a
        acquirer p1 1 done          | payment authorized
        acquirer p1 2 done          | payment captured
        carry 0 1                   | bounced 5.00 EUR PAYEE_ACCOUNT_NOT_FOUND
        carry 1 0                   | returned 5.00
        p1                          | returned 5.00 of 5.00 at a 3:refund 5.00 PAYEE_ACCOUNT_NOT_FOUND
        payable@0 EUR               | 5.00
        acquirer p1 3 declines      | refund refused
        ann EUR                     | 5.00
        payable@0 EUR               | 0.00
        a EUR                       | -5.00
        ",
    );
}
