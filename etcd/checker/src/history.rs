//! What clients asked, and what they heard.

use bytes::Bytes;
use etcd_api::mvccpb::KeyValue;

/// One request of one client. `called` and `returned` are readings of the same clock.
#[derive(Clone, Debug)]
pub struct Operation {
    pub called: u64,
    pub request: Request,
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub returned: u64,
    /// The header's revision.
    pub revision: i64,
    pub response: Response,
}

impl Answer {
    /// Where the request's key was last changed, as the answer tells; 0 when it does not, or when the key is gone.
    pub fn changed_at(&self, request: &Request) -> i64 {
        match (&self.response, request.change()) {
            (Response::Put | Response::Changed, Some(Change::Put(_))) => self.revision,
            (Response::Found(Some(kv)) | Response::Refused(Some(kv)), _) => kv.mod_revision,
            _ => 0,
        }
    }
}

/// Values are unique over a history: they tell which request made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Get {
        key: Bytes,
    },
    /// Every key, linearizably.
    List,
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    /// The transaction of every Kubernetes write: the change when the key was last changed at `expected` (0: is absent), otherwise a read of it.
    Guarded {
        key: Bytes,
        expected: i64,
        change: Change,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Bytes),
    Delete,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Found(Option<KeyValue>),
    Listed(Vec<KeyValue>),
    Put,
    Deleted(i64),
    /// The guard held.
    Changed,
    /// It did not, and this was there.
    Refused(Option<KeyValue>),
}

impl Request {
    pub fn key(&self) -> Option<&Bytes> {
        match self {
            Request::List => None,
            Request::Get { key }
            | Request::Put { key, .. }
            | Request::Delete { key }
            | Request::Guarded { key, .. } => Some(key),
        }
    }

    /// The change that it asks for, None for a read.
    pub fn change(&self) -> Option<Change> {
        match self {
            Request::Get { .. } | Request::List => None,
            Request::Put { value, .. } => Some(Change::Put(value.clone())),
            Request::Delete { .. } => Some(Change::Delete),
            Request::Guarded { change, .. } => Some(change.clone()),
        }
    }
}
