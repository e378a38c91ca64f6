//! What a later leader knows of the time that a lease has left.

use etcd_api::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};

use super::*;
use crate::clock::Millis;

fn granted(disk: &FakeDisk, persist_checkpoints: bool) -> Machine {
    let mut machine = Machine::open(disk);
    machine.applier.rules.persist_checkpoints = persist_checkpoints;
    machine.elect().unwrap();
    let grant = LeaseGrantRequest { id: 7, ttl: 600 };
    let request = InternalRaftRequest {
        lease_grant: Some(grant),
        ..Default::default()
    };
    machine.propose(request).unwrap().result.unwrap();
    machine
}

fn checkpoint(machine: &mut Machine, remaining_ttl: i64) {
    let checkpoints = [7, 8].map(|id| LeaseCheckpoint { id, remaining_ttl });
    let request = InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: checkpoints.to_vec(),
        }),
        ..Default::default()
    };
    machine.propose(request).unwrap().result.unwrap();
}

/// Of lease 7 to whoever leads now.
fn left(machine: &Machine) -> i64 {
    let mut lessor = machine.applier.state.lessor.lock();
    lessor.demote();
    lessor.promote(Millis(0), 0);
    let left = lessor.time_to_live(7, Millis(0)).unwrap();
    assert!(
        lessor.time_to_live(8, Millis(0)).is_none(),
        "there is no such lease"
    );
    left.remaining_seconds
}

#[test]
fn a_new_leader_gives_what_the_last_checkpoint_left_and_a_restart_what_was_persisted() {
    for (persisted, after_restart) in [(true, 90), (false, 600)] {
        let disk = FakeDisk::new();
        let mut machine = granted(&disk, persisted);
        assert_eq!(left(&machine), 600);
        checkpoint(&mut machine, 90);
        assert_eq!(left(&machine), 90);
        machine.keep().unwrap();
        drop(machine);
        let mut machine = Machine::open(&disk);
        machine.applier.rules.persist_checkpoints = persisted;
        assert_eq!(left(&machine), after_restart, "persisted: {persisted}");
        machine.elect().unwrap();
        // A renewal takes it back.
        checkpoint(&mut machine, 0);
        assert_eq!(left(&machine), 600);
        machine.keep().unwrap();
        assert_eq!(left(&Machine::open(&disk)), 600);
    }
}
