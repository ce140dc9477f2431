//! Which parts of a node work, and why the others do not.
//!
//! A component registers under a name, gets a handle, and says through it how it is. A handle that is dropped without the
//! node being told to drain counts as a component that died: nobody has to remember to report it.
//!
//! Two questions are answered. *Healthy*: does everything work? *Ready*: should a load balancer send calls here? A node with
//! one shard that refuses to serve is unhealthy and still ready, because it serves its other shards and forwards the rest. When
//! there is nothing that it serves is for the node to say ([`Health::ready_if`]).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

/// How a component is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It comes up: journals are checked, tables caught up.
    Starting,
    /// It works.
    Healthy,
    /// It works, and will not for ever; what is to be done is for an operator.
    Warning(String),
    /// It does not work; the reason is for an operator.
    Unhealthy(String),
}

#[derive(Debug)]
struct State {
    components: BTreeMap<String, Status>,
    draining: bool,
    serves: Serves,
}

/// Whether the node has anything to serve.
#[derive(Clone)]
struct Serves(Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serves")
    }
}

/// The components of one node. Cheap to clone; all clones are the same registry.
#[derive(Debug, Clone)]
pub struct Health {
    region: Arc<str>,
    state: Arc<Mutex<State>>,
}

impl Health {
    /// An empty registry of a node of `region`. Until a component registers, the node counts as starting.
    pub fn new(region: &str) -> Self {
        let state = State { components: BTreeMap::new(), draining: false, serves: Serves(Arc::new(|| true)) };
        Self { region: region.into(), state: Arc::new(Mutex::new(state)) }
    }

    /// Registers a component, or takes over the one of that name. It is starting until its handle says otherwise.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let name = name.into();
        self.state().components.insert(name.clone(), Status::Starting);
        Component { name, health: self.clone() }
    }

    /// Says that the node is going to stop: it is not ready from now on, and components that end are not reported as dead.
    pub fn drain(&self) {
        self.state().draining = true;
    }

    /// From now on the node is ready only while this holds, whatever its components say. It is asked for each report, and must not
    /// wait for anything.
    pub fn ready_if(&self, serves: impl Fn() -> bool + Send + Sync + 'static) {
        self.state().serves = Serves(Arc::new(serves));
    }

    /// How everything is now.
    pub fn report(&self) -> Report {
        // Asked outside the lock: it may look at what tells its health.
        let Serves(serves) = self.state().serves.clone();
        let serves = serves();
        let state = self.state();
        let mut status = if state.components.is_empty() { "starting" } else { "healthy" };
        let mut ready = !state.components.is_empty() && !state.draining && serves;
        let mut checks = BTreeMap::new();
        for (name, component) in &state.components {
            let mut warning = None;
            let (word, error) = match component {
                Status::Starting => {
                    ready = false;
                    if status == "healthy" {
                        status = "starting";
                    }
                    ("starting", None)
                }
                Status::Healthy => ("healthy", None),
                Status::Warning(reason) => {
                    warning = Some(reason.clone());
                    ("healthy", None)
                }
                Status::Unhealthy(reason) => {
                    status = "unhealthy";
                    ("unhealthy", Some(reason.clone()))
                }
            };
            checks.insert(name.clone(), Check { status: word, error, warning });
        }
        Report { status, region: self.region.to_string(), ready, draining: state.draining, checks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insert or one flag: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, status: Status) {
        let mut state = self.state();
        let Some(now) = state.components.get_mut(name) else { return };
        if *now == status {
            return;
        }
        match &status {
            Status::Unhealthy(reason) => tracing::error!(component = name, reason, "component is unhealthy"),
            Status::Healthy => tracing::info!(component = name, "component is healthy"),
            Status::Warning(reason) => tracing::warn!(component = name, reason, "component works, and needs an operator"),
            Status::Starting => tracing::info!(component = name, "component is starting"),
        }
        *now = status;
    }
}

/// One component's handle. Dropping it before the node drains reports the component as dead.
#[derive(Debug)]
pub struct Component {
    name: String,
    health: Health,
}

