//! `paymesh render`: region-config in the words of what runs the mesh.
//!
//! Everything is made in memory and validated before a file is touched, and made the same way every time: what is committed can be compared with what would be
//! made. What a company adds of its own is elsewhere; nothing here writes there.

mod autoscaling;
mod folders;
mod kubernetes;
mod yaml;

use crate::{
    args::{RenderCommand, Setting},
    exit::Exit,
};

pub(crate) use kubernetes::DEPLOYED_NAME_BYTES_MAX;

/// Runs the command.
pub(crate) fn run(setting: &Setting, command: &RenderCommand) -> anyhow::Result<Exit> {
    match command {
        RenderCommand::Kubernetes(args) => kubernetes::run(&setting.config, args),
        RenderCommand::Autoscaling(args) => autoscaling::run(setting, args),
    }
}
