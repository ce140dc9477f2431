//! What each command does to the books of its shard, as ledgers to be read. The notation is in `support/table.rs`.

#![forbid(unsafe_code)]

mod support;

use support::table::check;

#[test]
fn users_are_enrolled_once_and_accounts_are_opened_once() {
    check(
        "
        open ann EUR              | ! UserNotFound ann
        deposit ann 1.00 EUR      | ! AccountNotFound ann EUR
        ann EUR                   | no account
        enrol ann DE EUR,JPY      | enrolled
        ann EUR                   | 0.00
        ann JPY                   | 0
        ann KWD                   | no account
        enrol ann DE EUR,JPY      | ! UserExists ann
        open ann JPY              | ! AccountExists ann JPY
        open ann KWD              | opened
        ann KWD                   | 0.000
        enrol bob FR              | enrolled
        bob EUR                   | no account
        ",
    );
}

#[test]
fn an_id_belongs_to_one_zone() {
    check(
        "
        claim ann eu              | claimed by eu
        claim ann eu              | ! NothingNew
        claim ann us              | ! UserInAnotherZone ann eu
        claim bob us              | claimed by us
        ",
    );
}

#[test]
fn money_comes_in_and_goes_out() {
    check(
        "
        enrol ann DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        ann EUR                   | 100.00
        outside@0 EUR             | -100.00
        withdraw ann 30.00 EUR    | withdrawn 30.00 EUR
        withdraw ann 70.01 EUR    | declined INSUFFICIENT_FUNDS
        ann EUR                   | 70.00
        withdraw ann 70.00 EUR    | withdrawn 70.00 EUR
        withdraw ann 0.01 EUR     | declined INSUFFICIENT_FUNDS
        ann EUR                   | 0.00
        outside@0 EUR             | 0.00
        withdraw ann 1 JPY        | ! AccountNotFound ann JPY
        withdraw zoe 1.00 EUR     | ! AccountNotFound zoe EUR
        ",
    );
}

#[test]
fn only_an_empty_account_closes_and_a_closed_one_stays_closed() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        close ann JPY             | ! AccountNotFound ann JPY
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        close ann EUR             | ! AccountNotEmpty ann EUR
        pay p1 ann bob 10.00 EUR hold=60 | authorized
        close ann EUR             | ! AccountNotEmpty ann EUR
        capture p1                | captured 10.00
        close ann EUR             | closed
        ann EUR                   | 0.00 closed
        close ann EUR             | ! AccountClosed ann EUR
        open ann EUR              | ! AccountExists ann EUR
        deposit ann 1.00 EUR      | ! AccountClosed ann EUR
        withdraw ann 1.00 EUR     | declined INSUFFICIENT_FUNDS
        pay p2 ann bob 1.00 EUR   | declined ACCOUNT_CLOSED
        pay p3 ann bob 1.00 EUR hold=60 | declined ACCOUNT_CLOSED
        pay p4 bob ann 1.00 EUR   | declined PAYEE_ACCOUNT_CLOSED
        pay p5 bob ann 1.00 EUR hold=60 | declined PAYEE_ACCOUNT_CLOSED
        bob EUR                   | 10.00

        # What comes back to a closed account is taken, and can leave it.
        refund p1 4.00            | refunded 4.00
        ann EUR                   | 4.00 closed
        close ann EUR             | ! AccountClosed ann EUR
        pay p6 ann bob 1.00 EUR   | declined ACCOUNT_CLOSED
        withdraw ann 4.00 EUR     | withdrawn 4.00 EUR
        ann EUR                   | 0.00 closed
        ",
    );
}

#[test]
fn a_payment_moves_money_at_once_or_is_declined() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        pay p1 ann bob 4.00 EUR   | paid
        p1                        | captured 4.00 of 4.00
        ann EUR                   | 6.00
        bob EUR                   | 4.00
        pay p2 ann bob 6.01 EUR   | declined INSUFFICIENT_FUNDS
        p2                        | declined 0.00 of 6.01 INSUFFICIENT_FUNDS
        ann EUR                   | 6.00
        pay p3 ann bob 6.00 EUR   | paid
        ann EUR                   | 0.00
        bob EUR                   | 10.00
        outside@0 EUR             | -10.00
        ",
    );
}