impl Component {
    /// It comes up.
    pub fn starting(&self) {
        self.health.set(&self.name, Status::Starting);
    }

    /// It works.
    pub fn healthy(&self) {
        self.health.set(&self.name, Status::Healthy);
    }

    /// It works, and will not for ever unless somebody does something. Shown at `/health`, which stays healthy.
    pub fn warn(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Status::Warning(reason.into()));
    }

    /// It does not work. The reason is shown at `/health`: no personal data in it.
    pub fn unhealthy(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Status::Unhealthy(reason.into()));
    }

    /// Takes the component off the list: it ended as it should.
    pub fn remove(self) {
        self.health.state().components.remove(&self.name);
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        let draining = self.health.state().draining;
        if !draining {
            self.health.set(&self.name, Status::Unhealthy("it has stopped".to_owned()));
        }
    }
}

/// What `/health` says, in the form of the source document's comprehensive health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `healthy`, `starting` or `unhealthy`: the worst of the checks.
    pub status: &'static str,
    /// The node's region.
    pub region: String,
    /// Whether calls should be sent here.
    pub ready: bool,
    /// Whether the node is about to stop.
    pub draining: bool,
    /// Each component by name.
    pub checks: BTreeMap<String, Check>,
}

impl Report {
    /// Whether every component works.
    pub fn is_healthy(&self) -> bool {
        self.status == "healthy"
    }
}

/// How one component is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `healthy`, `starting` or `unhealthy`.
    pub status: &'static str,
    /// Why it is unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What will make it unhealthy unless somebody does something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_components_is_starting() {
        let report = Health::new("us_east").report();
        assert_eq!((report.status, report.ready), ("starting", false));
    }

    #[test]
    fn one_unhealthy_shard_makes_the_node_unhealthy_and_leaves_it_ready() {
        let health = Health::new("us_east");
        let (good, bad) = (health.component("shard global/0"), health.component("shard global/1"));
        good.healthy();
        assert_eq!((health.report().status, health.report().ready), ("starting", false), "one is still coming up");
        bad.unhealthy("the chain breaks at 17");
        let report = health.report();
        assert_eq!((report.status, report.ready), ("unhealthy", true));
        assert_eq!(report.checks["shard global/1"].error.as_deref(), Some("the chain breaks at 17"));
        bad.healthy();
        assert!(health.report().is_healthy());
    }

    #[test]
    fn a_warning_is_shown_and_the_node_stays_healthy() {
        let health = Health::new("us_east");
        let credentials = health.component("credentials");
        credentials.warn("the certificate ends within 3 hours");
        let report = health.report();
        assert!(report.is_healthy() && report.ready);
        assert_eq!(report.checks["credentials"].warning.as_deref(), Some("the certificate ends within 3 hours"));
        credentials.healthy();
        assert_eq!(health.report().checks["credentials"].warning, None);
    }

    #[test]
    fn a_node_that_serves_nothing_is_not_ready_until_it_does() {
        let health = Health::new("us_east");
        let shard = health.component("shard global/0");
        shard.unhealthy("another version made its tables");
        assert!(health.report().ready);
        let serves = Arc::new(std::sync::atomic::AtomicBool::new(false));
        health.ready_if({
            let serves = serves.clone();
            move || serves.load(std::sync::atomic::Ordering::Relaxed)
        });
        assert!(!health.report().ready);
        serves.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(health.report().ready);
    }

    #[test]
    fn a_component_that_dies_is_noticed() {
        let health = Health::new("us_east");
        let component = health.component("projector");
        component.healthy();
        drop(component);
        assert_eq!(health.report().checks["projector"].status, "unhealthy");
    }

    #[test]
    fn a_draining_node_is_not_ready_and_reports_no_deaths() {
        let health = Health::new("us_east");
        let component = health.component("projector");
        component.healthy();
        health.drain();
        drop(component);
        let report = health.report();
        assert_eq!((report.status, report.ready), ("healthy", false));
    }
}
