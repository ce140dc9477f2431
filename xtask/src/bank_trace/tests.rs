use super::*;

const HEADER: &str = "seq,date,txn_id,account_id,operation,amount_czk,balance_after_czk,bank,counter_account\n";

fn read(rows: &str) -> Result<Trace> {
    Trace::read(format!("{HEADER}{rows}").as_bytes())
}

fn submit(trace: &Trace) -> String {
    let mut bytes = Vec::new();
    trace.write_submit(&mut bytes).expect("memory takes everything");
    String::from_utf8(bytes).expect("the file is UTF-8")
}

fn lines(trace: &Trace, account: u64) -> Vec<(u64, i64, i64)> {
    trace.accounts[&account].expected.iter().map(|line| (line.line, line.amount, line.balance)).collect()
}

fn refusal(rows: &str) -> String {
    format!("{:#}", read(rows).expect_err("the trace is wrong"))
}

#[test]
fn the_sign_of_the_amount_says_which_way_money_went() {
    let trace = read("1,1993-01-01,a1,7,cash_deposit,600.00,600.00,,\n2,1993-01-02,a2,7,robbery,-14.60,585.40,,\n").expect("a good trace");
    assert_eq!(lines(&trace, 7), [(2, 60_000, 60_000), (3, -1_460, 58_540)]);
    assert_eq!(trace.unknown_operations.get("robbery"), Some(&1));
    let (country, via) = place(7);
    assert_eq!(
        submit(&trace),
        format!(
            "id,kind,user,counterparty,amount,currency,country,via,reference\n\
             enrol-7,enrol,7,,,CZK,{country},{via},\n\
             txn-a1,deposit,7,,600.00,CZK,,{via},1993-01-01 cash_deposit\n\
             txn-a2,withdrawal,7,,14.60,CZK,,{via},1993-01-02 robbery\n"
        )
    );
    assert_eq!(trace.submit_lines(), 3);
}

#[test]
fn byte_order_mark_crlf_quotes_and_reordered_columns_are_taken() {
    let text = "\u{feff}\"account_id\",seq,date,txn_id,operation,amount_czk,balance_after_czk,bank,counter_account\r\n\
                7,1,1993-01-01,a1,\"fee, \"\"odd\"\"\r\nindeed\",+1.5,1.50,\"A\",\"\"\r\n\r\n7,2,1993-01-02,a2,fee,1,2.500,,\r\n";
    let trace = Trace::read(text.as_bytes()).expect("a good trace");
    assert_eq!(lines(&trace, 7), [(2, 150, 150), (5, 100, 250)]);
    assert!(submit(&trace).contains("\"1993-01-01 fee, \"\"odd\"\"indeed\""), "{}", submit(&trace));
}

#[test]
fn zero_rows_are_left_out_and_counted() {
    let trace = read("1,,a1,7,x,0.00,0.00,,\n2,,a2,7,x,5.00,5.00,,\n3,,a3,7,x,-0.00,5.00,,\n").expect("a good trace");
    assert_eq!((trace.rows, trace.zero_rows), (3, 2));
    assert_eq!(lines(&trace, 7), [(3, 500, 500)]);
}

#[test]
fn money_from_before_the_trace_is_carried_forward() {
    let trace = read("1,,a1,7,x,-5.00,95.00,,\n").expect("a good trace");
    assert_eq!(lines(&trace, 7), [(0, 10_000, 10_000), (2, -500, 9_500)]);
    assert!(submit(&trace).contains("\nopening-7,deposit,7,,100.00,CZK,,"));
}

#[test]
fn an_overdrawn_account_is_covered_and_its_balances_differ_by_the_cover_alone() {
    let trace = read("1,,a1,7,x,10.00,10.00,,\n2,,a2,7,x,-30.00,-20.00,,\n3,,a3,7,x,50.00,30.00,,\n").expect("a good trace");
    assert_eq!(trace.accounts[&7].cover, 2_000);
    assert_eq!(lines(&trace, 7), [(0, 2_000, 2_000), (2, 1_000, 3_000), (3, -3_000, 0), (4, 5_000, 5_000)]);
    // In debt from the start: the deposit brings the account to what lets the lowest row pass.
    let trace = read("1,,a1,7,x,10.00,-40.00,,\n").expect("a good trace");
    assert_eq!(lines(&trace, 7), [(2, 1_000, 1_000)]);
    assert_eq!((trace.accounts[&7].opening, trace.accounts[&7].cover), (-5_000, 5_000));
}

