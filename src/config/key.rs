//! What is known of one configuration key: its type, default, range, and what Ottla makes of it.
//!
//! This is not where values are kept ([`super::Values`]) nor where they are used ([`super::Config`]).
//! Source: Kafka's documentation, "Broker Configs", "Topic Configs", "Group Configs".

/// Whose configuration a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A broker's file, or a dynamic override of it.
    Broker,
    /// A topic's overrides.
    Topic,
    /// A group's overrides.
    Group,
    /// A client metrics subscription.
    ClientMetrics,
}

/// The type of a key's value, as DescribeConfigs names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// 64 bits.
    Long,
    /// Floating point.
    Double,
    /// Texts separated by commas.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

impl Kind {
    /// The name in messages and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }

    /// The number that DescribeConfigs answers for it.
    pub fn wire_id(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }
}

/// What a key is worth when nobody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Kafka insists that it is set; Ottla derives a value.
    Required,
    /// No value.
    Null,
    /// This value.
    Text(&'static str),
}

impl Default {
    /// The default as text, where there is one.
    pub fn text(self) -> Option<&'static str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Required | Self::Null => None,
        }
    }
}

/// Which values of its type a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Check {
    /// Every one.
    Any,
    /// Numbers from this one on.
    AtLeast(i64),
    /// Numbers from the first to the second, both included.
    Between(i64, i64),
    /// The same for floating point.
    BetweenDouble(f64, f64),
    /// One of these words, or for a list any of them once.
    OneOf(&'static [&'static str]),
    /// One of these words in any case.
    OneOfIgnoringCase(&'static [&'static str]),
    /// 1 to 9, or -1 for the codec's own default.
    GzipLevel,
    /// Any text but the empty one.
    NonEmpty,
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
    /// `latest`, `earliest` or `by_duration:` with an ISO duration.
    ShareOffsetReset,
}

/// How much Kafka thinks a key matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// High.
    High,
    /// Medium.
    Medium,
    /// Low.
    Low,
}

/// How a key can change while the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Only by a restart.
    ReadOnly,
    /// For one broker.
    PerBroker,
    /// For one broker or for all of them.
    ClusterWide,
}

impl Update {
    /// The name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::PerBroker => "per-broker",
            Self::ClusterWide => "cluster-wide",
        }
    }
}

/// What Ottla makes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Does what Kafka does with it.
    Honoured,
    /// Takes it, checks it, and does nothing with it; the reason is for people.
    Ignored(&'static str),
    /// Does not start with it; the reason is for people.
    Refused(&'static str),
}

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Whose configuration it belongs to.
    pub scope: Scope,
    /// Kafka's name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Its value when nobody sets it.
    pub default: Default,
    /// Which values it takes.
    pub check: Check,
    /// How much Kafka thinks it matters.
    pub importance: Importance,
    /// Whether Kafka keeps it out of documents and of DescribeConfigs.
    pub is_internal: bool,
    /// How it can change while the broker runs.
    pub update: Update,
    /// For a topic's key: the broker's keys that stand in for it, the most specific first.
    pub synonyms: &'static [&'static str],
    /// The release that brought it, where that is later than 4.3.1.
    pub since: &'static str,
    /// The last release that knew it, where 4.4.0 does not.
    pub gone: Option<&'static str>,
    /// What Ottla makes of it.
    pub support: Support,
    /// What it is, in a sentence.
    pub documentation: &'static str,
}

impl Key {
    /// Whether its value is never shown.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The range or the choice of values, as people read it; empty where every value will do.
    pub fn valid_range(&self) -> String {
        match self.check {
            Check::Any => match self.kind {
                Kind::Boolean => "true or false".to_owned(),
                _ => String::new(),
            },
            Check::AtLeast(min) => format!("[{min},...]"),
            Check::Between(min, max) => format!("[{min},...,{max}]"),
            Check::BetweenDouble(min, max) => format!("[{min},...,{max}]"),
            Check::OneOf(words) => format!("[{}]", words.join(", ")),
            Check::OneOfIgnoringCase(words) => {
                format!("(case insensitive) [{}]", words.join(", "))
            }
            Check::GzipLevel => "[1,...,9] or -1".to_owned(),
            Check::NonEmpty => "non-empty string".to_owned(),
            Check::ThrottledReplicas => {
                "[partitionId]:[brokerId],[partitionId]:[brokerId],...".to_owned()
            }
            Check::ShareOffsetReset => "[latest, earliest, by_duration:PnDTnHnMn.nS]".to_owned(),
        }
    }
}

/// The key behind `listener.name.NAME.key`, or the name itself.
pub fn base_name(name: &str) -> &str {
    let inside = name.strip_prefix("listener.name.").and_then(|rest| rest.split_once('.'));
    inside.map_or(name, |(_, base)| base)
}
