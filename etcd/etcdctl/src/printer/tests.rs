use bytes::Bytes;
use etcd_api::authpb::Permission;
use etcd_api::etcdserverpb::{AlarmMember, LeaseStatus, Member, ResponseHeader};
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;

use super::*;

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: 0xca31,
        member_id: 0x76a4,
        revision: 6,
        raft_term: 2,
    })
}

fn kv() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"a"),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        value: Bytes::from_static(b"<x>\xff"),
        lease: 255,
    }
}

fn printed(format: &str, hex: bool, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    Printer::named(format, hex)
        .unwrap()
        .print(reply, &mut out)
        .unwrap();
    out
}

fn text(format: &str, hex: bool, reply: &Reply) -> String {
    String::from_utf8(printed(format, hex, reply)).unwrap()
}

#[test]
fn a_range_in_every_format() {
    let reply = Reply::Get(RangeResponse {
        header: header(),
        kvs: vec![kv()],
        more: false,
        count: 1,
    });
    assert_eq!(printed("simple", false, &reply), b"a\n<x>\xff\n");
    assert_eq!(printed("simple", true, &reply), b"\\x61\n\\x3c\\x78\\x3e\\xff\n");
    assert_eq!(
        text("json", false, &reply),
        "{\"header\":{\"cluster_id\":51761,\"member_id\":30372,\"revision\":6,\"raft_term\":2},\"kvs\":[{\"key\":\"YQ==\",\
         \"create_revision\":2,\"mod_revision\":3,\"version\":2,\"value\":\"PHg+/w==\",\"lease\":255}],\"count\":1}\n"
    );
    assert_eq!(
        text("fields", true, &reply),
        "\"ClusterID\" : ca31\n\"MemberID\" : 76a4\n\"Revision\" : 6\n\"RaftTerm\" : 2\n\"Key\" : \"a\"\n\
         \"CreateRevision\" : 2\n\"ModRevision\" : 3\n\"Version\" : 2\n\"Value\" : \"<x>\\xff\"\n\
         \"Lease\" : 00000000000000ff\n\"More\" : false\n\"Count\" : 1\n"
    );
    let decoded = RangeResponse::decode(&printed("protobuf", false, &reply)[..]).unwrap();
    assert_eq!(decoded.kvs, [kv()]);
    assert!(matches!(
        Printer::named("table", false)
            .unwrap()
            .print(&reply, &mut Vec::new()),
        Err(Unsupported::Format("table"))
    ));
}

#[test]
fn values_alone() {
    let reply = Reply::Get(RangeResponse {
        header: header(),
        kvs: vec![kv()],
        ..Default::default()
    });
    let mut printer = Printer::simple();
    printer.value_only = true;
    let mut out = Vec::new();
    printer.print(&reply, &mut out).unwrap();
    assert_eq!(out, b"<x>\xff\n");
}

#[test]
fn members_in_a_frame() {
    let member = Member {
        id: 0x76a46615cc3bf090,
        name: "it".to_owned(),
        peer_ur_ls: vec!["http://127.0.0.1:23502".to_owned()],
        client_ur_ls: Vec::new(),
        is_learner: false,
    };
    let reply = Reply::MemberList(MemberListResponse {
        header: header(),
        members: vec![member],
    });
    assert_eq!(
        text("table", false, &reply),
        "+------------------+---------+------+------------------------+--------------+------------+\n\
         |        ID        | STATUS  | NAME |       PEER ADDRS       | CLIENT ADDRS | IS LEARNER |\n\
         +------------------+---------+------+------------------------+--------------+------------+\n\
         | 76a46615cc3bf090 | started |   it | http://127.0.0.1:23502 |              |      false |\n\
         +------------------+---------+------+------------------------+--------------+------------+\n"
    );
    assert_eq!(
        text("json", true, &reply),
        "{\"header\":{\"cluster_id\":\"ca31\",\"member_id\":\"76a4\",\"raft_term\":2},\"members\":[{\"ID\":\
         \"76a46615cc3bf090\",\"name\":\"it\",\"peerURLs\":[\"http://127.0.0.1:23502\"],\"clientURLs\":null}]}\n"
    );
}

