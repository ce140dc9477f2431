//! Load by a program that knows HTTP/2 and nothing of gRPC.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use paymesh_contract::{
    directory::v1::{EnrollUserRequest, directory_service_client::DirectoryServiceClient},
    wallet::v1::GetBalanceRequest,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use xtask::mesh::{Mesh, refused, timed};

use crate::{COUNTRY, ENTRANCE, ended};

/// Calls in all, over so many connections, so many at once on each.
const CALLS: u64 = 4_000;
const CONNECTIONS: u64 = 8;
const CALLS_AT_ONCE: u64 = 32;
/// How long they may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// How long the node may take to count the last of them.
const COUNTED_TIME_MAX: Duration = Duration::from_secs(5);

/// Whose balance is read.
const USER: u64 = 4_300;
const METHOD: &str = "/paymesh.wallet.v1.WalletService/GetBalance";

/// Reads a balance some thousand times with `h2load`, from another region than the user's home.
pub(super) async fn h2load(mesh: &Mesh, h2load: &Path, folder: &Path) -> Result<()> {
    let region = mesh.region(ENTRANCE)?;
    let channel = mesh.channels().get(ENTRANCE).context("the mesh has no entrance")?.clone();
    let enrol = EnrollUserRequest {
        request_id: "0190b8f5-0000-7000-8000-000000000300".into(),
        user_id: USER,
        residence_country: COUNTRY.into(),
        currency_codes: vec!["EUR".into()],
    };
    DirectoryServiceClient::new(channel).enroll_user(timed(enrol)).await.map_err(refused)?;

    let message = GetBalanceRequest { user_id: USER, read: None }.encode_to_vec();
    let length = u32::try_from(message.len()).context("a request is short")?;
    let body = folder.join("get-balance");
    fs::write(&body, [&[0], &length.to_be_bytes()[..], &message].concat())?;

    let before = Answered::so_far(&region.http.to_string()).await?;
    let mut load = Command::new(h2load);
    load.args(["-n", &CALLS.to_string(), "-c", &CONNECTIONS.to_string(), "-m", &CALLS_AT_ONCE.to_string(), "-d"]).arg(&body);
    // A token of a mesh that is gone in a minute: h2load has no other way to be told.
    load.args(["-H", &format!("authorization: Bearer {}", mesh.token(["checkout"])?)]);
    load.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]).arg(format!("https://{}{METHOD}", region.grpc));
    let said = ended(load, b"", TIME_MAX).await?.succeeded()?;
    for line in
        said.lines().filter(|line| ["TLS Protocol", "finished in", "requests:", "status codes:"].iter().any(|word| line.starts_with(word)))
    {
        println!("{line}");
    }
    for wanted in [
        format!("{CALLS} total, {CALLS} started, {CALLS} done, {CALLS} succeeded, 0 failed, 0 errored, 0 timeout"),
        format!("status codes: {CALLS} 2xx, 0 3xx, 0 4xx, 0 5xx"),
        "TLS Protocol: TLSv1.3".to_owned(),
        "Application protocol: h2".to_owned(),
    ] {
        ensure!(said.contains(&wanted), "it does not say `{wanted}`: {said}");
    }
    // HTTP's 200 is also what a refusal has in gRPC: the node says how the calls ended.
    let counted = async {
        loop {
            let now = Answered::so_far(&region.http.to_string()).await?;
            if now.all() - before.all() >= CALLS {
                return anyhow::Ok(now);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let after = tokio::time::timeout(COUNTED_TIME_MAX, counted).await.context("the node has not counted all calls")??;
    ensure!(after.good - before.good == CALLS, "of {CALLS} calls {} were answered with what was asked", after.good - before.good);
    println!("{ENTRANCE} has answered all of them with OK");
    Ok(())
}

/// How often a region has answered callers of [`METHOD`].
struct Answered {
    good: u64,
    otherwise: u64,
}

impl Answered {
    async fn so_far(http: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(http).await.with_context(|| http.to_owned())?;
        stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        ensure!(text.starts_with("HTTP/1.1 200"), "{http}: {text}");
        let method = METHOD.rsplit('/').next().unwrap_or_default();
        let mut answered = Self { good: 0, otherwise: 0 };
        let of_method =
            |line: &&str| line.starts_with("paymesh_calls_total{") && line.contains(&format!("method=\"{method}\",from=\"caller\""));
        for line in text.lines().filter(of_method) {
            let count: u64 = line.rsplit(' ').next().unwrap_or_default().parse().with_context(|| line.to_owned())?;
            *if line.contains("code=\"OK\"") { &mut answered.good } else { &mut answered.otherwise } += count;
        }
        Ok(answered)
    }

    fn all(&self) -> u64 {
        self.good + self.otherwise
    }
}
