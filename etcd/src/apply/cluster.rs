//! Entries about the cluster: its members, its version, its alarms.

use etcd_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, InternalRaftRequest, Request, alarm_request::AlarmAction,
};
use etcd_api::raftpb;
use prost::Message as _;
use raft::eraftpb::Entry;
use tracing::{info, warn};

use super::{Answer, Applier, ApplyError};
use crate::membership::{Change, MemberError, V2Change};
use crate::meta;
use crate::peer::headers;
use crate::raft::conf_change;

impl Applier {
    /// None when the entry is about something else.
    pub(super) fn cluster(&mut self, request: &InternalRaftRequest) -> Option<Result<Answer, ApplyError>> {
        if let Some(alarm) = &request.alarm {
            return Some(Ok(Answer::Alarms(self.alarm(alarm))));
        }
        if let Some(attributes) = &request.cluster_member_attr_set {
            let mut membership = self.state.membership.write();
            if let Some(member) = membership.set_attributes(attributes) {
                meta::put_member(&mut self.writer, member);
            }
        } else if let Some(version) = &request.cluster_version_set {
            self.set_version(&version.ver);
        } else if let Some(info) = &request.downgrade_info_set {
            meta::put_downgrade(&mut self.writer, info);
            self.state.membership.write().downgrade.clone_from(info);
        } else if request.downgrade_version_test.is_none() {
            return None;
        }
        Some(Ok(Answer::Done))
    }

    fn set_version(&mut self, version: &str) {
        meta::put_cluster_version(&mut self.writer, version);
        let before = std::mem::replace(&mut self.state.membership.write().version, version.to_owned());
        if headers::minor(version) < headers::minor(&before) {
            self.effects.version_lowered(self.frame.index);
        }
        info!("cluster-version" = %version, "set cluster version");
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Vec<AlarmMember> {
        let mut alarms = self.state.alarms.write();
        let asked = (request.member_id, request.alarm);
        match request.action() {
            AlarmAction::Get => meta::alarms_of(&alarms, request.alarm),
            AlarmAction::Activate if request.alarm == AlarmType::None as i32 => Vec::new(),
            AlarmAction::Activate => {
                if alarms.insert(asked) {
                    meta::put_alarm(&mut self.writer, request.member_id, request.alarm);
                    self.effects.alarms_changed();
                    warn!("from" = %format!("{:x}", request.member_id), alarm = request.alarm().as_str_name(), "alarm raised");
                }
                vec![meta::alarm_member(asked)]
            }
            AlarmAction::Deactivate if alarms.remove(&asked) => {
                meta::delete_alarm(&mut self.writer, request.member_id, request.alarm);
                self.effects.alarms_changed();
                info!("from" = %format!("{:x}", request.member_id), alarm = request.alarm().as_str_name(), "alarm disarmed");
                vec![meta::alarm_member(asked)]
            }
            AlarmAction::Deactivate => Vec::new(),
        }
    }

    pub(super) fn conf_change(&mut self, entry: &Entry) {
        let Some(change) = conf_change::decode(entry) else {
            return warn!(
                index = entry.index,
                "a configuration change that cannot be decoded was skipped"
            );
        };
        let id = change.id;
        let changed = self.change_members(change, entry.index);
        self.answer(id, changed.map(|()| Answer::Members).map_err(ApplyError::Member));
    }

    /// What every member refuses alike does not reach raft.
    fn change_members(&mut self, change: raftpb::ConfChange, index: u64) -> Result<(), MemberError> {
        let Some(read) = Change::read(&change) else {
            warn!(
                index,
                "a configuration change whose context does not fit it was skipped"
            );
            return Err(MemberError::BadUrls);
        };
        let checked = self
            .state
            .membership
            .read()
            .validate(&read, self.rules.max_learners);
        if let Err(error) = checked {
            warn!(index, change = ?read, error = %error, "validation on configuration change failed");
            return Err(error);
        }
        if let Some(state) = self.effects.conf_change(index, change) {
            meta::put_conf_state(&mut self.writer, &state);
        }
        let changed = self.state.membership.write().apply(&read).cloned();
        match changed {
            Some(member) => meta::put_member(&mut self.writer, &member),
            None => self.member_removed(&read),
        }
        info!(change = ?read, "applied a configuration change");
        self.members_changed = true;
        Ok(())
    }

    fn member_removed(&mut self, change: &Change) {
        if let Change::Remove(id) = change {
            meta::remove_member(&mut self.writer, *id);
            if *id == self.member {
                self.effects.removed();
            }
        }
    }

    /// Members before 3.6 say their names and the cluster's version by requests of the old store. Nothing else of it is known here.
    pub(super) fn v2_request(&mut self, entry: &Entry) -> bool {
        let Ok(request) = Request::decode(entry.data.clone()) else {
            return false;
        };
        let mut membership = self.state.membership.write();
        match membership.apply_v2(&request.path, &request.val) {
            Some(V2Change::Attributes(member)) => meta::put_member(&mut self.writer, member),
            Some(V2Change::Version) => meta::put_cluster_version(&mut self.writer, &request.val),
            None => return false,
        }
        drop(membership);
        self.answer(request.id, Ok(Answer::Done));
        true
    }
}
