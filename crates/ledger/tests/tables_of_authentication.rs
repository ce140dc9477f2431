//! When a cardholder has to authenticate a payment by card, and when not (PSD2), as ledgers to be read: exemptions, series and trust, low risks. The notation is in
//! `support/table.rs`.

#![forbid(unsafe_code)]

mod support;

use support::table::check;

#[test]
fn five_small_payments_in_a_row_are_exempt_and_the_sixth_is_challenged() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 1.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        card p2 ann bob 1.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        # One that is declined later counts: it was exempt when the issuer was asked.
        acquirer p2 1 declines      | payment declined
        card p3 ann bob 1.00 EUR psd2=yes hold=60 | asks a, exempt by RTS Article 16
        # One that nobody is asked for does not, and neither do those that owe nothing.
        card p4 ann bob 1.00 EUR psd2=yes declined=FRAUD | declined FRAUD_DETECTED
        card p5 ann bob 1.00 EUR    | asks a
        card p6 ann bob 1.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        ann EUR                     | 0.00 exempted 4 of 4.00
        lead 0
        =p7 card p7 ann bob 1.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        =p7 card p7 ann bob 1.00 EUR psd2=yes | recorded: asks a, exempt by RTS Article 16
        ann EUR                     | 0.00 exempted 5 of 5.00
        card p8 ann bob 1.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        ann EUR                     | 0.00 exempted 5 of 5.00
        # Time alone does not begin a new row, and what comes in does not either.
        wait 1000000
        deposit ann 7.00 EUR        | deposited 7.00 EUR
        card p9 ann bob 1.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        ann EUR                     | 7.00 exempted 5 of 5.00
        ",
    );
}

#[test]
fn thirty_euros_at_once_and_a_hundred_together_are_exempt_and_no_more() {
    check(
        "
        enrol ann DE EUR,JPY        | enrolled
        enrol bob DE EUR,JPY        | enrolled
        card p1 ann bob 30.01 EUR psd2=yes | asks a, required by PSD2 Article 97
        card p2 ann bob 31.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        ann EUR                     | 0.00
        card p3 ann bob 30.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        card p4 ann bob 30.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        card p5 ann bob 30.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        card p6 ann bob 10.01 EUR psd2=yes | asks a, required by PSD2 Article 97
        ann EUR                     | 0.00 exempted 3 of 90.00
        card p7 ann bob 10.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        ann EUR                     | 0.00 exempted 4 of 100.00
        card p8 ann bob 0.01 EUR psd2=yes | asks a, required by PSD2 Article 97
        # The bounds are in euros, and nothing here converts.
        card p9 ann bob 1 JPY psd2=yes | asks a, required by PSD2 Article 97
        ann JPY                     | 0
        # Everybody has a row of their own.
        card q1 bob ann 30.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        bob EUR                     | 0.00 exempted 1 of 30.00
        ",
    );
}

#[test]
fn a_challenge_that_is_answered_begins_a_new_row_and_no_other_does() {
    check(
        "
        enrol ann DE EUR,JPY        | enrolled
        enrol bob DE EUR,JPY        | enrolled
        card p1 ann bob 20.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        card p2 ann bob 31.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        acquirer p2 1 challenge     | payment challenged
        ann EUR                     | 0.00 exempted 1 of 20.00
        # It is not answered.
        wait 900
        expire p2                   | expiry asked
        acquirer p2 2 done          | payment expired
        card p3 ann bob 31.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        acquirer p3 1 challenge     | payment challenged
        confirm p3                  | payment confirmed
        acquirer p3 2 declines      | payment declined
        card p4 ann bob 31.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        acquirer p4 1 challenge     | payment challenged
        confirm p4                  | payment confirmed
        acquirer p4 2 challenge     | payment challenged
        void p4                     | void asked
        acquirer p4 3 done          | payment voided
        # Authorized, and nobody was challenged.
        card p5 ann bob 31.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        acquirer p5 1 done          | payment authorized
        # Answered, in another currency: it is another account's.
        card p6 ann bob 500 JPY psd2=yes | asks a, required by PSD2 Article 97
        acquirer p6 1 challenge     | payment challenged
        confirm p6                  | payment confirmed
        acquirer p6 2 done          | payment authorized
        # By the issuer's own wish, where nothing is owed.
        card p7 ann bob 31.00 EUR   | asks a
        acquirer p7 1 challenge     | payment challenged
        confirm p7                  | payment confirmed
        acquirer p7 2 done          | payment authorized
        ann EUR                     | 0.00 exempted 1 of 20.00
        card p8 ann bob 31.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        acquirer p8 1 challenge     | payment challenged
        confirm p8                  | payment confirmed
        acquirer p8 2 done          | payment authorized
        ann EUR                     | 0.00
        acquirer p8 3 done          | payment captured
        ann EUR                     | 0.00
        bob EUR                     | 31.00
        # An exemption that the issuer turns down is a challenge as well.
        card p9 ann bob 5.00 EUR psd2=yes hold=60 | asks a, exempt by RTS Article 16
        ann EUR                     | 0.00 exempted 1 of 5.00
        acquirer p9 1 challenge     | payment challenged
        confirm p9                  | payment confirmed
        lead 0
        acquirer p9 2 done          | payment authorized
        ann EUR                     | 0.00
        # A closed account can be authenticated to.
        card q1 ann bob 5.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        acquirer q1 1 challenge     | payment challenged
        close ann EUR               | closed
        confirm q1                  | payment confirmed
        acquirer q1 2 done          | payment authorized
        ann EUR                     | 0.00 closed
        ",
    );
}

