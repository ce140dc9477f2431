//! The audit logs of the nodes: each looked through by its own node, while it is written.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use paymesh_contract::audit::v1::{AuditReport, VerifyAuditRequest, audit_service_client::AuditServiceClient, verify_audit_response::Step};
use paymesh_types::RegionName;
use serde::Serialize;

use super::{SHARDS_AT_ONCE_MAX, Trouble, said};
use crate::{client::Mesh, output, progress::Progress};

/// A log that was looked through.
#[derive(Debug, Serialize)]
pub(crate) struct AuditSummary {
    pub(crate) region: String,
    /// The first record that is kept.
    pub(crate) first_sequence: u64,
    /// The last record that was checked.
    pub(crate) last_sequence: u64,
    /// The chain's hash at its end: kept elsewhere, it shows later whether the log still goes through it.
    pub(crate) head_hash: String,
    /// Whether it is what was written.
    pub(crate) good: bool,
}

/// What became of the logs.
#[derive(Debug, Default)]
pub(super) struct Audits {
    pub(super) all: Vec<AuditSummary>,
    pub(super) problems: Vec<String>,
    /// Logs that could not be asked for, and why.
    pub(super) unreachable: BTreeMap<String, String>,
}

/// Has every node look through its log.
pub(super) async fn verify(mesh: &Mesh) -> Audits {
    let mut audits = Audits::default();
    let mut progress = Progress::new("audit logs      ", mesh.regions().len() as u64);
    let looks: Vec<_> = mesh.regions().map(|region| async move { (region, prove(mesh, region).await) }).collect();
    let mut looks = std::pin::pin!(futures::stream::iter(looks).buffer_unordered(SHARDS_AT_ONCE_MAX));
    let mut done = 0;
    while let Some((region, report)) = looks.next().await {
        let log = format!("audit log of {region}");
        match report.map_err(|trouble| trouble.at(mesh, region)) {
            Ok(report) => {
                audits.problems.extend(
                    report.damages.iter().map(|damage| format!("{log}: {}, record {}: {}", damage.file, damage.sequence, damage.problem)),
                );
                audits.all.push(AuditSummary {
                    region: region.to_string(),
                    first_sequence: report.first_sequence,
                    last_sequence: report.last_sequence,
                    head_hash: output::hex(&report.head_hash),
                    good: report.damages.is_empty(),
                });
            }
            Err(Trouble::Refused(why)) => audits.problems.push(format!("{log}: {why}")),
            Err(Trouble::Unreachable(why)) => {
                audits.unreachable.insert(log, why);
            }
        }
        done += 1;
        progress.set_done(done, "logs");
    }
    progress.finish();
    audits.all.sort_by(|one, other| one.region.cmp(&other.region));
    audits
}

async fn prove(mesh: &Mesh, region: &RegionName) -> Result<AuditReport, Trouble> {
    super::there(mesh, region).await?;
    let mut node = AuditServiceClient::new(mesh.channel(region));
    let mut steps = said(mesh, region, node.verify_audit(VerifyAuditRequest::default())).await?.into_inner();
    while let Some(step) = said(mesh, region, steps.message()).await? {
        if let Some(Step::Report(report)) = step.step {
            return Ok(report);
        }
    }
    Err(Trouble::Unreachable("the answer ended before its result".to_owned()))
}