#[test]
fn a_payer_without_an_account_is_an_error_and_a_payee_without_one_a_decline() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        enrol cat DE JPY          | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        pay p1 zoe ann 1.00 EUR   | ! AccountNotFound zoe EUR
        pay p2 ann bob 1 JPY      | ! AccountNotFound ann JPY
        pay p3 ann zoe 1.00 EUR   | declined PAYEE_ACCOUNT_NOT_FOUND
        pay p4 ann cat 1.00 EUR   | declined PAYEE_ACCOUNT_NOT_FOUND
        pay p5 ann cat 1.00 EUR hold=60 | declined PAYEE_ACCOUNT_NOT_FOUND
        p4                        | declined 0.00 of 1.00 PAYEE_ACCOUNT_NOT_FOUND
        ann EUR                   | 10.00
        # The payer's own reasons come first.
        pay p6 ann zoe 10.01 EUR  | declined INSUFFICIENT_FUNDS
        ",
    );
}

#[test]
fn a_hold_keeps_money_from_being_spent_until_it_is_captured() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 70.00 EUR hold=60 | authorized
        p1                        | authorized 0.00 of 70.00
        ann EUR                   | 100.00 held 70.00
        bob EUR                   | 0.00
        withdraw ann 30.01 EUR    | declined INSUFFICIENT_FUNDS
        pay p2 ann bob 30.01 EUR  | declined INSUFFICIENT_FUNDS
        pay p3 ann bob 30.01 EUR hold=60 | declined INSUFFICIENT_FUNDS
        pay p4 ann bob 20.00 EUR hold=60 | authorized
        pay p5 ann bob 10.00 EUR  | paid
        ann EUR                   | 90.00 held 90.00
        capture p1                | captured 70.00
        p1                        | captured 70.00 of 70.00
        ann EUR                   | 20.00 held 20.00
        bob EUR                   | 80.00
        capture p4                | captured 20.00
        ann EUR                   | 0.00
        bob EUR                   | 100.00
        ",
    );
}

#[test]
fn a_capture_in_part_releases_the_rest_and_comes_once() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 30.00 EUR hold=60 | authorized
        capture p1 30.01          | ! ExceedsAuthorization 30.01 of 30.00
        capture p1 0.00           | ! ExceedsAuthorization 0.00 of 30.00
        capture p1 -1.00          | ! ExceedsAuthorization -1.00 of 30.00
        ann EUR                   | 100.00 held 30.00
        capture p1 10.00          | captured 10.00
        p1                        | captured 10.00 of 30.00
        ann EUR                   | 90.00
        bob EUR                   | 10.00
        capture p1                | ! NotAuthorized captured
        capture p1 1.00           | ! NotAuthorized captured
        void p1                   | ! NotAuthorized captured
        expire p1                 | ! NotAuthorized captured
        refund p1 10.01           | ! ExceedsCapture 10.01 of 10.00
        pay p2 ann bob 1.00 EUR   | paid
        capture p2                | ! NotAuthorized captured
        void p2                   | ! NotAuthorized captured
        pay p3 ann bob 500.00 EUR | declined INSUFFICIENT_FUNDS
        capture p3                | ! NotAuthorized declined
        void p3                   | ! NotAuthorized declined
        expire p3                 | ! NotAuthorized declined
        refund p3                 | ! NotRefundable declined
        ",
    );
}

#[test]
fn a_void_releases_the_whole_hold() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 30.00 EUR hold=60 | authorized
        pay p2 ann bob 20.00 EUR hold=60 | authorized
        void p1                   | voided
        p1                        | voided 0.00 of 30.00
        ann EUR                   | 100.00 held 20.00
        void p1                   | ! NotAuthorized voided
        capture p1                | ! NotAuthorized voided
        refund p1                 | ! NotRefundable voided
        expire p1                 | ! NotAuthorized voided
        ann EUR                   | 100.00 held 20.00
        bob EUR                   | 0.00
        # A void after the time is up, and before the shard expired it, is a void.
        wait 60
        void p2                   | voided
        ann EUR                   | 100.00
        ",
    );
}

