//! The command line: its words, its help, its defaults. What the words do is in the module of each command.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use paymesh_topology::{Endpoint, Network};
use paymesh_types::{RegionName, ZoneName};

use crate::plan::PlanCommand;

const AFTER_HELP: &str = "\
Examples:
  paymesh demo                           a whole mesh, 12,700 payments, the proof
  paymesh up --data ./data               every region, until Ctrl-C
  paymesh submit examples/payments.csv   plays a file into the running mesh
  paymesh status                         what each region and shard is doing
  paymesh verify                         proves the books of the running mesh

Exit codes:
  0  everything was done, and adds up
  1  something failed or did not add up; the output names it
  2  the command line, the configuration or the input file cannot be used
  3  the mesh, or a part of it that the command needs, did not answer";

/// paymesh: a multi-region payment mesh.
///
/// Every region runs nodes that accept any request; the mesh carries each request to the home of the user whose money
/// it moves, and books it durably there. This program is both: a region's node, and the command line of its operators.
#[derive(Debug, Parser)]
#[command(name = "paymesh", version, after_long_help = AFTER_HELP, after_help = "`paymesh --help` has examples and the exit codes.")]
pub(crate) struct Args {
    /// Directory of the mesh's configuration: regions.yaml
    ///
    /// It names every region, its endpoints and services, the compliance zones and their shards. All nodes and clients of
    /// a mesh read the same file.
    #[arg(long, global = true, value_name = "DIR", env = "PAYMESH_CONFIG", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,

    /// Directory of the mesh's credentials: ca.crt, each region's node in a directory of its name, and the operator's
    ///
    /// `paymesh certs` makes one for development, and `paymesh up` does so where there is none. Nodes speak TLS 1.3 only and show each
    /// other their certificates; clients believe nodes that ca.crt does, and these commands show the certificate in operator/.
    #[arg(long, global = true, value_name = "DIR", env = "PAYMESH_CREDENTIALS", default_value = "credentials")]
    pub(crate) credentials: PathBuf,

    /// Everything in plain text: on loopback only, where every program of this machine may then do everything
    #[arg(long, global = true)]
    pub(crate) plain_text: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where something listens.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address and a port are wanted, such as 0.0.0.0:7100 or [::]:7100".to_owned())
}

/// Where the configuration is when nobody says.
pub(crate) const DEFAULT_CONFIG: &str = "region-config";

/// What every command goes by.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// The configuration's directory.
    pub(crate) config: PathBuf,
    /// The credentials' directory. None: everything is in plain text.
    pub(crate) credentials: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the node of one region
    ///
    /// The node listens where the configuration says, leads the shards that it gives to the region, and serves until
    /// SIGTERM or Ctrl-C, when it stops taking calls, finishes those in hand and leaves with code 0. Who may call is in access.yaml beside
    /// regions.yaml, and nobody else may. It needs credentials, or --plain-text, with which it listens on loopback only.
    #[command(after_long_help = "\
Example:
  paymesh node --region eu_west --data ./data/eu_west

Exit codes:
  0  it was asked to leave, and has drained
  1  it failed
  2  the command line, the configuration, the data directory or a port cannot be used")]
    Node(NodeArgs),

    /// Runs the vault of a zone as a process of its own, which keeps no journals and takes no calls but those for it
    ///
    /// Its region has `services: [vault]` and `database: none` in the configuration, with endpoints and a node's certificate of its own; no other
    /// region of the zone has `vault`. It has the store, the keys and the credentials that the vault of a region's node has, serves /health and /metrics,
    /// and leaves as a node does. `paymesh node` runs it too, as `paymesh up` does.
    #[command(after_long_help = "\
Example:
  paymesh vault --region eu_vault --data ./data/eu_vault

Exit codes: those of `paymesh node`")]
    Vault(ProcessArgs),

    /// Runs an edge of a region: it takes calls, and carries them to nodes. There can be any number of them
    ///
    /// It ends TLS, knows callers by their tokens, holds them to their limits, records their calls, and keeps no journals. Its certificate is one of its own,
    /// spiffe://MESH/region/REGION/edge, in REGION-edge in the directory of credentials. Callers by certificate call a node: of what an edge says, nodes believe nothing but the tokens that
    /// it passes on. It serves /health, /ready and /metrics, and leaves as a node does.
    #[command(after_long_help = "\
Example:
  paymesh edge --region us_west --data ./data/us_west-edge-1 --listen-grpc 127.0.0.1:7401 --listen-http 127.0.0.1:7501

