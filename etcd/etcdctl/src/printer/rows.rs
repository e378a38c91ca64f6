//! Rows that the simple and the table format share.

use etcd_api::etcdserverpb::{HashKvResponse, MemberListResponse, StatusResponse};

use super::Health;
use crate::go::humanize;

pub struct Rows {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

pub fn members(answer: &MemberListResponse) -> Rows {
    let row = |member: &etcd_api::etcdserverpb::Member| {
        let status = if member.name.is_empty() {
            "unstarted"
        } else {
            "started"
        };
        vec![
            format!("{:x}", member.id),
            status.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    Rows {
        header: vec!["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"],
        rows: answer.members.iter().map(row).collect(),
    }
}

pub fn health(list: &[Health]) -> Rows {
    let row = |health: &Health| {
        vec![
            health.endpoint.clone(),
            health.health.to_string(),
            health.took.clone(),
            health.error.clone(),
        ]
    };
    Rows {
        header: vec!["endpoint", "health", "took", "error"],
        rows: list.iter().map(row).collect(),
    }
}

pub fn status(list: &[(String, StatusResponse)]) -> Rows {
    let header = vec![
        "endpoint",
        "ID",
        "version",
        "storage version",
        "db size",
        "in use",
        "percentage not in use",
        "quota",
        "is leader",
        "is learner",
        "raft term",
        "raft index",
        "raft applied index",
        "errors",
        "downgrade target version",
        "downgrade enabled",
    ];
    Rows {
        header,
        rows: list
            .iter()
            .map(|(endpoint, status)| status_row(endpoint, status))
            .collect(),
    }
}

fn status_row(endpoint: &str, status: &StatusResponse) -> Vec<String> {
    let member = status.header.as_ref().map_or(0, |header| header.member_id);
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    vec![
        endpoint.to_owned(),
        format!("{member:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        bytes(status.db_size),
        bytes(status.db_size_in_use),
        format!("{}%", unused_percent(status)),
        bytes(status.db_size_quota),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

fn bytes(count: i64) -> String {
    // Upstream converts as Go does: a negative count wraps.
    humanize::bytes(count as u64)
}

/// Upstream divides by the size and dies when it is 0.
fn unused_percent(status: &StatusResponse) -> i64 {
    let used = status
        .db_size_in_use
        .saturating_mul(100)
        .checked_div(status.db_size);
    100 - used.unwrap_or(100)
}

pub fn hashes(list: &[(String, HashKvResponse)]) -> Rows {
    let row = |(endpoint, answer): &(String, HashKvResponse)| {
        vec![
            endpoint.clone(),
            answer.hash.to_string(),
            answer.hash_revision.to_string(),
        ]
    };
    Rows {
        header: vec!["endpoint", "hash", "hash_revision"],
        rows: list.iter().map(row).collect(),
    }
}
