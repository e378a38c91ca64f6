use super::*;
use crate::raft::older::Fetch;
use etcd_api::raftpb::ConfChangeType;

fn node(id: u64, voters: &[u64]) -> Node {
    let conf_state = ConfState {
        voters: voters.to_vec(),
        ..ConfState::default()
    };
    let log = Log::new(HardState::default(), conf_state, (0, 0), Vec::new());
    let timing = Timing {
        election_ticks: 10,
        pre_vote: true,
        timeout_ticks: None,
    };
    Node::new(id, log, 0, &timing).unwrap()
}

/// Does all work at once; returns what was committed.
fn settle(node: &mut Node) -> Vec<Entry> {
    let mut committed = Vec::new();
    while let Some(work) = node.work() {
        committed.extend(work.committed);
        if let Some(persist) = work.persist {
            node.persisted(persist.number);
        }
    }
    if let Some(last) = committed.last() {
        node.applied(last.index);
    }
    committed
}

fn leader() -> Node {
    let mut node = node(1, &[1]);
    node.campaign_if_alone().unwrap();
    settle(&mut node);
    assert!(node.is_leader());
    node
}

fn add_learner(id: u64) -> raftpb::ConfChange {
    raftpb::ConfChange {
        id: 1,
        r#type: ConfChangeType::ConfChangeAddLearnerNode as i32,
        node_id: id,
        context: None,
    }
}

#[test]
fn every_kind_of_configuration_change_passes_raft_as_etcd_wrote_it() {
    let mut leader = leader();
    for kind in [
        ConfChangeType::ConfChangeAddLearnerNode,
        ConfChangeType::ConfChangeUpdateNode,
        ConfChangeType::ConfChangeRemoveNode,
    ] {
        let change = raftpb::ConfChange {
            r#type: kind as i32,
            ..add_learner(9)
        };
        leader.propose_conf_change(&change).unwrap();
        assert!(leader.has_pending_conf_change());
        let committed = settle(&mut leader);
        assert_eq!(conf_change::decode(&committed[0]), Some(change.clone()));
        let state = leader.apply_conf_change(&change).unwrap();
        assert_eq!(
            state.learners,
            if kind == ConfChangeType::ConfChangeRemoveNode {
                vec![]
            } else {
                vec![9]
            }
        );
        assert!(!leader.has_pending_conf_change());
    }
}

#[test]
fn a_leader_that_was_removed_leads_on_until_another_does() {
    let mut leader = leader();
    leader.propose([b"on its way to the disk".to_vec()]).unwrap();
    let persist = leader.work().unwrap().persist.unwrap();
    let change = |kind: ConfChangeType, id| raftpb::ConfChange {
        r#type: kind as i32,
        ..add_learner(id)
    };
    let joins = change(ConfChangeType::ConfChangeAddNode, 2);
    leader.apply_conf_change(&joins).unwrap();
    let leaves = change(ConfChangeType::ConfChangeRemoveNode, 1);
    let state = leader.apply_conf_change(&leaves).unwrap();
    assert_eq!(state.voters, [2]);
    leader.persisted(persist.number);
    settle(&mut leader);
    assert!(leader.is_leader());
    assert!(leader.has_pending_conf_change(), "no other change meanwhile");
    let mut heartbeat = Message {
        from: 2,
        to: 1,
        term: leader.term() + 1,
        ..Message::default()
    };
    heartbeat.set_msg_type(MessageType::MsgHeartbeat);
    leader.step(heartbeat).unwrap();
    settle(&mut leader);
    let term = leader.term();
    (0..100).for_each(|_| leader.tick());
    settle(&mut leader);
    assert_eq!((leader.is_leader(), leader.term()), (false, term));
}