#[test]
fn long_cells_break_at_blanks() {
    let health = Health {
        endpoint: "a".to_owned(),
        health: false,
        took: "1s".to_owned(),
        error: "memberID:9372538179322589801 alarm:NOSPACE ".to_owned(),
    };
    assert_eq!(
        text("table", false, &Reply::EndpointHealth(vec![health])),
        "+----------+--------+------+------------------------------+\n\
         | ENDPOINT | HEALTH | TOOK |            ERROR             |\n\
         +----------+--------+------+------------------------------+\n\
         |        a |  false |   1s | memberID:9372538179322589801 |\n\
         |          |        |      |                alarm:NOSPACE |\n\
         +----------+--------+------+------------------------------+\n"
    );
}

#[test]
fn leases_embed_their_header() {
    let answer = LeaseGrantResponse {
        header: header(),
        id: 16,
        ttl: 100,
        error: String::new(),
    };
    let reply = Reply::Grant(answer);
    assert_eq!(
        text("simple", false, &reply),
        "lease 0000000000000010 granted with TTL(100s)\n"
    );
    assert_eq!(
        text("json", false, &reply),
        "{\"cluster_id\":51761,\"member_id\":30372,\"revision\":6,\"raft_term\":2,\"ID\":16,\"TTL\":100,\"Error\":\"\"}\n"
    );
    assert_eq!(
        printed("protobuf", false, &reply),
        header().unwrap().encode_to_vec()
    );
    let leases = Reply::Leases(LeaseLeasesResponse {
        header: None,
        leases: vec![LeaseStatus { id: 16 }],
    });
    assert_eq!(
        text("simple", false, &leases),
        "found 1 leases\n0000000000000010\n"
    );
    assert_eq!(text("json", false, &leases), "{\"leases\":[{\"id\":16}]}\n");
}

#[test]
fn a_role_tells_its_ranges() {
    let perm = |kind, key: &'static [u8], end: &'static [u8]| Permission {
        perm_type: kind,
        key: Bytes::from_static(key),
        range_end: Bytes::from_static(end),
    };
    let perms = vec![
        perm(2, b"k", b"l"),
        perm(0, b"one", b""),
        perm(1, b"x", b"\0"),
        perm(1, b"c", b"z"),
    ];
    let reply = Reply::RoleGet(
        "r".to_owned(),
        AuthRoleGetResponse {
            header: header(),
            perm: perms,
        },
    );
    assert_eq!(
        text("simple", false, &reply),
        "Role r\nKV Read:\n\t[k, l) (prefix k)\n\tone\nKV Write:\n\t[k, l) (prefix k)\n\t[x, <open ended>\n\t[c, z)\n"
    );
    let root = Reply::RoleGet("root".to_owned(), AuthRoleGetResponse::default());
    assert!(text("simple", false, &root).ends_with("KV Write:\n\t[, <open ended>\n"));
}

#[test]
fn alarms_read_as_protobuf_text() {
    let alarm = AlarmMember {
        member_id: 7,
        alarm: 1,
    };
    let reply = Reply::Alarm(AlarmResponse {
        header: header(),
        alarms: vec![alarm],
    });
    assert_eq!(text("simple", false, &reply), "memberID:7 alarm:NOSPACE \n");
    assert!(text("json", false, &reply).ends_with(",\"alarms\":[{\"memberID\":7,\"alarm\":1}]}\n"));
}

#[test]
fn formats_that_a_reply_lacks_are_named() {
    let reply = Reply::UserList(AuthUserListResponse::default());
    let error = Printer::named("fields", false)
        .unwrap()
        .print(&reply, &mut Vec::new())
        .unwrap_err();
    let exit = error.exit();
    assert_eq!(
        (exit.code, exit.message.as_deref()),
        (4, Some("fields not supported as output format"))
    );
    assert!(Printer::named("yaml", false).is_none());
}