#[test]
fn a_trace_that_contradicts_itself_is_named_once_for_each_gap() {
    let trace =
        read("1,,a1,7,x,10.00,10.00,,\n2,,a2,7,x,5.00,16.00,,\n3,,a3,7,x,1.00,17.00,,\n4,,a4,7,x,1.00,17.00,,\n").expect("readable");
    let found: Vec<_> = trace.contradictions.iter().map(|gap| (gap.line, gap.gap)).collect();
    assert_eq!(found, [(3, 100), (5, -100)]);
    assert_eq!(lines(&trace, 7).last(), Some(&(5, 100, 1_700)));
}

#[test]
fn a_wrong_row_is_refused_by_line_and_column() {
    for (rows, wanted) in [
        ("x,,a1,7,x,1,1,,\n", "line 2, seq: a whole number is needed, not `x`"),
        ("1,,a1,0,x,1,1,,\n", "line 2, account_id: "),
        ("1,,a1,9223372036854775808,x,1,1,,\n", "line 2, account_id: "),
        ("1,,a1,7,x,1e3,1,,\n", "line 2, amount_czk: a decimal such as -14.60 is needed, not `1e3`"),
        ("1,,a1,7,x,,1,,\n", "line 2, amount_czk: "),
        ("1,,a1,7,x,NaN,1,,\n", "line 2, amount_czk: "),
        ("1,,a1,7,x,1.005,1,,\n", "line 2, amount_czk: CZK has 2 digits after the point"),
        ("1,,a1,7,x,1,10000000000000.01,,\n", "line 2, balance_after_czk: `10000000000000.01` passes the bound"),
        ("1,,a1,7,x,1,79228162514264337593543950336,,\n", "line 2, balance_after_czk: "),
        ("1,,,7,x,1,1,,\n", "line 2, txn_id: "),
        ("1,,a 1,7,x,1,1,,\n", "line 2, txn_id: "),
        ("1,,a1,7,x,1,1,,\n1,,a2,8,x,1,1,,\n", "line 3, seq: 1 is also on line 2"),
        ("1,,a1,7,x,1,1,,\n2,,a1,8,x,1,1,,\n", "line 3, txn_id: a1 is also on line 2"),
        ("5,,a1,7,x,1,1,,\n4,,a2,7,x,1,2,,\n", "line 3, seq: rows of account 7 are out of order: 4 comes after 5 of line 2"),
        ("1,,a1,7,x,1,1,,\n2,,a2,7,x,1\n", "line 3: 6 fields, the header has 9"),
        ("1,,a1,7,x,9000000000000,9000000000000,,\n2,,a2,7,x,9000000000000,0,,\n", "line 3: the balance of account 7 passes"),
        ("", "the trace has no rows"),
    ] {
        let error = refusal(rows);
        assert!(error.starts_with(wanted), "{rows:?} gave: {error}");
    }
    let error = format!("{:#}", Trace::read(&b"seq,date\n"[..]).expect_err("columns are missing"));
    assert!(error.starts_with("line 1: no column `txn_id`"), "{error}");
    let mut bytes = HEADER.as_bytes().to_vec();
    bytes.extend_from_slice(b"1,,a1,7,caf\xe9,1,1,,\n");
    let error = format!("{:#}", Trace::read(&bytes[..]).expect_err("not UTF-8"));
    assert_eq!(error, "line 2, operation: not UTF-8");
}

#[test]
fn lines_are_counted_right_after_crlf_and_blank_lines() {
    let error = refusal("1,,a1,7,x,1,1,,\r\n\r\n\n2,,a2,7,x,1,wrong,,\r\n");
    assert!(error.starts_with("line 5, balance_after_czk: "), "{error}");
    let error = refusal("1,,a1,7,x,1,1,,\r\n\r\n2,,a2,7,x,1\r\n");
    assert!(error.starts_with("line 4: 6 fields"), "{error}");
}

#[test]
fn rows_of_different_accounts_may_be_grouped() {
    let trace = read("3,,a3,9,x,1,1,,\n4,,a4,9,x,1,2,,\n1,,a1,7,x,1,1,,\n").expect("each account is in order");
    assert_eq!(lines(&trace, 9), [(2, 100, 100), (3, 100, 200)]);
}

