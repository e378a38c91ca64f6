//! Do the members have the same keys? Each asks before it serves; then the leader asks from time to time, and after compactions. Whoever differs
//! from the most is marked by a CORRUPT alarm, and the cluster takes no more writes until an operator has looked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use etcd_api::etcdserverpb::{AlarmType, alarm_request::AlarmAction};
use tracing::{error, info, warn};

use super::{EtcdServer, ServerError};
use crate::mvcc;
use crate::mvcc::hash::KvHash;
use crate::peer::corrupt::{Heard, Told, ask_all, hash, quorum};
use crate::storage::damage::REMEDY;

/// The alarm's member when nobody can tell who is right.
const WHOLE_CLUSTER: u64 = 0;

/// A member that starts does not wait long for one that hangs, as long as most have spoken.
const STRAGGLE: Duration = Duration::from_secs(1);

/// What one comparison came to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Everybody was heard, and has the same.
    Same,
    /// Nobody differs, but not everybody could be compared.
    Incomplete,
    /// Whom to mark.
    Corrupt(Vec<u64>),
}

/// etcd's rule: those who differ from a majority are corrupt; without a majority the whole cluster is.
fn compare(member: u64, ours: KvHash, heard: &[Heard]) -> Verdict {
    let mut by_hash = BTreeMap::from([(ours.hash, vec![member])]);
    let comparable = |heard: &&Heard| {
        heard
            .told
            .is_some_and(|told| told.hash.compacted == ours.compacted)
    };
    let mut compared = 0;
    for Heard { member, told } in heard.iter().filter(comparable) {
        let Some(told) = told else { continue };
        by_hash.entry(told.hash.hash).or_default().push(*member);
        compared += 1;
    }
    if by_hash.len() == 1 {
        return match compared == heard.len() {
            true => Verdict::Same,
            false => Verdict::Incomplete,
        };
    }
    let quorum = quorum(heard.len());
    let Some(right) = by_hash
        .iter()
        .find(|(_, members)| members.len() >= quorum)
        .map(|(hash, _)| *hash)
    else {
        return Verdict::Corrupt(vec![WHOLE_CLUSTER]);
    };
    by_hash.remove(&right);
    Verdict::Corrupt(by_hash.into_values().flatten().collect())
}

/// A follower is never ahead of its leader.
fn is_ahead(told: &Told, current: i64, compacted: i64) -> bool {
    told.current > current || told.hash.compacted > compacted
}

impl EtcdServer {
    /// The feature `InitialCorruptCheck`: a member whose keys differ from another's does not serve them.
    pub async fn initial_corrupt_check(self: &Arc<Self>) -> Result<()> {
        let member = format!("{:x}", self.member);
        if self.state.membership.read().members.len() < 2 {
            return Ok(());
        }
        info!("local-member-id" = %member, "starting initial corruption check");
        let ours = hash(self.store(), 0).await.with_context(|| {
            format!("{member} cannot read all of its keys: {REMEDY} (--feature-gates=InitialCorruptCheck=false starts regardless)")
        })?;
        let mut differing = Vec::new();
        for Heard { member, told } in ask_all(self, ours.revision, STRAGGLE).await {
            let Some(theirs) = told.filter(|told| told.hash.hash != ours.hash) else {
                continue;
            };
            let member = format!("{member:x}");
            if theirs.hash.compacted != ours.compacted {
                warn!("remote-peer-id" = %member, "local-member-compact-revision" = ours.compacted, "remote-peer-compact-revision" = theirs.hash.compacted, "found different compact revision values from remote peer");
                continue;
            }
            warn!("remote-peer-id" = %member, revision = ours.revision, "local-member-hash" = ours.hash, "remote-peer-hash" = theirs.hash.hash, "found different hash values from remote peer");
            differing.push(member);
        }
        if !differing.is_empty() {
            bail!(
                "{member} found data inconsistency with peers {} at revision {}: find out which member is right, remove the others and add them again with empty data directories (--feature-gates=InitialCorruptCheck=false starts regardless)",
                differing.join(", "),
                ours.revision
            );
        }
        info!("local-member-id" = %member, "initial corruption checking passed; no corruption");
        Ok(())
    }

    /// `--corrupt-check-time`: what the members have now.
    pub async fn watch_corruption(self: Arc<Self>, interval: Duration) {
        info!("local-member-id" = %format!("{:x}", self.member), interval = ?interval, "enabled corruption checking");
        loop {
            tokio::time::sleep(interval).await;
            if self.is_leader()
                && let Err(error) = self.check_corruption().await
            {
                warn!(error = %error, "failed to check hash KV");
            }
        }
    }

