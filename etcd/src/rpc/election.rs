//! The v3election service.

use bytes::Bytes;
use etcd_api::etcdserverpb::ResponseHeader;
use etcd_api::mvccpb::{KeyValue, event::EventType};
use etcd_api::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tokio::sync::mpsc::Sender;

use super::caller::Caller;
use super::concurrency::{
    Place, delete_if_created, first_created, found, get, get_op, if_created, key_of, prefix_of, put_op,
    session, uncoded, wait_deletes, watch_key, watch_prefix,
};
use super::grpc::{Answer, Channel, Reply, message};
use super::status::{Code, Status};
use super::watcher::Watcher;

/// Leaders that wait to be read by one observer.
const OBSERVED: usize = 16;

fn not_leader() -> Status {
    Status::new(Code::Unknown, "election: not leader")
}

fn required(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::new(Code::Unknown, "\"leader\" field must be provided"))
}

pub async fn campaign(caller: Caller, request: CampaignRequest) -> Answer {
    let lease = session(&caller, request.lease).await?;
    let prefix = prefix_of(&request.name);
    let key = key_of(&prefix, lease);
    let put = put_op(&key, &request.value, lease);
    let response = if_created(&caller, &key, 0, vec![put], vec![get_op(&key)]).await?;
    let header = response.header.unwrap_or_default();
    let (rev, announced) = match found(&response, 0) {
        Some(own) => (own.create_revision, own.value == request.value),
        None => (header.revision, true),
    };
    let place = Place::take(&caller, &key, rev);
    if !announced {
        announce(&caller, &key, rev, &request.value, lease).await?;
    }
    wait_deletes(&caller, &prefix, rev - 1).await?;
    place.keep();
    message(&CampaignResponse {
        header: Some(header),
        leader: Some(LeaderKey {
            name: request.name,
            key,
            rev,
            lease,
        }),
    })
}

async fn announce(
    caller: &Caller,
    key: &Bytes,
    rev: i64,
    value: &Bytes,
    lease: i64,
) -> Result<Option<ResponseHeader>, Status> {
    let put = put_op(key, value, lease);
    let response = if_created(caller, key, rev, vec![put], Vec::new()).await?;
    match response.succeeded {
        true => Ok(response.header),
        false => Err(not_leader()),
    }
}

pub async fn proclaim(caller: Caller, request: ProclaimRequest) -> Answer {
    let leader = required(request.leader)?;
    let lease = session(&caller, leader.lease).await?;
    let header = announce(&caller, &leader.key, leader.rev, &request.value, lease).await?;
    message(&ProclaimResponse { header })
}

/// Who leads no more has nothing to give up, which is no error.
pub async fn resign(caller: Caller, request: ResignRequest) -> Answer {
    let leader = required(request.leader)?;
    let response = delete_if_created(&caller, &leader.key, leader.rev).await?;
    message(&ResignResponse {
        header: response.header,
    })
}

pub async fn leader(caller: Caller, request: LeaderRequest) -> Answer {
    let prefix = prefix_of(&request.name);
    let (header, Some(kv)) = get(&caller, first_created(&prefix)).await? else {
        return Err(Status::new(Code::Unknown, "election: no leader"));
    };
    message(&LeaderResponse {
        header: Some(header),
        kv: Some(kv),
    })
}

pub async fn observe(caller: Caller, request: LeaderRequest) -> Answer {
    let (sender, body) = Channel::open(OBSERVED);
    tokio::spawn(async move {
        let observer = Observer {
            caller,
            prefix: prefix_of(&request.name),
            sender: &sender,
        };
        let ended = tokio::select! {
            ended = observer.run() => ended,
            () = sender.closed() => return,
        };
        if let Err(Ended::Failed(status)) = ended {
            // The client may have gone meanwhile.
            sender.send(Err(uncoded(status))).await.ok();
        }
    });
    Ok(Reply::Stream(body))
}

struct Observer<'a> {
    caller: Caller,
    prefix: Bytes,
    sender: &'a Sender<Result<Bytes, Status>>,
}

enum Ended {
    Failed(Status),
    /// Nobody listens any more.
    Left,
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Ended::Failed(status)
    }
}

impl Observer<'_> {
    /// One leader after the other; of each, every value until its key is gone.
    async fn run(&self) -> Result<(), Ended> {
        loop {
            let (header, first) = get(&self.caller, first_created(&self.prefix)).await?;
            let (header, kv) = match first {
                Some(kv) => (header, kv),
                None => self.next_put(header.revision).await?,
            };
            let (key, seen) = (kv.key.clone(), header.revision);
            self.tell(header, kv).await?;
            self.follow(&key, seen + 1).await?;
        }
    }

    async fn next_put(&self, revision: i64) -> Result<(ResponseHeader, KeyValue), Ended> {
        let mut watcher = Watcher::open(&self.caller, watch_prefix(&self.prefix, revision)).await?;
        loop {
            let response = watcher.next().await?;
            let mut header = response.header.unwrap_or_default();
            let puts = response.events.into_iter();
            let first = puts
                .filter(|event| event.r#type() == EventType::Put)
                .find_map(|event| event.kv);
            if let Some(kv) = first {
                header.revision = kv.mod_revision;
                return Ok((header, kv));
            }
        }
    }

    async fn follow(&self, key: &Bytes, revision: i64) -> Result<(), Ended> {
        let mut watcher = Watcher::open(&self.caller, watch_key(key, revision)).await?;
        loop {
            let response = watcher.next().await?;
            let header = response.header.unwrap_or_default();
            for event in response.events {
                match (event.r#type(), event.kv) {
                    (EventType::Put, Some(kv)) => self.tell(header, kv).await?,
                    _ => return Ok(()),
                }
            }
        }
    }

    async fn tell(&self, header: ResponseHeader, kv: KeyValue) -> Result<(), Ended> {
        let response = LeaderResponse {
            header: Some(header),
            kv: Some(kv),
        };
        let Reply::Message(frame) = message(&response)? else {
            return Err(Ended::Left);
        };
        self.sender.send(Ok(frame)).await.map_err(|_| Ended::Left)
    }
}
