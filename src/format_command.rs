//! `ottla format`: makes log directories those of a node before it first starts, as `kafka-storage format` does.

use ottla::broker::{self, FormatRequest, InitialVoters, Voter, VoterEndpoint};
use ottla::config::Config;
use ottla::env::{Clock, RealDisk, SystemClock};
use ottla_protocol::{BrokerId, uuid_from_text};

#[derive(Debug, clap::Args)]
pub struct FormatArgs {
    #[command(flatten)]
    config: crate::ConfigArgs,
    /// The cluster's id; drawn for a node that begins a cluster, needed for one that joins it.
    #[arg(long, short = 't', value_name = "ID")]
    cluster_id: Option<String>,
    /// Begin a quorum of this controller alone, to which others can be added.
    #[arg(long, short = 's', group = "voters")]
    standalone: bool,
    /// Begin a quorum of these controllers, to which others can be added; the same list on each:
    /// ID@HOST:PORT:DIRECTORY_ID,...
    #[arg(long, short = 'I', value_name = "LIST", group = "voters", verbatim_doc_comment)]
    initial_controllers: Option<String>,
    /// Begin no quorum: this controller is to be added to one.
    #[arg(long, short = 'N', group = "voters")]
    no_initial_controllers: bool,
    /// Pass directories over that are formatted already.
    #[arg(long, short = 'g')]
    ignore_formatted: bool,
    /// Begin with the features of this release, 3.3 to 4.3.
    #[arg(long, short = 'r', value_name = "RELEASE")]
    release_version: Option<String>,
    /// Begin with a feature at this level; can be given many times.
    #[arg(long, short = 'f', value_name = "NAME=LEVEL")]
    feature: Vec<String>,
}

pub fn run(arguments: &FormatArgs) -> Result<(), String> {
    let config = crate::load(&arguments.config)?.config;
    let features = arguments.feature.iter().map(|text| {
        let pair = text
            .split_once('=')
            .and_then(|(name, level)| Some((name.trim().to_owned(), level.trim().parse().ok()?)));
        pair.ok_or_else(|| format!("--feature {text}: not of the form NAME=LEVEL"))
    });
    let request = FormatRequest {
        cluster_id: arguments.cluster_id.clone(),
        voters: voters(arguments, &config)?,
        ignore_formatted: arguments.ignore_formatted,
        release: arguments.release_version.clone(),
        features: features.collect::<Result<_, _>>()?,
    };
    let lines = broker::format(&RealDisk, &config, &request, SystemClock.now());
    let lines = lines.map_err(|error| error.to_string())?;
    crate::print_all(&format!("{}\n", lines.join("\n")))
}

fn voters(arguments: &FormatArgs, config: &Config) -> Result<InitialVoters, String> {
    if arguments.standalone {
        return Ok(InitialVoters::Standalone);
    }
    if arguments.no_initial_controllers {
        return Ok(InitialVoters::Nobody);
    }
    let Some(list) = &arguments.initial_controllers else { return Ok(InitialVoters::Configured) };
    let Some(listener) = config.listeners.controller_names.first() else {
        return Err("controller.listener.names is not set".to_owned());
    };
    let parse = |text: &str| {
        voter(text, listener).ok_or_else(|| {
            format!("--initial-controllers {text}: not of the form ID@HOST:PORT:DIRECTORY_ID")
        })
    };
    let voters: Vec<Voter> = list.split(',').map(str::trim).map(parse).collect::<Result<_, _>>()?;
    let has_twin = |at: usize| voters[..at].iter().any(|other| other.id == voters[at].id);
    match (0..voters.len()).find(|at| has_twin(*at)) {
        Some(twice) => Err(format!("--initial-controllers names {} twice", voters[twice].id)),
        None => Ok(InitialVoters::Given(voters)),
    }
}

fn voter(text: &str, listener: &str) -> Option<Voter> {
    let (id, rest) = text.split_once('@')?;
    let (address, directory_id) = rest.rsplit_once(':')?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let id: i32 = id.parse().ok().filter(|id| *id >= 0)?;
    let address = (host, port.parse().ok()?);
    Some(Voter {
        id: BrokerId(id),
        directory_id: uuid_from_text(directory_id).filter(|id| !id.is_nil())?,
        endpoints: vec![VoterEndpoint { name: listener.to_owned(), address }],
        kraft_versions: (0, 1),
    })
}
