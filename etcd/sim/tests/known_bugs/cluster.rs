//! Members among each other: snapshots, their rules, who leads, and where they are.

use etcd::apply::ApplyError;
use etcd_api::authpb::{Permission, permission::Type};
use etcd_api::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, InternalRaftRequest,
};
use etcd_sim::World;
use etcd_sim::faults::{Down, Kind};
use raft::eraftpb::{Message, MessageType};

use crate::scenario::{
    ask, ask_at, cut_off, everywhere, hash, hold, life, of_user, often, put, quiet_with, rest, until,
};

fn needs_snapshots(members: usize) -> World {
    quiet_with(members, |plan| {
        (plan.retention.snapshot_count, plan.retention.catchup_entries) = (5, 1);
        plan.retention.older_entries = 0;
    })
}

fn user(name: &str, role: &str) -> [InternalRaftRequest; 3] {
    let request = InternalRaftRequest::default;
    [
        InternalRaftRequest {
            auth_user_add: Some(AuthUserAddRequest {
                name: name.to_owned(),
                hashed_password: "aGFzaA==".to_owned(),
                ..AuthUserAddRequest::default()
            }),
            ..request()
        },
        InternalRaftRequest {
            auth_role_add: Some(AuthRoleAddRequest {
                name: role.to_owned(),
            }),
            ..request()
        },
        InternalRaftRequest {
            auth_user_grant_role: Some(AuthUserGrantRoleRequest {
                user: name.to_owned(),
                role: role.to_owned(),
            }),
            ..request()
        },
    ]
}

fn rules() -> Vec<InternalRaftRequest> {
    let grant = InternalRaftRequest {
        auth_role_grant_permission: Some(AuthRoleGrantPermissionRequest {
            name: "writer".to_owned(),
            perm: Some(Permission {
                perm_type: Type::Readwrite as i32,
                key: "k".into(),
                range_end: "l".into(),
            }),
        }),
        ..InternalRaftRequest::default()
    };
    let enable = InternalRaftRequest {
        auth_enable: Some(AuthEnableRequest {}),
        ..InternalRaftRequest::default()
    };
    let users = user("root", "root").into_iter().chain(user("ann", "writer"));
    users.chain([grant, enable]).collect()
}

