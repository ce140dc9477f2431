//! What commands and messages do to the books of two shards, as ledgers to be read. The notation is in `support/table.rs`.

#![forbid(unsafe_code)]

mod support;

use support::table::check;

#[test]
fn money_for_another_shard_is_on_its_way_until_it_is_taken_in() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob@1 US EUR        | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        carry 0 1                 | nothing
        pay p1 ann bob@1 4.00 EUR | sent to us/0
        p1                        | captured 4.00 of 4.00
        ann EUR                   | 6.00
        bob@1 EUR                 | 0.00
        sent 0 1 EUR              | 4.00
        received 0 1 EUR          | 0.00
        carry 0 1                 | credited 4.00 EUR
        bob@1 EUR                 | 4.00
        received 0 1 EUR          | -4.00
        carry 0 1                 | nothing

        # The same entry again does nothing.
        carry again 0 1           | ! AlreadyReceived 3
        bob@1 EUR                 | 4.00

        carry 1 0                 | delivered to us/0 up to 3
        carry again 1 0           | ! NothingNew
        carry 1 0                 | nothing
        carry 0 1                 | nothing
        p1                        | captured 4.00 of 4.00
        outside@0 EUR             | -10.00
        outside@1 EUR             | 0.00

        # What was delivered stays delivered.
        claim cat@1 us            | claimed by us
        note 1 0 1 3              | delivered to us/0 up to 1
        note 1 0 3 2              | ! NothingNew
        refund p1 1.00            | refund of 1.00 asked for
        ",
    );
}

#[test]
fn a_hold_for_another_shard_is_sent_when_it_is_captured() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob@1 US EUR        | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        pay p1 ann bob@1 4.00 EUR hold=60 | authorized
        pay p2 ann bob@1 4.00 EUR hold=60 | authorized
        carry 0 1                 | nothing
        sent 0 1 EUR              | 0.00
        void p2                   | voided
        carry 0 1                 | nothing
        refund p1                 | ! NotRefundable authorized
        =cap capture p1 3.00      | captured 3.00, sent to us/0
        =cap capture p1 3.00      | recorded: captured 3.00, sent to us/0
        ann EUR                   | 7.00
        sent 0 1 EUR              | 3.00
        refund p1                 | ! NotRefundable still in transit
        carry 0 1                 | credited 3.00 EUR
        bob@1 EUR                 | 3.00
        refund p1                 | ! NotRefundable still in transit
        carry 1 0                 | delivered to us/0 up to 6
        refund p1 3.01            | ! ExceedsCapture 3.01 of 3.00
        refund p1                 | refund of 3.00 asked for
        p1                        | captured 3.00 of 4.00 refunded 3.00
        ",
    );
}

#[test]
fn a_payment_that_cannot_be_credited_comes_back() {
    check(
        "
        enrol ann DE EUR,JPY      | enrolled
        enrol bob@1 US EUR        | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        deposit ann 1_000_000_000_000_000 JPY | deposited 1000000000000000 JPY
        pay p1 ann bob@1 100 JPY  | sent to us/0
        carry 0 1                 | bounced 100 JPY PAYEE_ACCOUNT_NOT_FOUND
        received 0 1 JPY          | -100
        sent 1 0 JPY              | 100
        # Until it is back it is neither refundable nor returned.
        p1                        | captured 100 of 100
        refund p1                 | ! NotRefundable still in transit
        deposit ann 100 JPY       | deposited 100 JPY
        # It comes back though the account is full by now.
        carry 1 0                 | returned 100
        ann JPY                   | 1_000_000_000_000_100
        p1                        | returned 100 of 100 PAYEE_ACCOUNT_NOT_FOUND
        received 1 0 JPY          | -100
        carry again 1 0           | ! AlreadyReceived 2
        refund p1                 | ! NotRefundable returned
        capture p1                | ! NotAuthorized returned
        carry 1 0                 | delivered to us/0 up to 4
        refund p1                 | ! NotRefundable returned

        pay p2 ann zoe@1 1.00 EUR | sent to us/0
        carry 0 1                 | delivered to eu/0 up to 2
        carry 0 1                 | bounced 1.00 EUR PAYEE_ACCOUNT_NOT_FOUND
        close bob@1 EUR           | closed
        pay p3 ann bob@1 9.00 EUR | sent to us/0
        close ann EUR             | closed
        carry 0 1                 | bounced 9.00 EUR PAYEE_ACCOUNT_CLOSED
        carry 1 0                 | returned 1.00
        carry 1 0                 | delivered to us/0 up to 8
        carry 1 0                 | returned 9.00
        ann EUR                   | 10.00 closed
        p3                        | returned 9.00 of 9.00 PAYEE_ACCOUNT_CLOSED
        ",
    );
}

#[test]
fn a_payee_of_another_shard_at_the_bound_is_not_credited() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob@1 US EUR        | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        deposit bob@1 9_999_999_999_999.00 EUR | deposited 9999999999999.00 EUR
        pay p1 ann bob@1 1.01 EUR | sent to us/0
        pay p2 ann bob@1 1.00 EUR | sent to us/0
        carry 0 1                 | bounced 1.01 EUR PAYEE_BALANCE_LIMIT
        carry 0 1                 | credited 1.00 EUR
        bob@1 EUR                 | 10_000_000_000_000.00
        carry 1 0                 | returned 1.01
        p1                        | returned 1.01 of 1.01 PAYEE_BALANCE_LIMIT
        ann EUR                   | 9.00
        ",
    );
}

