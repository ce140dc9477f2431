//! `paymesh submit` against a running mesh.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use paymesh_contract::wallet::v1::GetStatementRequest;

use crate::support::{FOUR_REGIONS, ONE_REGION, TestMesh, signal, wait_within};

const HEADER: &str = "id,kind,user,counterparty,amount,currency,country,via,reference\n";

fn report(mesh: &TestMesh, name: &str) -> serde_json::Value {
    let path = mesh.config().parent().unwrap().join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_good_file_is_done_and_submitting_it_again_changes_nothing() {
    let mesh = TestMesh::started(FOUR_REGIONS);
    let file = mesh.file(
        "good.csv",
        format!(
            "{HEADER}1,enrol,10,,,EUR;JPY,DE,us_west,\n2,enrol,11,,,EUR,FR,asia_pacific,\n3,enrol,20,,,EUR,US,eu_west,\n\
             4,deposit,10,,100.00,EUR,,us_east,\"salary, May\"\n5,deposit,20,,50,EUR,,eu_west,\n6,deposit,10,,500,JPY,,,\n\
             7,payment,10,11,12.34,EUR,,asia_pacific,rent\n8,transfer,20,10,1.00,EUR,,us_west,\n9,withdrawal,11,,2.34,EUR,,us_east,\n"
        ),
    );
    let json = file.with_extension("json");
    let args = ["submit", "--json", json.to_str().unwrap(), file.to_str().unwrap()];
    // 9 takes money that 7 brought: if 11 is at another shard than 10, it is there a moment later.
    let first = mesh.run(&args);
    let tally = report(&mesh, "good.json");
    assert_eq!(tally["failed"], 0, "{first:?}");
    assert_eq!(tally["accepted"].as_u64().unwrap() + tally["declined"].as_u64().unwrap(), 9, "{first:?}");
    assert_eq!(first.code, 0, "{first:?}");

    let heads = mesh.heads();
    let elsewhere = mesh.file("a-copy-of-it.csv", fs::read(&file).unwrap());
    let again = mesh.run(&["submit", "--json", json.to_str().unwrap(), elsewhere.to_str().unwrap()]);
    assert_eq!(again.code, 0, "{again:?}");
    let tally = report(&mesh, "good.json");
    assert_eq!((tally["accepted"].as_u64(), tally["replays"].as_u64()), (Some(0), Some(9)), "{again:?}");
    assert_eq!(mesh.heads(), heads, "nothing was written");
    mesh.assert_books();
}

#[test]
fn bad_lines_are_reported_with_number_and_reason_and_the_rest_goes_on() {
    let mesh = TestMesh::started(ONE_REGION);
    let mut text = format!(
        "\u{feff}{HEADER}1,enrol,10,,,EUR,DE,,\n2,enrol,11,,,EUR,DE,,\n3,deposit,10,,1.234,EUR,,,\n4,deposit,10,,1,EURO,,,\n\
         5,payment,10,10,1,EUR,,,\n6,payment,10,11,1,EUR,,atlantis,\n7,gift,10,,1,EUR,,,\n8,deposit,10,,-1,EUR,,,\n"
    )
    .replace('\n', "\r\n")
    .into_bytes();
    text.extend_from_slice(
        b"9,deposit,10,,1,EUR,,,\xff\xfe\r\n10,deposit,99,,1,EUR,,,\r\n\r\n11,deposit,10,,5,EUR,,,good\r\n12,deposit,10",
    );
    let file = mesh.file("bad.csv", text);
    let run = mesh.run(&["submit", file.to_str().unwrap()]);
    assert_eq!(run.code, 1, "{run:?}");
    for (line, reason) in [
        (4, "amount"),
        (5, "currency"),
        (6, "counterparty"),
        (7, "via"),
        (8, "kind"),
        (9, "amount"),
        (10, "UTF-8"),
        (11, "USER_NOT_FOUND"),
        (14, "fields"),
    ] {
        let found = run.stderr.lines().any(|text| text.starts_with(&format!("line {line}: ")) && text.contains(reason));
        assert!(found, "line {line} does not name `{reason}`: {run:?}");
    }
    assert!(run.stdout.contains("3 accepted"), "{run:?}");
    assert!(run.stdout.contains("9 failed"), "{run:?}");
    assert!(!file.with_extension("csv.progress").exists(), "the file is done");
}

#[test]
fn a_file_without_a_column_is_refused_as_a_whole_naming_it() {
    let mesh = TestMesh::new(ONE_REGION);
    let file = mesh.file("header.csv", "id,kind,user,counterparty,amount,country,via,reference\n1,enrol,10,,,DE,,\n");
    let run = mesh.run(&["submit", file.to_str().unwrap()]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("`currency`"), "{run:?}");
}

#[test]
fn a_mesh_that_does_not_answer_is_said_so_with_its_own_code() {
    let mesh = TestMesh::new(ONE_REGION);
    let file = mesh.file("file.csv", format!("{HEADER}1,enrol,10,,,EUR,DE,,\n"));
    for args in [&["submit", file.to_str().unwrap()] as &[&str], &["status"], &["verify"]] {
        let run = mesh.run(args);
        assert_eq!(run.code, 3, "{args:?}: {run:?}");
    }
}

#[test]
fn a_declined_payment_is_counted_and_fails_the_run_only_when_strict() {
    let mesh = TestMesh::started(ONE_REGION);
    let file = mesh.file("declined.csv", format!("{HEADER}1,enrol,10,,,EUR,DE,,\n2,enrol,11,,,EUR,DE,,\n3,payment,10,11,1,EUR,,,\n"));
    let run = mesh.run(&["submit", file.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("1 declined") && run.stdout.contains("INSUFFICIENT_FUNDS: 1"), "{run:?}");
    assert!(run.stdout.lines().any(|line| line == "line 4: declined for INSUFFICIENT_FUNDS"), "{run:?}");
    let json = file.with_extension("json");
    let run = mesh.run(&["submit", "--strict", "--json", json.to_str().unwrap(), file.to_str().unwrap()]);
    assert_eq!(run.code, 1, "{run:?}");
    let report = report(&mesh, "declined.json");
    assert_eq!(report["declined_lines"], serde_json::json!([{"line": 4, "reason": "INSUFFICIENT_FUNDS"}]), "{report}");
    assert_eq!(report["declined_lines_not_listed"], 0);
    let counts = ["accepted", "replays", "replays_declined", "declined", "failed"].map(|name| report[name].as_u64());
    assert_eq!((counts, &report["declines"]), ([0, 3, 1, 0, 0].map(Some), &serde_json::json!({"INSUFFICIENT_FUNDS": 1})), "{report}");
    assert!(run.stdout.contains("3 replays, 0 declined") && run.stdout.contains("1 of them had been declined"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_file_goes_on_where_it_was_and_keeps_each_users_order() {
    let mesh = TestMesh::started(ONE_REGION);
    // In and out again, to the last cent: in any other order a withdrawal would be declined.
    let mut text = format!("{HEADER}e,enrol,10,,,EUR,DE,,\n");
    let rounds = 1_500;
    for round in 0..rounds {
        text.push_str(&format!("d{round},deposit,10,,1.00,EUR,,,\nw{round},withdrawal,10,,1.00,EUR,,,\n"));
    }
    let file = mesh.file("long.csv", text);
    let progress = file.with_extension("csv.progress");
    let child = mesh.command(&["submit", file.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let noted = fs::read(&progress).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        if noted.is_some_and(|note| note["done"]["line"].as_u64() > Some(1)) {
            break;
        }
        assert!(Instant::now() < deadline, "no progress was noted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    signal(child.id(), "INT");
    let run = wait_within(child, Duration::from_secs(30));
    assert_eq!(run.code, 1, "{run:?}");
    assert!(progress.exists(), "{run:?}");

    let run = mesh.run(&["submit", file.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("goes on after line"), "{run:?}");
    assert!(run.stdout.contains(" 0 declined, 0 failed"), "{run:?}");
    assert!(!progress.exists());

    let (mut lines, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = GetStatementRequest { user_id: 10, currency_code: "EUR".to_owned(), page_size: 1_000, page_token, read: None };
        let page = mesh.wallet("eu_west").get_statement(request).await.unwrap().into_inner();
        lines.extend(page.lines);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(lines.len(), 2 * rounds, "each line happened once");
    assert!(lines.iter().rev().enumerate().all(|(index, line)| line.balance_minor_units == if index % 2 == 0 { 100 } else { 0 }));
    mesh.assert_books();
}

/// Whether standard error has a line with these words, as soon as it has.
fn says(lines: &Receiver<String>, words: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let line = line.unwrap_or_else(|error| panic!("nothing says `{words}`: {error}"));
        if line.contains(words) {
            return line;
        }
    }
}

#[test]
fn an_interrupted_run_says_what_it_waits_for_and_a_second_ctrl_c_does_not_wait() {
    let mut mesh = TestMesh::started(ONE_REGION);
    let mut text = format!("{HEADER}e,enrol,10,,,EUR,DE,,\n");
    for line in 0..20_000 {
        text.push_str(&format!("d{line},deposit,10,,1.00,EUR,,,\n"));
    }
    let file = mesh.file("long.csv", text);
    let progress = file.with_extension("csv.progress");
    let mut child = mesh.command(&["submit", file.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (say, lines) = sync_channel(1_024);
    let stderr = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(say.try_send(line))));
    let deadline = Instant::now() + Duration::from_secs(60);
    let noted = || fs::read(&progress).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    while noted().is_none_or(|note| note["done"]["line"].as_u64() <= Some(1)) {
        assert!(Instant::now() < deadline, "no progress was noted");
        std::thread::sleep(Duration::from_millis(5));
    }
    mesh.signal("eu_west", "STOP");
    // Until the line in flight is one that is not answered.
    std::thread::sleep(Duration::from_millis(200));
    signal(child.id(), "INT");
    let said = says(&lines, "waiting for the answers to");
    assert!(said.contains("Ctrl-C again ends at once"), "{said}");
    signal(child.id(), "INT");
    let run = wait_within(child, Duration::from_secs(5));
    mesh.signal("eu_west", "CONT");
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stdout.contains("0 failed"), "what was not answered is not a failure: {run:?}");
    let done = noted().expect("the progress is kept")["done"]["line"].as_u64().unwrap();
    assert!(done > 1, "{done}");

    // Another mesh, or this one with its data made anew, has none of what is done.
    let fresh = TestMesh::started(ONE_REGION);
    let copy = fresh.file("long.csv", fs::read(&file).unwrap());
    fs::copy(&progress, copy.with_extension("csv.progress")).unwrap();
    let child = fresh.command(&["submit", copy.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let first = BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.starts_with("starts from the first line: ") && first.contains("is of another mesh"), "{first}");
    assert!(mesh.stop("eu_west").success());
}