#[test]
fn a_payee_of_another_shard_makes_no_difference_to_what_is_exempt() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob@1 US EUR          | enrolled
        card p1 ann bob@1 30.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        acquirer p1 1 challenge     | payment challenged
        confirm p1                  | payment confirmed
        acquirer p1 2 done          | payment authorized
        acquirer p1 3 done          | payment captured
        carry 0 1                   | credited 30.00 EUR
        ann EUR                     | 0.00
        card p2 ann bob@1 30.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        ann EUR                     | 0.00 exempted 1 of 30.00
        bob@1 EUR                   | 30.00
        ",
    );
}

#[test]
fn a_series_is_authenticated_once_and_exempt_from_then_on() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        # However small, what sets a mandate up is never exempt, and does not count.
        card m1 ann bob 9.00 EUR psd2=yes mandate=recurring | asks a, required by PSD2 Article 97
        ann EUR                     | 0.00
        m1                          | pending 0.00 of 9.00 at a 1:authorize 9.00 RECURRING PENDING
        card p1 ann bob 9.00 EUR psd2=yes under=m1 | ! MandateNotAuthenticated
        acquirer m1 1 challenge     | payment challenged
        card p1 ann bob 9.00 EUR psd2=yes under=m1 | ! MandateNotAuthenticated
        confirm m1                  | payment confirmed
        card p1 ann bob 9.00 EUR psd2=yes under=m1 | ! MandateNotAuthenticated
        acquirer m1 2 done          | payment authorized
        m1                          | authorized 0.00 of 9.00 at a 3:capture 9.00 RECURRING ACTIVE
        card p1 ann bob 9.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 14
        acquirer m1 3 done          | payment captured
        lead 0
        =p2 card p2 ann bob 9.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 14
        =p2 card p2 ann bob 9.00 EUR psd2=yes under=m1 | recorded: asks a, exempt by RTS Article 14
        =p2 card p2 ann bob 9.00 EUR psd2=yes | recorded, with another card.mandate_id
        =p2 card p2 ann bob 9.00 EUR psd2=yes under=p1 | recorded, with another card.mandate_id
        =p2 card p2 ann bob 9.00 EUR psd2=yes mandate=recurring | recorded, with another card.mandate
        # However many there are: none of them counts as a low value, and none begins a new row.
        card q1 ann bob 1.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        card p3 ann bob 9.00 EUR psd2=yes under=m1 hold=60 | asks a, exempt by RTS Article 14
        acquirer p3 1 done          | payment authorized
        card p4 ann bob 9.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 14
        card p5 ann bob 9.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 14
        card p6 ann bob 9.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 14
        ann EUR                     | 0.00 exempted 1 of 1.00
        # One whose cardholder the issuer challenged all the same was authenticated.
        acquirer p4 1 challenge     | payment challenged
        confirm p4                  | payment confirmed
        acquirer p4 2 done          | payment authorized
        ann EUR                     | 0.00
        # One that nobody is asked for is under it too; one that does not fit is not made, and not declined either.
        card p7 ann bob 9.00 EUR psd2=yes under=m1 declined=FRAUD | declined FRAUD_DETECTED
        card p8 ann bob 9.01 EUR psd2=yes under=m1 declined=FRAUD | ! MandateDiffers amount.minor_units
        ",
    );
}

