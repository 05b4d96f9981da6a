//! Listeners: what `listeners`, `advertised.listeners`, the protocol map and the keys of older releases say together.
//!
//! Source: KIP-103, KIP-631; `host.name`, `port` and their advertised twins of Kafka 0.8 to 2.8.

use super::ConfigError;
use super::values::{Values, typed};
use std::collections::BTreeMap;

/// How a listener is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Not at all.
    Plaintext,
    /// By TLS.
    Ssl,
    /// By SASL.
    SaslPlaintext,
    /// By SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The number that metadata records have for it.
    pub fn id(self) -> i16 {
        match self {
            Self::Plaintext => 0,
            Self::Ssl => 1,
            Self::SaslPlaintext => 2,
            Self::SaslSsl => 3,
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl]
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

/// A place where connections are taken, or where clients are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, in capitals.
    pub name: String,
    /// A host name or an address without brackets; empty is every address of the machine.
    pub host: String,
    /// The port; 0 is any that is free.
    pub port: u16,
    /// How it is secured.
    pub protocol: SecurityProtocol,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "{}://[{}]:{}", self.name, self.host, self.port),
            false => write!(f, "{}://{}:{}", self.name, self.host, self.port),
        }
    }
}

/// All that is said about listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// What the broker's clients connect to.
    pub broker: Vec<Listener>,
    /// What controllers and their clients connect to: those that `controller.listener.names` names.
    pub controller: Vec<Listener>,
    /// What clients are told; empty tells each client the address that it dialled.
    pub advertised: Vec<Listener>,
    /// What other controllers are told; those that are not named are told as they listen.
    pub advertised_controller: Vec<Listener>,
    /// The listener that brokers use among themselves.
    pub inter_broker: String,
    /// `controller.listener.names`, in capitals.
    pub controller_names: Vec<String>,
}

impl Listeners {
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        let controller_names: Vec<String> =
            typed::<Vec<String>>(values, "controller.listener.names")?
                .iter()
                .map(|name| name.to_ascii_uppercase())
                .collect();
        let texts = listener_texts(values)?;
        let map = protocol_map(values, &texts, &controller_names)?;
        let all = parse_all(values, "listeners", &texts, &map)?;
        check_distinct(values, "listeners", &all)?;
        let advertised =
            parse_all(values, "advertised.listeners", &advertised_texts(values)?, &map)?;
        check_advertised(values, &advertised)?;
        let is_controller = |listener: &Listener| controller_names.contains(&listener.name);
        let (controller, broker): (Vec<_>, Vec<_>) = all.into_iter().partition(is_controller);
        // Clients of the controller learn its addresses from the quorum.
        let (advertised_controller, advertised): (Vec<_>, Vec<_>) =
            advertised.into_iter().partition(is_controller);
        let inter_broker = inter_broker_name(values, &broker, &map)?;
        Ok(Self {
            broker,
            controller,
            advertised,
            advertised_controller,
            inter_broker,
            controller_names,
        })
    }
}

fn listener_texts(values: &Values) -> Result<Vec<String>, ConfigError> {
    let is_old = values.given("listeners").is_none()
        && (values.given("port").is_some() || values.given("host.name").is_some());
    if is_old {
        let host = typed::<String>(values, "host.name")?;
        let port = typed::<i32>(values, "port")?;
        return Ok(vec![format!("PLAINTEXT://{host}:{port}")]);
    }
    let texts = typed::<Vec<String>>(values, "listeners")?;
    if texts.is_empty() {
        return Err(values.complaint(
            "listeners",
            "Configuration 'listeners' must not be empty. Valid values include: any non-empty value",
        ));
    }
    Ok(texts)
}

fn advertised_texts(values: &Values) -> Result<Vec<String>, ConfigError> {
    if values.given("advertised.listeners").is_some() {
        return typed(values, "advertised.listeners");
    }
    let host: Option<String> = typed(values, "advertised.host.name")?;
    let port: Option<i32> = typed(values, "advertised.port")?;
    let own_host = values.text("host.name").unwrap_or_default().to_owned();
    let own_port = typed::<i32>(values, "port")?;
    match (host, port) {
        (None, None) => Ok(Vec::new()),
        // A port alone needs a host that clients can dial.
        (None, Some(_)) if own_host.is_empty() => Ok(Vec::new()),
        (host, port) => {
            let host = host.unwrap_or(own_host);
            Ok(vec![format!("PLAINTEXT://{host}:{}", port.unwrap_or(own_port))])
        }
    }
}