Exit codes: those of `paymesh node`")]
    Edge(ProcessArgs),

    /// Runs every region of the configuration on this machine, a process each
    ///
    /// Prints the nodes' logs with the region's name before each line, says where to call once all are ready, and restarts a
    /// node that dies (with growing pauses, a few times at most). Ctrl-C drains: each node finishes its calls in hand; what
    /// is still running after 20 seconds is killed. The nodes end with this process even if it is killed. Nodes never wait for
    /// whoever reads this output: what is not read is dropped, and its lines are counted.
    #[command(after_long_help = "\
Example:
  paymesh up --data ./data

Exit codes:
  0  Ctrl-C or SIGTERM, and every node drained
  1  a node was given up or did not drain, or a port is taken
  2  the command line or the configuration cannot be used")]
    Up(UpArgs),

    /// Plays a CSV file of enrolments, deposits, withdrawals, payments and transfers into the mesh
    ///
    /// The file is UTF-8 (a byte order mark is skipped; LF and CRLF both end a line).
    /// Its first line is the header, then comes one instruction a line:
    ///
    ///   id,kind,user,counterparty,amount,currency,country,via,reference
    ///
    ///   id            any text of 1 to 128 bytes, unique in the namespace
    ///   kind          enrol, deposit, withdrawal, payment or transfer; the last
    ///                 two are one thing: money from one user to another, at once
    ///   user          whose account: a whole number from 1 on
    ///   counterparty  the payee, of payments and transfers only
    ///   amount        a decimal, with no more digits than the currency has
    ///   currency      ISO 4217; an enrolment opens an account in each of several,
    ///                 separated by `;`
    ///   country       of residence, ISO 3166-1 alpha-2, of enrolments only
    ///   via           the region to call; when empty, the regions take turns
    ///   reference     the caller's own words, up to 140 bytes
    ///   card          (may be left out) of payments only: the vault's token of the
    ///                 payer's card, by which the payment is then made
    ///
    /// The columns may come in any order; others are ignored. A field may be
    /// quoted but must not contain a line break.
    ///
    /// Lines that touch the same user take effect in the file's order; others run
    /// at the same time. A bad line is reported with its number and reason, and the
    /// rest goes on; so are the first 20 declined lines at the end. The request id of a line is derived from its id and the
    /// namespace, and from nothing else: submitting the same file again, from
    /// wherever, changes nothing for as long as the mesh keeps outcomes (7 days by
    /// default); the summary counts such lines as replays, declined or not. A file
    /// that was interrupted goes on where it was when it is submitted again to the
    /// same mesh; a file that is done starts again from its first line.
    #[command(
        verbatim_doc_comment,
        after_long_help = "\
Examples:
  paymesh submit payments.csv
  paymesh submit --json report.json --strict payments.csv
  paymesh submit --namespace march march.csv

The JSON has the summary's counts: lines = accepted + replays + declined +
failed, resumed_lines of them by the runs that this one went on from, and
replays_declined of the replays; declines has declined + replays_declined by
reason. The rest is of this run alone: kinds (accepted lines), declined_payments,
declined_lines, failures (with how many more are not listed), and times.

Exit codes:
  0  every line was accepted, or declined without --strict
  1  a line failed or, with --strict, was declined; or the run was interrupted
     (a second Ctrl-C does not wait for lines in flight)
  2  the file's header or an option cannot be used; nothing was sent
  3  the mesh does not answer; the file goes on when submitted again"
    )]
    Submit(SubmitArgs),

    /// Shows what every region and shard is doing, and the money in transit between shards
    #[command(after_long_help = "\
Exit codes:
  0  every shard serves and hears the others, no copy is stopped, and each node's
     credentials, callers, files, audit log, vault and fraud detection work; what
     will need an operator is shown all the same
  1  one does not, or is; or a node refuses to say
  3  a region does not answer; the rest is shown all the same")]
    Status(StatusArgs),

    /// Proves the books: reads every shard's journal, checks its hash chain, replays its accounts, and pairs the shards
    ///
    /// Each shard's leader reads its whole journal, checks the chain of hashes, replays the books from nothing and compares
    /// them with its tables. Then every pair of shards is compared: what one has received from the other must be exactly
    /// what the other had sent up to the point the first had read. Payments may go on meanwhile.
    #[command(after_long_help = "\
Exit codes:
  0  everything adds up
  1  something does not, and is listed
  3  a shard could not be asked, or a copy in another region has not come
     as far as its leader; the rest adds up")]
    Verify(VerifyArgs),

    /// Starts the whole mesh on this machine, plays 12,700 payments through it, cuts a region off, and proves its books
    ///
    /// Starts the regions of the configuration as separate processes with fresh storage in a temporary directory, submits
    /// a file of payments through all of them, prints what came in where and what was forwarded, throughput and latency,
    /// and runs `verify`. The directory is removed afterwards.
    #[command(after_long_help = "\
