//! MeshService: the topology, the state of this node's shards, and the proof of their books. For operators.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream, stream::BoxStream};
use paymesh_acquirers::GateSnapshot;
use paymesh_contract::{
    Fault,
    common::v1 as common,
    mesh::v1::{
        BreakerState, Clearing, CurrencySum, GatewayStatus, GetStatusRequest, GetStatusResponse, GetTopologyRequest, GetTopologyResponse,
        InboxCursor, MonitoredPayments, Region, RouteCount, ShardLeader, ShardReport, ShardState, ShardStatus, VerifyShardRequest,
        VerifyShardResponse, mesh_service_server::MeshService, verify_shard_response::Step,
    },
};
use paymesh_ledger::{Account, Day, Records};
use paymesh_mesh::Call;
use paymesh_shard::{Error, Refusal, Report, Shard, Unopened, verify};
use paymesh_types::{Currency, Sequence, ShardRef};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tonic::{Code, Request, Response, Status};

use crate::{Problems, answer, cards::Cards, door, error, homes::Homes};

/// How often a verification says how far it is.
const PROGRESS_EVERY_MS: u64 = 100;

/// Verifications at work at most; more wait. Each reads a whole journal and holds every balance of it.
const VERIFICATIONS_MAX: usize = 2;

/// The service.
pub(crate) struct MeshOperations {
    homes: Arc<Homes>,
    problems: Problems,
    cards: Cards,
    verifications: Arc<Semaphore>,
}

impl MeshOperations {
    pub(crate) fn new(homes: Arc<Homes>, problems: Problems, cards: Cards) -> Self {
        Self { homes, problems, cards, verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)) }
    }
}

