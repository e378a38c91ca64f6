use super::*;

#[test]
fn ids_are_etcds() {
    // `etcd` without flags is known by these two ids the world over.
    let membership = Membership::initial("default=http://localhost:2380", "etcd-cluster").unwrap();
    assert_eq!(
        format!("{:x}", membership.members.keys().next().unwrap()),
        "8e9e05c52164694d"
    );
    assert_eq!(format!("{:x}", membership.cluster_id), "cdf818194e3a8c32");
}

fn three() -> Membership {
    let mut membership = Membership::initial("a=http://h:1,b=http://h:2,c=http://h:3", "t").unwrap();
    for member in membership.members.values_mut() {
        member.client_urls = vec!["http://h:9".to_owned()];
    }
    membership
}

fn newcomer(id: u64, url: &str, is_learner: bool) -> Change {
    Change::Add(Member {
        id,
        peer_urls: vec![url.to_owned()],
        is_learner,
        ..Member::default()
    })
}

#[test]
fn changes_are_refused_as_etcd_refuses_them() {
    let mut membership = three();
    let id = *membership.members.keys().next().unwrap();
    let refused = |membership: &Membership, change: &Change| membership.validate(change, 1).unwrap_err();
    assert_eq!(refused(&membership, &Change::Remove(9)), MemberError::NotFound);
    let alone = Membership::initial("a=http://h:1", "t").unwrap();
    let last = *alone.members.keys().next().unwrap();
    assert_eq!(
        refused(&alone, &Change::Remove(last)),
        MemberError::NotEnoughStarted
    );
    assert_eq!(
        refused(&membership, &Change::Promote(id)),
        MemberError::NotLearner
    );
    assert_eq!(
        refused(&membership, &newcomer(id, "http://h:4", false)),
        MemberError::Exists
    );
    assert_eq!(
        refused(&membership, &newcomer(9, "http://h:1", false)),
        MemberError::PeerUrlExists
    );
    membership.apply(&newcomer(8, "http://h:4", true));
    assert_eq!(
        refused(&membership, &newcomer(9, "http://h:5", true)),
        MemberError::TooManyLearners
    );
    assert_eq!(membership.validate(&newcomer(9, "http://h:5", true), 2), Ok(()));
    membership.apply(&Change::Promote(8));
    assert!(!membership.is_learner(8));
    assert_eq!(membership.apply(&Change::Remove(8)), None);
    assert_eq!(
        refused(&membership, &newcomer(8, "http://h:4", false)),
        MemberError::Removed
    );
}

#[test]
fn a_change_survives_its_entry() {
    for change in [
        newcomer(8, "u", true),
        newcomer(8, "u", false),
        Change::Promote(8),
        Change::Remove(8),
    ] {
        assert_eq!(Change::read(&change.entry(3)), Some(change));
    }
    let promote = Change::Promote(8).entry(3);
    let text = String::from_utf8(promote.context.unwrap().to_vec()).unwrap();
    assert_eq!(text, r#"{"id":8,"peerURLs":[],"isPromote":true}"#);
    let of_go: ChangeContext = serde_json::from_str(r#"{"id":8,"peerURLs":null,"isPromote":true}"#).unwrap();
    assert!(of_go.is_promote && of_go.member.peer_urls.is_empty());
}

#[test]
fn reconfiguration_is_strict_about_quorums() {
    let mut membership = three();
    assert!(membership.is_ready_to_add_voter() && membership.is_ready_to_promote());
    let ids: Vec<u64> = membership.members.keys().copied().collect();
    membership.members.get_mut(&ids[0]).unwrap().name.clear();
    // Two of three started: a fourth member makes the quorum three.
    assert!(!membership.is_ready_to_add_voter());
    assert!(membership.is_ready_to_remove(ids[0]));
    membership.members.get_mut(&ids[1]).unwrap().name.clear();
    assert!(!membership.is_ready_to_remove(ids[2]));
    let one = Membership::initial("a=http://h:1", "t").unwrap();
    assert!(one.is_ready_to_add_voter());
    assert!(!one.is_ready_to_remove(*one.members.keys().next().unwrap()));
}

#[test]
fn a_configuration_that_does_not_fit_is_named() {
    let membership = Membership::initial("a=http://h:1,b=http://h:2", "t").unwrap();
    assert!(matches!(
        membership.local("c", &[]),
        Err(BootstrapError::LocalNameMissing { .. })
    ));
    assert!(matches!(
        membership.local("a", &["http://h:9".into()]),
        Err(BootstrapError::Advertised { .. })
    ));
    assert_eq!(
        Membership::initial("a", "t"),
        Err(BootstrapError::Malformed("a".into()))
    );
    assert!(matches!(
        Membership::initial("a=http://h:1,b=http://h:1", "t"),
        Err(BootstrapError::Duplicate(..))
    ));
}
