//! Sessions, locks and elections over leased keys: upstream's `concurrency` package.

use bytes::Bytes;
use etcd_api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd_api::etcdserverpb::request_op::Request;
use etcd_api::etcdserverpb::response_op::Response;
use etcd_api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
    ResponseOp, TxnRequest, WatchCreateRequest,
};
use etcd_api::mvccpb::KeyValue;
use etcd_api::mvccpb::event::EventType;
use tokio::sync::watch;

use super::kv::prefix_end;
use super::watch::WatchReply;
use super::{Client, Context, Error};

/// A lease kept alive while this lives.
pub struct Session {
    client: Client,
    pub lease: i64,
    ended: watch::Receiver<bool>,
}

impl Session {
    pub async fn new(client: &Client, ttl: i64) -> Result<Session, Error> {
        let lease = client.lease_grant(&Context::background(), ttl).await?.id;
        let (sender, ended) = watch::channel(false);
        let mut alive = client.keep_alive(lease);
        tokio::spawn(async move {
            tokio::select! {
                () = async { while alive.next().await.is_some() {} } => {}
                // Nobody asks any more.
                () = sender.closed() => {}
            }
            sender.send_replace(true);
        });
        Ok(Session {
            client: client.clone(),
            lease,
            ended,
        })
    }

    /// Returns when the lease is gone.
    pub async fn done(&self) {
        let mut ended = self.ended.clone();
        // An error means that the renewing task is gone, and the lease will be.
        ended.wait_for(|ended| *ended).await.ok();
    }
}

/// The key that this session waits with, under the lock's or the election's prefix.
struct Waiter {
    prefix: String,
    key: Bytes,
    revision: i64,
    /// The oldest key under the prefix, if it could be read along.
    owner: Option<KeyValue>,
    header: ResponseHeader,
}

/// Puts the session's key, unless it is there already.
async fn enter(session: &Session, name: &str, value: &str) -> Result<Waiter, Error> {
    let prefix = format!("{name}/");
    let key = Bytes::from(format!("{prefix}{:x}", session.lease));
    let put = PutRequest {
        key: key.clone(),
        value: value.to_owned().into(),
        lease: session.lease,
        ..Default::default()
    };
    let owner = op(Request::RequestRange(first_create(&prefix)));
    let txn = TxnRequest {
        compare: vec![created_at(&key, 0)],
        success: vec![op(Request::RequestPut(put)), owner.clone()],
        failure: vec![
            op(Request::RequestRange(RangeRequest {
                key: key.clone(),
                ..Default::default()
            })),
            owner,
        ],
    };
    let answer = session.client.txn(&Context::background(), txn).await?;
    let header = answer.header.unwrap_or_default();
    let mine = answer.responses.first().and_then(first_kv);
    let revision = match mine {
        Some(kv) if !answer.succeeded => kv.create_revision,
        _ => header.revision,
    };
    let owner = answer.responses.get(1).and_then(first_kv).cloned();
    Ok(Waiter {
        prefix,
        key,
        revision,
        owner,
        header,
    })
}

impl Waiter {
    /// Waits until no older key is left under the prefix.
    async fn turn(&self, client: &Client) -> Result<(), Error> {
        loop {
            let older = RangeRequest {
                sort_order: SortOrder::Descend.into(),
                max_create_revision: self.revision - 1,
                ..first_create(&self.prefix)
            };
            let answer = client.range(&Context::background(), older).await?;
            let Some(last) = answer.kvs.into_iter().next() else {
                return Ok(());
            };
            wait_delete(client, last.key, answer.header.unwrap_or_default().revision).await?;
        }
    }

    async fn leave(&self, client: &Client) -> Result<(), Error> {
        let request = DeleteRangeRequest {
            key: self.key.clone(),
            ..Default::default()
        };
        client.delete(&Context::background(), request).await.map(drop)
    }
}