#[test]
fn nobody_campaigns_while_its_store_is_being_replaced() {
    let mut follower = node(1, &[1, 2, 3]);
    let mut snapshot = Message {
        from: 2,
        to: 1,
        term: 3,
        snapshot: Some(raft::eraftpb::Snapshot {
            metadata: Some(SnapshotMetadata {
                conf_state: Some(ConfState {
                    voters: vec![1, 2, 3],
                    ..ConfState::default()
                }),
                index: 50,
                term: 3,
            }),
            ..Default::default()
        }),
        ..Message::default()
    };
    snapshot.set_msg_type(MessageType::MsgSnapshot);
    follower.step(snapshot).unwrap();
    let number = follower.work().unwrap().persist.unwrap().number;
    (0..100).for_each(|_| follower.tick());
    let mut now = Message {
        from: 2,
        to: 1,
        term: 3,
        ..Message::default()
    };
    now.set_msg_type(MessageType::MsgTimeoutNow);
    follower.step(now).unwrap();
    assert_eq!(follower.term(), 3);
    follower.persisted(number);
    follower.applied(50);
    (0..100).for_each(|_| follower.tick());
    assert!(follower.work().is_some_and(|work| work.persist.is_some()));
}

#[test]
fn a_forwarded_change_of_an_unknown_kind_is_dropped() {
    let mut leader = leader();
    let unknown = raftpb::ConfChange {
        r#type: 77,
        ..add_learner(9)
    };
    let mut message = Message {
        from: 2,
        to: 1,
        entries: vec![conf_change::entry(&unknown)],
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgPropose);
    assert_eq!(leader.step(message), Err(raft::Error::ProposalDropped));
    assert!(settle(&mut leader).is_empty());
}

#[test]
fn answers_to_heartbeats_do_not_wait_for_the_disk_and_votes_do() {
    let mut follower = node(1, &[1, 2, 3]);
    let message = |kind| {
        let mut message = Message {
            from: 2,
            to: 1,
            term: 3,
            ..Message::default()
        };
        message.set_msg_type(kind);
        message
    };
    follower.step(message(MessageType::MsgRequestVote)).unwrap();
    let work = follower.work().unwrap();
    let persist = work.persist.unwrap();
    assert!(work.messages.is_empty() && persist.must_sync);
    assert_eq!(persist.messages_after.len(), 1);
    follower.step(message(MessageType::MsgHeartbeat)).unwrap();
    let kinds: Vec<i32> = follower
        .work()
        .unwrap()
        .messages
        .iter()
        .map(|message| message.msg_type)
        .collect();
    assert_eq!(kinds, [MessageType::MsgHeartbeatResponse as i32]);
}

#[test]
fn the_only_voter_says_nothing_as_a_leader_before_its_term_is_on_the_disk() {
    let mut leader = leader();
    leader.apply_conf_change(&add_learner(2)).unwrap();
    settle(&mut leader);
    let (mut hard_state, conf_state) = (HardState::default(), leader.raw.store().conf_state().clone());
    (hard_state.term, hard_state.commit) = (leader.term(), 1);
    let log = Log::new(hard_state, conf_state, (1, 1), Vec::new());
    let timing = Timing {
        election_ticks: 10,
        pre_vote: true,
        timeout_ticks: None,
    };
    let mut restarted = Node::new(1, log, 1, &timing).unwrap();
    restarted.campaign_if_alone().unwrap();
    assert!(restarted.is_leader());
    let (mut after, mut numbers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        restarted.propose([b"x".to_vec()]).unwrap();
        restarted.raw.ping();
        let work = restarted.work().unwrap();
        assert_eq!(work.messages, []);
        let persist = work.persist.unwrap();
        after.extend(persist.messages_after);
        numbers.push(persist.number);
    }
    assert!(after.iter().any(|message| message.to == 2), "{after:?}");
    numbers.into_iter().for_each(|number| restarted.persisted(number));
    restarted.raw.ping();
    assert_ne!(restarted.work().unwrap().messages, []);
}