#[test]
fn what_a_mandate_does_not_cover_is_no_payment() {
    check(
        "
        enrol ann DE EUR,JPY        | enrolled
        enrol bob DE EUR,JPY        | enrolled
        enrol cid DE EUR            | enrolled
        enrol dan@1 US EUR          | enrolled
        card m1 ann bob 50.00 EUR psd2=yes mandate=recurring | asks a, required by PSD2 Article 97
        acquirer m1 1 challenge     | payment challenged
        confirm m1                  | payment confirmed
        acquirer m1 2 done          | payment authorized
        card m2 ann bob 50.00 EUR psd2=yes mandate=trusted | asks a, required by PSD2 Article 97
        acquirer m2 1 challenge     | payment challenged
        confirm m2                  | payment confirmed
        acquirer m2 2 done          | payment authorized
        card p1 ann bob 50.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        # The same amount, payee, currency and card.
        card q ann bob 50.01 EUR psd2=yes under=m1 | ! MandateDiffers amount.minor_units
        card q ann bob 49.99 EUR psd2=yes under=m1 | ! MandateDiffers amount.minor_units
        card q ann bob 5000 JPY psd2=yes under=m1 | ! MandateDiffers amount.currency_code
        card q ann cid 50.00 EUR psd2=yes under=m1 | ! MandateDiffers payee_id
        card q ann dan@1 50.00 EUR psd2=yes under=m1 | ! MandateDiffers payee_id
        card q ann bob 50.00 EUR psd2=yes under=m1 token=8 | ! MandateDiffers card.vault_token
        # A payee who is trusted is so for any amount.
        card p2 ann bob 5000.00 EUR psd2=yes under=m2 | asks a, exempt by RTS Article 13
        card q ann bob 5000 JPY psd2=yes under=m2 | ! MandateDiffers amount.currency_code
        card q ann cid 1.00 EUR psd2=yes under=m2 | ! MandateDiffers payee_id
        card q ann bob 1.00 EUR psd2=yes under=m2 token=8 | ! MandateDiffers card.vault_token
        # Of nobody else, and nothing else's.
        card q bob ann 50.00 EUR psd2=yes under=m1 | ! MandateNotFound
        card q cid bob 50.00 EUR psd2=yes under=m2 | ! MandateNotFound
        card q ann bob 50.00 EUR psd2=yes under=p1 | ! MandateNotFound
        card q ann bob 50.00 EUR psd2=yes under=m1^2 | ! MandateNotFound
        card q ann bob 50.00 EUR psd2=yes under=nothing | ! MandateNotFound
        cancel p1                   | ! MandateNotFound
        cancel nothing              | ! PaymentNotFound
        # Of another shard, where a payment of this number may be anything.
        card d1 dan@1 bob 50.00 EUR | asks a
        card q ann bob 50.00 EUR psd2=yes under=d1 | ! MandateNotFound
        ann EUR                     | 0.00
        bob EUR                     | 0.00
        ",
    );
}