#[test]
fn a_hold_runs_out_on_the_second() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 30.00 EUR hold=60 | authorized
        pay p2 ann bob 20.00 EUR hold=61 | authorized
        wait 59
        expire p1                 | ! NotExpiredYet
        wait 1
        capture p1                | ! HoldExpired
        capture p1 1.00           | ! HoldExpired
        ann EUR                   | 100.00 held 50.00
        expire p1                 | expired
        p1                        | expired 0.00 of 30.00
        ann EUR                   | 100.00 held 20.00
        expire p1                 | ! NotAuthorized expired
        capture p1                | ! NotAuthorized expired
        void p1                   | ! NotAuthorized expired
        refund p1                 | ! NotRefundable expired
        expire p2                 | ! NotExpiredYet
        capture p2                | captured 20.00
        pay p3 ann bob 5.00 EUR   | paid
        wait 100
        expire p3                 | ! NotAuthorized captured
        ann EUR                   | 75.00
        bob EUR                   | 25.00
        ",
    );
}

#[test]
fn a_payment_is_named_by_its_number_and_its_term() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 30.00 EUR hold=60 | authorized
        capture p9                | ! PaymentNotFound
        void p9                   | ! PaymentNotFound
        refund p9                 | ! PaymentNotFound
        expire p9                 | ! PaymentNotFound
        capture p1^2              | ! PaymentNotFound
        void p1^2                 | ! PaymentNotFound
        refund p1^2               | ! PaymentNotFound
        lead 0
        pay p2 ann bob 10.00 EUR hold=60 | authorized
        capture p2^1              | ! PaymentNotFound
        capture p2                | captured 10.00
        capture p1                | captured 30.00
        ann EUR                   | 60.00
        ",
    );
}

#[test]
fn refunds_never_add_up_to_more_than_the_capture() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 50.00 EUR hold=60 | authorized
        refund p1                 | ! NotRefundable authorized
        capture p1 40.00          | captured 40.00
        refund p1 0.00            | ! ExceedsCapture 0.00 of 40.00
        refund p1 -5.00           | ! ExceedsCapture -5.00 of 40.00
        refund p1 40.01           | ! ExceedsCapture 40.01 of 40.00
        refund p1 15.00           | refunded 15.00
        p1                        | captured 40.00 of 50.00 refunded 15.00
        ann EUR                   | 75.00
        bob EUR                   | 25.00
        refund p1 25.01           | ! ExceedsCapture 25.01 of 25.00
        refund p1 10.00           | refunded 10.00
        refund p1                 | refunded 15.00
        p1                        | captured 40.00 of 50.00 refunded 40.00
        refund p1 0.01            | ! ExceedsCapture 0.01 of 0.00
        refund p1                 | ! ExceedsCapture 0.00 of 0.00
        ann EUR                   | 100.00
        bob EUR                   | 0.00
        ",
    );
}

#[test]
fn a_payee_refunds_out_of_what_is_available() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        enrol cat DE EUR          | enrolled
        deposit ann 100.00 EUR    | deposited 100.00 EUR
        pay p1 ann bob 40.00 EUR  | paid
        pay p2 bob cat 10.00 EUR  | paid
        pay p3 bob cat 20.00 EUR hold=60 | authorized
        bob EUR                   | 30.00 held 20.00
        refund p1 10.01           | ! PayeeInsufficientFunds
        refund p1                 | ! PayeeInsufficientFunds
        p1                        | captured 40.00 of 40.00
        refund p1 10.00           | refunded 10.00
        bob EUR                   | 20.00 held 20.00
        void p3                   | voided
        refund p1                 | ! PayeeInsufficientFunds
        refund p1 20.00           | refunded 20.00
        close bob EUR             | closed
        refund p1                 | ! PayeeInsufficientFunds
        p1                        | captured 40.00 of 40.00 refunded 30.00
        ann EUR                   | 90.00
        cat EUR                   | 10.00
        ",
    );
}

