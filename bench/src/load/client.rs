//! The client process (`bench client PLAN`), and the parent's side of it.

use std::{
    io::Write as _,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use paymesh_identity::Trust;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{Line, Mode, OVERTIME_SECONDS, Pace, Payees, Plan, Report, Work, cards, charges, enrol, payments::now_us, stream, unary};
use crate::sample;

/// HTTP/2 window of a stream that the client grants, in bytes: a batch's answer fits in it.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// HTTP/2 window of a connection that the client grants, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Time to connect, in seconds.
const CONNECT_SECONDS: u64 = 10;

/// Highest latency that the histogram tells apart, in microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Runs the plan in this process and writes [`Line`]s to stdout.
pub(crate) fn main(plan: &str) -> anyhow::Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("the plan is not what this client understands")?;
    // One thread: the client takes as little as it can of the processors that it shares with the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let line = match runtime.block_on(execute(&plan)) {
        Ok(report) => Line::Report(report),
        Err(error) => Line::Failed(format!("{error:#}")),
    };
    say(&line)
}

/// Writes one line for the parent.
pub(super) fn say(line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

async fn execute(plan: &Plan) -> anyhow::Result<Report> {
    ensure!(plan.accounts >= 3, "payments need three accounts at least, not {}", plan.accounts);
    let meter = match &plan.work {
        Work::Enrol { in_flight, country } => enrol::enrol(plan, &connect(plan).await?, *in_flight, country).await?,
        Work::Pay { mode, payees, warm_up_ms, measure_ms } => {
            // Made when all is ready: its time runs.
            let meter = || Meter::new(Duration::from_millis(*warm_up_ms), Duration::from_millis(*measure_ms));
            let limit = Duration::from_millis(warm_up_ms + measure_ms) + Duration::from_secs(OVERTIME_SECONDS);
            timeout(limit, pay(plan, *mode, *payees, meter)).await.with_context(|| format!("no end after {limit:?}"))??
        }
    };
    meter.report()
}

async fn pay(plan: &Plan, mode: Mode, payees: Payees, meter: impl Fn() -> anyhow::Result<Meter>) -> anyhow::Result<Meter> {
    if let Mode::Charge { pace } = mode {
        return charges::charge(plan, pace, meter).await;
    }
    let channels = connect(plan).await?;
    match mode {
        Mode::Stream { batch, in_flight } => stream::pay(plan, &channels[0], payees, batch, Pace::Closed { in_flight }, meter()?).await,
        Mode::Paced { batch, rate } => stream::pay(plan, &channels[0], payees, batch, Pace::Timed { rate }, meter()?).await,
        Mode::Unary { in_flight } => unary::pay(plan, &channels, payees, in_flight, meter()?).await,
        Mode::Card { pace } => cards::pay(plan, &channels, payees, pace, meter).await,
        Mode::Charge { .. } => bail!("charges need no node"),
        Mode::Tokenize { in_flight, sealed } => cards::take_in(plan, &channels, in_flight, sealed, meter).await,
    }
}

/// A connection whose calls show a token, where there is one.
pub(super) type Wire = InterceptedService<Channel, Shows>;

/// Has each call show it.
#[derive(Debug, Clone)]
pub(super) struct Shows(Option<MetadataValue<Ascii>>);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

async fn connect(plan: &Plan) -> anyhow::Result<Vec<Wire>> {
    ensure!(plan.connections > 0, "a client needs a connection");
    let shows = plan.security.as_ref().map(|security| format!("Bearer {}", security.token).parse()).transpose()?;
    let trust = plan.security.as_ref().map(|security| Trust::load(&security.credentials)).transpose()?;
    let mut channels = Vec::new();
    for _ in 0..plan.connections {
        let endpoint = Endpoint::from_shared(plan.endpoint.clone())?
            .connect_timeout(Duration::from_secs(CONNECT_SECONDS))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tcp_nodelay(true);
        let connected = match &trust {
            None => endpoint.connect().await,
            Some(trust) => {
                let port = endpoint.uri().port_u16().context("an endpoint has a port")?;
                let connector = trust.connector("127.0.0.1", port, Duration::from_secs(CONNECT_SECONDS));
                endpoint.connect_with_connector(connector).await
            }
        };
        let channel = connected.with_context(|| format!("cannot reach {}", endpoint.uri()))?;
        channels.push(InterceptedService::new(channel, Shows(shows.clone())));
    }
    Ok(channels)
}

/// Counts answers and times calls, and knows when to stop.
#[derive(Debug)]
pub(super) struct Meter {
    began_us: u64,
    cpu_before: f64,
    measure_from: Instant,
    /// No call begins after it.
    pub(super) stop_at: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    counted: u64,
    answered: u64,
    latency_us: Histogram<u64>,
    preparation_us: f64,
}

impl Meter {
    /// Measures for `measure` after `warm_up`.
    pub(super) fn new(warm_up: Duration, measure: Duration) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            began_us: now_us(),
            cpu_before: sample::Process::of("self")?.cpu_seconds,
            measure_from: now + warm_up,
            stop_at: now + warm_up + measure,
            first: None,
            last: None,
            counted: 0,
            answered: 0,
            latency_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
            preparation_us: 0.0,
        })
    }

    /// Notes what each request took that was made ready before.
    pub(super) fn prepared(self, preparation_us: f64) -> Self {
        Self { preparation_us, ..self }
    }

    /// An answer to `count` payments of a call that began at `began`. Says whether another call may begin.
    pub(super) fn answer(&mut self, began: Instant, count: u64) -> bool {
        let now = Instant::now();
        self.answered += count;
        if now >= self.measure_from && now < self.stop_at {
            // The first answer opens the measured time and is not counted itself.
            if self.first.is_none() {
                self.first = Some(now);
            } else {
                self.counted += count;
                self.last = Some(now);
            }
        }
        if began >= self.measure_from {
            self.latency_us.saturating_record(u64::try_from((now - began).as_micros()).unwrap_or(LATENCY_US_MAX));
        }
        now < self.stop_at
    }

    /// What it has counted until now, which is the end.
    pub(super) fn report(&self) -> anyhow::Result<Report> {
        let rate = match (self.first, self.last) {
            (Some(first), Some(last)) if last > first => self.counted as f64 / (last - first).as_secs_f64(),
            _ => 0.0,
        };
        Ok(Report {
            answered: self.answered,
            rate,
            p50_us: self.latency_us.value_at_quantile(0.5),
            p99_us: self.latency_us.value_at_quantile(0.99),
            max_us: self.latency_us.max(),
            began_us: self.began_us,
            ended_us: now_us(),
            client_cpu_seconds: sample::Process::of("self")?.cpu_seconds - self.cpu_before,
            preparation_us: self.preparation_us,
        })
    }
}

/// Starts a client process, hands its progress to `progress`, and waits for its report.
pub(crate) async fn run(plan: &Plan, mut progress: impl FnMut(u64)) -> anyhow::Result<Report> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .arg("client")
        .arg(serde_json::to_string(plan)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a client process")?;
    let stdout = child.stdout.take().context("the client has no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut outcome = None;
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line).with_context(|| format!("the client said: {line}"))? {
            Line::Done(done) => progress(done),
            Line::Report(report) => outcome = Some(Ok(report)),
            Line::Failed(reason) => outcome = Some(Err(anyhow::anyhow!("the client gave up: {reason}"))),
        }
    }
    let status = child.wait().await?;
    match outcome {
        Some(outcome) => outcome,
        None => bail!("the client ended without a report ({status})"),
    }
}