type ProtocolMap = BTreeMap<String, SecurityProtocol>;

const MAP: &str = "listener.security.protocol.map";

fn protocol_map(
    values: &Values,
    listeners: &[String],
    controllers: &[String],
) -> Result<ProtocolMap, ConfigError> {
    let text: String = typed(values, MAP)?;
    let mut map = ProtocolMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let Some((name, protocol)) = pair.rsplit_once(':') else {
            let why = format!("{pair} is not a pair of listener name and security protocol");
            return Err(values.complaint(MAP, &why));
        };
        let Some(protocol) = SecurityProtocol::of(protocol.trim()) else {
            let why = format!("Invalid security protocol `{}` defined in {MAP}", protocol.trim());
            return Err(values.complaint(MAP, &why));
        };
        map.insert(name.trim().to_ascii_uppercase(), protocol);
    }
    let is_secured = |text: &String| {
        let upper = text.to_ascii_uppercase();
        upper.starts_with("SSL:") || upper.starts_with("SASL_")
    };
    if values.given(MAP).is_none() && !listeners.iter().any(is_secured) {
        for name in controllers {
            map.entry(name.clone()).or_insert(SecurityProtocol::Plaintext);
        }
    }
    Ok(map)
}

fn parse_all(
    values: &Values,
    key: &str,
    texts: &[String],
    map: &ProtocolMap,
) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners = Vec::with_capacity(texts.len());
    for text in texts {
        let Some((name, host, port)) = split(text) else {
            let why = format!("{text} is not a listener of the form NAME://HOST:PORT");
            return Err(values.complaint(key, &why));
        };
        let Some(&protocol) = map.get(&name) else {
            let why = format!("No security protocol defined for listener {name}");
            return Err(values.complaint(key, &why));
        };
        listeners.push(Listener { name, host, port, protocol });
    }
    Ok(listeners)
}

/// `NAME://HOST:PORT` into its parts; the host may be empty or an address in brackets.
fn split(text: &str) -> Option<(String, String, u16)> {
    let (name, rest) = text.trim().split_once("://")?;
    let (host, port) = rest.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']')?,
        None => host,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "._-%:".contains(c);
    if name.is_empty() || !host.chars().all(is_host) {
        return None;
    }
    Some((name.to_ascii_uppercase(), host.to_owned(), port.parse().ok()?))
}

fn check_distinct(values: &Values, key: &str, all: &[Listener]) -> Result<(), ConfigError> {
    for (at, listener) in all.iter().enumerate() {
        for other in &all[..at] {
            if other.name == listener.name {
                return Err(values.complaint(key, "Each listener must have a different name"));
            }
            let shares_port = other.port == listener.port && listener.port != 0;
            // An IPv4 and an IPv6 address may share a port.
            let is_pair = other.host.contains(':') != listener.host.contains(':')
                && !other.host.is_empty()
                && !listener.host.is_empty();
            if shares_port && !is_pair {
                return Err(values.complaint(key, "Each listener must have a different port"));
            }
        }
    }
    Ok(())
}

fn check_advertised(values: &Values, advertised: &[Listener]) -> Result<(), ConfigError> {
    if advertised.iter().any(|listener| listener.host == "0.0.0.0") {
        return Err(values.complaint(
            "advertised.listeners",
            "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable \
             IP address.",
        ));
    }
    for (at, listener) in advertised.iter().enumerate() {
        if advertised[..at].iter().any(|other| other.name == listener.name) {
            let why = "Each listener must have a different name";
            return Err(values.complaint("advertised.listeners", why));
        }
    }
    Ok(())
}

fn inter_broker_name(
    values: &Values,
    broker: &[Listener],
    map: &ProtocolMap,
) -> Result<String, ConfigError> {
    const NAME: &str = "inter.broker.listener.name";
    if let Some(name) = typed::<Option<String>>(values, NAME)? {
        let name = name.to_ascii_uppercase();
        if !map.contains_key(&name) {
            let why = format!("Listener with name {name} defined in {NAME} not found in {MAP}.");
            return Err(values.complaint(NAME, &why));
        }
        return Ok(name);
    }
    let protocol: String = typed(values, "security.inter.broker.protocol")?;
    let of_protocol = |listener: &&Listener| listener.protocol.name() == protocol;
    Ok(broker.iter().find(of_protocol).map_or(protocol.clone(), |listener| listener.name.clone()))
}
