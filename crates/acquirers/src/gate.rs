//! What is around a gateway in one region: its breaker, a bound on the calls in flight, a deadline, and the budget for retries that all gateways share.
//!
//! A gate takes any future that ends with a [`Failure`]: most are a connector's, and an authorization goes through the vault. What is not let through was not done.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use paymesh_topology::{Gateway, Gateways};
use tokio::time::{Instant, timeout_at};

use crate::{Breaker, BreakerSettings, BreakerState, Budget, BudgetSettings, Class, Failure, Health, Permit, Verdict};

/// How much longer than its deadline a call is waited for: who kept the deadline knows better what became of it.
const GRACE: Duration = Duration::from_millis(250);

const CALLS: &str = "paymesh_acquirer_calls_total";
const SECONDS: &str = "paymesh_acquirer_call_seconds";
const IN_FLIGHT: &str = "paymesh_acquirer_calls_in_flight";
const BREAKER: &str = "paymesh_acquirer_breaker_state";

/// Which time an operation is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The first: it earns a share of a retry.
    First,
    /// Another, here or after another gateway: it spends one.
    Again,
}

/// How a gate behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSettings {
    /// When the gateway is not called any more.
    pub breaker: BreakerSettings,
    /// How long a call may take.
    pub timeout: Duration,
    /// Calls in flight at most.
    pub calls_in_flight: u32,
}

impl GateSettings {
    /// As the configuration has it.
    pub fn of(gateway: &Gateway) -> Self {
        let rule = gateway.breaker;
        Self {
            breaker: BreakerSettings { failures: rule.failures, open_for: rule.open_for, probes: rule.probes },
            timeout: gateway.timeout,
            calls_in_flight: gateway.calls_in_flight,
        }
    }
}

/// How a gate is, for whoever looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateSnapshot {
    /// The gateway.
    pub gateway: String,
    /// Its breaker.
    pub state: BreakerState,
    /// Failures one after the other.
    pub failures: u32,
    /// How long ago the breaker last opened. None where it never has.
    pub opened_ago: Option<Duration>,
    /// Calls that are under way.
    pub calls_in_flight: u32,
}

/// The gate of one gateway.
pub struct Gate {
    gateway: String,
    settings: GateSettings,
    breaker: Mutex<Breaker>,
    in_flight: AtomicU32,
    budget: Arc<Mutex<Budget>>,
}

/// The gates of one region, which share a budget for retries.
pub struct Gates {
    gates: BTreeMap<String, Gate>,
    budget: Arc<Mutex<Budget>>,
}

impl Gates {
    /// One for each gateway of the configuration.
    pub fn new(gateways: &Gateways) -> Self {
        let retries = gateways.retries();
        let settings = BudgetSettings { percent: retries.percent, per_second: retries.per_second };
        let budget = Arc::new(Mutex::new(Budget::new(settings, Instant::now())));
        let gates = gateways.gateways().iter().map(|gateway| {
            let gate = Gate::new(&gateway.name, GateSettings::of(gateway), Arc::clone(&budget));
            (gateway.name.clone(), gate)
        });
        Self { gates: gates.collect(), budget }
    }

    /// The gate of a gateway. None: the configuration has no such gateway.
    pub fn gate(&self, gateway: &str) -> Option<&Gate> {
        self.gates.get(gateway)
    }

    /// Whether an operation may be tried once more; then that is paid for. For whoever waits before the attempt; [`Gate::call`] asks by itself.
    pub fn may_retry(&self) -> bool {
        lock(&self.budget).spend(Instant::now())
    }

    /// How a gateway is, for [`route`](crate::route).
    pub fn health(&self, gateway: &str) -> Health {
        self.gate(gateway).map_or(Health::Open, Gate::health)
    }

    /// How all of them are, by name.
    pub fn snapshots(&self) -> Vec<GateSnapshot> {
        self.gates.values().map(Gate::snapshot).collect()
    }
}

impl Gate {
    /// A gate whose breaker is closed.
    pub fn new(gateway: &str, settings: GateSettings, budget: Arc<Mutex<Budget>>) -> Self {
        let gate = Self {
            gateway: gateway.to_owned(),
            settings,
            breaker: Mutex::new(Breaker::new(settings.breaker)),
            in_flight: AtomicU32::new(0),
            budget,
        };
        // There from the beginning, so that a rate is one from the first failure on.
        for outcome in Class::ALL.map(Class::as_str).into_iter().chain(["answered", "left"]) {
            metrics::counter!(CALLS, "gateway" => gate.gateway.clone(), "outcome" => outcome).increment(0);
        }
        metrics::gauge!(IN_FLIGHT, "gateway" => gate.gateway.clone()).set(0);
        gate.show_state(BreakerState::Closed);
        gate
    }

