//! A client in Python, with stubs that are made from the contract.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xtask::mesh::Mesh;

use crate::{ENTRANCE, ended};

/// How long stubs may take to be made, and the example to run.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The user whom the example pays: a token of that one is shown to see what it may not do.
const PAYEE: &str = "4101";

/// Makes stubs and runs the example by them, which says whether it got what it should.
pub(super) async fn pay(mesh: &Mesh, packages: &Path, proto: &Path, example: &Path, folder: &Path) -> Result<()> {
    let stubs = folder.join("stubs");
    fs::create_dir(&stubs)?;
    let mut files = Vec::new();
    proto_files(proto, &mut files)?;
    ensure!(!files.is_empty(), "{} holds no contract", proto.display());
    let mut protoc = python(&[packages])?;
    protoc.args(["-m", "grpc_tools.protoc", "--proto_path"]).arg(proto);
    protoc.arg("--python_out").arg(&stubs).arg("--grpc_python_out").arg(&stubs).args(&files);
    ended(protoc, b"", TIME_MAX).await?.succeeded().context("no stubs")?;

    let mut pay = python(&[packages, &stubs])?;
    pay.arg(example).arg(mesh.region(ENTRANCE)?.grpc.to_string()).arg(mesh.credentials()?.join(paymesh_identity::AUTHORITIES_FILE));
    pay.env("TOKEN", mesh.token(["checkout"])?).env("OTHER_TOKEN", mesh.token(["wallet_app", "--user", PAYEE])?);
    print!("{}", ended(pay, b"", TIME_MAX).await?.succeeded()?);
    Ok(())
}

fn python(packages: &[&Path]) -> Result<Command> {
    let mut python = Command::new("python3");
    // Nothing of the machine's own packages, and nothing written beside what is read.
    python.args(["-s", "-B"]).env("PYTHONPATH", env::join_paths(packages)?).env("PYTHONIOENCODING", "utf-8");
    Ok(python)
}

fn proto_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