#[test]
fn the_only_voter_that_is_left_leads_once_its_log_is_on_the_disk() {
    let mut follower = node(1, &[1, 2]);
    let append = |index: u64| {
        let mut message = Message {
            from: 2,
            to: 1,
            term: 1,
            log_term: u64::from(index > 1),
            index: index - 1,
            commit: index - 1,
            entries: vec![Entry {
                term: 1,
                index,
                ..Entry::default()
            }],
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        message
    };
    follower.step(append(1)).unwrap();
    settle(&mut follower);
    let leaves = raftpb::ConfChange {
        r#type: ConfChangeType::ConfChangeRemoveNode as i32,
        ..add_learner(2)
    };
    follower.step(append(2)).unwrap();
    let number = follower.work().unwrap().persist.unwrap().number;
    follower.apply_conf_change(&leaves).unwrap();
    follower.applied(1);
    (0..100).for_each(|_| follower.tick());
    assert!(!follower.is_leader());
    follower.persisted(number);
    (0..100).for_each(|_| follower.tick());
    assert!(follower.is_leader());
}

#[test]
fn what_is_applied_beyond_what_raft_knows_is_noted_later() {
    let mut leader = leader();
    let known = leader.committed();
    assert_eq!(leader.applied(known + 100), known);
}

/// A leader of three with `count` proposals of a KiB behind it, which 2 has and 3 has up to `third`.
fn leader_of_three(count: u64, third: u64) -> Node {
    let mut leader = node(1, &[1, 2, 3]);
    let answer = |kind: MessageType, from, term, index| {
        let mut message = Message {
            from,
            to: 1,
            term,
            index,
            ..Message::default()
        };
        message.set_msg_type(kind);
        message
    };
    (0..40).for_each(|_| leader.tick());
    settle(&mut leader);
    let term = leader.term();
    for kind in [
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVoteResponse,
    ] {
        for term in [term, term + 1] {
            leader.step(answer(kind, 2, term, 0)).unwrap();
            settle(&mut leader);
        }
    }
    assert!(leader.is_leader());
    let term = leader.term();
    for _ in 0..count {
        leader.propose([vec![0; 1024]]).unwrap();
        settle(&mut leader);
    }
    let last = leader.raw.raft.raft_log.last_index();
    let mut acknowledge = |from, index| {
        leader
            .step(answer(MessageType::MsgAppendResponse, from, term, index))
            .unwrap();
        settle(&mut leader);
    };
    acknowledge(3, third.min(last));
    acknowledge(2, last);
    leader.propose([b"one more".to_vec()]).unwrap();
    settle(&mut leader);
    let answer = answer(MessageType::MsgAppendResponse, 2, term, last + 1);
    leader.step(answer).unwrap();
    settle(&mut leader);
    assert_eq!(leader.committed(), last + 1);
    leader
}

#[test]
fn what_everyone_has_is_kept_for_a_while_and_what_somebody_lacks_for_longer() {
    let kept = |third| leader_of_three(6000, third).raw.store().kept();
    let (tail, bytes) = kept(u64::MAX);
    assert!(
        bytes <= Retention::default().tail_bytes / 2 && tail >= 500,
        "{tail} entries, {bytes} bytes"
    );
    let (behind, _) = kept(1000);
    assert!((5000..5010).contains(&behind), "{behind} entries");
}

/// As whoever reads the log's files would.
fn read(fetch: &Fetch, count: u64) -> Vec<Entry> {
    let entry = |index| Entry {
        term: fetch.term(index).unwrap(),
        index,
        ..Entry::default()
    };
    (fetch.low..fetch.high.min(fetch.low + count))
        .map(entry)
        .collect()
}

#[test]
fn a_member_that_is_behind_what_memory_holds_is_sent_what_is_read_for_it() {
    let mut leader = leader_of_three(3000, u64::MAX);
    let first = leader.raw.store().before() + 1;
    assert!(first > 2000);
    // A new leader finds out how far it is.
    let refuse = |leader: &mut Node| {
        leader.raw.raft.mut_prs().get_mut(3).unwrap().become_probe();
        leader.raw.raft.mut_prs().get_mut(3).unwrap().matched = 1000;
        leader.raw.raft.mut_prs().get_mut(3).unwrap().next_idx = 1001;
        leader.raw.raft.send_append(3);
    };
    refuse(&mut leader);
    let sent = |leader: &mut Node| {
        let work = leader.work();
        let sent = work.map_or_else(Vec::new, |work| work.messages);
        let kind = |message: &Message| MessageType::try_from(message.msg_type).unwrap();
        sent.iter()
            .map(|message| (kind(message), message.index, message.entries.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(sent(&mut leader), []);
    let fetches = leader.fetches();
    assert_eq!((fetches[0].low, fetches[0].high, fetches.len()), (1001, first, 1));
    leader.fetched(1001, Some(read(&fetches[0], 100)));
    assert_eq!(sent(&mut leader), [(MessageType::MsgAppend, 1000, 100)]);
    refuse(&mut leader);
    assert_eq!(leader.fetches().len(), 1);
    leader.fetched(1001, None);
    assert_eq!(sent(&mut leader), [(MessageType::MsgSnapshot, 0, 0)]);
}

#[test]
fn a_commit_is_told_at_once_to_who_waits_for_it_and_to_others_by_the_way() {
    let mut leader = leader_of_three(1, u64::MAX);
    let appends = |leader: &mut Node| {
        let mut to = Vec::new();
        while let Some(work) = leader.work() {
            let number = work.persist.map_or(0, |persist| persist.number);
            let append = MessageType::MsgAppend as i32;
            let sent = work.messages.iter().filter(|message| message.msg_type == append);
            to.extend(sent.map(|message| (message.to, message.entries.len())));
            leader.persisted(number);
        }
        to.sort();
        to
    };
    leader.tell_commits(false);
    appends(&mut leader);
    let acknowledge = |leader: &mut Node| {
        let mut message = Message {
            from: 2,
            to: 1,
            term: leader.term(),
            index: leader.raw.raft.raft_log.last_index(),
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppendResponse);
        leader.step(message).unwrap();
    };
    leader.propose([b"own".to_vec()]).unwrap();
    assert_eq!(appends(&mut leader), [(2, 1), (3, 1)]);
    acknowledge(&mut leader);
    assert!(!leader.tell_commits(true) && leader.has_untold());
    assert_eq!(appends(&mut leader), []);
    // The next append says it by the way.
    leader.propose([b"own".to_vec()]).unwrap();
    assert_eq!(appends(&mut leader), [(2, 1), (3, 1)]);
    assert!(!leader.has_untold());
    let mut forwarded = Message {
        from: 3,
        to: 1,
        entries: vec![Entry::default()],
        ..Message::default()
    };
    forwarded.set_msg_type(MessageType::MsgPropose);
    leader.step(forwarded).unwrap();
    appends(&mut leader);
    acknowledge(&mut leader);
    assert!(leader.tell_commits(true));
    assert_eq!(appends(&mut leader), [(3, 0)]);
    // Nobody waits for what is left, and the time for it has come.
    assert!(leader.tell_commits(false));
    assert_eq!(appends(&mut leader), [(2, 0)]);
    assert!(!leader.has_untold());
}

#[test]
fn a_read_asks_a_quorum_first_and_the_others_when_that_does_not_answer() {
    let mut leader = leader_of_three(1, u64::MAX);
    let asked = |leader: &mut Node| {
        let mut to = Vec::new();
        while let Some(work) = leader.work() {
            let question = |message: &&Message| !message.context.is_empty();
            to.extend(work.messages.iter().filter(question).map(|message| message.to));
            leader.persisted(work.persist.map_or(0, |persist| persist.number));
        }
        to
    };
    leader.read_index(b"one".to_vec());
    let first = asked(&mut leader);
    let [first] = first[..] else { panic!("{first:?}") };
    let other = 5 - first;
    assert!(leader.has_spared() && leader.ask_spared());
    assert_eq!(asked(&mut leader), [other]);
    assert!(!leader.ask_spared());
    let mut answer = Message {
        from: other,
        to: 1,
        term: leader.term(),
        context: b"one".to_vec().into(),
        ..Message::default()
    };
    answer.set_msg_type(MessageType::MsgHeartbeatResponse);
    leader.step(answer).unwrap();
    let answered = leader.work().unwrap().read_states;
    assert_eq!(answered.len(), 1);
    // Whoever answered is asked next.
    leader.read_index(b"two".to_vec());
    assert_eq!(asked(&mut leader), [other]);
    // Heartbeats go to everybody, with the question.
    leader.tick();
    let mut all = asked(&mut leader);
    all.sort();
    assert_eq!(all, [2, 3]);
}