#[test]
fn a_mandate_ends_with_its_payment_or_when_its_payer_says_so() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        # It is declined, or its cardholder is not authenticated.
        card m1 ann bob 50.00 EUR psd2=yes mandate=recurring | asks a, required by PSD2 Article 97
        acquirer m1 1 declines      | payment declined
        m1                          | declined 0.00 of 50.00 at a CARD_DECLINED RECURRING ENDED
        card q ann bob 50.00 EUR psd2=yes under=m1 | ! MandateEnded
        cancel m1                   | ! MandateEnded
        card m2 ann bob 50.00 EUR psd2=yes mandate=trusted | asks a, required by PSD2 Article 97
        acquirer m2 1 done          | payment authorized
        m2                          | authorized 0.00 of 50.00 at a 2:capture 50.00 TRUSTED_PAYEE NOT_AUTHENTICATED
        card q ann bob 50.00 EUR psd2=yes under=m2 | ! MandateNotAuthenticated
        card m3 ann bob 50.00 EUR psd2=yes mandate=trusted | asks a, required by PSD2 Article 97
        acquirer m3 1 challenge     | payment challenged
        wait 900
        expire m3                   | expiry asked
        acquirer m3 2 done          | payment expired
        card q ann bob 50.00 EUR psd2=yes under=m3 | ! MandateEnded
        # Nobody is asked: it was never there.
        card m4 ann bob 50.00 EUR psd2=yes mandate=trusted declined=FRAUD | declined FRAUD_DETECTED
        card q ann bob 50.00 EUR psd2=yes under=m4 | ! MandateEnded
        # It is voided, also while that is asked for; or its time runs out.
        card m5 ann bob 50.00 EUR psd2=yes mandate=trusted hold=60 | asks a, required by PSD2 Article 97
        acquirer m5 1 challenge     | payment challenged
        confirm m5                  | payment confirmed
        acquirer m5 2 done          | payment authorized
        card p5 ann bob 50.00 EUR psd2=yes under=m5 | asks a, exempt by RTS Article 13
        void m5                     | void asked
        card q ann bob 50.00 EUR psd2=yes under=m5 | ! MandateEnded
        acquirer m5 3 done          | payment voided
        card q ann bob 50.00 EUR psd2=yes under=m5 | ! MandateEnded
        card m6 ann bob 50.00 EUR psd2=yes mandate=trusted hold=60 | asks a, required by PSD2 Article 97
        acquirer m6 1 challenge     | payment challenged
        confirm m6                  | payment confirmed
        acquirer m6 2 done          | payment authorized
        wait 60
        expire m6                   | expiry asked
        card q ann bob 50.00 EUR psd2=yes under=m6 | ! MandateEnded
        acquirer m6 3 done          | payment expired
        # A refund is another payment: the series was authenticated, and goes on.
        card m7 ann bob 50.00 EUR psd2=yes mandate=recurring | asks a, required by PSD2 Article 97
        acquirer m7 1 challenge     | payment challenged
        confirm m7                  | payment confirmed
        acquirer m7 2 done          | payment authorized
        acquirer m7 3 done          | payment captured
        refund m7                   | refund asked
        acquirer m7 4 done          | refund completed
        m7                          | captured 50.00 of 50.00 refunded 50.00 at a RECURRING ACTIVE
        card p7 ann bob 50.00 EUR psd2=yes under=m7 | asks a, exempt by RTS Article 14
        # Its payer ends it, also before it began and while something else is asked for. What was asked for before goes on.
        =c7 cancel m7               | mandate cancelled
        =c7 cancel m7               | recorded: mandate cancelled
        =c7 cancel p5               | recorded, with another payment_id
        =c7 void m7                 | recorded, with another request
        cancel m7                   | ! MandateCancelled
        m7                          | captured 50.00 of 50.00 refunded 50.00 at a RECURRING CANCELLED
        card q ann bob 50.00 EUR psd2=yes under=m7 | ! MandateCancelled
        acquirer p7 1 done          | payment authorized
        card m8 ann bob 50.00 EUR psd2=yes mandate=recurring | asks a, required by PSD2 Article 97
        acquirer m8 1 challenge     | payment challenged
        confirm m8                  | payment confirmed
        cancel m8                   | mandate cancelled
        acquirer m8 2 done          | payment authorized
        m8                          | authorized 0.00 of 50.00 at a 3:capture 50.00 RECURRING CANCELLED
        card q ann bob 50.00 EUR psd2=yes under=m8 | ! MandateCancelled
        # The payee cannot be credited: it is let go of, or goes back.
        card m9 ann bob 50.00 EUR psd2=yes mandate=trusted | asks a, required by PSD2 Article 97
        acquirer m9 1 challenge     | payment challenged
        confirm m9                  | payment confirmed
        acquirer m9 2 done          | payment authorized
        close bob EUR               | closed
        acquirer m9 3 done          | capture returned
        m9                          | returned 50.00 of 50.00 at a 4:refund 50.00 PAYEE_ACCOUNT_CLOSED TRUSTED_PAYEE ENDED
        card q ann bob 50.00 EUR psd2=yes under=m9 | ! MandateEnded
        ",
    );
}

#[test]
fn what_is_reported_as_fraud_sets_nothing_up() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card m1 ann bob 1.00 EUR psd2=yes mandate=trusted | asks a, required by PSD2 Article 97
        acquirer m1 1 challenge     | payment challenged
        confirm m1                  | payment confirmed
        acquirer m1 2 done          | payment authorized
        acquirer m1 3 done          | payment captured
        card p1 ann bob 900.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 13
        report m1                   | fraud reported
        m1                          | captured 1.00 of 1.00 at a TRUSTED_PAYEE ENDED
        card q ann bob 900.00 EUR psd2=yes under=m1 | ! MandateEnded
        cancel m1                   | ! MandateEnded
        ",
    );
}

