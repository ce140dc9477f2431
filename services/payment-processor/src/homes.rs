//! Where users and payments live, and the shards that are led here.
//!
//! The topology's answers as numbers: every shard has a slot, so that a batch of thousands is parted without comparing
//! names of shards. What is led elsewhere is refused here, however the call was routed.

use paymesh_contract::Fault;
use paymesh_mesh::{Mesh, route};
use paymesh_shard::{Copies, Error, Shard, Shards};
use paymesh_topology::Topology;
use paymesh_types::{PaymentId, RegionName, ShardRef, UserId, ZoneName};

use crate::error;

/// What every service of the region works with.
#[derive(Debug)]
pub(crate) struct Homes {
    mesh: Mesh,
    shards: Shards,
    copies: Copies,
    zones: Vec<Zone>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Zone {
    name: ZoneName,
    shards: u16,
    /// The slot of its shard 0.
    first: usize,
}

/// A shard that users can live on.
#[derive(Debug)]
pub(crate) struct Place {
    /// The shard.
    pub(crate) shard: ShardRef,
    /// The region that leads it, where that is another.
    pub(crate) elsewhere: Option<RegionName>,
}

/// A place's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(usize);

impl Homes {
    pub(crate) fn new(shards: Shards, copies: Copies, mesh: Mesh) -> Self {
        let (mut zones, mut places) = (Vec::new(), Vec::new());
        for zone in mesh.topology().zones() {
            zones.push(Zone { name: zone.name.clone(), shards: zone.shards, first: places.len() });
            places.extend((0..zone.shards).map(|index| {
                let shard = ShardRef { zone: zone.name.clone(), index };
                let elsewhere = mesh.topology().leader(&shard).filter(|leader| *leader != mesh.region()).cloned();
                Place { shard, elsewhere }
            }));
        }
        Self { mesh, shards, copies, zones, places }
    }

    pub(crate) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    pub(crate) fn topology(&self) -> &Topology {
        self.mesh.topology()
    }

    pub(crate) fn shards(&self) -> &Shards {
        &self.shards
    }

    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(crate) fn place(&self, slot: Slot) -> &Place {
        &self.places[slot.0]
    }

    /// The user's slot in a zone.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `COUNTRY_NOT_SERVED`: the zone is not in this node's region-config.
    pub(crate) fn slot(&self, zone: &ZoneName, user: UserId) -> Result<Slot, Fault> {
        match self.zones.iter().find(|known| known.name == *zone) {
            Some(known) => Ok(Slot(known.first + usize::from(user.shard(known.shards)))),
            // The mesh has the words for it.
            None => route::shard(self.topology(), &route::Plan::User(user), Some(zone))
                .and(Err(Fault::not_found("SHARD_NOT_FOUND", format!("there is no zone `{zone}`")))),
        }
    }

    /// The user's slot where it is known without asking.
    pub(crate) fn known_slot(&self, user: UserId) -> Option<Slot> {
        let zone = self.mesh.directory().cached(user)?;
        self.slot(&zone, user).ok()
    }

    /// The user's slot; the request's `field` names the user.
    ///
    /// # Errors
    /// `USER_NOT_FOUND`, or those of the directory's home when it has to be asked.
    pub(crate) async fn slot_of(&self, user: UserId, field: &'static str) -> Result<Slot, Fault> {
        if let Some(slot) = self.known_slot(user) {
            return Ok(slot);
        }
        let zone = self.mesh.directory().zone_of(user).await?;
        self.slot(&zone.ok_or_else(|| error::user_not_found(user, field))?, user)
    }

    /// The user's shard, wherever it is led; the request's `field` names the user.
    ///
    /// # Errors
    /// As of [`Self::slot_of`].
    pub(crate) async fn home_of(&self, user: UserId, field: &'static str) -> Result<&ShardRef, Fault> {
        let slot = self.slot_of(user, field).await?;
        Ok(&self.place(slot).shard)
    }

    /// The user's shard, led here; the request's `field` names the user.
    ///
    /// # Errors
    /// As of [`Self::slot_of`], and those of [`Self::led`].
    pub(crate) async fn shard_of(&self, user: UserId, field: &'static str) -> Result<&Shard, Fault> {
        let slot = self.slot_of(user, field).await?;
        self.led(&self.place(slot).shard)
    }

    /// The payment's shard, led here.
    ///
    /// # Errors
    /// `PAYMENT_NOT_FOUND` where the mesh has no such shard, and those of [`Self::led`].
    pub(crate) fn shard_of_payment(&self, payment: &PaymentId) -> Result<&Shard, Fault> {
        route::shard(self.topology(), &route::Plan::Payment(payment.clone()), None)?;
        self.led(payment.shard())
    }

    /// A shard, led here.
    ///
    /// # Errors
    /// `SHARD_NOT_SERVING`, `SHARD_HISTORY_MISSING`.
    pub(crate) fn led(&self, shard: &ShardRef) -> Result<&Shard, Fault> {
        self.shards.get(shard).map_err(|error: Error| error::failed(error))
    }
}