Examples:
  paymesh demo
  paymesh demo --payments 2000 --json report.json

Exit codes:
  0  everything was done, and adds up
  1  something failed or does not add up, or a port is taken")]
    Demo(DemoArgs),

    /// Makes credentials for development: an authority, a certificate and key for each region's node and for the operator, and an issuer of tokens
    ///
    /// What is there is renewed by the authority that is there. A node reads tls.crt, tls.key and ca.crt in the directory of its region:
    /// the names that cert-manager uses, so that in production a secret of your own authority is mounted there instead. A node's
    /// certificate has one URI, spiffe://MESH/region/REGION/node, and is good for servers and clients; a caller's has
    /// spiffe://MESH/caller/NAME, and is good for clients. The issuer's keys are in issuer/: nodes read jwks.json, `paymesh token` the other.
    #[command(after_long_help = "\
Examples:
  paymesh certs ./credentials
  paymesh certs ./credentials --caller checkout
  paymesh --credentials ./credentials up

Exit codes:
  0  they are made
  2  the configuration or the directory cannot be used")]
    Certs(CertsArgs),

    /// Issues a token for development, by which its owner is a principal of access.yaml
    ///
    /// The issuer is the one that `paymesh certs` makes. The token goes to standard output, and whose it is to standard error. In production an identity provider of your own
    /// issues tokens; access.yaml names where its keys are.
    #[command(after_long_help = "\
Examples:
  paymesh token checkout
  paymesh token wallet_app --user 4100 --minutes 5 --scope wallets.read

Exit codes:
  0  it is printed
  2  there is no such principal, it is not known by tokens, or the token would be more than it may have")]
    Token(TokenArgs),

    /// Runs a simulator of an acquirer, for development and tests: it stands for what is outside, and no money moves
    ///
    /// It authorizes, captures, voids and refunds over HTTP, by the references that it is given: the same reference is the same operation, done once. What it has
    /// answered is in the data directory, also after it was killed. GET /charges lists all of it. It believes everybody who can reach its port.
    #[command(after_long_help = crate::acquirer::after_help())]
    Acquirer(AcquirerArgs),

    /// Adds regions to the configuration, retires and lists them
    #[command(subcommand)]
    Region(RegionCommand),

    /// Makes what runs the mesh elsewhere from region-config
    Render {
        #[command(subcommand)]
        command: RenderCommand,
    },

    /// What traffic needs and what that costs, by formulas or by what was measured; nothing is asked and nothing is changed
    ///
    /// The figures come from the configuration (regions.yaml, prices.yaml, scaling.yaml) and from the options. It calls no node.
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  paymesh plan capacity --base-tps 1000 --peak-multiplier 10 --safety-margin 1.5
  paymesh plan cost --cpu 2 --memory-gib 4 --tps 100
  paymesh plan simulate --trace examples/traffic/black-friday.csv --svg black-friday.svg

Exit codes:
  0  the plan is printed
  1  the plan is printed, and the mesh as it is configured cannot carry it; the output says what to do
  2  the command line, the configuration or an input file cannot be used, or nothing meets what is required"
    )]
    Plan(PlanCommand),

    /// Prints the completions of a shell
    #[command(after_long_help = "Example:\n  paymesh completions bash > /etc/bash_completion.d/paymesh")]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: Shell,
    },
}

/// `paymesh region`.
#[derive(Debug, Subcommand)]
pub(crate) enum RegionCommand {
    /// Adds a region to regions.yaml, in the four places where a region stands, and says what follows
    ///
    /// Comments, order and everything else stay as they are: the new file is compared with the old, and one that says more than was meant, or that nodes would
    /// refuse, is not written. What is not given is chosen as the other regions of the zone have it, and said.
    #[command(after_long_help = "\
Examples:
  paymesh region add eu_central --zone eu --aws-region eu-central-1
  paymesh region add eu_central --zone eu --aws-region eu-central-1 --network 10.40.0.0/16 --dry-run

Exit codes:
  0  it is written, or would be, with --dry-run
  2  it cannot be: the file is as it was")]
    Add(Box<AddArgs>),

    /// Takes a region out of regions.yaml, and says what follows
    ///
    /// Not one that leads a shard, keeps the cards of its zone, or whose database another copies: what only that region has would be lost.
    #[command(after_long_help = "\
Examples:
  paymesh region retire asia_pacific --dry-run
  paymesh region retire asia_pacific

Exit codes:
  0  it is written, or would be, with --dry-run
  2  it cannot be: the file is as it was")]
    Retire(RetireArgs),