#[test]
fn where_nothing_is_owed_a_mandate_stands_once_it_is_authorized() {
    check(
        "
        enrol ann US EUR            | enrolled
        enrol bob@1 US EUR          | enrolled
        card m1 ann bob@1 9.00 EUR mandate=recurring | asks a
        acquirer m1 1 done          | payment authorized
        m1                          | authorized 0.00 of 9.00 at a 2:capture 9.00 RECURRING ACTIVE
        card p1 ann bob@1 9.00 EUR under=m1 | asks a
        # It was given without authentication, and exempts from none once that is owed.
        card q ann bob@1 9.00 EUR psd2=yes under=m1 | ! MandateNotAuthenticated
        # The payee's shard sends the money back: the series has no payee.
        acquirer m1 2 done          | payment captured
        close bob@1 EUR             | closed
        card p2 ann bob@1 9.00 EUR under=m1 | asks a
        carry 0 1                   | bounced 9.00 EUR PAYEE_ACCOUNT_CLOSED
        carry 1 0                   | returned 9.00
        m1                          | returned 9.00 of 9.00 at a 3:refund 9.00 PAYEE_ACCOUNT_CLOSED RECURRING ENDED
        card q ann bob@1 9.00 EUR under=m1 | ! MandateEnded
        ",
    );
}

#[test]
fn an_exemption_that_the_issuer_declines_is_asked_for_again_once_with_a_challenge() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card p1 ann bob 5.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        acquirer p1 1 wants         | exemption refused
        p1                          | pending 0.00 of 5.00 at a 2:authorize 5.00 PSD2 Article 97 after RTS Article 16
        acquirer p1 1 wants         | ! NothingNew
        # It was exempt when the issuer was asked: it counts until somebody is authenticated.
        ann EUR                     | 0.00 exempted 1 of 5.00
        lead 0
        acquirer p1 2 challenge     | payment challenged
        confirm p1                  | payment confirmed
        acquirer p1 3 done          | payment authorized
        ann EUR                     | 0.00
        acquirer p1 4 done          | payment captured
        p1                          | captured 5.00 of 5.00 at a PSD2 Article 97 after RTS Article 16
        # Once: then it is declined, and so is one that was challenged from the start, or whose issuer challenged.
        card p2 ann bob 5.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        acquirer p2 1 wants         | exemption refused
        acquirer p2 2 wants         | payment declined
        p2                          | declined 0.00 of 5.00 at a AUTHENTICATION_FAILED PSD2 Article 97 after RTS Article 16
        card p3 ann bob 50.00 EUR psd2=yes | asks a, required by PSD2 Article 97
        acquirer p3 1 wants         | payment declined
        p3                          | declined 0.00 of 50.00 at a AUTHENTICATION_FAILED
        card p4 ann bob 5.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        acquirer p4 1 challenge     | payment challenged
        confirm p4                  | payment confirmed
        acquirer p4 2 wants         | payment declined
        # Where nothing is owed, the issuer may want it all the same, by no article.
        card p5 ann bob 5.00 EUR    | asks a
        acquirer p5 1 wants         | exemption refused
        p5                          | pending 0.00 of 5.00 at a 2:authorize 5.00 required after NOT_REQUIRED
        acquirer p5 2 declines      | payment declined
        # The next gateway is asked with a challenge as well.
        card p6 ann bob 5.00 EUR psd2=yes | asks a, exempt by RTS Article 16
        acquirer p6 1 wants         | exemption refused
        acquirer p6 2 left          | gateway left
        p6                          | pending 0.00 of 5.00 at b 2:authorize 5.00 PSD2 Article 97 after RTS Article 16
        acquirer p6 2 done          | payment authorized
        # Nothing but an authorization wants a cardholder.
        acquirer p6 3 wants         | ! Implausible an acquirer's word that does not answer what it was asked for
        ",
    );
}