#[test]
fn balances_stay_within_ten_to_the_fifteenth() {
    check(
        "
        enrol ann DE EUR,JPY,KWD  | enrolled
        enrol bob DE EUR,JPY      | enrolled
        deposit ann 9_999_999_999_999.99 EUR | deposited 9999999999999.99 EUR
        deposit ann 0.02 EUR      | ! OutOfRange
        deposit ann 0.01 EUR      | deposited 0.01 EUR
        ann EUR                   | 10_000_000_000_000.00
        deposit ann 0.01 EUR      | ! OutOfRange
        outside@0 EUR             | -10_000_000_000_000.00
        # The bound is of minor units, whatever the currency's digits.
        deposit ann 1_000_000_000_000_000 JPY | deposited 1000000000000000 JPY
        deposit ann 1 JPY         | ! OutOfRange
        deposit ann 1_000_000_000_000.000 KWD | deposited 1000000000000.000 KWD
        deposit ann 0.001 KWD     | ! OutOfRange

        deposit bob 1.00 EUR      | deposited 1.00 EUR
        pay p1 bob ann 0.01 EUR   | declined PAYEE_BALANCE_LIMIT
        pay p2 bob ann 0.01 EUR hold=60 | declined PAYEE_BALANCE_LIMIT
        pay p3 ann bob 10_000_000_000_000.00 EUR | declined PAYEE_BALANCE_LIMIT
        pay p4 ann bob 9_999_999_999_999.00 EUR  | paid
        bob EUR                   | 10_000_000_000_000.00
        ann EUR                   | 1.00

        # A capture that would pass the bound leaves the hold as it is.
        pay p5 bob ann 2.00 EUR hold=60 | authorized
        deposit ann 9_999_999_999_998.00 EUR | deposited 9999999999998.00 EUR
        capture p5                | ! OutOfRange
        p5                        | authorized 0.00 of 2.00
        bob EUR                   | 10_000_000_000_000.00 held 2.00
        capture p5 1.00           | captured 1.00
        ann EUR                   | 10_000_000_000_000.00
        bob EUR                   | 9_999_999_999_999.00

        # What comes back is not lost for the bound's sake.
        deposit bob 1.00 EUR      | deposited 1.00 EUR
        refund p5                 | refunded 1.00
        bob EUR                   | 10_000_000_000_001.00
        deposit bob 0.01 EUR      | ! OutOfRange
        pay p6 bob ann 0.01 EUR   | paid
        bob EUR                   | 10_000_000_000_000.99
        ",
    );
}

#[test]
fn a_payee_that_closed_in_between_is_not_credited_by_a_capture() {
    check(
        "
        enrol ann DE EUR          | enrolled
        enrol bob DE EUR          | enrolled
        deposit ann 10.00 EUR     | deposited 10.00 EUR
        pay p1 ann bob 5.00 EUR hold=60 | authorized
        close bob EUR             | closed
        capture p1                | ! AccountClosed bob EUR
        ann EUR                   | 10.00 held 5.00
        void p1                   | voided
        ann EUR                   | 10.00
        ",
    );
}

#[test]
fn currencies_do_not_mix() {
    check(
        "
        enrol ann DE EUR,JPY,KWD  | enrolled
        enrol bob DE EUR,JPY,KWD  | enrolled
        deposit ann 12.34 EUR     | deposited 12.34 EUR
        deposit ann 1234 JPY      | deposited 1234 JPY
        deposit ann 1.234 KWD     | deposited 1.234 KWD
        pay p1 ann bob 12.35 EUR  | declined INSUFFICIENT_FUNDS
        pay p2 ann bob 1000 JPY   | paid
        pay p3 ann bob 1.000 KWD hold=60 | authorized
        ann EUR                   | 12.34
        ann JPY                   | 234
        ann KWD                   | 1.234 held 1.000
        bob EUR                   | 0.00
        bob JPY                   | 1000
        capture p3 0.001          | captured 0.001
        refund p2 1               | refunded 1
        ann KWD                   | 1.233
        bob KWD                   | 0.001
        bob JPY                   | 999
        outside@0 EUR             | -12.34
        outside@0 JPY             | -1234
        outside@0 KWD             | -1.234
        ",
    );
}

