//! `--feature-gates` and the experimental flags that became gates.

use anyhow::{Result, bail};
use component_base::flags::Flags;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    pub lease_checkpoint: bool,
    pub lease_checkpoint_persist: bool,
    pub initial_corrupt_check: bool,
    pub compact_hash_check: bool,
    all_alpha: bool,
    all_beta: bool,
}

/// Known to etcd 3.6 and without an effect here.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("StopGRPCServiceOnDefrag", ALPHA),
    ("TxnModeWriteWithSharedBuffer", BETA),
    ("SetMemberLocalAddr", ALPHA),
];

const ALPHA: &str = "ALPHA";
const BETA: &str = "BETA";

/// The experimental flags that a gate took the place of.
const EXPERIMENTAL: &[(&str, &str)] = &[
    ("LeaseCheckpoint", "experimental-enable-lease-checkpoint"),
    (
        "LeaseCheckpointPersist",
        "experimental-enable-lease-checkpoint-persist",
    ),
    ("InitialCorruptCheck", "experimental-initial-corrupt-check"),
    ("CompactHashCheck", "experimental-compact-hash-check-enabled"),
];

impl Features {
    pub fn from_flags(flags: &Flags) -> Result<Features> {
        let mut features = Features {
            lease_checkpoint: flags.bool("experimental-enable-lease-checkpoint"),
            lease_checkpoint_persist: flags.bool("experimental-enable-lease-checkpoint-persist"),
            initial_corrupt_check: flags.bool("experimental-initial-corrupt-check"),
            compact_hash_check: flags.bool("experimental-compact-hash-check-enabled"),
            ..Features::default()
        };
        // What is named by itself goes before what is named with all others.
        let mut gates = flags.strings("feature-gates");
        gates.sort_by_key(|gate| !gate.starts_with("All"));
        for item in gates {
            let Some((name, value)) = item.split_once('=') else {
                bail!("invalid value {item:?} for --feature-gates: missing bool value for {item}");
            };
            let Ok(on) = value.trim().parse::<bool>() else {
                bail!("invalid value {value:?} for --feature-gates: {name} is true or false");
            };
            let name = name.trim();
            let replaced = EXPERIMENTAL.iter().find(|(gate, _)| *gate == name);
            if let Some((_, flag)) = replaced.filter(|(_, flag)| flags.is_set(flag)) {
                bail!(
                    "cannot specify both flags: --{flag} and --feature-gates={name}={on} at the same time, please just use --feature-gates={name}={on}"
                );
            }
            features.set(name, on)?;
        }
        if features.lease_checkpoint_persist && !features.lease_checkpoint {
            bail!(
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint"
            );
        }
        Ok(features)
    }

    /// Every gate with its stage; what has no effect here is not on.
    pub fn list(&self) -> Vec<(&'static str, &'static str, bool)> {
        let mut all = vec![
            ("LeaseCheckpoint", ALPHA, self.lease_checkpoint),
            ("LeaseCheckpointPersist", ALPHA, self.lease_checkpoint_persist),
            ("InitialCorruptCheck", ALPHA, self.initial_corrupt_check),
            ("CompactHashCheck", ALPHA, self.compact_hash_check),
            ("AllAlpha", ALPHA, self.all_alpha),
            ("AllBeta", BETA, self.all_beta),
        ];
        all.extend(WITHOUT_EFFECT.iter().map(|(name, stage)| (*name, *stage, false)));
        all
    }

    fn set(&mut self, name: &str, on: bool) -> Result<()> {
        match name {
            "LeaseCheckpoint" => self.lease_checkpoint = on,
            "LeaseCheckpointPersist" => self.lease_checkpoint_persist = on,
            "InitialCorruptCheck" => self.initial_corrupt_check = on,
            "CompactHashCheck" => self.compact_hash_check = on,
            "AllAlpha" => {
                *self = Features {
                    lease_checkpoint: on,
                    lease_checkpoint_persist: on,
                    initial_corrupt_check: on,
                    compact_hash_check: on,
                    all_alpha: on,
                    ..*self
                }
            }
            // None of them has an effect here.
            "AllBeta" => self.all_beta = on,
            _ if WITHOUT_EFFECT.iter().any(|(known, _)| *known == name) => {
                if on {
                    tracing::warn!(feature = name, "this feature gate has no effect here");
                }
            }
            _ => bail!("unrecognized feature gate: {name}"),
        }
        Ok(())
    }
}