#[test]
fn refunds_across_shards_count_against_the_cap_from_when_they_are_asked_for() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob@1 US EUR        | enrolled
        enrol cat@1 US EUR        | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        pay p1 ann bob@1 10.00 EUR | sent to us/0
        carry 0 1                 | credited 10.00 EUR
        carry 1 0                 | delivered to us/0 up to 3
        =r1 refund p1 6.00        | refund of 6.00 asked for
        =r1 refund p1 6.00        | recorded: refund of 6.00 asked for
        =r1 refund p1 5.00        | recorded, with another amount_minor_units
        =r1 refund p1             | recorded, with another amount_minor_units
        =r1 refund p1^2 6.00      | recorded, with another payment_id
        refund p1 4.01            | ! ExceedsCapture 4.01 of 4.00
        refund p1                 | refund of 4.00 asked for
        refund p1 0.01            | ! ExceedsCapture 0.01 of 0.00
        ann EUR                   | 0.00

        pay p2 bob@1 cat@1 5.00 EUR hold=60 | authorized
        carry 0 1                 | refund of 6.00 EUR refused PAYEE_INSUFFICIENT_FUNDS
        carry 0 1                 | refund of 4.00 EUR paid
        bob@1 EUR                 | 6.00 held 5.00
        refund p1 0.01            | ! ExceedsCapture 0.01 of 0.00
        carry 1 0                 | refund of 6.00 failed PAYEE_INSUFFICIENT_FUNDS
        p1                        | captured 10.00 of 10.00 refunded 4.00
        carry 1 0                 | delivered to us/0 up to 5
        carry 1 0                 | refund of 4.00 received
        carry again 1 0           | ! AlreadyReceived 6
        carry 1 0                 | delivered to us/0 up to 6
        ann EUR                   | 4.00
        p1                        | captured 10.00 of 10.00 refunded 4.00

        # What was refused can be asked for again.
        void p2                   | voided
        refund p1                 | refund of 6.00 asked for
        carry 0 1                 | delivered to eu/0 up to 6
        carry 0 1                 | refund of 6.00 EUR paid
        carry again 0 1           | ! AlreadyReceived 11
        carry 1 0                 | refund of 6.00 received
        carry again 1 0           | ! AlreadyReceived 9
        ann EUR                   | 10.00
        bob@1 EUR                 | 0.00
        sent 0 1 EUR              | 10.00
        received 0 1 EUR          | -10.00
        sent 1 0 EUR              | 10.00
        received 1 0 EUR          | -10.00
        ",
    );
}

#[test]
fn a_refund_asked_of_an_account_that_is_gone_is_refused() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob@1 US EUR        | enrolled
        deposit ann 5.00 EUR      | deposited 5.00 EUR
        pay p1 ann bob@1 5.00 EUR | sent to us/0
        carry 0 1                 | credited 5.00 EUR
        carry 1 0                 | delivered to us/0 up to 3
        withdraw bob@1 5.00 EUR   | withdrawn 5.00 EUR
        close bob@1 EUR           | closed
        refund p1                 | refund of 5.00 asked for
        carry 0 1                 | refund of 5.00 EUR refused PAYEE_INSUFFICIENT_FUNDS
        carry 1 0                 | refund of 5.00 failed PAYEE_INSUFFICIENT_FUNDS
        carry 1 0                 | delivered to us/0 up to 5
        p1                        | captured 5.00 of 5.00
        outside@1 EUR             | 5.00
        ",
    );
}

#[test]
fn what_another_shard_cannot_have_meant_is_not_booked() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        enrol bob@1 US EUR        | enrolled
        deposit ann 50.00 EUR     | deposited 50.00 EUR
        pay held ann bob@1 5.00 EUR hold=60 | authorized
        tell 1 0 bounce held 5.00 EUR | ! Implausible a bounce of a payment that was not sent, or of another amount
        tell 1 0 paid held 5.00 EUR | ! Implausible a refund of more than was asked for
        tell 1 0 refused held 5.00 EUR | ! Implausible a refusal of more than was asked for

        pay p1 ann bob@1 5.00 EUR | sent to us/0
        tell 1 0 bounce p1 4.99 EUR | ! Implausible a bounce of a payment that was not sent, or of another amount
        tell 1 0 paid p1 0.01 EUR | ! Implausible a refund of more than was asked for
        tell 1 0 refused p1 0.01 EUR | ! Implausible a refusal of more than was asked for
        carry 0 1                 | credited 5.00 EUR
        carry 1 0                 | delivered to us/0 up to 5
        refund p1 2.00            | refund of 2.00 asked for
        tell 1 0 bounce p1 5.00 EUR | ! Implausible a bounce of a payment that was not sent, or of another amount
        tell 1 0 paid p1 2.01 EUR | ! Implausible a refund of more than was asked for
        tell 1 0 refused p1 2.01 EUR | ! Implausible a refusal of more than was asked for

        tell 1 0 paid p1 2 JPY    | ! Implausible an answer about a payment that is not here

        # From a shard that the payment did not go to.
        tell 2 0 paid p1 2.00 EUR | ! Implausible an answer about a payment to another shard
        pay local ann bob 5.00 EUR | paid
        tell 1 0 bounce local 5.00 EUR | ! Implausible an answer about a payment to another shard

        # An answer that belongs to another shard's payment.
        deposit bob@1 5.00 EUR    | deposited 5.00 EUR
        pay p2 bob@1 ann 5.00 EUR | sent to eu/0
        tell 1 0 bounce p2 5.00 EUR | ! Implausible an answer about a payment of another shard
        ann EUR                   | 40.00 held 5.00
        received 1 0 EUR          | 0.00
        ",
    );
}