    /// Makes a call, if it may be made. `work` is given the deadline that it has to keep: the earlier of this one and the gateway's timeout.
    ///
    /// # Errors
    /// The call's; or it was not made, which is certain: [`Class::Late`], [`Class::Spent`], [`Class::Full`], [`Class::Open`].
    pub async fn call<T, F>(&self, attempt: Attempt, deadline: Instant, work: impl FnOnce(Instant) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let begun = Instant::now();
        let mut passage = self.enter(attempt, begun, deadline).inspect_err(|failure| self.count(failure.class.as_str()))?;
        let own = begun + self.settings.timeout;
        let cut_short = deadline < own;
        let deadline = deadline.min(own);
        let result = timeout_at(deadline + GRACE, work(deadline)).await;
        let result = result.unwrap_or_else(|_| Err(Failure::unknown(Class::Timeout, "no answer in time")));
        metrics::histogram!(SECONDS, "gateway" => self.gateway.clone()).record(begun.elapsed());
        let verdict = match &result {
            Ok(_) => Verdict::Good,
            // A caller in a hurry says nothing about the gateway.
            Err(failure) if failure.class == Class::Timeout && cut_short => Verdict::Neither,
            Err(failure) if failure.class.is_against_the_gateway() => Verdict::Bad,
            Err(failure) if failure.class == Class::Refused => Verdict::Good,
            Err(_) => Verdict::Neither,
        };
        self.count(result.as_ref().map_or_else(|failure| failure.class.as_str(), |_| "answered"));
        passage.leave(verdict);
        result
    }

    /// How the gateway is, for [`route`](crate::route).
    pub fn health(&self) -> Health {
        match lock(&self.breaker).state(Instant::now()) {
            BreakerState::Closed => Health::Good,
            BreakerState::HalfOpen => Health::Probing,
            BreakerState::Open => Health::Open,
        }
    }

    /// How it is.
    pub fn snapshot(&self) -> GateSnapshot {
        let now = Instant::now();
        let breaker = lock(&self.breaker);
        GateSnapshot {
            gateway: self.gateway.clone(),
            state: breaker.state(now),
            failures: breaker.failures(),
            opened_ago: breaker.opened_at().map(|opened| now.saturating_duration_since(opened)),
            calls_in_flight: self.in_flight.load(Relaxed),
        }
    }

    fn enter(&self, attempt: Attempt, now: Instant, deadline: Instant) -> Result<Passage<'_>, Failure> {
        if deadline <= now {
            return Err(Failure::not_done(Class::Late, "no time is left"));
        }
        // A place before the leave of the breaker: a probe that found no place would have to be given back.
        let most = self.settings.calls_in_flight;
        let place = self.in_flight.fetch_update(Relaxed, Relaxed, |calls| (calls < most).then_some(calls + 1));
        if place.is_err() {
            return Err(Failure::not_done(Class::Full, format!("{most} calls are in flight")));
        }
        metrics::gauge!(IN_FLIGHT, "gateway" => self.gateway.clone()).increment(1);
        let mut passage = Passage { gate: self, permit: None };
        let permit = {
            let mut breaker = lock(&self.breaker);
            let permit = breaker.admit(now);
            self.show_state(breaker.state(now));
            permit
        };
        passage.permit = Some(permit.map_err(|refusal| {
            Failure::not_done(Class::Open, format!("the breaker is open, for another {} ms at least", refusal.retry_after.as_millis()))
        })?);
        // Last, so that what is not called spends nothing.
        let mut budget = lock(&self.budget);
        match attempt {
            Attempt::First => budget.earn(now),
            Attempt::Again if budget.spend(now) => {}
            Attempt::Again => return Err(Failure::not_done(Class::Spent, "no retry is left in the budget")),
        }
        Ok(passage)
    }

    fn count(&self, outcome: &'static str) {
        metrics::counter!(CALLS, "gateway" => self.gateway.clone(), "outcome" => outcome).increment(1);
    }

    fn show_state(&self, state: BreakerState) {
        let number = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        metrics::gauge!(BREAKER, "gateway" => self.gateway.clone()).set(number);
    }
}

/// A call that was let through. However it ends, also where its caller goes away, its place is free after it and its breaker has heard of it.
struct Passage<'a> {
    gate: &'a Gate,
    permit: Option<Permit>,
}

impl Passage<'_> {
    fn leave(&mut self, verdict: Verdict) {
        if let Some(permit) = self.permit.take() {
            let now = Instant::now();
            let mut breaker = lock(&self.gate.breaker);
            breaker.report(permit, verdict, now);
            self.gate.show_state(breaker.state(now));
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.gate.count("left");
        }
        self.leave(Verdict::Neither);
        self.gate.in_flight.fetch_sub(1, Relaxed);
        metrics::gauge!(IN_FLIGHT, "gateway" => self.gate.gateway.clone()).decrement(1);
    }
}

/// Says what the metrics of gates are, once for each process.
pub fn describe_metrics() {
    metrics::describe_counter!(
        CALLS,
        "Calls to acquirers, by gateway and how they ended: answered, left (the caller went away), or the class of the failure"
    );
    metrics::describe_histogram!(SECONDS, metrics::Unit::Seconds, "How long calls to acquirers took, by gateway");
    metrics::describe_gauge!(IN_FLIGHT, "Calls to acquirers that are under way, by gateway");
    metrics::describe_gauge!(BREAKER, "How the breaker of a gateway is: 0 closed, 1 half open, 2 open");
}

/// What is behind these locks is whole after every change, so that a panic elsewhere is no reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
