//! Space: what takes some is refused while there is none, and the cluster hears of it by the NOSPACE alarm of whoever has none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_api::etcdserverpb::{AlarmRequest, AlarmType, InternalRaftRequest, alarm_request::AlarmAction};
use tracing::warn;

use super::{EtcdServer, ServerError};
use crate::apply::ApplyError;

const NOSPACE: i32 = AlarmType::Nospace as i32;
/// How often it is looked again while some member lacks space.
const LACK_INTERVAL: Duration = Duration::from_secs(1);

impl EtcdServer {
    /// Refuses what takes space while there is none, and has the alarm raised.
    pub fn check_space(&self, bytes: usize) -> Result<(), ServerError> {
        if !self.is_full()
            && self.live_bytes.load(Ordering::Relaxed) + bytes as u64 <= self.limits.quota_bytes
        {
            return Ok(());
        }
        self.space_refused.store(true, Ordering::Relaxed);
        self.space.notify_one();
        Err(ApplyError::NoSpace.into())
    }

    /// The disk has no room for the next segment of the store or the log.
    fn is_full(&self) -> bool {
        self.store_full.load(Ordering::Relaxed) || self.log.full.load(Ordering::Relaxed)
    }

    /// Keeps the alarm of this member true, which nobody else can: whether anybody writes through it or not, it must be raised before the last
    /// segments are full, for then nothing is applied here any more, and no read is answered.
    pub async fn watch_space(self: Arc<Self>) {
        loop {
            let changed = self.wait_for_space_change().await;
            let live_bytes = self.store().storage.live_bytes();
            self.live_bytes.store(live_bytes, Ordering::Relaxed);
            let refused = self.space_refused.swap(false, Ordering::Relaxed);
            if let Err(error) = self.settle_space_alarms(live_bytes, refused, changed).await {
                warn!(error = %error, "whether the NOSPACE alarm was changed is not known; it is tried again");
                self.space_refused.fetch_or(refused, Ordering::Relaxed);
                tokio::time::sleep(LACK_INTERVAL).await;
                self.space.notify_one();
            }
        }
    }

    /// False when nothing was heard of a change: while space lacks it is looked again all the same, by who lacks it and by who leads.
    async fn wait_for_space_change(&self) -> bool {
        let changed = self.space.notified();
        if self.is_full() || (self.is_leader() && !self.lack_space().is_empty()) {
            return tokio::time::timeout(LACK_INTERVAL, changed).await.is_ok();
        }
        changed.await;
        true
    }

    /// Whose alarm is raised.
    fn lack_space(&self) -> Vec<u64> {
        let alarms = self.state.alarms.read();
        let lacking = alarms.iter().filter(|(_, kind)| *kind == NOSPACE);
        lacking.map(|(member, _)| *member).collect()
    }

    async fn settle_space_alarms(
        &self,
        live_bytes: u64,
        refused: bool,
        changed: bool,
    ) -> Result<(), ServerError> {
        let raised = self.lack_space();
        let raised_here = raised.contains(&self.member);
        let lacks_space = self.is_full() || refused;
        if lacks_space && !raised_here {
            self.change_alarm(AlarmAction::Activate, AlarmType::Nospace, self.member)
                .await?;
        }
        if !lacks_space && raised_here && changed && live_bytes < self.limits.quota_bytes {
            self.change_alarm(AlarmAction::Deactivate, AlarmType::Nospace, self.member)
                .await?;
        }
        if self.is_leader() {
            // Who is back raises it again.
            for absent in raised.into_iter().filter(|member| self.is_absent(*member)) {
                self.change_alarm(AlarmAction::Deactivate, AlarmType::Nospace, absent)
                    .await?;
            }
        }
        Ok(())
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
