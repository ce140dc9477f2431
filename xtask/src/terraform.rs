//! `cargo xtask terraform`, and the step of the same name: what is in deploy/terraform is well formed, keeps its policies, and can be applied.
//!
//! The provider comes from Terraform's registry. Where that cannot be reached, and where a laboratory is there (`$PAYMESH_TERRAFORM_LAB`, or [`DEFAULT_LAB`]), that
//! has an older provider, a script that rewrites a copy of the sources for it, and an emulator of AWS: then roots are applied too, planned again, which must change
//! nothing, and destroyed. An emulator shows that the parts fit together, and not that AWS takes them.

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{
    check::WORKSPACE,
    process::{cargo, command, on_path, read, root, run as run_program, target_folder},
    steps::Outcome,
};

/// The laboratory that is used when none is named, from the workspace's root.
const DEFAULT_LAB: &str = "../shared/terraform-lab";
const SOURCES: &str = "deploy/terraform";
/// Modules with tests of their own.
const MODULES: [&str; 3] = ["modules/facts", "modules/region", "modules/global"];
const ROOTS: [&str; 2] = ["global", "region"];
/// Resources at a time: an emulator is quick, and what takes time is to ask again, half a minute later, whether something is there.
const PARALLELISM: &str = "-parallelism=40";
/// How long the emulator has to listen.
const EMULATOR_START: Duration = Duration::from_secs(60);

/// The region that is added to try out that one edit is enough, and how.
const ADDED: &str = "eu_central";
const ADD: [&str; 7] = ["region", "add", ADDED, "--zone", "eu", "--aws-region", "eu-central-1"];

/// The chore: everything that can be checked here, with all regions, or those that are named.
///
/// # Errors
/// Something is not as it should be.
pub(crate) fn alone(regions: Vec<String>, quick: bool) -> Result<()> {
    let begun = Instant::now();
    let all = if regions.is_empty() { None } else { Some(regions) };
    match check(&if quick { Wanted::Added } else { Wanted::Regions(all) })? {
        Outcome::Skipped(why) => println!("SKIPPED: {why}"),
        Outcome::PassedWith(note) => println!("ok ({note}), {:.0?}", begun.elapsed()),
        Outcome::Passed => println!("ok, {:.0?}", begun.elapsed()),
    }
    Ok(())
}

/// The step: of the regions, the one that is added by one edit is applied, by itself.
///
/// # Errors
/// As [`alone`].
pub(crate) fn run() -> Result<Outcome> {
    check(&Wanted::Added)
}

/// Which regions are applied where they can be.
enum Wanted {
    /// These, and those whose databases they copy, by the names that `global` has made; `None`: all, and the one that is added.
    Regions(Option<Vec<String>>),
    /// The one that is added, without the database that would be a copy of another's; beside `global`, so that it takes a minute or two.
    Added,
}

fn check(wanted: &Wanted) -> Result<Outcome> {
    let lab = Laboratory::find()?;
    let terraform = on_path("terraform");
    let Some(formatter) = terraform.clone().or_else(|| lab.as_ref().map(|lab| lab.terraform.clone())) else {
        return Ok(Outcome::Skipped("no terraform on PATH, and no laboratory".into()));
    };
    run_program(command(&formatter).args(["fmt", "-check", "-recursive", SOURCES]))?;
    let scratch = target_folder()?.join("terraform");
    copy_sources(&scratch)?;
    let Some(lab) = lab else {
        let terraform = Tool { program: formatter, config: None };
        return match registry(&terraform, &scratch) {
            Some(why) => Ok(Outcome::Skipped(format!("formatting is right; the provider cannot be had: {why}"))),
            None => {
                validate_all(&terraform, &scratch)?;
                Ok(Outcome::PassedWith("validated and tested; no laboratory, so nothing was applied".into()))
            }
        };
    };
    // What is written for the provider that is used in earnest is checked against it by name, and run by the one that is here.
    run_program(command(&lab.python).arg(lab.folder.join("check_provider_6.py")).arg(SOURCES))?;
    run_program(command(&lab.python).arg(lab.folder.join("to_provider_3.py")).arg(&scratch))?;
    let terraform = Tool { program: lab.terraform.clone(), config: Some(lab.config.clone()) };
    validate_all(&terraform, &scratch)?;
    // The policies are about region-config as it ships; one edit later everything has to fit all the same.
    let added = add_region(&scratch)?;
    let Emulated { emulator: _emulator, logs } = emulate(&lab, &terraform, &scratch)?;
    let applied = match wanted {
        Wanted::Added => apply_added(&terraform, &scratch, &logs, added)?,
        Wanted::Regions(regions) => apply_all(&terraform, &scratch, &logs, regions.as_deref(), added)?,
    };
    Ok(Outcome::PassedWith(format!("against an emulator: {applied}, planned again without a change, destroyed")))
}