#[tonic::async_trait]
impl MeshService for MeshOperations {
    async fn get_topology(&self, _: Request<GetTopologyRequest>) -> Result<Response<GetTopologyResponse>, Status> {
        let topology = self.homes.topology();
        let regions = topology.regions().map(|region| Region {
            name: region.name.to_string(),
            zone: region.zone.to_string(),
            grpc_endpoint: region.grpc.to_string(),
            http_endpoint: region.http.to_string(),
            primary: region.primary,
        });
        let shards = topology.shards().into_iter().filter_map(|shard| {
            let region = topology.leader(&shard)?.to_string();
            Some(ShardLeader { shard: Some((&shard).into()), region })
        });
        Ok(Response::new(GetTopologyResponse {
            mesh: topology.mesh().to_owned(),
            region: self.homes.mesh().region().to_string(),
            regions: regions.collect(),
            shards: shards.collect(),
        }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        // From two sums, one after the other, what was paid between them can be told.
        Call::sees_everybody(&request)?;
        let mut shards = Vec::new();
        for (name, shard) in self.homes.shards().iter() {
            shards.push(match shard {
                Ok(shard) => {
                    let today = self.homes.topology().is_under_psd2(&name.zone).then(|| Day::of(shard.now()));
                    status(shard, today).await
                }
                Err(refusal) => unopened(name, refusal),
            });
        }
        let routes = self.homes.mesh().route_counts().into_iter();
        let routes =
            routes.map(|count| RouteCount { served_by: count.served_by.to_string(), from_peer: count.from_peer, calls: count.calls });
        let (topology, own) = (self.homes.topology(), self.homes.mesh().region());
        let vault_zone = topology.region(own).map(|region| &region.zone).filter(|zone| topology.vault(zone) == Some(own));
        Ok(Response::new(GetStatusResponse {
            region: own.to_string(),
            vault_zone: vault_zone.map(ToString::to_string).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shards,
            routes: routes.collect(),
            problems: (self.problems)(),
            gateways: self.cards.gateways().into_iter().map(gateway).collect(),
        }))
    }

    type VerifyShardStream = BoxStream<'static, Result<VerifyShardResponse, Status>>;

    async fn verify_shard(&self, request: Request<VerifyShardRequest>) -> Result<Response<Self::VerifyShardStream>, Status> {
        Call::sees_everybody(&request)?;
        let request = request.get_ref();
        let name = door::shard(request.shard.as_ref(), "shard")?;
        let sent_by = request.sent_by.iter().map(|cursor| Ok((door::shard(cursor.source.as_ref(), "sent_by")?, Sequence(cursor.sequence))));
        let sent_by = sent_by.collect::<Result<Vec<_>, Fault>>()?;
        if !self.homes.shards().iter().any(|(each, _)| *each == name) {
            return Err(error::shard_not_found(&name).into());
        }
        let shard = self.homes.led(&name)?.clone();
        Ok(Response::new(Verification::start(shard, sent_by, Arc::clone(&self.verifications)).boxed()))
    }
}

/// The state of a shard that was opened; with what its payments by card come to, where they are asked for as of a day.
async fn status(shard: &Shard, today: Option<Day>) -> ShardStatus {
    let status = shard.status();
    // As projected: a look at the state waits for nobody. Where the tables cannot be read, `problem` is about to say so.
    let books = shard.store().tables.books().await.unwrap_or_default();
    let mut inbox: BTreeMap<ShardRef, Sequence> = books.inbox.iter().map(|(source, read)| (source.clone(), read.sequence)).collect();
    let problems = shard.inbox_problems().borrow().clone();
    inbox.extend(
        problems.keys().filter(|source| !inbox.contains_key(*source)).map(|source| (source.clone(), Sequence(0))).collect::<Vec<_>>(),
    );
    let inbox = inbox
        .iter()
        .map(|(source, sequence)| InboxCursor { problem: problems.get(source).cloned().unwrap_or_default(), ..cursor(source, *sequence) });
    let problem = status.problem.or(status.degraded);
    let mut clearing = clearing_of(&books);
    let unacknowledged = shard.unacknowledged();
    for line in &mut clearing {
        let age = line.peer.as_ref().and_then(|peer| unacknowledged.get(&ShardRef::try_from(peer).ok()?).copied().flatten());
        line.unacknowledged_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    }
    ShardStatus {
        shard: Some(shard.reference().into()),
        state: if problem.is_some() { ShardState::Refusing } else { ShardState::Serving }.into(),
        problem: problem.unwrap_or_default(),
        epoch: status.epoch.0,
        head_sequence: status.head.0,
        projected_sequence: status.projected.0,
        queued_commands: status.queued,
        clearing,
        inbox: inbox.collect(),
        monitored: today.map(|today| monitored(&books, today)).unwrap_or_default(),
    }
}

fn monitored(books: &Records, today: Day) -> Vec<MonitoredPayments> {
    let said = books.monitored.by_means(today).into_iter().map(|(means, totals)| MonitoredPayments {
        means: means.as_str().to_owned(),
        payments: totals.payments,
        captured_minor_units: totals.minor,
        frauds: totals.frauds,
        fraud_minor_units: totals.fraud_minor,
    });
    said.collect()
}

/// The state of a shard that is not open.
fn unopened(shard: &ShardRef, Refusal { kind, why }: Refusal) -> ShardStatus {
    let state = match kind {
        Unopened::Opening => ShardState::Starting,
        Unopened::Failed | Unopened::HistoryMissing => ShardState::Refusing,
    };
    ShardStatus { shard: Some(shard.into()), state: state.into(), problem: why, ..ShardStatus::default() }
}

fn cursor(source: &ShardRef, sequence: Sequence) -> InboxCursor {
    InboxCursor { source: Some(source.into()), sequence: sequence.0, ..InboxCursor::default() }
}

fn clearing_of(books: &Records) -> Vec<Clearing> {
    clearing(books.system.iter().map(|((account, currency), balance)| (account, *currency, *balance)))
}

/// The clearing accounts among some accounts, two by two. What was received is booked negative.
fn clearing<'a>(accounts: impl Iterator<Item = (&'a Account, Currency, i64)>) -> Vec<Clearing> {
    let mut totals = BTreeMap::<(ShardRef, Currency), (i64, i64)>::new();
    for (account, currency, balance) in accounts {
        match account {
            Account::Sent(peer) => totals.entry((peer.clone(), currency)).or_default().0 = balance,
            Account::Received(peer) => totals.entry((peer.clone(), currency)).or_default().1 = balance.saturating_neg(),
            Account::Wallet(_) | Account::External | Account::Acquirer(_) | Account::RefundsPayable => {}
        }
    }
    let clearing = |((peer, currency), (sent, received)): (&(ShardRef, Currency), &(i64, i64))| Clearing {
        peer: Some(peer.into()),
        currency_code: currency.code().to_owned(),
        sent_minor_units: *sent,
        received_minor_units: *received,
        unacknowledged_ms: None,
    };
    totals.iter().map(clearing).collect()
}

