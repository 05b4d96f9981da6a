//! Changes of finalized features.
//!
//! Source: KIP-584, KIP-778, KIP-966 (what enabling eligible leader replicas asks of
//! `min.insync.replicas`), KIP-1022.

use super::{ApiError, Controller, ControllerReply, Decision};
use crate::machines::metadata::features::{
    ELR_VERSION, KRAFT_VERSION, METADATA_VERSION, METADATA_VERSIONS, find_feature,
    metadata_version_name,
};
use crate::machines::metadata::image::{ResourceType, VersionRange};
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_protocol::messages::update_features_response::UpdatableFeatureResult;
use ottla_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use ottla_protocol::metadata::{ConfigRecord, FeatureLevelRecord};
use ottla_protocol::{ErrorCode, MetadataRecord};

const UPGRADE: i8 = 1;
const UNSAFE_DOWNGRADE: i8 = 3;
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Eligible leader replicas need partition records that can hold them.
const ELR_METADATA_VERSION: i16 = 23;

impl Controller {
    /// `version` is the request's: before 1 a flag said whether a level may go down, from 2 on
    /// there is one error for all.
    pub(super) fn update_features(
        &self,
        request: &UpdateFeaturesRequest,
        version: i16,
    ) -> Decision {
        let mut records = Vec::new();
        let mut failure = None;
        for update in &request.feature_updates {
            match self.update_feature(update, version) {
                Ok(more) => records.extend(more),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if failure.is_some() || request.validate_only {
            records.clear();
        }
        let response = match failure {
            Some(error) => UpdateFeaturesResponse {
                error_code: error.code.code(),
                error_message: Some(format!(
                    "The update failed for all features since the following feature had an error: \
                     {}",
                    error.message.unwrap_or_default()
                )),
                ..Default::default()
            },
            None if version > 1 => {
                UpdateFeaturesResponse { error_message: None, ..Default::default() }
            }
            None => UpdateFeaturesResponse {
                error_message: None,
                results: request
                    .feature_updates
                    .iter()
                    .map(|update| UpdatableFeatureResult {
                        feature: update.feature.clone(),
                        // Kafka's text for no error, which it sends here.
                        error_message: Some("NONE".to_owned()),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            },
        };
        (records, ControllerReply::UpdateFeatures(response))
    }

    fn update_feature(
        &self,
        update: &FeatureUpdateKey,
        version: i16,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        let (name, level) = (update.feature.as_str(), update.max_version_level);
        let invalid = |why: &str| {
            let text = format!("Invalid update version {level} for feature {name}. {why}");
            ApiError::new(ErrorCode::InvalidUpdateVersion, text)
        };
        let kind = match version {
            0 if update.allow_downgrade => 2,
            0 => UPGRADE,
            _ => update.upgrade_type,
        };
        if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&kind) {
            return Err(invalid("The controller does not support the given upgrade type."));
        }
        if level < 0 {
            return Err(invalid("A feature version cannot be less than 0."));
        }
        if let Some(reason) = self.reason_not_supported(name, level) {
            return Err(invalid(&reason));
        }
        let current = self.image.features.level(name);
        if level < current && kind == UPGRADE {
            return Err(invalid(
                "Can't downgrade the version of this feature without setting the upgrade type to \
                 either safe or unsafe downgrade.",
            ));
        }
        if level > current && kind != UPGRADE {
            return Err(invalid("Can't downgrade to a newer version."));
        }
        match name {
            METADATA_VERSION => check_metadata_version(current, level, kind)?,
            KRAFT_VERSION if level == current => return Ok(Vec::new()),
            // Its level stands in control records, which come with dynamic voters.
            KRAFT_VERSION => return Err(invalid("Unable to update finalized feature.")),
            ELR_VERSION if level > 0 => {
                let metadata_version = self.image.features.metadata_version();
                if metadata_version < ELR_METADATA_VERSION {
                    return Err(invalid(&format!(
                        "{ELR_VERSION} could not be set to {level} because it depends on \
                         metadata.version level {ELR_METADATA_VERSION}"
                    )));
                }
            }
            _ => {}
        }
        let mut records = Vec::new();
        if name == ELR_VERSION && level > 0 && current == 0 {
            records.extend(self.min_isr_for_elr());
        }
        records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord {
            name: name.to_owned(),
            feature_level: level,
        }));
        Ok(records)
    }

    fn reason_not_supported(&self, name: &str, level: i16) -> Option<String> {
        let reason = |who: String, range: Option<VersionRange>| match range {
            None | Some(VersionRange { max: 0, .. }) => {
                Some(format!("{who} does not support this feature."))
            }
            Some(range) if level < range.min || level > range.max => {
                Some(format!("{who} only supports versions {}-{}", range.min, range.max))
            }
            Some(_) => None,
        };
        let current = self.image.features.level(name);
        let local = find_feature(name).map(|feature| feature.range_at(current));
        let local = reason(format!("Local controller {}", self.settings.node_id), local);
        let brokers = self.image.cluster.brokers.values().find_map(|broker| {
            // Level 0 is off, for which nothing needs to be supported.
            let range = broker.features.get(name).copied();
            if level == 0 && range.is_none() {
                return None;
            }
            reason(format!("Broker {}", broker.id), range)
        });
        local.or(brokers)
    }

    /// With eligible leader replicas `min.insync.replicas` is one value of the whole cluster.
    fn min_isr_for_elr(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        let mut cluster_wide = false;
        for (resource, configs) in self.image.configs.iter() {
            if resource.kind != ResourceType::Broker || !configs.contains_key(MIN_INSYNC_REPLICAS) {
                continue;
            }
            if resource.name.is_empty() {
                cluster_wide = true;
            } else {
                records.push(min_isr_record(&resource.name, None));
            }
        }
        if !cluster_wide {
            let value = self.settings.min_insync_replicas.to_string();
            records.insert(0, min_isr_record("", Some(value)));
        }
        records
    }
}

fn min_isr_record(broker: &str, value: Option<String>) -> MetadataRecord {
    MetadataRecord::Config(ConfigRecord {
        resource_type: ResourceType::Broker.id(),
        resource_name: broker.to_owned(),
        name: MIN_INSYNC_REPLICAS.to_owned(),
        value,
    })
}

/// Going down is refused where records would lose what they say.
fn check_metadata_version(current: i16, level: i16, kind: i8) -> Result<(), ApiError> {
    if metadata_version_name(level).is_none() {
        let text = format!("Invalid metadata.version {level}. Unknown metadata.version.");
        return Err(ApiError::new(ErrorCode::InvalidUpdateVersion, text));
    }
    let loses = METADATA_VERSIONS.iter().any(|version| {
        version.changed_records && version.level > level && version.level <= current
    });
    if level >= current || !loses {
        return Ok(());
    }
    let why = if kind == UNSAFE_DOWNGRADE {
        "Unsafe metadata downgrade is not supported in this version."
    } else {
        "Refusing to perform the requested downgrade because it might delete metadata information."
    };
    let text = format!("Unsupported metadata.version downgrade from {current} to {level}. {why}");
    Err(ApiError::new(ErrorCode::InvalidUpdateVersion, text))
}