/// A Terraform, and where it finds providers.
struct Tool {
    program: PathBuf,
    config: Option<PathBuf>,
}

impl Tool {
    fn command(&self, folder: &Path) -> Command {
        let mut command = command(&self.program);
        command.current_dir(folder).env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1").env("AWS_EC2_METADATA_DISABLED", "true");
        if let Some(config) = &self.config {
            command.env("TF_CLI_CONFIG_FILE", config);
        }
        command
    }

    /// Runs to the end; what it said goes into a file, which an error names, with its last lines.
    fn logged(&self, folder: &Path, arguments: &[&str], workspace: Option<&str>, log: &Path) -> Result<()> {
        let mut command = self.command(folder);
        if let Some(workspace) = workspace {
            command.env("TF_WORKSPACE", workspace);
        }
        let output = command.args(arguments).output().with_context(|| format!("{} cannot be started", self.program.display()))?;
        let mut said = output.stdout;
        said.extend(&output.stderr);
        fs::write(log, &said).with_context(|| format!("{} cannot be written", log.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            bail!("terraform {} failed ({}); all of it is in {}\n{last}", arguments.join(" "), output.status, log.display());
        }
        Ok(())
    }
}

/// Why the registry gives no provider. None: it does.
fn registry(terraform: &Tool, scratch: &Path) -> Option<String> {
    let folder = scratch.join(SOURCES).join("modules/region");
    let error = read(terraform.command(&folder).args(["init", "-backend=false", "-input=false", "-no-color"])).err()?;
    let said = format!("{error:#}");
    Some(said.lines().map(str::trim).filter(|line| !line.is_empty()).find(|line| line.contains("rror")).unwrap_or("init failed").to_owned())
}

fn validate_all(terraform: &Tool, scratch: &Path) -> Result<()> {
    let init = ["init", "-backend=false", "-input=false", "-no-color"];
    for module in MODULES {
        let folder = scratch.join(SOURCES).join(module);
        read(terraform.command(&folder).args(init)).with_context(|| module.to_owned())?;
        // A module that takes its providers from a root cannot be validated by itself; its tests do it.
        run_program(terraform.command(&folder).args(["test", "-no-color"])).with_context(|| module.to_owned())?;
    }
    for name in ROOTS {
        let folder = scratch.join(SOURCES).join(name);
        read(terraform.command(&folder).args(init)).with_context(|| name.to_owned())?;
        read(terraform.command(&folder).args(["validate", "-no-color"])).with_context(|| name.to_owned())?;
        println!("root {name} is valid");
    }
    Ok(())
}

/// The laboratory, set up.
struct Laboratory {
    folder: PathBuf,
    terraform: PathBuf,
    config: PathBuf,
    python: PathBuf,
    emulator: PathBuf,
}

impl Laboratory {
    /// None: there is none here.
    fn find() -> Result<Option<Self>> {
        let folder = match env::var_os("PAYMESH_TERRAFORM_LAB").filter(|path| !path.is_empty()).map(PathBuf::from) {
            Some(named) => {
                ensure!(named.join("setup").is_file(), "PAYMESH_TERRAFORM_LAB names {}, which has no laboratory", named.display());
                named
            }
            None => root().join(DEFAULT_LAB),
        };
        let setup = folder.join("setup");
        if !setup.is_file() {
            return Ok(None);
        }
        println!("setting up the laboratory in {} (once: a minute or two)", folder.display());
        let place = PathBuf::from(read(&mut command(setup)).context("the laboratory cannot be set up")?);
        Ok(Some(Self {
            terraform: place.join("tf"),
            config: place.join("terraformrc"),
            python: place.join("venv/bin/python"),
            emulator: place.join("aws_emulator.py"),
            folder,
        }))
    }
}

/// An emulator of AWS, which ends with this value.
struct Emulator {
    process: Child,
    url: String,
}

impl Emulator {
    fn start(lab: &Laboratory, log: &Path) -> Result<Self> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("a free port")?;
        let output = fs::File::create(log).with_context(|| format!("{} cannot be created", log.display()))?;
        let process = command(&lab.python)
            .arg(&lab.emulator)
            .args(["-H", "127.0.0.1", "-p", &free.port().to_string()])
            .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
            .stdout(output.try_clone().context("the emulator's log")?)
            .stderr(output)
            .stdin(Stdio::null())
            .spawn()
            .context("the emulator cannot be started")?;
        let emulator = Self { process, url: format!("http://{free}") };
        let begun = Instant::now();
        while std::net::TcpStream::connect_timeout(&free, Duration::from_secs(1)).is_err() {
            ensure!(
                begun.elapsed() < EMULATOR_START,
                "the emulator does not listen after {EMULATOR_START:?}; its log is {}",
                log.display()
            );
            thread::sleep(Duration::from_millis(200));
        }
        Ok(emulator)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An emulator that the roots of the copy speak to, and where logs are.
struct Emulated {
    emulator: Emulator,
    logs: PathBuf,
}

fn emulate(lab: &Laboratory, terraform: &Tool, scratch: &Path) -> Result<Emulated> {
    let logs = scratch.join("logs");
    fs::create_dir_all(&logs).with_context(|| format!("{} cannot be created", logs.display()))?;
    let emulator = Emulator::start(lab, &logs.join("emulator.log"))?;
    for name in ROOTS {
        let folder = scratch.join(SOURCES).join(name);
        read(command(&lab.python).arg(lab.folder.join("to_provider_3.py")).args(["--override", &emulator.url]).arg(&folder))?;
        read(terraform.command(&folder).args(["init", "-backend=false", "-input=false", "-no-color"]))?;
    }
    Ok(Emulated { emulator, logs })
}

/// Applies `global` and a region beside each other, plans each again, and destroys it. Most of the time both wait for what would take a while.
fn apply_added(terraform: &Tool, scratch: &Path, logs: &Path, added: &str) -> Result<String> {
    let roots = scratch.join(SOURCES);
    let global = Applied { terraform, folder: roots.join("global"), name: "global", variables: Vec::new(), logs };
    let variables = vec![format!("-var=region={added}"), r#"-var=engines=["cache","stream"]"#.to_owned()];
    let region = Applied { terraform, folder: roots.join("region"), name: added, variables, logs };
    thread::scope(|scope| {
        let beside = scope.spawn(|| global.through());
        region.workspace().and_then(|()| region.through())?;
        beside.join().map_err(|_| anyhow!("the thread of root global died"))?
    })?;
    Ok(format!("global and {added} applied"))
}

/// Applies `global` and the regions, masters before those that copy them; plans each again; destroys them in the opposite order.
fn apply_all(terraform: &Tool, scratch: &Path, logs: &Path, wanted: Option<&[String]>, added: &str) -> Result<String> {
    let regions = in_order(scratch, wanted, added)?;
    let global = Applied { terraform, folder: scratch.join(SOURCES).join("global"), name: "global", variables: Vec::new(), logs };
    global.apply()?;
    let zone_id = read(terraform.command(&global.folder).args(["output", "-raw", "zone_id"]))?;
    let folder = scratch.join(SOURCES).join("region");
    let applied = |region| Applied {
        terraform,
        folder: folder.clone(),
        name: region,
        variables: vec![format!("-var=region={region}"), format!("-var=zone_id={zone_id}")],
        logs,
    };
    let roots: Vec<Applied<'_>> = regions.iter().map(|region| applied(region)).collect();
    for region in &roots {
        region.workspace()?;
        region.apply()?;
    }
    for applied in std::iter::once(&global).chain(&roots) {
        applied.changes_nothing()?;
    }
    for applied in roots.iter().rev().chain([&global]) {
        applied.destroy()?;
    }
    Ok(format!("global, {} applied", regions.join(", ")))
}

/// A root with its variables. The states of regions are in workspaces of their names.
struct Applied<'a> {
    terraform: &'a Tool,
    folder: PathBuf,
    name: &'a str,
    variables: Vec<String>,
    logs: &'a Path,
}

impl Applied<'_> {
    fn workspace(&self) -> Result<()> {
        read(self.terraform.command(&self.folder).args(["workspace", "new", "-no-color", self.name])).map(|_| ())
    }

