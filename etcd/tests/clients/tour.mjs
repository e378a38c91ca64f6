// Node's etcd3 against one server: tour.mjs FOLDER_OF_LIBRARY PORT CA_FILE. Root's password is "rootpw".
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// What hangs is ended.
setTimeout(() => process.exit(1), 45_000).unref();
const [folder, port, ca] = process.argv.slice(2);
const { Etcd3, EtcdPermissionDeniedError, EtcdLockFailedError } = createRequire(
  join(folder, "node_modules/"),
)("etcd3");

const connect = (username, password) =>
  new Etcd3({
    hosts: `https://127.0.0.1:${port}`,
    credentials: { rootCertificate: readFileSync(ca) },
    auth: { username, password },
  });

async function keys(client) {
  await client.put("js/a").value("1");
  assert.equal(await client.get("js/a").string(), "1");
  assert.equal(await client.get("js/none").string(), null);
  for (let number = 0; number < 5; number++) await client.put(`js/many/${number}`).value(number);
  assert.deepEqual(await client.getAll().prefix("js/many/").sort("Key", "Descend").limit(2).keys(), ["js/many/4", "js/many/3"]);
  assert.deepEqual(await client.namespace("js/many/").getAll().numbers(), { 0: 0, 1: 1, 2: 2, 3: 3, 4: 4 });
  assert.equal(await client.getAll().prefix("js/many/").count(), 5);
  assert.equal((await client.delete().prefix("js/many/")).deleted, "5");
}

async function transactions(client) {
  const swap = (from, to) =>
    client.if("js/t", "Value", "==", from).then(client.put("js/t").value(to)).else(client.get("js/t")).commit();
  await client.if("js/t", "Version", "==", 0).then(client.put("js/t").value("old")).commit();
  assert.ok((await swap("old", "new")).succeeded);
  const refused = await swap("old", "never");
  assert.ok(!refused.succeeded);
  assert.equal(refused.responses[0].response_range.kvs[0].value.toString(), "new");
  await client.stm().transact(async (tx) => {
    const before = await tx.get("js/t").string();
    await tx.put("js/t").value(`${before}est`);
  });
  assert.equal(await client.get("js/t").string(), "newest");
}

async function watches(client) {
  const watcher = await client.watch().prefix("js/w/").withPreviousKV().create();
  const seen = [];
  const three = new Promise((resolve) => {
    const note = (kind) => (kv, before) => {
      seen.push([kind, kv.key.toString(), before?.value.toString() ?? null]);
      if (seen.length === 3) resolve();
    };
    watcher.on("put", note("put")).on("delete", note("delete"));
  });
  await client.put("js/w/1").value("first");
  await client.put("js/w/1").value("second");
  await client.delete().key("js/w/1");
  await three;
  assert.deepEqual(seen, [["put", "js/w/1", null], ["put", "js/w/1", "first"], ["delete", "js/w/1", "second"]]);
  await watcher.cancel();
}

async function leasesAndLocks(client, other) {
  const lease = client.lease(60);
  await lease.put("js/leased").value("v");
  assert.equal((await lease.keepaliveOnce()).TTL, "60");
  await lease.revoke();
  assert.equal(await client.get("js/leased").string(), null);
  await client.lock("js-lock").do(async () => {
    await assert.rejects(other.lock("js-lock").acquire(), EtcdLockFailedError);
  });
  await other.lock("js-lock").do(async () => {});
  const election = client.election("js-election", 5);
  const campaign = election.campaign("me");
  await new Promise((resolve, reject) => campaign.on("elected", resolve).on("error", reject));
  assert.equal(await other.election("js-election", 5).leader(), "me");
  await campaign.resign();
}

async function permissions(root) {
  const role = root.role("js");
  await role.create();
  await role.grant({ permission: "Readwrite", range: root.range({ prefix: "js/own/" }) });
  const user = root.user("bob");
  await user.create("bobpw");
  await user.addRole(role);
  assert.deepEqual((await user.roles()).map((role) => role.name), ["js"]);
  const bob = connect("bob", "bobpw");
  await bob.put("js/own/a").value("mine");
  await assert.rejects(async () => bob.put("other").value("v"), EtcdPermissionDeniedError);
  await assert.rejects(async () => bob.get("js/a"), EtcdPermissionDeniedError);
  bob.close();
  const stranger = connect("root", "wrong");
  await assert.rejects(async () => stranger.get("js/a"));
  stranger.close();
  await user.delete();
  await role.delete();
}

const root = connect("root", "rootpw");
const other = connect("root", "rootpw");
await keys(root);
await transactions(root);
await watches(root);
await leasesAndLocks(root, other);
await permissions(root);
assert.match((await root.maintenance.status()).version, /^3\.6/);
root.close();
other.close();
console.log("Node's etcd3 has seen everything");
