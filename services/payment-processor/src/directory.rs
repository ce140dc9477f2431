//! DirectoryService: enrolment at the home in the user's zone, and the directory's own shards, which know users' zones.
//!
//! The home claims the id at the directory before it enrols, so that two zones never enrol the same id. A claim whose
//! enrolment was lost stands; enrolling again goes on from it.

use std::sync::Arc;

use paymesh_access::{Caller, Refusal};
use paymesh_contract::{
    Fault,
    common::v1::ShardRef as ShardMessage,
    directory::v1::{
        ClaimUserRequest, ClaimUserResponse, EnrollUserRequest, EnrollUserResponse, LookUpUsersRequest, LookUpUsersResponse, UserZone,
        directory_service_client::DirectoryServiceClient, directory_service_server::DirectoryService,
    },
};
use paymesh_ledger::{Command, Rejection, Request as Wanted};
use paymesh_mesh::{Call, route};
use paymesh_shard::{Error, Shard};
use paymesh_types::{Invalid, Position, UserId, ZoneName};
use tonic::{Code, Request, Response, Status};

use crate::{answer, door, error, homes::Homes, whose};

/// Users of one look-up at most.
const LOOK_UP_USERS_MAX: usize = 8_192;

/// The service.
#[derive(Debug)]
pub(crate) struct Directory {
    homes: Arc<Homes>,
}

impl Directory {
    pub(crate) fn new(homes: Arc<Homes>) -> Self {
        Self { homes }
    }

    /// Makes sure that the id belongs to the zone.
    async fn claim(&self, call: Option<&Call>, user: UserId, zone: &ZoneName) -> Result<(), Fault> {
        let directory = self.homes.mesh().directory();
        // A claim never changes, so one that is known here needs no question.
        match directory.cached(user) {
            Some(held) if held == *zone => return Ok(()),
            Some(held) => return Err(error::rejected(Rejection::UserInAnotherZone { user, zone: held })),
            None => {}
        }
        let mut request = Request::new(ClaimUserRequest { user_id: user.get(), zone: zone.as_str().to_owned() });
        if let Some(call) = call {
            call.carry(&mut request);
        }
        let mut client = DirectoryServiceClient::new(self.homes.mesh().channel());
        client.claim_user(request).await.map_err(|status| Fault::from_status(&status))?;
        directory.learn(user, zone);
        Ok(())
    }

    /// The directory's shard of a user, led here.
    fn shard(&self, user: UserId) -> Result<&Shard, Fault> {
        self.homes.led(&self.homes.topology().directory_shard(user))
    }
}

#[tonic::async_trait]
impl DirectoryService for Directory {
    async fn enroll_user(&self, request: Request<EnrollUserRequest>) -> Result<Response<EnrollUserResponse>, Status> {
        let new = door::NewUser::try_from(request.get_ref())?;
        let plan = route::Plan::Resident(new.country, new.user);
        let home = route::shard(self.homes.topology(), &plan, None)?;
        let home =
            home.ok_or_else(|| Fault::new(Code::FailedPrecondition, "COUNTRY_NOT_SERVED", "no zone takes residents of that country"))?;
        let shard = self.homes.led(&home)?;
        let claimed = self.claim(Call::of(&request), new.user, &home.zone).await;
        // Who acts in some zones only is not told in which other the id is.
        let hidden = |fault: &Fault| fault.reason == "USER_IN_ANOTHER_ZONE" && whose::caller(&request).is_bound();
        claimed.map_err(|fault| match hidden(&fault) {
            true => error::rejected(Rejection::UserExists { user: new.user }),
            false => fault,
        })?;
        let answer = shard.submit(new.command()).await.map_err(error::failed)?;
        Ok(Response::new(EnrollUserResponse { shard: Some(ShardMessage::from(&home)), position: answer::position(&answer.position) }))
    }

    async fn claim_user(&self, request: Request<ClaimUserRequest>) -> Result<Response<ClaimUserResponse>, Status> {
        let caller = whose::caller(&request);
        let request = request.get_ref();
        let user = door::user(request.user_id, "user_id")?;
        let zone: ZoneName = request.zone.parse().map_err(|error: Invalid| Fault::invalid_field("zone", error.to_string()))?;
        if self.homes.topology().zone(&zone).is_none() {
            return Err(Fault::invalid_field("zone", format!("there is no zone `{zone}` in region-config")).into());
        }
        // Homes claim the users that they enrol.
        if let Caller::Node(region) = &caller
            && !self.homes.topology().is_of(region, &zone)
        {
            return Err(Fault::from(Refusal::NotYourZone).into());
        }
        let shard = self.shard(user)?;
        let position = match shard.submit(Wanted { id: None, command: Command::ClaimUser { user, zone } }).await {
            Ok(answer) => answer.position,
            // It stands already, somewhere up to here.
            Err(Error::Rejected(Rejection::NothingNew)) => {
                Position { shard: shard.reference().clone(), epoch: shard.epoch(), sequence: shard.tail().head() }
            }
            Err(error) => return Err(error::failed(error).into()),
        };
        Ok(Response::new(ClaimUserResponse { position: answer::position(&position) }))
    }

    async fn look_up_users(&self, request: Request<LookUpUsersRequest>) -> Result<Response<LookUpUsersResponse>, Status> {
        let ids = &request.get_ref().user_ids;
        if ids.len() > LOOK_UP_USERS_MAX {
            let message = format!("at most {LOOK_UP_USERS_MAX} users are looked up at once, not {}", ids.len());
            return Err(Fault::new(Code::InvalidArgument, "TOO_MANY_ITEMS", message).with_field("user_ids").into());
        }
        let users = ids.iter().map(|id| door::user(*id, "user_ids")).collect::<Result<Vec<_>, _>>()?;
        let first = *users.first().ok_or_else(|| Fault::invalid_field("user_ids", "at least one user is needed"))?;
        let topology = self.homes.topology();
        if users.iter().any(|user| topology.directory_shard(*user) != topology.directory_shard(first)) {
            return Err(Fault::invalid_field("user_ids", "all users must be of the directory shard of the first").into());
        }
        if let Some(call) = Call::of(&request) {
            // The first is known to the mesh.
            call.is_about(users.iter().copied().skip(1));
        }
        let caller = whose::caller(&request);
        let claims = self.shard(first)?.claims(&users).await.map_err(error::failed)?;
        // Of a zone that the caller does not act in it is not told who is there.
        let told = claims.into_iter().filter(|(_, zone)| caller.acts_in(zone).is_ok());
        let users = told.map(|(user, zone)| UserZone { user_id: user.get(), zone: zone.as_str().to_owned() }).collect();
        Ok(Response::new(LookUpUsersResponse { users }))
    }
}