    fn run(&self, what: &str, arguments: &[&str]) -> Result<()> {
        let begun = Instant::now();
        let variables = self.variables.iter().map(String::as_str);
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-input=false", "-no-color"]).chain(variables).collect();
        let workspace = (!self.variables.is_empty()).then_some(self.name);
        let log = self.logs.join(format!("{}-{what}.log", self.name));
        self.terraform.logged(&self.folder, &arguments, workspace, &log).with_context(|| format!("{}: {what}", self.name))?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        let summary = said.lines().find(|line| line.contains("complete!") || line.starts_with("No changes")).unwrap_or_default().to_owned();
        println!("{}: {what}: {summary} {:.0?}", self.name, begun.elapsed());
        Ok(())
    }

    fn through(&self) -> Result<()> {
        self.apply()?;
        self.changes_nothing()?;
        self.destroy()
    }

    fn apply(&self) -> Result<()> {
        self.run("apply", &["apply", "-auto-approve", PARALLELISM])
    }

    fn changes_nothing(&self) -> Result<()> {
        // With 2 it says that something would be changed, which is an error here.
        self.run("second plan", &["plan", "-detailed-exitcode"])
    }

    fn destroy(&self) -> Result<()> {
        self.run("destroy", &["destroy", "-auto-approve", PARALLELISM])
    }
}

/// The regions to apply: those that are wanted and those whose databases they copy, which come first.
fn in_order(scratch: &Path, wanted: Option<&[String]>, added: &str) -> Result<Vec<String>> {
    let listed = read(paymesh(scratch)?.args(["region", "list", "--json"]))?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).context("`paymesh region list --json`")?;
    let text = |region: &serde_json::Value, key: &str| region[key].as_str().map(str::to_owned);
    let sources: BTreeMap<String, Option<String>> =
        listed.iter().filter_map(|region| Some((text(region, "region")?, text(region, "replica_of")))).collect();
    ensure!(sources.contains_key(added), "{added} is not among the regions");
    let all: Vec<String> = wanted.map_or_else(|| sources.keys().cloned().collect(), <[String]>::to_vec);
    let mut order: Vec<String> = Vec::new();
    for name in all {
        let source = sources.get(&name).with_context(|| format!("there is no region {name}"))?;
        for next in source.iter().chain([&name]) {
            if !order.contains(next) {
                order.push(next.clone());
            }
        }
    }
    Ok(order)
}

/// Adds a region to the copy of region-config, by the command that operators use.
fn add_region(scratch: &Path) -> Result<&'static str> {
    run_program(cargo().arg("build").args(WORKSPACE).args(["--bin", "paymesh"]))?;
    run_program(paymesh(scratch)?.args(ADD))?;
    Ok(ADDED)
}

/// The program, with the copy of region-config.
fn paymesh(scratch: &Path) -> Result<Command> {
    let mut paymesh = command(target_folder()?.join("debug/paymesh"));
    paymesh.arg("--config").arg(scratch.join("region-config"));
    Ok(paymesh)
}

/// What Terraform reads, in a fresh folder.
fn copy_sources(scratch: &Path) -> Result<()> {
    if scratch.exists() {
        fs::remove_dir_all(scratch).with_context(|| format!("{} cannot be removed", scratch.display()))?;
    }
    for part in [SOURCES, "region-config"] {
        copy(&root().join(part), &scratch.join(part))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("{} cannot be created", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        // What an operator's own runs have left.
        let text = name.to_string_lossy();
        if text == ".terraform" || text == "backend.tf" || text.ends_with(".tfvars") || text.contains(".tfstate") {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("{} cannot be copied", from.display()))?;
        }
    }
    Ok(())
}
