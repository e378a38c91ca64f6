//! What watchers are told of a frame while the store goes on reclaiming.

use etcd_api::etcdserverpb::{PutRequest, ResponseHeader, WatchCreateRequest};

use super::*;
use crate::storage::Storage;
use crate::watch::hub::{HubEvent, HubThread};
use crate::watch::outbox::Outbox;

/// Takes away all segments that there are, between a frame's writing and its publication.
struct Reclaims(Arc<Storage>);

impl Effects for Reclaims {
    fn conf_change(&mut self, _: u64, _: raftpb::ConfChange) -> Option<ConfState> {
        None
    }
    fn members_changed(&mut self) {}
    fn removed(&mut self) {}
    fn compacted(&mut self, _: i64) {}
    fn checkpoint(&mut self) {}
    fn frame_written(&mut self, _: u64, _: u64) {
        let all = self.0.segments();
        self.0
            .remove(&all.iter().map(|segment| segment.number).collect::<Vec<_>>());
    }
    fn space_changed(&mut self) {}
    fn store_full(&mut self, _: bool) {}
    fn leases_changed(&mut self) {}
    fn fatal(&mut self, source: &io::Error) -> ! {
        std::panic::panic_any(source.to_string())
    }
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
    machine.applier.effects = Box::new(Reclaims(store.storage.clone()));
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