    async fn check_corruption(self: &Arc<Self>) -> Result<(), ServerError> {
        let ours = match hash(self.store(), 0).await {
            Err(error @ mvcc::Error::Io(_)) => {
                // There is nothing to compare, but each of the others reads all that it has when it is asked.
                ask_all(self, self.store().current(), self.request_timeout()).await;
                return Err(error.into());
            }
            ours => ours?,
        };
        let heard = ask_all(self, ours.revision, self.request_timeout()).await;
        // Only now is known that this member still led when it asked.
        self.linearizable().await?;
        let (current, compacted) = (self.store().current(), self.store().compacted());
        if current == ours.revision {
            let again = hash(self.store(), 0).await?;
            if again.hash != ours.hash && (again.revision, again.compacted) == (ours.revision, ours.compacted)
            {
                error!(
                    revision = ours.revision,
                    "hash-1" = ours.hash,
                    "hash-2" = again.hash,
                    "found hash mismatch"
                );
                self.mark(vec![self.member]).await;
                return Ok(());
            }
        }
        let shown = mvcc::hash::shown_compacted(compacted);
        let ahead = |heard: &&Heard| heard.told.is_some_and(|told| is_ahead(&told, current, shown));
        let ahead: Vec<u64> = heard.iter().filter(ahead).map(|heard| heard.member).collect();
        if !ahead.is_empty() {
            error!("leader-revision" = current, "leader-compact-revision" = compacted, "follower-peer-ids" = ?hex(&ahead), "revisions of followers must be less than or equal to leader's");
            self.mark(ahead).await;
            return Ok(());
        }
        if let Verdict::Corrupt(members) = compare(self.member, ours, &heard) {
            error!(revision = ours.revision, "leader-hash" = ours.hash, "peer-ids" = ?hex(&members), "same compact revision then hashes must match");
            self.mark(members).await;
        }
        let checked = heard.iter().filter(|heard| heard.told.is_some()).count();
        info!(
            "number-of-peers-checked" = checked,
            "finished peer corruption check"
        );
        Ok(())
    }

    /// The feature `CompactHashCheck`: what the members had when they last dropped history.
    pub async fn watch_compact_hashes(self: Arc<Self>, interval: Duration) {
        let mut checked = 0;
        loop {
            tokio::time::sleep(interval).await;
            if self.is_leader() {
                self.check_compact_hashes(&mut checked).await;
            }
        }
    }

    /// Newest first, until one could be compared with everybody's.
    async fn check_compact_hashes(self: &Arc<Self>, checked: &mut i64) {
        let mut hashes = self.store().hashes.newest();
        hashes.retain(|hash| hash.revision > *checked);
        for ours in hashes {
            let heard = ask_all(self, ours.revision, self.request_timeout()).await;
            match compare(self.member, ours, &heard) {
                Verdict::Same => {
                    info!(
                        revision = ours.revision,
                        "compact-revision" = ours.compacted,
                        "number-of-peers-checked" = heard.len(),
                        "successfully checked hash on whole cluster"
                    );
                    *checked = ours.revision;
                    return;
                }
                Verdict::Incomplete => {
                    info!(
                        revision = ours.revision,
                        "skipped revision in compaction hash check; was not able to check all peers"
                    )
                }
                Verdict::Corrupt(members) => {
                    error!(revision = ours.revision, "leader-hash" = ours.hash, "peer-ids" = ?hex(&members), "Detected compaction hash mismatch");
                    return self.mark(members).await;
                }
            }
        }
    }

    /// Raises the alarm for those who have none yet.
    async fn mark(&self, mut members: Vec<u64>) {
        let corrupt = AlarmType::Corrupt as i32;
        members.retain(|member| !self.state.alarms.read().contains(&(*member, corrupt)));
        for member in members {
            if let Err(error) = self
                .change_alarm(AlarmAction::Activate, AlarmType::Corrupt, member)
                .await
            {
                warn!(error = %error, "failed to raise the CORRUPT alarm");
            }
        }
    }
}

fn hex(members: &[u64]) -> Vec<String> {
    members.iter().map(|member| format!("{member:x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, compacted: i64) -> KvHash {
        KvHash {
            hash,
            compacted,
            revision: 9,
        }
    }

    fn heard(member: u64, told: Option<(u32, i64)>) -> Heard {
        Heard {
            member,
            told: told.map(|(value, compacted)| Told {
                hash: hash(value, compacted),
                current: 9,
            }),
        }
    }

    #[test]
    fn who_differs_from_the_most_is_corrupt() {
        let (same, other, third, late) = (Some((1, 5)), Some((2, 5)), Some((3, 5)), Some((2, 4)));
        for (told, expected) in [
            (vec![same, same], Verdict::Same),
            (vec![same, other], Verdict::Corrupt(vec![12])),
            // The leader itself.
            (vec![other, other], Verdict::Corrupt(vec![10])),
            (vec![other, third], Verdict::Corrupt(vec![WHOLE_CLUSTER])),
            (vec![other], Verdict::Corrupt(vec![WHOLE_CLUSTER])),
            (vec![same, None], Verdict::Incomplete),
            (vec![same, late], Verdict::Incomplete),
            (vec![late, late], Verdict::Incomplete),
            // One that is not heard counts as a member all the same.
            (vec![other, None], Verdict::Corrupt(vec![WHOLE_CLUSTER])),
            (vec![same, same, other, third], Verdict::Corrupt(vec![13, 14])),
            (vec![], Verdict::Same),
        ] {
            let answers: Vec<Heard> = told
                .iter()
                .zip(11..)
                .map(|(told, member)| heard(member, *told))
                .collect();
            assert_eq!(compare(10, hash(1, 5), &answers), expected, "{told:?}");
        }
    }

    #[test]
    fn a_follower_ahead_of_its_leader_is_noticed() {
        let told = |current, compacted| Told {
            hash: hash(1, compacted),
            current,
        };
        assert!(!is_ahead(&told(9, 5), 9, 5));
        assert!(is_ahead(&told(10, 5), 9, 5));
        assert!(is_ahead(&told(9, 6), 9, 5));
    }
}
