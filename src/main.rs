//! The program: arguments, configuration, broker, server, signals.

mod bench_command;
mod check_command;
mod format_command;
mod forming;
mod status_command;

use clap::{Args, Parser, Subcommand};
use ottla::broker::{AdvertisedListener, Broker, Settings};
use ottla::config::{self, Config, Loaded};
use ottla::env::{Disk, RealDisk, SystemClock};
use ottla::server::{self, BoundListener, Limits, RootLogger, Server};
use ottla::zookeeper;
use ottla::zookeeper::meeting::Meeting;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A message broker that speaks Apache Kafka's wire protocol.
///
/// Every Kafka client and tool works with it unchanged. To try it:
///
///   ottla start
///
/// and point a client at localhost:9092.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, max_term_width = 100, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker until it is told to stop (Ctrl-C or SIGTERM).
    ///
    /// Without FILE it listens on port 9092 and keeps its data in ./ottla-data. An empty data
    /// directory is formatted at the first start.
    Start(StartArgs),
    /// Print every configuration value that would apply, and where it comes from.
    Config(ConfigArgs),
    /// Write what ZooKeeper knows of a Kafka cluster to the standard output, as JSON.
    ///
    /// `ottla start --from-zookeeper FILE` reads it. Stop Kafka first. The file may hold SCRAM
    /// credentials.
    ExportZookeeper {
        /// HOST:PORT[,HOST:PORT]...[/chroot], as in zookeeper.connect.
        address: String,
    },
    /// Verify log directories, Apache Kafka's or ours, without changing them.
    ///
    /// Reads every batch, index, checkpoint and snapshot, and names what is damaged and what to do
    /// about it. A broker may be running. Exit status: 0 clean, 1 problems found, 2 cannot run.
    Check(check_command::CheckArgs),
    /// Make the log directories of FILE those of a node before it first starts.
    ///
    /// As kafka-storage format does. Only controllers of a quorum whose voters can change need it;
    /// others format their directories themselves.
    Format(format_command::FormatArgs),
    /// Run loads against any Kafka broker and print what it gave.
    ///
    /// LOAD is ready, produce, fetch, small, latency or connections; without one all but ready are
    /// run. Topics are made for the run and deleted after it.
    Bench(bench_command::BenchArgs),
    /// Print a cluster at a glance: brokers, metadata quorum, partitions that are not as they should be.
    ///
    /// Exit status: 0 no data is at risk, 1 some is, 2 no broker could be asked.
    Status(status_command::StatusArgs),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
