//! The program: arguments, configuration, broker, server, signals.

use ottla::broker::{AdvertisedListener, Broker, Settings};
use ottla::config::{Config, Source, Values};
use ottla::env::{RealDisk, SystemClock};
use ottla::server::{BoundListener, Limits, Server};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ottla: {error}");
            ExitCode::FAILURE
        }
    }
}

fn configuration() -> Result<Config, String> {
    let mut values = Values::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--override" {
            let pair = arguments.next().unwrap_or_default();
            let (name, value) = pair.split_once('=').ok_or("--override needs KEY=VALUE")?;
            values.set(name, value, Source::Override);
        }
    }
    Config::from_values(values).map_err(|error| error.to_string())
}

async fn run() -> Result<(), String> {
    let config = Arc::new(configuration()?);
    let mut bound = Vec::new();
    let mut advertised = Vec::new();
    for params in ottla::server::listeners(&config) {
        let listening = BoundListener::bind(&params).await.map_err(|error| error.to_string())?;
        let named = |it: &&ottla::config::Listener| it.name == params.name;
        let all = config.listeners.broker.iter().chain(&config.listeners.controller);
        let protocol = all.clone().find(named).map_or(0, |it| it.protocol.id());
        let host = if params.host.is_empty() { "localhost" } else { &params.host };
        advertised.push(AdvertisedListener {
            name: params.name.clone(),
            host: host.to_owned(),
            port: listening.address().port(),
            security_protocol: protocol,
        });
        println!("listening on {} ({})", listening.address(), params.name);
        bound.push(listening);
    }
    let limits = Limits::from_config(&config);
    let server_settings = ottla::server::Settings::from_config(&config);
    let settings = Settings::new(config, &advertised);
    let broker = Broker::start(settings, Arc::new(RealDisk), Arc::new(SystemClock))
        .await
        .map_err(|error| error.to_string())?;
    let server = Server::start(Arc::clone(&broker), limits, server_settings, bound);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    server.stop().await;
    broker.stop().await;
    Ok(())
}