    /// Lists the regions of the configuration
    List(ListArgs),
}

/// `paymesh region add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Its name: a-z, 0-9 and _
    #[arg(value_name = "NAME")]
    pub(crate) name: RegionName,

    /// The compliance zone that it joins
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: ZoneName,

    /// Where it is deployed, such as eu-central-1; needed where regions.yaml has `cloud`
    #[arg(long, value_name = "REGION")]
    pub(crate) aws_region: Option<String>,

    /// Its addresses, within 10.0.0.0/8 [default: the next /16 that no region has]
    #[arg(long, value_name = "CIDR")]
    pub(crate) network: Option<Network>,

    /// The master whose database it has, where its zone has more than one
    #[arg(long, value_name = "NAME")]
    pub(crate) replica_of: Option<RegionName>,

    /// payment_processor, fraud_detection, vault; separated by commas [default: as the zone's last region, without vault]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) services: Vec<String>,

    /// primary_master, regional_master, read_replica or none [default: read_replica]
    #[arg(long, value_name = "KIND")]
    pub(crate) database: Option<String>,

    /// GDPR, PSD2; separated by commas [default: as the zone's other regions]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) compliance: Vec<String>,

    /// Where its node takes gRPC on one machine [default: the next port]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) grpc: Option<Endpoint>,

    /// Where its node serves HTTP on one machine [default: the next port]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: Option<Endpoint>,

    /// Writes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// What came of it, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `paymesh region retire`.
#[derive(Debug, clap::Args)]
pub(crate) struct RetireArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) region: RegionName,

    /// Writes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// What came of it, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `paymesh region list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What every process of a mesh is started with.
#[derive(Debug, clap::Args)]
pub(crate) struct ProcessArgs {
    /// The region that it belongs to, as the configuration names it
    #[arg(long)]
    pub(crate) region: RegionName,

    /// Directory of all that it stores; made when missing. No two processes may share one
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Where it takes gRPC, where that is not where the configuration says that others find it: in a container, behind a balancer. An edge
    /// has to be told
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub(crate) listen_grpc: Option<SocketAddr>,

    /// Where it serves /health, /ready and /metrics, likewise
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address)]
    pub(crate) listen_http: Option<SocketAddr>,

    /// Directory of the keys of the vault, where this region has one and they are in files [default: vault-keys, beside the node's certificate]
    ///
    /// Made when missing; its owner alone may use it. What the vault keeps in the data directory cannot be read without it: back it up by itself, and
    /// never with the data.
    #[arg(long, value_name = "DIR")]
    pub(crate) vault_keys: Option<PathBuf>,

    /// Logs as JSON, one object a line
    #[arg(long)]
    pub(crate) json_logs: bool,

    /// Where to export traces: the gRPC URL of an OTLP collector, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) otlp: Option<String>,

    /// Leaves gracefully when standard input closes, so that it ends with whatever started it
    #[arg(long)]
    pub(crate) supervised: bool,
}

/// `paymesh node`.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) process: ProcessArgs,

    /// Leads its shards with the journals that are here, empty ones too, without asking the regions that follow them
    ///
    /// Otherwise a shard whose journal lacks what a copy in another region has is not led, and one whose journal is empty is led once
    /// all who follow it have said that they have nothing of it either. For a mesh of which not all regions run, and for an operator
    /// who gives up what is missing: what was acknowledged and is not here is lost, and copies that have it no longer follow.
    #[arg(long)]
    pub(crate) trust_own_journals: bool,
}

/// `paymesh certs`.
#[derive(Debug, clap::Args)]
pub(crate) struct CertsArgs {
    /// Where; made when missing
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// A caller of this name gets a certificate too, in a directory of its name; may be given more than once
    #[arg(long = "caller", value_name = "NAME")]
    pub(crate) callers: Vec<String>,

    /// How long the certificates hold [default: 2160, 90 days]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=87_600))]
    pub(crate) hours: Option<u64>,
}

/// `paymesh token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// Who, as access.yaml calls it
    pub(crate) principal: String,

    /// How long it holds; no longer than access.yaml allows its issuer, which is a day where the file does not say
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=44_640))]
    pub(crate) minutes: u32,

    /// Of the principal's scopes only these; may be given more than once
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,

    /// For whom it acts, where the principal acts for the users that its token names; may be given more than once
    #[arg(long = "user", value_name = "ID")]
    pub(crate) users: Vec<u64>,
}