#[test]
fn references_stay_within_the_mesh_bound() {
    let reference = reference("1993-01-01", &"ž".repeat(200));
    assert!(reference.len() <= REFERENCE_BYTES_MAX && reference.ends_with('ž'));
}

#[test]
fn a_statement_that_differs_is_told_line_by_line() {
    let trace = read("1,,a1,7,x,10.00,10.00,,\n2,,a2,7,x,-3.00,7.00,,\n").expect("a good trace");
    assert_eq!(trace.compare(7, &[(1_000, 1_000), (-300, 700)]), []);
    let wrong = trace.compare(7, &[(1_000, 1_001)]);
    assert_eq!(wrong.len(), 2);
    assert_eq!(
        wrong[0].to_string(),
        "account 7, statement line 1: trace line 2 has 10.00, balance 10.00; the mesh has 10.00, balance 10.01"
    );
    assert_eq!(wrong[1].to_string(), "account 7, statement line 2: trace line 3 has -3.00, balance 7.00; the mesh has no such line");
    assert_eq!(trace.compare(8, &[(1, 1)]).len(), 1);
}

#[test]
fn accounts_spread_over_both_zones_and_all_entry_regions() {
    for country in COUNTRIES.as_flattened() {
        for via in ENTRY_REGIONS {
            assert!((1..=1_000).any(|account| place(account) == (country, via)), "{country} via {via}");
        }
    }
}

#[test]
fn transfers_are_payments_between_zones_in_waves_that_wait_for_what_comes_in() {
    let trace = read(
        "1,1993-01-01,a1,7,cash_deposit,10.00,10.00,,\n\
         2,1993-01-02,a2,7,transfer_to_bank,-4.00,6.00,AB,99\n\
         3,1993-01-03,a3,7,transfer_from_bank,5.00,11.00,AB,99\n\
         4,1993-01-04,a4,7,cash_withdrawal,-11.00,0.00,,0\n\
         5,1993-01-05,a5,8,transfer_from_bank,1.00,1.00,CD,99\n",
    )
    .expect("a good trace");
    // Account 7's own line of the statement reads the same, whatever moved the money.
    assert_eq!(lines(&trace, 7), [(2, 1_000, 1_000), (3, -400, 600), (4, 500, 1_100), (5, -1_100, 0)]);
    let [first, second] = [COUNTER_USERS_FROM, COUNTER_USERS_FROM + 1];
    let counters: Vec<_> = trace.counters().iter().map(|(id, counter)| (*id, counter.pays, counter.gets, counter.transfers)).collect();
    assert_eq!(counters, [(first, 500, 400, 2), (second, 100, 0, 1)]);
    let wave = |number| {
        let mut bytes = Vec::new();
        trace.write_wave(number, &mut bytes).expect("memory takes everything");
        String::from_utf8(bytes).expect("the file is UTF-8")
    };
    assert_eq!(trace.waves(), 2);
    let (seventh, eighth) = (place(7).1, place(8).1);
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("txn-")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        rows(&wave(0)),
        [
            format!("txn-a1,deposit,7,,10.00,CZK,,{seventh},1993-01-01 cash_deposit"),
            format!("txn-a2,payment,7,{first},4.00,CZK,,{seventh},1993-01-02 transfer_to_bank"),
            format!("txn-a3,payment,{first},7,5.00,CZK,,{seventh},1993-01-03 transfer_from_bank"),
            format!("txn-a5,payment,{second},8,1.00,CZK,,{eighth},1993-01-05 transfer_from_bank"),
        ]
    );
    assert_eq!(rows(&wave(1)), [format!("txn-a4,withdrawal,7,,11.00,CZK,,{seventh},1993-01-04 cash_withdrawal")]);
    assert!(wave(0).contains(&format!("opening-{first},deposit,{first},,5.00,CZK,,")));
    // In the other zone than the account.
    for (account, counter) in [(7, first), (8, second)] {
        let enrolment = wave(0).lines().find(|line| line.starts_with(&format!("enrol-{counter},"))).map(str::to_owned).expect("enrolled");
        let country = enrolment.split(',').nth(6).expect("a country").to_owned();
        assert!(!COUNTRIES[zone(account)].contains(&country.as_str()), "{enrolment}");
    }
    // As one file, everything is a deposit or a withdrawal, and there are no other users.
    assert!(!submit(&trace).contains("payment") && trace.submit_lines() == 7);
}