/// The rules came with the snapshot, or the member refuses what the others do.
#[test]
fn issue_14571_a_member_knows_the_users_that_came_with_a_snapshot() {
    let mut world = needs_snapshots(3);
    ask(&mut world, put("k", "first"));
    let leader = until(&mut world, |world| world.leader());
    let (lagging, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cut_off(&mut world, lagging, 5_000_000);
    for request in rules() {
        assert!(ask_at(&mut world, leader, request).result.is_ok());
    }
    let revision = life(&world, leader).state.auth.revision();
    let mut last = 0;
    for number in 0..20 {
        let request = of_user("ann", revision, put("k", &format!("{number}")));
        let applied = ask_at(&mut world, leader, request);
        assert!(applied.result.is_ok());
        last = applied.revision;
    }
    let before = world.snapshots;
    everywhere(&mut world, last);
    assert!(world.snapshots > before, "no snapshot was needed");
    assert!(life(&world, lagging).state.auth.is_enabled());
    for (place, name) in [(leader, "k"), (other, "k1"), (lagging, "k2")] {
        let applied = ask_at(&mut world, place, of_user("ann", revision, put(name, "x")));
        assert!(applied.result.is_ok(), "{:?}", applied.result.err());
        everywhere(&mut world, applied.revision);
        last = applied.revision;
    }
    let refused = ask_at(&mut world, lagging, of_user("ann", revision, put("z", "x")));
    assert!(matches!(refused.result, Err(ApplyError::Auth(_))));
    rest(&mut world);
    hash(&world, last);
}

/// A message with the store of a member as it is now.
fn store_of(world: &World, from: usize, to: usize) -> Message {
    let mut message = Message {
        from: world.members[from].ids.member,
        to: world.members[to].ids.member,
        term: life(world, from)
            .status
            .term
            .load(std::sync::atomic::Ordering::SeqCst),
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgSnapshot);
    message
}

#[test]
fn issue_18055_two_snapshots_within_a_moment_are_taken_one_after_the_other() {
    let mut world = needs_snapshots(3);
    ask(&mut world, put("k", "first"));
    let leader = until(&mut world, |world| world.leader());
    let lagging = (leader + 1) % 3;
    cut_off(&mut world, lagging, 3_000_000);
    let mut last = 0;
    for number in 0..20 {
        last = ask_at(&mut world, leader, put("k", &format!("{number}"))).revision;
    }
    // What arrives waits until the member is awake again, and comes to it before it has done anything about the first.
    world.members[lagging].paused_until = world.now + 2_000_000;
    world.network.heal();
    for number in 0..2 {
        let message = store_of(&world, leader, lagging);
        world.send(leader, message);
        last = ask_at(&mut world, leader, put("k", &format!("later {number}"))).revision;
    }
    assert!(world.members[lagging].paused_until > world.now);
    world.members[lagging].paused_until = 0;
    let before = world.snapshots;
    while world.snapshots < before + 2 && world.network.next().is_some() {
        world.arrive();
    }
    assert_eq!(world.snapshots, before + 2);
    everywhere(&mut world, last);
    rest(&mut world);
    hash(&world, last);
}

#[test]
fn issue_20418_a_paused_leader_reads_nothing_stale() {
    hold(|plan| {
        plan.members = 3;
        plan.clients = 8;
        often(plan, &[Kind::Pause, Kind::Partition, Kind::OneWay]);
        plan.fault_interval_us = 1_000_000;
    });
}

/// Asks for it, and waits until the member is nowhere else.
fn move_away(world: &mut World, asked: usize, place: usize) -> String {
    let member = world.members[place].ids.member;
    let moving = world.moving(member).unwrap();
    world.propose_change(asked, &moving);
    until(world, |world| (world.moved > 0).then_some(()));
    world.members[place].url.clone()
}

fn knows(world: &World, who: usize, place: usize) -> Vec<String> {
    let known = life(world, who).state.membership.read();
    known.members[&world.members[place].ids.member].peer_urls.clone()
}

#[test]
fn a_member_that_has_moved_is_there_after_all_were_down() {
    let mut world = quiet_with(3, |_| ());
    let revision = ask(&mut world, put("k", "first")).revision;
    let url = move_away(&mut world, 0, 1);
    everywhere(&mut world, revision);
    rest(&mut world);
    (0..3).for_each(|place| world.down(place, Down::PowerLoss));
    ask(&mut world, put("k", "last"));
    assert!((0..3).all(|who| knows(&world, who, 1) == [url.clone()]));
}

#[test]
fn a_learner_that_has_moved_is_a_learner_still() {
    let mut world = quiet_with(3, |_| ());
    ask(&mut world, put("k", "first"));
    let joining = world.joining(true);
    world.propose_change(0, &joining);
    let learner = 3;
    until(&mut world, |world| {
        world.members[learner].life.is_some().then_some(())
    });
    move_away(&mut world, 0, learner);
    let applied = ask(&mut world, put("k", "last"));
    assert!(applied.result.is_ok());
    assert!((0..4).all(|who| life(&world, who).state.membership.read().voters().count() == 3));
}

#[test]
fn who_was_sent_a_store_knows_where_the_others_are() {
    let mut world = needs_snapshots(3);
    ask(&mut world, put("k", "first"));
    let leader = until(&mut world, |world| world.leader());
    let lagging = (leader + 1) % 3;
    cut_off(&mut world, lagging, 5_000_000);
    let url = move_away(&mut world, leader, leader);
    let last = (0..20).map(|number| ask_at(&mut world, leader, put("k", &format!("{number}"))).revision);
    let last = last.max().unwrap_or(0);
    everywhere(&mut world, last);
    assert!(world.snapshots > 0, "no snapshot was needed");
    assert_eq!(knows(&world, lagging, leader), [url]);
}
