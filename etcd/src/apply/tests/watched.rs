//! What watchers are told of a frame while the store goes on reclaiming.

use etcd_api::etcdserverpb::{PutRequest, ResponseHeader, WatchCreateRequest};

use super::*;
use crate::storage::Storage;
use crate::watch::hub::{HubEvent, HubThread};
use crate::watch::outbox::Outbox;

/// Takes away all segments that there are, between a frame's writing and its publication.
fn reclaims(storage: Arc<Storage>) -> Quiet {
    Quiet(Box::new(move || {
        let all = storage.segments();
        storage.remove(&all.iter().map(|segment| segment.number).collect::<Vec<_>>());
    }))
}

#[test]
fn a_previous_value_stays_readable_when_its_segment_is_reclaimed_before_the_frame_is_published() {
    let mut machine = Machine::open(&FakeDisk::default());
    machine.elect().unwrap();
    let put = |value: &'static str| InternalRaftRequest {
        put: Some(PutRequest {
            key: "k".into(),
            value: value.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    machine.propose(put("old")).unwrap();
    let (store, hub) = (machine.store().clone(), machine.applier.hub.clone());
    let header = Arc::new(|_: i64| ResponseHeader::default());
    let mut thread = HubThread::new(hub.clone(), store.clone(), header, Arc::default());
    let stream = hub.open(Arc::new(Outbox::default()));
    let create = WatchCreateRequest {
        key: "k".into(),
        prev_kv: true,
        ..Default::default()
    };
    hub.send(HubEvent::Create(stream, create));
    let mut events = Vec::new();
    hub.drain(&mut events, None);
    events.drain(..).for_each(|event| thread.event(event));
    machine.applier.effects = Box::new(reclaims(store.storage.clone()));
    machine.propose(put("new")).unwrap();
    hub.drain(&mut events, None);
    let Some(HubEvent::Batch(batch)) = events.pop() else {
        panic!("no frame was published")
    };
    let prev = batch.changes.unwrap()[0].prev.unwrap();
    assert!(store.storage.read(&Default::default(), prev.loc).is_err());
    let read = store.storage.read(&batch.segments, prev.loc).unwrap();
    assert!(read.windows(3).any(|window| window == b"old"));
}