#[test]
fn a_trusted_payees_payer_is_there_to_be_challenged_and_that_of_a_series_is_not() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card m1 ann bob 50.00 EUR psd2=yes mandate=trusted | asks a, required by PSD2 Article 97
        acquirer m1 1 challenge     | payment challenged
        confirm m1                  | payment confirmed
        acquirer m1 2 done          | payment authorized
        card m2 ann bob 50.00 EUR psd2=yes mandate=recurring | asks a, required by PSD2 Article 97
        acquirer m2 1 challenge     | payment challenged
        confirm m2                  | payment confirmed
        acquirer m2 2 done          | payment authorized
        card p1 ann bob 50.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 13
        acquirer p1 1 wants         | exemption refused
        p1                          | pending 0.00 of 50.00 at a 2:authorize 50.00 PSD2 Article 97 after RTS Article 13
        acquirer p1 2 challenge     | payment challenged
        confirm p1                  | payment confirmed
        acquirer p1 3 done          | payment authorized
        card p2 ann bob 50.00 EUR psd2=yes under=m2 | asks a, exempt by RTS Article 14
        acquirer p2 1 wants         | payment declined
        p2                          | declined 0.00 of 50.00 at a AUTHENTICATION_FAILED
        card p3 ann bob 50.00 EUR under=m2 | asks a
        acquirer p3 1 wants         | payment declined
        # Neither ends the mandate.
        card p4 ann bob 50.00 EUR psd2=yes under=m1 | asks a, exempt by RTS Article 13
        card p5 ann bob 50.00 EUR psd2=yes under=m2 | asks a, exempt by RTS Article 14
        # What sets one up where nothing is owed, and is then challenged at its issuer's wish.
        card m3 ann bob 5.00 EUR mandate=recurring | asks a
        acquirer m3 1 wants         | exemption refused
        acquirer m3 2 done          | payment authorized
        m3                          | authorized 0.00 of 5.00 at a 3:capture 5.00 required after NOT_REQUIRED RECURRING NOT_AUTHENTICATED
        card m4 ann bob 5.00 EUR mandate=recurring | asks a
        acquirer m4 1 wants         | exemption refused
        acquirer m4 2 challenge     | payment challenged
        confirm m4                  | payment confirmed
        acquirer m4 3 done          | payment authorized
        m4                          | authorized 0.00 of 5.00 at a 4:capture 5.00 required after NOT_REQUIRED RECURRING ACTIVE
        ",
    );
}

#[test]
fn low_risks_are_exempt_up_to_the_largest_threshold_whose_reference_rate_the_fraud_does_not_exceed() {
    check(
        "
        enrol ann DE EUR,JPY        | enrolled
        enrol bob DE EUR,JPY        | enrolled
        card p1 ann bob 10_000.00 EUR | asks a
        acquirer p1 1 done          | payment authorized
        counted 0                   | 0.00 in 0, fraud 0.00 in 0
        acquirer p1 2 done          | payment captured
        counted 0                   | 10000.00 in 1, fraud 0.00 in 0
        days 90
        # No fraud: all of 500 EUR, and not a cent more. What goes before is the low value.
        card q1 ann bob 30.00 EUR psd2=yes score=0.2 exempt=500.00/90 | asks a, exempt by RTS Article 16
        card q2 ann bob 30.01 EUR psd2=yes score=0.2 exempt=500.00/90 | asks a, exempt by RTS Article 18
        ann EUR                     | 0.00 exempted 1 of 30.00
        card q3 ann bob 500.00 EUR psd2=yes score=0.2 exempt=500.00/90 | asks a, exempt by RTS Article 18
        card q4 ann bob 500.01 EUR psd2=yes score=0.2 exempt=500.00/90 | asks a, required by PSD2 Article 97
        card q4 ann bob 500.01 EUR psd2=yes score=0.2 exempt=900.00/90 | asks a, required by PSD2 Article 97
        # No more than the zone says, and not at all where it says nothing.
        card q5 ann bob 250.00 EUR psd2=yes score=0.2 exempt=250.00/90 | asks a, exempt by RTS Article 18
        card q6 ann bob 250.01 EUR psd2=yes score=0.2 exempt=250.00/90 | asks a, required by PSD2 Article 97
        card q7 ann bob 100.00 EUR psd2=yes score=0.2 | asks a, required by PSD2 Article 97
        card q8 ann bob 100.00 EUR score=0.2 exempt=500.00/90 | asks a
        # A score above, a payment that is to be looked at, one without a score, one that nobody asked about.
        card r1 ann bob 100.00 EUR psd2=yes score=0.2001 exempt=500.00/90 | asks a, required by PSD2 Article 97
        card r2 ann bob 100.00 EUR psd2=yes score=0.1 review=yes exempt=500.00/90 | asks a, required by PSD2 Article 97
        card r3 ann bob 100.00 EUR psd2=yes score=none exempt=500.00/90 | asks a, required by PSD2 Article 97
        card r4 ann bob 100.00 EUR psd2=yes exempt=500.00/90 | asks a, required by PSD2 Article 97
        # The thresholds are in euros.
        card r5 ann bob 100 JPY psd2=yes score=0.1 exempt=500.00/90 | asks a, required by PSD2 Article 97
        card r6 ann bob 100.00 EUR psd2=yes score=0.1 exempt=500.00/90 declined=FRAUD | declined FRAUD_DETECTED
        ",
    );
}

