//! Which gateways a payment may go to, in which order, and why. Pure: health and chance are arguments.

use paymesh_cards::Brand;
use paymesh_topology::{Gateways, Preference, RoutingRule, When};
use paymesh_types::{Country, Money, ZoneName};

/// What is looked at of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// How much.
    pub amount: Money,
    /// The card's brand.
    pub brand: Brand,
    /// The payer's country of residence. Where it is not known, no rule that asks for one fits.
    pub country: Option<Country>,
    /// The payer's zone.
    pub zone: ZoneName,
}

/// How a gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is called.
    Good,
    /// It is called now and then, to see whether it is well again.
    Probing,
    /// It is not called.
    Open,
}

/// Chance: a number from 0 to below the argument, which is at least 1. Seeded, it makes a route again.
pub trait Roll {
    /// The next.
    fn below(&mut self, bound: u64) -> u64;
}

impl<F: FnMut(u64) -> u64> Roll for F {
    fn below(&mut self, bound: u64) -> u64 {
        self(bound)
    }
}

/// Why a gateway is where it is in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Picked among those of the rule.
    Picked,
    /// Named for when none of those is left.
    FallBack,
}

/// A gateway that the payment may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub gateway: String,
    /// Why it is here.
    pub stage: Stage,
    /// What the payment costs there, in its minor units.
    pub cost_minor: i64,
    /// How it is.
    pub health: Health,
}

/// Why the payment does not go to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyLeft {
    /// The rule does not name it.
    NotInRule,
    /// It does not serve the payer's zone.
    Zone,
    /// Its breaker is open.
    Open,
    /// There are enough before it.
    Enough,
}

impl WhyLeft {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotInRule => "not_in_rule",
            Self::Zone => "zone",
            Self::Open => "open",
            Self::Enough => "enough",
        }
    }
}

/// A gateway that the payment does not go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub gateway: String,
    /// Why not.
    pub why: WhyLeft,
}

/// Where a payment goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The rule that fits.
    pub rule: String,
    /// In this order. May be empty: all are open.
    pub candidates: Vec<Candidate>,
    /// All others.
    pub left: Vec<Left>,
}

/// Where a payment goes: every gateway is in the route once, as a candidate or with why it is none.
pub fn route(gateways: &Gateways, payment: &Payment, health: impl Fn(&str) -> Health, roll: &mut impl Roll) -> Route {
    let Some(rule) = gateways.rules().iter().find(|rule| fits(&rule.when, payment)) else {
        // The last rule is for all payments: a configuration without such is refused.
        let left = gateways.gateways().iter().map(|gateway| Left { gateway: gateway.name.clone(), why: WhyLeft::NotInRule });
        return Route { rule: String::new(), candidates: Vec::new(), left: left.collect() };
    };
    let picked = in_order(gateways, rule, payment, roll);
    let order = picked.into_iter().map(|name| (name, Stage::Picked)).chain(rule.then.iter().map(|name| (name.as_str(), Stage::FallBack)));
    let mut route = Route { rule: rule.name.clone(), candidates: Vec::new(), left: Vec::new() };
    for (name, stage) in order {
        let Some(gateway) = gateways.gateway(name) else { continue };
        let health = health(name);
        let why = if !gateway.zones.has(&payment.zone) {
            WhyLeft::Zone
        } else if health == Health::Open {
            WhyLeft::Open
        } else if route.candidates.len() >= gateways.retries().attempts as usize {
            WhyLeft::Enough
        } else {
            let cost_minor = gateway.cost.of(payment.amount);
            route.candidates.push(Candidate { gateway: name.to_owned(), stage, cost_minor, health });
            continue;
        };
        route.left.push(Left { gateway: name.to_owned(), why });
    }
    for gateway in gateways.gateways() {
        let named = rule.gateways.iter().any(|(name, _)| *name == gateway.name) || rule.then.contains(&gateway.name);
        if !named {
            route.left.push(Left { gateway: gateway.name.clone(), why: WhyLeft::NotInRule });
        }
    }
    route
}

fn fits(when: &When, payment: &Payment) -> bool {
    let minor = payment.amount.minor();
    when.currencies.as_ref().is_none_or(|currencies| currencies.contains(&payment.amount.currency()))
        && when.brands.as_ref().is_none_or(|brands| brands.contains(&payment.brand))
        && when.countries.as_ref().is_none_or(|countries| payment.country.is_some_and(|country| countries.contains(&country)))
        && when.zones.as_ref().is_none_or(|zones| zones.contains(&payment.zone))
        && when.from_minor.is_none_or(|from| minor >= from)
        && when.to_minor.is_none_or(|to| minor <= to)
}

/// A rule's gateways, one after the other picked by weight; the cheapest first where the rule says so.
fn in_order<'a>(gateways: &Gateways, rule: &'a RoutingRule, payment: &Payment, roll: &mut impl Roll) -> Vec<&'a str> {
    let mut rest: Vec<(&str, u64)> = rule.gateways.iter().map(|(name, weight)| (name.as_str(), u64::from(*weight))).collect();
    let mut order = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let total: u64 = rest.iter().map(|(_, weight)| weight).sum();
        let mut rolled = roll.below(total.max(1));
        let at = rest.iter().position(|(_, weight)| {
            let here = rolled < *weight;
            rolled = rolled.saturating_sub(*weight);
            here
        });
        order.push(rest.remove(at.unwrap_or(0)).0);
    }
    if rule.by == Preference::Cost {
        // Stable: among equals, the weights have decided.
        order.sort_by_key(|name| gateways.gateway(name).map_or(i64::MAX, |gateway| gateway.cost.of(payment.amount)));
    }
    order
}