#[test]
fn the_same_request_again_is_answered_as_before_and_moves_nothing() {
    check(
        "
        =enrol enrol ann DE EUR            | enrolled
        =enrol enrol ann DE EUR            | recorded: enrolled
        =claim claim ann eu                | claimed by eu
        =claim claim ann eu                | recorded: claimed by eu
        =claim claim ann us                | recorded, with another zone
        =claim claim bob eu                | recorded, with another user_id
        enrol bob DE EUR                   | enrolled
        =open open ann JPY                 | opened
        =open open ann JPY                 | recorded: opened
        =close close ann JPY               | closed
        =close close ann JPY               | recorded: closed
        =in deposit ann 10.00 EUR ref=a    | deposited 10.00 EUR
        =in deposit ann 10.00 EUR ref=a    | recorded: deposited 10.00 EUR
        ann EUR                            | 10.00
        =out withdraw ann 1.00 EUR         | withdrawn 1.00 EUR
        =out withdraw ann 1.00 EUR         | recorded: withdrawn 1.00 EUR
        ann EUR                            | 9.00
        =p1 pay p1 ann bob 2.00 EUR        | paid
        =p1 pay p1 ann bob 2.00 EUR        | recorded: paid
        =p2 pay p2 ann bob 3.00 EUR hold=60 | authorized
        =p2 pay p2 ann bob 3.00 EUR hold=60 | recorded: authorized
        ann EUR                            | 7.00 held 3.00
        =cap capture p2 1.00               | captured 1.00
        =cap capture p2 1.00               | recorded: captured 1.00
        =ref refund p2                     | refunded 1.00
        =ref refund p2                     | recorded: refunded 1.00
        =p3 pay p3 ann bob 1.00 EUR hold=60 | authorized
        =void void p3                      | voided
        =void void p3                      | recorded: voided
        ann EUR                            | 7.00
        bob EUR                            | 2.00

        # A decline is an answer, and stays the answer.
        =big withdraw ann 50.00 EUR        | declined INSUFFICIENT_FUNDS
        =p4 pay p4 ann bob 50.00 EUR       | declined INSUFFICIENT_FUNDS
        deposit ann 100.00 EUR             | deposited 100.00 EUR
        =big withdraw ann 50.00 EUR        | recorded: declined INSUFFICIENT_FUNDS
        =p4 pay p4 ann bob 50.00 EUR       | recorded: declined INSUFFICIENT_FUNDS
        ",
    );
}

#[test]
fn a_rejection_leaves_the_request_id_free() {
    check(
        "
        enrol ann DE                       | enrolled
        =in deposit ann 1.000 KWD          | ! AccountNotFound ann KWD
        open ann KWD                       | opened
        =in deposit ann 1.000 KWD          | deposited 1.000 KWD
        =in deposit ann 1.000 KWD          | recorded: deposited 1.000 KWD
        ann KWD                            | 1.000
        ",
    );
}

