//! Space: what takes some is refused while there is none, and the cluster hears of it by the NOSPACE alarm of whoever has none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_api::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest, alarm_request::AlarmAction};
use tracing::warn;

use super::{EtcdServer, ServerError};
use crate::apply::ApplyError;

const NOSPACE: i32 = AlarmType::Nospace as i32;
/// How often is looked whether those who lack space are still there, and tried again what has failed.
const LACK_INTERVAL: Duration = Duration::from_secs(1);

impl EtcdServer {
    /// Refuses what takes space while there is none, and has the alarm raised.
    pub fn check_space(&self, bytes: usize) -> Result<(), ServerError> {
        let full = self.is_full();
        if !full && self.live_bytes.load(Ordering::Relaxed) + bytes as u64 <= self.limits.quota_bytes {
            return Ok(());
        }
        self.quota_reached.fetch_or(!full, Ordering::Relaxed);
        if !self.lack_space().contains(&self.member) {
            self.space.notify_one();
        }
        Err(ApplyError::NoSpace.into())
    }

    /// The keeper has looked for space that the quota counts.
    pub fn look_for_space(&self) {
        self.quota_reached.store(false, Ordering::Relaxed);
        self.live_bytes
            .store(self.store().storage.live_bytes(), Ordering::Relaxed);
        self.space.notify_one();
    }

    /// The disk has no room for the next segment of the store or the log.
    fn is_full(&self) -> bool {
        self.store_full.load(Ordering::Relaxed) || self.log.full.load(Ordering::Relaxed)
    }

    /// Keeps the alarm of this member true, which nobody else can: whether anybody writes through it or not, it must be raised before the last
    /// segments are full, for then nothing is applied here any more, and no read is answered.
    pub async fn watch_space(self: Arc<Self>) {
        loop {
            self.space_changed().await;
            if let Err(error) = self.settle_space_alarms().await {
                warn!(error = %error, "whether the NOSPACE alarm was changed is not known; it is tried again");
                tokio::time::sleep(LACK_INTERVAL).await;
                self.space.notify_one();
            }
        }
    }

    async fn space_changed(&self) {
        let changed = self.space.notified();
        match self.lack_space().is_empty() {
            true => changed.await,
            // Members, and leaders, go without telling.
            false => drop(tokio::time::timeout(LACK_INTERVAL, changed).await),
        }
    }

    /// Whose alarm is raised, as far as is applied here.
    fn lack_space(&self) -> Vec<u64> {
        let alarms = self.state.alarms.read();
        let lacking = alarms.iter().filter(|(_, kind)| *kind == NOSPACE);
        lacking.map(|(member, _)| *member).collect()
    }

    async fn settle_space_alarms(&self) -> Result<(), ServerError> {
        let raised = self.lack_space();
        let below_quota = self.live_bytes.load(Ordering::Relaxed) < self.limits.quota_bytes;
        let lacks_space = self.is_full() || self.quota_reached.load(Ordering::Relaxed);
        match raised.contains(&self.member) {
            false if lacks_space => {
                self.change_space_alarm(AlarmAction::Activate, self.member)
                    .await?
            }
            true if !lacks_space && below_quota => {
                self.change_space_alarm(AlarmAction::Deactivate, self.member)
                    .await?;
            }
            _ => {}
        }
        if self.is_leader() {
            // Who is back raises it again.
            for absent in raised.into_iter().filter(|member| self.is_absent(*member)) {
                self.change_space_alarm(AlarmAction::Deactivate, absent).await?;
            }
        }
        Ok(())
    }

    async fn change_space_alarm(&self, action: AlarmAction, member: u64) -> Result<(), ServerError> {
        self.change_alarm(action, AlarmType::Nospace, member).await
    }

    /// Neither this member nor one that it hears of.
    fn is_absent(&self, member: u64) -> bool {
        member != self.member && self.active_for(member).is_none()
    }

    pub(super) async fn change_alarm(
        &self,
        action: AlarmAction,
        kind: AlarmType,
        member_id: u64,
    ) -> Result<(), ServerError> {
        let alarm = AlarmRequest {
            action: action as i32,
            member_id,
            alarm: kind as i32,
        };
        let request = InternalRaftRequest {
            alarm: Some(alarm),
            ..Default::default()
        };
        self.propose(request).await?.result?;
        Ok(())
    }
}