/// `paymesh acquirer`.
#[derive(Debug, clap::Args)]
pub(crate) struct AcquirerArgs {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7301", value_parser = address)]
    pub(crate) listen: SocketAddr,

    /// Directory of its charges; made when missing. Without it they are gone when it ends
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// How long every call takes at least
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) latency_ms: u64,

    /// How many per cent of the calls that change something go wrong at random: 500 or a closed connection, before or after it is done
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = crate::acquirer::parse_rate)]
    pub(crate) fail_rate: u16,

    /// What those are picked by: the same seed and the same calls go wrong in the same way
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum RenderCommand {
    /// A Kustomize overlay for each region, over deploy/kubernetes/base
    ///
    /// Each has the configuration as its processes read it there (endpoints by the DNS, the vault as a region of its own, nothing of the cloud), its certificates, its
    /// load balancers' targets, its networks and its storage. All of it is validated before anything is written. A folder of a region that is gone is removed;
    /// one that was not made by this command is never touched.
    #[command(after_long_help = "\
Examples:
  paymesh render kubernetes
  paymesh render kubernetes --check
  kubectl apply -k deploy/kubernetes/overlays/eu_west

Exit codes:
  0  it is written; with --check: what is there is what would be written
  1  with --check: it is not, and what differs is named; or a file cannot be written
  2  the configuration cannot be used, or a folder there is somebody's own; nothing was written")]
    Kubernetes(RenderKubernetesArgs),

    /// The scaling policies for Application Auto Scaling of AWS, as JSON of Terraform
    ///
    /// For whoever runs edges as a service of ECS: what is to be scaled, its bounds by the clock, steps and the alarms that set them off. Save it as a file that ends in
    /// .tf.json beside the service. A scheduled entry's target_capacity has no place in it.
    #[command(after_long_help = "\
Example:
  paymesh render autoscaling --region eu_west --resource-id service/payments/edge > scaling.tf.json

Exit codes:
  0  it is printed
  2  the configuration or an option cannot be used")]
    Autoscaling(AutoscalingArgs),
}

/// `paymesh render autoscaling`.
#[derive(Debug, clap::Args)]
pub(crate) struct AutoscalingArgs {
    /// The region, in whose time zone hours are counted
    #[arg(long, value_name = "NAME")]
    pub(crate) region: RegionName,

    /// What is scaled: service/CLUSTER/SERVICE
    #[arg(long, value_name = "ID")]
    pub(crate) resource_id: String,
}

/// `paymesh render kubernetes`.
#[derive(Debug, clap::Args)]
pub(crate) struct RenderKubernetesArgs {
    /// Where: a folder for each region
    #[arg(long, value_name = "DIR", default_value = "deploy/kubernetes/overlays")]
    pub(crate) out: PathBuf,

    /// Writes nothing, and says what differs from what is there
    #[arg(long)]
    pub(crate) check: bool,
}

/// `paymesh up`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Directory of all nodes' storage: each gets a directory of its region's name in it
    #[arg(long, value_name = "DIR", default_value = "paymesh-data")]
    pub(crate) data: PathBuf,

    /// Logs as JSON, one object a line, without the region before it
    #[arg(long)]
    pub(crate) json_logs: bool,

    /// Where the nodes export traces: the gRPC URL of an OTLP collector
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) otlp: Option<String>,

    /// Has every node lead its shards with the journals that are here: see `paymesh node --help`
    #[arg(long)]
    pub(crate) trust_own_journals: bool,
}

/// `paymesh submit`.
#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    /// The CSV file
    pub(crate) file: PathBuf,

    /// Instructions in flight at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) in_flight: u16,

    /// Ends with code 1 if a line was declined, by this run or, as a replay, before
    #[arg(long)]
    pub(crate) strict: bool,

    /// Sets this file's ids apart from equal ids of files with another namespace
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) namespace: String,

    /// Where to note how far the file is done [default: FILE.progress]
    #[arg(long, value_name = "PATH", conflicts_with = "no_progress_file")]
    pub(crate) progress: Option<PathBuf>,

    /// Does not note how far the file is done: an interrupted file starts again from its first line
    #[arg(long)]
    pub(crate) no_progress_file: bool,

    /// Writes the summary, the first 1,000 failures and the first 1,000 declined lines to a JSON file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// `paymesh status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Prints JSON; with --watch, an object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Asks again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) watch: Option<u64>,
}

/// `paymesh verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `paymesh demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Payments to play, of those in the shipped file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) payments: Option<u32>,

    /// Writes the same as a JSON report
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Keeps the temporary directory with the nodes' storage and logs
    #[arg(long)]
    pub(crate) keep: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