#[test]
fn a_fraud_rate_exactly_at_the_reference_is_within_it_and_one_cent_more_is_not() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card f1 ann bob 1.00 EUR    | asks a
        acquirer f1 1 done          | payment authorized
        acquirer f1 2 done          | payment captured
        card f2 ann bob 0.01 EUR    | asks a
        acquirer f2 1 done          | payment authorized
        acquirer f2 2 done          | payment captured
        card f3 ann bob 4.99 EUR    | asks a
        acquirer f3 1 done          | payment authorized
        acquirer f3 2 done          | payment captured
        card f4 ann bob 0.01 EUR    | asks a
        acquirer f4 1 done          | payment authorized
        acquirer f4 2 done          | payment captured
        card f5 ann bob 6.99 EUR    | asks a
        acquirer f5 1 done          | payment authorized
        acquirer f5 2 done          | payment captured
        card f6 ann bob 0.01 EUR    | asks a
        acquirer f6 1 done          | payment authorized
        acquirer f6 2 done          | payment captured
        card p1 ann bob 9_986.99 EUR | asks a
        acquirer p1 1 done          | payment authorized
        acquirer p1 2 done          | payment captured
        days 1
        # 0.01 % of 10,000 EUR, which is 1.00 EUR.
        report f1                   | fraud reported
        counted 0                   | 10000.00 in 7, fraud 1.00 in 1
        card q1 ann bob 500.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, exempt by RTS Article 18
        report f2                   | fraud reported
        card q2 ann bob 500.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        card q3 ann bob 250.01 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        card q4 ann bob 250.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, exempt by RTS Article 18
        # 0.06 %: 6.00 EUR.
        report f3                   | fraud reported
        counted 0                   | 10000.00 in 7, fraud 6.00 in 3
        card q5 ann bob 250.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, exempt by RTS Article 18
        report f4                   | fraud reported
        card q6 ann bob 250.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        card q7 ann bob 100.01 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        card q8 ann bob 100.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, exempt by RTS Article 18
        # 0.13 %: 13.00 EUR.
        report f5                   | fraud reported
        counted 0                   | 10000.00 in 7, fraud 13.00 in 5
        card r1 ann bob 100.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, exempt by RTS Article 18
        report f6                   | fraud reported
        counted 0                   | 10000.00 in 7, fraud 13.01 in 6
        card r2 ann bob 30.01 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        # What is refunded is fraud all the same.
        refund f1                   | refund asked
        acquirer f1 3 done          | refund completed
        counted 0                   | 10000.00 in 7, fraud 13.01 in 6
        # A little more that is captured, and it is within again.
        card p2 ann bob 7.69 EUR    | asks a
        acquirer p2 1 done          | payment authorized
        acquirer p2 2 done          | payment captured
        counted 0                   | 10007.69 in 8, fraud 13.01 in 6
        card r3 ann bob 30.01 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        card p3 ann bob 0.01 EUR    | asks a
        acquirer p3 1 done          | payment authorized
        acquirer p3 2 done          | payment captured
        card r4 ann bob 30.01 EUR psd2=yes score=0 exempt=500.00/1 | asks a, exempt by RTS Article 18
        ",
    );
}