struct StartArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Take over the log directories of a Kafka with ZooKeeper, with the topics and settings from
    /// there: HOST:PORT[,HOST:PORT]...[/chroot], the FILE that export-zookeeper wrote, or none, to
    /// go by the directories alone and give all topics the broker's defaults.
    ///
    /// Needed once; ZooKeeper is only read. Where the directories were taken over before, and no
    /// Kafka ran on them since, it does nothing.
    #[arg(long, value_name = "ADDRESS|FILE|none", verbatim_doc_comment)]
    from_zookeeper: Option<String>,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Kafka's server.properties, or a .toml file with the same keys.
    file: Option<PathBuf>,
    /// Set a key, whatever the file says; can be given many times.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Start(arguments) => start(&arguments),
        Command::Config(arguments) => show(&arguments),
        Command::ExportZookeeper { address } => export(&address),
        Command::Bench(arguments) => bench_command::run(&arguments),
        Command::Format(arguments) => format_command::run(&arguments),
        Command::Check(arguments) => return check_command::run(&arguments),
        Command::Status(arguments) => return status_command::run(&arguments),
        Command::Version => print_all(concat!("ottla ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ottla: {}", error.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn load(arguments: &ConfigArgs) -> Result<Loaded, String> {
    config::load(&RealDisk, arguments.file.as_deref(), &arguments.overrides)
        .map_err(|error| error.to_string())
}

/// Prints to standard output; a reader that has seen enough is no error.
fn print_all(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn show(arguments: &ConfigArgs) -> Result<(), String> {
    let loaded = load(arguments)?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    print_all(&config::shown::effective(&loaded.config))
}

fn export(address: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tree = runtime.map_err(|error| error.to_string())?.block_on(zookeeper::read(address));
    print_all(&format!("{}\n", tree.map_err(|error| error.to_string())?.to_json()))
}

fn start(arguments: &StartArgs) -> Result<(), String> {
    let Loaded { config, warnings } = load(&arguments.config)?;
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        _ => config.log_level.clone(),
    };
    // What these have to say the quorum and the meeting say themselves; a directive of the operator's goes before.
    let directives = format!("openraft=off,zookeeper_client=off,{filter}");
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| format!("ottla.log.level or RUST_LOG: {filter}: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    let root_logger = RootLogger::new(&directives, move |directives| {
        let filter = EnvFilter::try_new(directives).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    });
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for (name, reason) in config::read::ignored(&config) {
        tracing::info!("{name} is ignored: {reason}");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.socket.worker_threads > 0 {
        builder.worker_threads(config.socket.worker_threads);
    }
    let runtime = builder.enable_all().build().map_err(|error| error.to_string())?;
    let result =
        runtime.block_on(run(Arc::new(config), arguments.from_zookeeper.as_deref(), root_logger));
    // A thread that waits for a failed disk must not keep the process.
    runtime.shutdown_background();
    result
}

/// What a newcomer wants to know once it runs.
fn greet(config: &Config, addresses: &[(String, std::net::SocketAddr)]) -> Result<(), String> {
    let mut text = String::new();
    for (name, address) in addresses {
        text.push_str(&format!("listening on {address} ({name})\n"));
    }
    for dir in &config.log_dirs {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        text.push_str(&format!("data in {}\n", dir.display()));
    }
    let is_broker = |name: &String| !config.listeners.controller_names.contains(name);
    if let Some((_, address)) = addresses.iter().find(|(name, _)| is_broker(name)) {
        let host = match address.ip() {
            ip if ip.is_unspecified() => "localhost".to_owned(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            ip => ip.to_string(),
        };
        text.push_str(&format!(
            "try: kafka-console-producer.sh --bootstrap-server {host}:{} --topic hello\n",
            address.port()
        ));
    }
    print_all(&text)
}

async fn run(
    config: Arc<Config>,
    from_zookeeper: Option<&str>,
    root_logger: RootLogger,
) -> Result<(), String> {
    let mut stop = StopSignal::new()?;
    let zookeeper = match from_zookeeper {
        Some(text) => {
            let source = zookeeper::Source::open(text, |path| RealDisk.read(path)).await;
            Some(source.map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let (bound, advertised) = bind(&config).await?;
    let mut settings = Settings { zookeeper, ..Settings::new(Arc::clone(&config), &advertised) };
    let meeting = tokio::select! {
        biased;
        meeting = forming::meet(&mut settings) => meeting?,
        () = stop.wait() => return Ok(()),
    };
    let broker = tokio::select! {
        biased;
        // Until it has joined, a broker may end anywhere, as in a crash.
        () = stop.wait() => return Ok(()),
        opened = Broker::open(settings, Arc::new(RealDisk), Arc::new(SystemClock)) => {
            opened.map_err(|error| error.to_string())?
        }
    };
    let end = tokio::select! {
        biased;
        end = serve((&config, root_logger), &broker, bound, (meeting.as_ref(), &mut stop)) => end?,
        failure = broker.failed() => return Err(failure),
    };
    if let Some(meeting) = meeting {
        meeting.leave().await;
    }
    let (server, ended) = match end {
        End::Joined(server, ended) => {
            broker.leave().await;
            (server, ended)
        }
        End::NotJoined(server, ended) => (server, ended),
    };
    server.stop().await;
    broker.stop().await;
    ended
}

/// Takes the ports, and says how others reach them.
async fn bind(config: &Config) -> Result<(Vec<BoundListener>, Vec<AdvertisedListener>), String> {
    let own_host = forming::own_host(config).await?;
    let (mut bound, mut advertised) = (Vec::new(), Vec::new());
    let listeners = config.listeners.broker.iter().chain(&config.listeners.controller);
    for (listener, params) in listeners.zip(server::listeners(config)) {
        let listening = BoundListener::bind(&params).await.map_err(|error| error.to_string())?;
        let host = if params.host.is_empty() { &own_host } else { &params.host };
        advertised.push(AdvertisedListener {
            name: listener.name.clone(),
            host: host.clone(),
            port: listening.address().port(),
            security_protocol: listener.protocol.id(),
        });
        bound.push(listening);
    }
    Ok((bound, advertised))
}

/// How far a broker came, and why it ends.
enum End {
    NotJoined(Server, Result<(), String>),
    Joined(Server, Result<(), String>),
}

/// Joins the cluster and serves until the process is to end.
async fn serve(
    (config, root_logger): (&Config, RootLogger),
    broker: &Arc<Broker>,
    bound: Vec<BoundListener>,
    (meeting, stop): (Option<&Meeting>, &mut StopSignal),
) -> Result<End, String> {
    let addresses: Vec<(String, std::net::SocketAddr)> =
        bound.iter().map(|bound| (bound.name().to_owned(), bound.address())).collect();
    // The other voters must be heard before there is a quorum, and clients not before this broker has joined.
    let (nodes, clients) = bound.into_iter().partition(BoundListener::is_for_nodes);
    let limits = Limits::from_config(config);
    let settings = server::Settings::from_config(config, Arc::new(root_logger));
    let mut server = Server::start(Arc::clone(broker), limits, settings, nodes);
    let refused = forming::attend(meeting, broker);
    tokio::pin!(refused);
    tokio::select! {
        biased;
        refused = &mut refused => return Ok(End::NotJoined(server, Err(refused))),
        joined = broker.join() => if let Err(error) = joined {
            return Ok(End::NotJoined(server, Err(error.to_string())));
        },
        () = stop.wait() => return Ok(End::NotJoined(server, Ok(()))),
    }
    server.let_clients_in();
    server.open(clients);
    greet(config, &addresses)?;
    let ended = tokio::select! {
        biased;
        refused = refused => Err(refused),
        untold = broker.untold_failure() => Err(untold),
        () = stop.wait() => Ok(()),
    };
    Ok(End::Joined(server, ended))
}

/// Who wants the process to end. Listens from its making on: a signal between two waits is not lost.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> Result<StopSignal, String> {
        let listen = |kind| signal(kind).map_err(|error| error.to_string());
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(StopSignal { terminate: listen(terminate)?, interrupt: listen(interrupt)? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }
}
