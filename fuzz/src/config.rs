//! Targets of the configuration.

use ottla::config::{Config, Source, Values, properties};

/// A `server.properties`: any bytes give a configuration or an error of one line.
pub fn properties(data: &[u8]) {
    let Ok(properties) = properties::parse(data) else {
        return;
    };
    let mut values = Values::default();
    for property in properties {
        values.set(&property.key, &property.value, Source::Override);
    }
    if let Err(error) = Config::from_values(values) {
        assert!(!error.to_string().is_empty());
    }
}