#[test]
fn what_was_captured_and_what_was_fraud_counts_for_ninety_days_each_from_its_own_day() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob DE EUR            | enrolled
        card q1 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/0 | asks a, required by PSD2 Article 97
        card p1 ann bob 100.00 EUR  | asks a
        acquirer p1 1 done          | payment authorized
        days 7
        acquirer p1 2 done          | payment captured
        # No history is needed here, but something that was captured.
        card q2 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/0 | asks a, exempt by RTS Article 18
        card q3 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/1 | asks a, required by PSD2 Article 97
        days 10
        lead 0
        report p1                   | fraud reported
        counted 0                   | 100.00 in 1, fraud 100.00 in 1
        days 79
        card p2 ann bob 50.00 EUR   | asks a
        acquirer p2 1 done          | payment authorized
        acquirer p2 2 done          | payment captured
        # 89 days after the first capture.
        card q4 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/90 | asks a, required by PSD2 Article 97
        counted 0                   | 150.00 in 2, fraud 100.00 in 1
        days 1
        counted 0                   | 150.00 in 2, fraud 100.00 in 1
        days 1
        counted 0                   | 50.00 in 1, fraud 100.00 in 1
        card q5 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/90 | asks a, required by PSD2 Article 97
        days 9
        counted 0                   | 50.00 in 1, fraud 100.00 in 1
        days 1
        counted 0                   | 50.00 in 1, fraud 0.00 in 0
        # The history is as long as it is, whatever has left the window.
        card q6 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/101 | asks a, exempt by RTS Article 18
        card q7 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/102 | asks a, required by PSD2 Article 97
        days 80
        counted 0                   | 0.00 in 0, fraud 0.00 in 0
        card q8 ann bob 50.00 EUR psd2=yes score=0 exempt=500.00/90 | asks a, required by PSD2 Article 97
        ",
    );
}

#[test]
fn fraud_is_reported_once_and_of_what_was_taken_from_a_card() {
    check(
        "
        enrol ann DE EUR,JPY        | enrolled
        enrol bob DE EUR,JPY        | enrolled
        deposit ann 10.00 EUR       | deposited 10.00 EUR
        report p0                   | ! PaymentNotFound
        pay w1 ann bob 1.00 EUR     | paid
        report w1                   | ! NothingCaptured
        card p1 ann bob 10.00 EUR hold=60 | asks a
        report p1                   | ! NothingCaptured
        acquirer p1 1 done          | payment authorized
        report p1                   | ! NothingCaptured
        capture p1 4.00             | capture asked
        report p1                   | ! NothingCaptured
        acquirer p1 2 done          | payment captured
        report p1^2                 | ! PaymentNotFound
        counted 0                   | 4.00 in 1, fraud 0.00 in 0
        # Whatever is going on: it is the whole of what was taken.
        refund p1 1.00              | refund asked
        =f1 report p1               | fraud reported
        =f1 report p1               | recorded: fraud reported
        =f1 refund p1 1.00          | recorded, with another request
        report p1                   | ! FraudReported
        acquirer p1 3 done          | refund completed
        p1                          | captured 4.00 of 10.00 refunded 1.00 at a
        report p1                   | ! FraudReported
        counted 0                   | 4.00 in 1, fraud 4.00 in 1
        card p2 ann bob 10.00 EUR   | asks a
        acquirer p2 1 declines      | payment declined
        report p2                   | ! NothingCaptured
        =f1 report p2               | recorded, with another payment_id
        # It was taken, and went back because there was no payee any more.
        card p3 ann bob 10.00 EUR   | asks a
        acquirer p3 1 done          | payment authorized
        withdraw bob 4.00 EUR       | withdrawn 4.00 EUR
        close bob EUR               | closed
        acquirer p3 2 done          | capture returned
        report p3                   | fraud reported
        counted 0                   | 14.00 in 2, fraud 14.00 in 2
        # In another currency it is noted and counts nowhere.
        card p4 ann bob 500 JPY     | asks a
        acquirer p4 1 done          | payment authorized
        acquirer p4 2 done          | payment captured
        report p4                   | fraud reported
        report p4                   | ! FraudReported
        counted 0                   | 14.00 in 2, fraud 14.00 in 2
        ",
    );
}

#[test]
fn a_payee_of_another_shard_makes_no_difference_to_where_fraud_counts() {
    check(
        "
        enrol ann DE EUR            | enrolled
        enrol bob@1 US EUR          | enrolled
        card p1 ann bob@1 40.00 EUR | asks a
        acquirer p1 1 done          | payment authorized
        acquirer p1 2 done          | payment captured
        report p1                   | fraud reported
        counted 0                   | 40.00 in 1, fraud 40.00 in 1
        counted 1                   | 0.00 in 0, fraud 0.00 in 0
        carry 0 1                   | credited 40.00 EUR
        ",
    );
}
