//! When a gateway is not called any more, and when it is tried again. Pure: the time is an argument.
//!
//! Closed, calls go through; so many failures one after the other open it. Open, none does. After a time it is half open: as many calls as there are probes go
//! through, no more; once all of them have succeeded it is closed, and one that fails opens it again. What was let through before the last change of state
//! says nothing about this one. A probe that never reports back gives its place up after as long as the breaker stays open.

use std::time::Duration;

use tokio::time::Instant;

/// How a breaker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures one after the other that open it: at least 1.
    pub failures: u32,
    /// How long it is open.
    pub open_for: Duration,
    /// Probes of which all must succeed: at least 1.
    pub probes: u32,
}

/// Five failures, a minute, one probe.
impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(60), probes: 1 }
    }
}

/// What a call says about whom it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, be it with a no.
    Good,
    /// It failed.
    Bad,
    /// Nothing: the caller went away, for example.
    Neither,
}

/// How a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Probes go through.
    HalfOpen,
    /// Nothing does.
    Open,
}

impl BreakerState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Leave for one call, which is handed back with what became of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
    probe: Option<u64>,
}

impl Permit {
    /// Whether the call is a probe.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

/// No leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// When it may be worth asking again.
    pub retry_after: Duration,
}

/// The breaker of one gateway.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Grows with each change of phase.
    generation: u64,
    /// When it last opened.
    opened_at: Option<Instant>,
    next_probe: u64,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { succeeded: u32, probing: Vec<(u64, Instant)> },
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: BreakerSettings) -> Self {
        let settings = BreakerSettings { failures: settings.failures.max(1), probes: settings.probes.max(1), ..settings };
        Self { settings, phase: Phase::Closed { failures: 0 }, generation: 0, opened_at: None, next_probe: 0 }
    }

    /// Leave for a call now.
    ///
    /// # Errors
    /// It is open, or half open with all its probes under way.
    pub fn admit(&mut self, now: Instant) -> Result<Permit, Refusal> {
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(Refusal { retry_after: until - now });
            }
            self.enter(Phase::HalfOpen { succeeded: 0, probing: Vec::new() });
        }
        let (settings, generation) = (self.settings, self.generation);
        match &mut self.phase {
            Phase::HalfOpen { succeeded, probing } => {
                // Whoever has not come back by now is not waited for.
                probing.retain(|(_, begun)| now.duration_since(*begun) < settings.open_for);
                if *succeeded as usize + probing.len() >= settings.probes as usize {
                    let oldest = probing.iter().map(|(_, begun)| *begun + settings.open_for).min();
                    return Err(Refusal { retry_after: oldest.map_or(Duration::ZERO, |free| free.saturating_duration_since(now)) });
                }
                let probe = self.next_probe;
                self.next_probe += 1;
                probing.push((probe, now));
                Ok(Permit { generation, probe: Some(probe) })
            }
            Phase::Closed { .. } | Phase::Open { .. } => Ok(Permit { generation, probe: None }),
        }
    }

    /// What became of a call. A late word about another phase is not heard.
    pub fn report(&mut self, permit: Permit, verdict: Verdict, now: Instant) {
        if permit.generation != self.generation {
            return;
        }
        match (&mut self.phase, permit.probe) {
            (Phase::Closed { failures }, None) => match verdict {
                Verdict::Good => *failures = 0,
                Verdict::Bad => {
                    *failures += 1;
                    if *failures >= self.settings.failures {
                        self.open(now);
                    }
                }
                Verdict::Neither => {}
            },
            (Phase::HalfOpen { succeeded, probing }, Some(probe)) => {
                let Some(at) = probing.iter().position(|(known, _)| *known == probe) else { return };
                probing.swap_remove(at);
                match verdict {
                    Verdict::Good => {
                        *succeeded += 1;
                        if *succeeded >= self.settings.probes {
                            self.enter(Phase::Closed { failures: 0 });
                        }
                    }
                    Verdict::Bad => self.open(now),
                    Verdict::Neither => {}
                }
            }
            _ => {}
        }
    }

    /// How it is now. Open becomes half open with the time, whether or not somebody asks.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until } if now < until => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Failures one after the other, while it is closed.
    pub fn failures(&self) -> u32 {
        match self.phase {
            Phase::Closed { failures } => failures,
            Phase::Open { .. } | Phase::HalfOpen { .. } => self.settings.failures,
        }
    }

    /// When it last opened. None where it never has.
    pub fn opened_at(&self) -> Option<Instant> {
        self.opened_at
    }

    fn open(&mut self, now: Instant) {
        self.opened_at = Some(now);
        self.enter(Phase::Open { until: now + self.settings.open_for });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}