async fn wait_delete(client: &Client, key: Bytes, revision: i64) -> Result<(), Error> {
    let request = WatchCreateRequest {
        key,
        start_revision: revision,
        ..Default::default()
    };
    let mut watcher = client.watch(request);
    let mut last = WatchReply::default();
    while let Some(reply) = watcher.next().await {
        if reply
            .events
            .iter()
            .any(|event| event.r#type() == EventType::Delete)
        {
            return Ok(());
        }
        last = reply;
    }
    Err(last
        .error()
        .unwrap_or_else(|| Error::text("lost watcher waiting for delete")))
}

pub struct Mutex {
    waiter: Waiter,
    client: Client,
    pub revision: i64,
}

impl Mutex {
    /// Waits in line. A caller that gives up calls [`Mutex::abandon`] on the session.
    pub async fn lock(session: &Session, name: &str) -> Result<Mutex, Error> {
        let waiter = enter(session, name, "").await?;
        let client = session.client.clone();
        let mine = |owner: &KeyValue| owner.create_revision == waiter.revision;
        if waiter.owner.as_ref().is_none_or(mine) {
            let revision = waiter.header.revision;
            return Ok(Mutex {
                waiter,
                client,
                revision,
            });
        }
        if let Err(error) = waiter.turn(&client).await {
            // The wait's own failure is what the caller hears.
            waiter.leave(&client).await.ok();
            return Err(error);
        }
        let answer = client.get(&Context::background(), waiter.key.clone()).await?;
        if answer.kvs.is_empty() {
            return Err(Error::text("mutex: session is expired"));
        }
        let revision = answer.header.unwrap_or_default().revision;
        Ok(Mutex {
            waiter,
            client,
            revision,
        })
    }

    pub fn key(&self) -> Bytes {
        self.waiter.key.clone()
    }

    pub async fn unlock(&self) -> Result<(), Error> {
        self.waiter.leave(&self.client).await
    }
}

/// Takes the session's key out of the line, whether it waits or leads.
pub async fn abandon(session: &Session, name: &str) -> Result<(), Error> {
    let key = format!("{name}/{:x}", session.lease).into();
    let request = DeleteRangeRequest {
        key,
        ..Default::default()
    };
    session
        .client
        .delete(&Context::background(), request)
        .await
        .map(drop)
}

pub struct Election {
    waiter: Waiter,
    client: Client,
}

impl Election {
    pub async fn campaign(session: &Session, name: &str, value: &str) -> Result<Election, Error> {
        let waiter = enter(session, name, value).await?;
        let client = session.client.clone();
        waiter.turn(&client).await?;
        Ok(Election { waiter, client })
    }

    pub fn key(&self) -> Bytes {
        self.waiter.key.clone()
    }

    pub async fn resign(&self) -> Result<(), Error> {
        let delete = DeleteRangeRequest {
            key: self.waiter.key.clone(),
            ..Default::default()
        };
        let txn = TxnRequest {
            compare: vec![created_at(&self.waiter.key, self.waiter.revision)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        self.client.txn(&Context::background(), txn).await.map(drop)
    }
}

/// Follows the leader's key: every leader, and every value that one proclaims.
pub struct Observer {
    client: Client,
    prefix: String,
    leader: Option<super::watch::Watcher>,
}

impl Observer {
    pub fn new(client: &Client, name: &str) -> Observer {
        Observer {
            client: client.clone(),
            prefix: format!("{name}/"),
            leader: None,
        }
    }

    /// None when the watch is lost.
    pub async fn next(&mut self) -> Option<RangeResponse> {
        loop {
            let Some(watcher) = &mut self.leader else {
                return self.find_leader().await;
            };
            let reply = watcher.next().await?;
            if reply.canceled {
                return None;
            }
            let Some(event) = reply.events.into_iter().next_back() else {
                continue;
            };
            if event.r#type() == EventType::Delete {
                self.leader = None;
                continue;
            }
            return Some(answer(reply.header, event.kv?));
        }
    }

    async fn find_leader(&mut self) -> Option<RangeResponse> {
        let found = self
            .client
            .range(&Context::background(), first_create(&self.prefix))
            .await
            .ok()?;
        let mut header = found.header.unwrap_or_default();
        let leader = match found.kvs.into_iter().next() {
            Some(leader) => leader,
            None => self.first_put(&mut header).await?,
        };
        let request = WatchCreateRequest {
            key: leader.key.clone(),
            start_revision: header.revision + 1,
            ..Default::default()
        };
        self.leader = Some(self.client.watch(request));
        Some(answer(header, leader))
    }

    async fn first_put(&self, header: &mut ResponseHeader) -> Option<KeyValue> {
        let request = WatchCreateRequest {
            key: self.prefix.clone().into(),
            range_end: prefix_end(self.prefix.as_bytes()),
            start_revision: header.revision,
            ..Default::default()
        };
        let mut watcher = self.client.watch(request);
        loop {
            let reply = watcher.next().await.filter(|reply| !reply.canceled)?;
            let put = reply
                .events
                .into_iter()
                .find(|event| event.r#type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv) {
                *header = ResponseHeader {
                    revision: kv.mod_revision,
                    ..reply.header
                };
                return Some(kv);
            }
        }
    }
}

fn answer(header: ResponseHeader, kv: KeyValue) -> RangeResponse {
    RangeResponse {
        header: Some(header),
        kvs: vec![kv],
        ..Default::default()
    }
}

/// The oldest key under a prefix.
fn first_create(prefix: &str) -> RangeRequest {
    RangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..Default::default()
    }
}

fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn first_kv(op: &ResponseOp) -> Option<&KeyValue> {
    match &op.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}
