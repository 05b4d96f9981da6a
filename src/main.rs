//! The program: arguments, configuration, broker, server, signals.

use ottla::broker::{AdvertisedListener, Broker, Settings};
use ottla::config::{Config, Source, Values};
use ottla::env::net::ListenOptions;
use ottla::env::{RealDisk, SystemClock};
use ottla::server::{BoundListener, Limits, ListenerParams, Server};
use ottla_protocol::apis::ListenerType;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

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

fn limits(config: &Config) -> Limits {
    let idle = config.socket.connections_max_idle_ms;
    Limits {
        request_bytes_max: config.socket.request_max_bytes,
        idle_max: u64::try_from(idle).ok().map(Duration::from_millis),
        connections_max: usize::try_from(config.socket.max_connections).unwrap_or(usize::MAX),
        connections_per_ip_max: usize::try_from(config.socket.max_connections_per_ip)
            .unwrap_or(usize::MAX),
        connections_per_ip_overrides: Vec::new(),
    }
}

async fn run() -> Result<(), String> {
    let config = Arc::new(configuration()?);
    let mut bound = Vec::new();
    let mut advertised = Vec::new();
    let controllers = config.listeners.controller.iter().map(|it| (it, ListenerType::Controller));
    let brokers = config.listeners.broker.iter().map(|it| (it, ListenerType::Broker));
    for (listener, listener_type) in brokers.chain(controllers) {
        let params = ListenerParams {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: listener.port,
            listener_type,
            options: ListenOptions {
                backlog: config.socket.listen_backlog_size,
                receive_buffer_bytes: u32::try_from(config.socket.receive_buffer_bytes).ok(),
                send_buffer_bytes: u32::try_from(config.socket.send_buffer_bytes).ok(),
            },
        };
        let listening = BoundListener::bind(&params).await.map_err(|error| error.to_string())?;
        let host = if listener.host.is_empty() { "localhost" } else { &listener.host };
        advertised.push(AdvertisedListener {
            name: listener.name.clone(),
            host: host.to_owned(),
            port: listening.address().port(),
            security_protocol: listener.protocol.id(),
        });
        println!("listening on {} ({})", listening.address(), listener.name);
        bound.push(listening);
    }
    let limits = limits(&config);
    let settings = Settings::new(config, &advertised);
    let broker = Broker::start(settings, Arc::new(RealDisk), Arc::new(SystemClock))
        .await
        .map_err(|error| error.to_string())?;
    let server = Server::start(Arc::clone(&broker), limits, bound);
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
