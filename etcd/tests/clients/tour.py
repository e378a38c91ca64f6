"""python-etcd3's whole API against one server: tour.py PORT CA_FILE. Root's password is "rootpw"."""

import faulthandler
import io
import sys
import threading

import etcd3
import grpc

# What hangs says where.
faulthandler.dump_traceback_later(45, exit=True)
PORT, CA = int(sys.argv[1]), sys.argv[2]


def connect(user, password):
    return etcd3.client(
        host="127.0.0.1", port=PORT, ca_cert=CA, user=user, password=password, timeout=10
    )


def keys(client):
    client.put("py/a", "1")
    assert client.get("py/a")[0] == b"1"
    value, meta = client.get("py/a")
    assert meta.key == b"py/a" and meta.version == 1
    assert client.put("py/a", "2", prev_kv=True).prev_kv.value == b"1"
    for number in range(5):
        client.put(f"py/many/{number}", str(number))
    found = [value for value, _ in client.get_prefix("py/many/", sort_order="descend", sort_target="key")]
    assert found == [b"4", b"3", b"2", b"1", b"0"], found
    assert [value for value, _ in client.get_range("py/many/1", "py/many/3")] == [b"1", b"2"]
    assert client.delete("py/a") and not client.delete("py/a")
    assert client.delete_prefix("py/many/").deleted == 5
    assert client.get("py/a") == (None, None)


def transactions(client):
    assert client.put_if_not_exists("py/t", "old")
    assert not client.put_if_not_exists("py/t", "other")
    assert client.replace("py/t", "old", "new")
    tx = client.transactions
    succeeded, responses = client.transaction(
        compare=[tx.value("py/t") == "new", tx.version("py/t") > 1, tx.create("py/t") > 0, tx.mod("py/t") > 0],
        success=[tx.get("py/t"), tx.put("py/t", "newest")],
        failure=[tx.delete("py/t")],
    )
    assert succeeded and responses[0][0][0] == b"new", responses
    succeeded, responses = client.transaction(
        compare=[tx.value("py/t") == "old"], success=[], failure=[tx.delete("py/t")]
    )
    assert not succeeded and client.get("py/t")[0] is None


def watches(client):
    events, cancel = client.watch_prefix("py/w/")
    one = []
    called = threading.Event()

    def on_event(response):
        one.extend(response.events)
        called.set()

    watch_id = client.add_watch_callback("py/w/2", on_event)
    client.put("py/w/1", "first")
    revision = client.put("py/w/2", "second").header.revision
    client.delete("py/w/1")
    kinds = [(type(event).__name__, event.key) for _, event in zip(range(3), events)]
    assert kinds == [("PutEvent", b"py/w/1"), ("PutEvent", b"py/w/2"), ("DeleteEvent", b"py/w/1")], kinds
    assert called.wait(10) and one[0].value == b"second"
    cancel()
    client.cancel_watch(watch_id)
    again, cancel = client.watch("py/w/2", start_revision=revision)
    assert next(iter(again)).value == b"second"
    cancel()
    client.compact(revision + 1)
    old, cancel = client.watch("py/w/1", start_revision=1)
    try:
        next(iter(old))
        raise AssertionError("a compacted revision was watched")
    except etcd3.exceptions.RevisionCompactedError as error:
        assert error.compacted_revision == revision + 1


def leases_and_locks(client, other):
    lease = client.lease(60)
    client.put("py/leased", "v", lease=lease)
    assert lease.granted_ttl == 60 and 0 < lease.remaining_ttl <= 60 and lease.keys == [b"py/leased"]
    assert list(lease.refresh())[0].TTL == 60
    lease.revoke()
    assert client.get("py/leased")[0] is None
    with client.lock("py-lock", ttl=30) as lock:
        assert lock.is_acquired()
        assert not other.lock("py-lock", ttl=30).acquire(timeout=1)
    free = other.lock("py-lock", ttl=30)
    assert free.acquire(timeout=10) and free.release()


def permissions(limited):
    limited.put("app/a", "mine")
    assert limited.get("app/a")[0] == b"mine"
    for refused in [lambda: limited.get("py/a"), lambda: limited.put("other", "v"), lambda: limited.compact(1)]:
        try:
            refused()
            raise AssertionError("it was permitted")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
    try:
        connect("root", "wrong")
        raise AssertionError("a wrong password was taken")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error


def maintenance(client):
    assert client.status().version.startswith("3.6") and client.status().leader
    assert [member.name for member in client.members]
    assert list(client.list_alarms()) == []
    client.defragment()
    snapshot = io.BytesIO()
    client.snapshot(snapshot)
    assert len(snapshot.getvalue()) > 4096


root = connect("root", "rootpw")
keys(root)
transactions(root)
watches(root)
leases_and_locks(root, connect("root", "rootpw"))
permissions(connect("alice", "alicepw"))
maintenance(root)
print("python-etcd3 has seen everything")