/// A verification at work. It goes on at its own pace whether its caller reads or not, because it keeps a snapshot of the tables
/// open for a part of it; it ends with the stream.
struct Verification {
    progress: mpsc::Receiver<VerifyShardResponse>,
    work: JoinSet<Result<Report, Error>>,
    shard: Shard,
}

impl Verification {
    fn start(
        shard: Shard,
        sent_by: Vec<(ShardRef, Sequence)>,
        permits: Arc<Semaphore>,
    ) -> impl futures::Stream<Item = Result<VerifyShardResponse, Status>> + Send {
        let (tell, progress) = mpsc::channel(1);
        let mut work = JoinSet::new();
        let verified = shard.clone();
        work.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let mut told = Instant::now();
            let say = move |read: Sequence, head: Sequence| {
                if told.elapsed() >= Duration::from_millis(PROGRESS_EVERY_MS) {
                    told = Instant::now();
                    // A caller that does not read misses a step, nothing else.
                    let _ = tell.try_send(VerifyShardResponse { step: Some(Step::ReadSequence(read.0)), head_sequence: head.0 });
                }
            };
            verify(&verified, &sent_by, say).await
        });
        stream::unfold(Self { progress, work, shard }, Self::step)
    }

    async fn step(mut self) -> Option<(Result<VerifyShardResponse, Status>, Self)> {
        if self.work.is_empty() {
            return None;
        }
        tokio::select! {
            biased;
            Some(progress) = self.progress.recv() => Some((Ok(progress), self)),
            Some(done) = self.work.join_next() => {
                let answer = match done {
                    Ok(Ok(report)) => Ok(reported(self.shard.reference(), report)),
                    Ok(Err(failed)) => Err(error::failed(failed)),
                    Err(died) => {
                        tracing::error!(shard = %self.shard.reference(), %died, "a verification died");
                        Err(Fault::new(Code::Internal, "VERIFICATION_DIED", "the verification died; the node's log says how"))
                    }
                };
                Some((answer.map_err(Status::from), self))
            }
            else => None,
        }
    }
}

fn gateway(gateway: GateSnapshot) -> GatewayStatus {
    let breaker = match gateway.state {
        paymesh_acquirers::BreakerState::Closed => BreakerState::Closed,
        paymesh_acquirers::BreakerState::HalfOpen => BreakerState::HalfOpen,
        paymesh_acquirers::BreakerState::Open => BreakerState::Open,
    };
    GatewayStatus {
        gateway: gateway.gateway,
        breaker: breaker.into(),
        failures: gateway.failures,
        opened_ago_ms: gateway.opened_ago.map(error::milliseconds),
        calls_in_flight: gateway.calls_in_flight,
    }
}

fn reported(shard: &ShardRef, report: Report) -> VerifyShardResponse {
    let sums = report.audit.sums();
    let sums = sums.iter().map(|(currency, sums)| CurrencySum {
        currency_code: currency.code().to_owned(),
        wallets_minor_units: within(sums.wallets),
        external_minor_units: within(sums.external),
        clearing_minor_units: within(sums.clearing),
        cards_minor_units: within(sums.cards),
        total_minor_units: within(sums.total()),
        held_minor_units: within(sums.held),
    });
    let sent_by = report.sent_by.iter().map(|((peer, currency), sent)| Clearing {
        peer: Some(common::ShardRef::from(peer)),
        currency_code: currency.code().to_owned(),
        sent_minor_units: *sent,
        received_minor_units: 0,
        unacknowledged_ms: None,
    });
    let head_sequence = report.position.sequence.0;
    let report = ShardReport {
        shard: Some(shard.into()),
        position: answer::position(&report.position),
        chain_hash: report.chain_hash.to_vec(),
        sums: sums.collect(),
        clearing: clearing(report.audit.system()),
        inbox: report.audit.inbox().map(|(source, read)| cursor(source, read.sequence)).collect(),
        sent_by: sent_by.collect(),
        users: report.audit.users(),
        payments: report.audit.payments(),
        problems: report.problems,
    };
    VerifyShardResponse { step: Some(Step::Report(report)), head_sequence }
}

/// A sum as the message can hold it; one that it cannot hold is wrong anyway, and `problems` says so.
fn within(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