#[test]
fn a_reused_request_id_names_the_field_that_differs() {
    check(
        "
        =enrol enrol ann DE EUR,JPY        | enrolled
        =enrol enrol bob DE EUR,JPY        | recorded, with another user_id
        =enrol enrol ann FR EUR,JPY        | recorded, with another residence_country
        =enrol enrol ann DE EUR            | recorded, with another currency_codes
        =enrol enrol bob FR EUR            | recorded, with another user_id
        =enrol open ann EUR                | recorded, with another request
        enrol bob DE EUR,JPY               | enrolled
        enrol cat DE EUR,JPY               | enrolled

        =open open ann KWD                 | opened
        =open open bob KWD                 | recorded, with another user_id
        =open open ann USD                 | recorded, with another currency_code
        =open close ann KWD                | recorded, with another request
        =close close ann KWD               | closed
        =close close bob KWD               | recorded, with another user_id
        =close close ann USD               | recorded, with another currency_code
        =close open ann KWD                | recorded, with another request

        =in deposit ann 10.00 EUR ref=a    | deposited 10.00 EUR
        =in deposit bob 10.00 EUR ref=a    | recorded, with another user_id
        =in deposit ann 10.01 EUR ref=a    | recorded, with another amount
        =in deposit ann 1000 JPY ref=a     | recorded, with another amount
        =in deposit ann 10.00 EUR ref=b    | recorded, with another reference
        =in withdraw ann 10.00 EUR ref=a   | recorded, with another request

        =out withdraw ann 1.00 EUR ref=a   | withdrawn 1.00 EUR
        =out withdraw bob 1.00 EUR ref=a   | recorded, with another user_id
        =out withdraw ann 1.01 EUR ref=a   | recorded, with another amount
        =out withdraw ann 1.00 EUR         | recorded, with another reference
        =out deposit ann 1.00 EUR ref=a    | recorded, with another request

        =pay pay p1 ann bob 2.00 EUR hold=60 ref=a | authorized
        =pay pay p1 cat bob 2.00 EUR hold=60 ref=a | recorded, with another payer_id
        =pay pay p1 ann cat 2.00 EUR hold=60 ref=a | recorded, with another payee_id
        =pay pay p1 ann bob 2.01 EUR hold=60 ref=a | recorded, with another amount
        =pay pay p1 ann bob 200 JPY hold=60 ref=a  | recorded, with another amount
        =pay pay p1 ann bob 2.00 EUR ref=a         | recorded, with another capture_mode
        =pay pay p1 ann bob 2.00 EUR hold=61 ref=a | recorded, with another hold_duration
        =pay pay p1 ann bob 2.00 EUR hold=60 ref=b | recorded, with another reference
        =pay withdraw ann 2.00 EUR ref=a           | recorded, with another request
        =auto pay p2 ann bob 2.00 EUR              | paid
        =auto pay p2 ann bob 2.00 EUR hold=60      | recorded, with another capture_mode

        =cap capture p1 1.00               | captured 1.00
        =cap capture p2 1.00               | recorded, with another payment_id
        =cap capture p1^2 1.00             | recorded, with another payment_id
        =cap capture p1 1.01               | recorded, with another amount_minor_units
        =cap capture p1                    | recorded, with another amount_minor_units
        =cap void p1                       | recorded, with another request

        =ref refund p2 1.00                | refunded 1.00
        =ref refund p1 1.00                | recorded, with another payment_id
        =ref refund p2^2 1.00              | recorded, with another payment_id
        =ref refund p2 1.01                | recorded, with another amount_minor_units
        =ref refund p2                     | recorded, with another amount_minor_units
        =ref capture p2 1.00               | recorded, with another request

        pay p3 ann bob 1.00 EUR hold=60    | authorized
        =void void p3                      | voided
        =void void p2                      | recorded, with another payment_id
        =void void p3^2                    | recorded, with another payment_id
        =void capture p3                   | recorded, with another request
        ann EUR                            | 7.00
        bob EUR                            | 2.00
        ",
    );
}

#[test]
fn a_user_keeps_a_card_once_and_may_keep_it_again() {
    check(
        "
        keep ann 8                | ! UserNotFound ann
        drop ann 8                | ! MethodNotFound ann
        enrol ann DE EUR          | enrolled
        ann cards                 |
        =first keep ann 8         | kept
        keep ann 9                | kept
        ann cards                 | 8 9
        keep ann 8                | ! MethodExists ann
        =first keep ann 8         | recorded: kept
        =first keep ann 9         | recorded, with another vault_token
        =first drop ann 8         | recorded, with another request
        =second drop ann 8        | dropped, kept by 2
        ann cards                 | 9
        drop ann 8                | ! MethodNotFound ann
        =second drop ann 8        | recorded: dropped, kept by 2
        =second drop ann 9        | recorded, with another vault_token
        =first keep ann 8         | recorded: kept
        ann cards                 | 9
        keep ann 8                | kept
        ann cards                 | 9 8
        drop ann 8                | dropped, kept by 5
        enrol bob DE              | enrolled
        keep bob 9                | kept
        ann cards                 | 9
        bob cards                 | 9
        =second drop bob 8        | recorded, with another user_id
        ",
    );
}

#[test]
fn a_user_keeps_as_many_cards_as_a_vault_does() {
    let kept: String = (1..=64).map(|card| format!("keep ann {card} | kept\n")).collect();
    check(&format!(
        "
        enrol ann DE              | enrolled
        {kept}
        keep ann 65               | ! TooManyMethods ann
        keep ann 64               | ! MethodExists ann
        drop ann 7                | dropped, kept by 8
        keep ann 65               | kept
        keep ann 7                | ! TooManyMethods ann
        "
    ));
}
