//! `make-mirror`: copies a prefix to another cluster, and goes on with what happens to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_api::etcdserverpb::request_op::Request;
use etcd_api::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use etcd_api::mvccpb::Event;
use etcd_api::mvccpb::event::EventType;

use super::{Ctl, Run, run};
use crate::client::mirror::Syncer;
use crate::client::{Client, Config, Context, Secure};
use crate::cobra::{Command, Flag, Kind};
use crate::ctlv3::global::{connect, credentials};
use crate::exit::Exit;

/// Between two lines that tell how many keys were copied.
const REPORT_EVERY: Duration = Duration::from_secs(30);
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub fn command() -> Command<Run> {
    let short = "Makes a mirror at the destination etcd cluster";
    Command::new("make-mirror [options] <destination>", short, run!(make_mirror)).flags(vec![
        Flag::string("prefix", "", "Key-value prefix to mirror"),
        Flag::int("rev", "0", "Specify the kv revision to start to mirror"),
        Flag::new(Kind::Uint, "max-txn-ops", "128", "Maximum number of operations permitted in a transaction during syncing updates."),
        Flag::string("dest-prefix", "", "destination prefix to mirror a prefix to a different prefix in the destination cluster"),
        Flag::bool("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
        Flag::string("dest-cert", "", "Identify secure client using this TLS certificate file for the destination cluster"),
        Flag::string("dest-key", "", "Identify secure client using this TLS key file"),
        Flag::string("dest-cacert", "", "Verify certificates of TLS enabled secure servers using this CA bundle"),
        Flag::new(Kind::Bool, "dest-insecure-transport", "true", "Disable transport security for client connections"),
        Flag::string("dest-user", "", "Destination username[:password] for authentication (prompt if password is not supplied)"),
        Flag::string("dest-password", "", "Destination password for authentication (if this option is used, --user option shouldn't include password)"),
    ])
}

async fn make_mirror(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args("make-mirror takes one destination argument"));
    }
    let destination = connect(destination(ctl)?).await?;
    let source = ctl.client().await?;
    if ctl.flags.bool("no-dest-prefix") && !ctl.flags.string("dest-prefix").is_empty() {
        let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
        return Err(Exit::bad_args(text));
    }
    let mirror = Mirror {
        source,
        destination,
        prefix: ctl.flags.string("prefix").to_owned(),
        max_txn_ops: usize::try_from(ctl.flags.int("max-txn-ops"))
            .unwrap_or_default()
            .max(1),
        total: Arc::default(),
    };
    let start = (ctl.flags.int("rev") - 1).max(0);
    tokio::select! {
        result = mirror.run(start, destination_prefix(ctl, start)) => result,
        result = mirror.report(ctl) => result,
    }
}

fn destination(ctl: &Ctl) -> Result<Config, Exit> {
    let flag = |name| ctl.flags.string(name).to_owned();
    Ok(Config {
        endpoints: vec![ctl.arg(0).to_owned()],
        secure: Secure {
            cert: flag("dest-cert"),
            key: flag("dest-key"),
            cacert: flag("dest-cacert"),
            insecure_transport: ctl.flags.bool("dest-insecure-transport"),
            ..Secure::default()
        },
        auth: credentials(
            &flag("dest-user"),
            &flag("dest-password"),
            "Destination Password: ",
        )?,
        ..ctl.connection()?
    })
}

/// The source's own unless told; upstream forgets that when it starts at a revision.
fn destination_prefix(ctl: &Ctl, start: i64) -> String {
    let given = ctl.flags.string("dest-prefix");
    if given.is_empty() && !ctl.flags.bool("no-dest-prefix") && start == 0 {
        return ctl.flags.string("prefix").to_owned();
    }
    given.to_owned()
}

struct Mirror {
    source: Client,
    destination: Client,
    prefix: String,
    max_txn_ops: usize,
    total: Arc<AtomicU64>,
}

impl Mirror {
    async fn report(&self, ctl: &Ctl) -> Result<(), Exit> {
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            ctl.say(&self.total.load(Ordering::Relaxed).to_string())?;
        }
    }

    /// Pages wait for the destination, so nothing piles up here.
    async fn run(&self, start: i64, to: String) -> Result<(), Exit> {
        let prefix = Bytes::from(self.prefix.clone());
        let mut syncer = Syncer::new(&self.source, prefix, start)
            .await
            .map_err(Exit::error)?;
        if start == 0 {
            self.copy(&mut syncer, &to).await?;
        }
        let mut updates = syncer.updates();
        while let Some(reply) = updates.next().await {
            if reply.compact_revision != 0 {
                return Err(Exit::error(COMPACTED));
            }
            self.apply(reply.events, &to).await?;
        }
        // What upstream prints of an end without an error.
        Err(Exit::error("<nil>"))
    }

    /// Everything as it is now.
    async fn copy(&self, syncer: &mut Syncer, to: &str) -> Result<(), Exit> {
        while let Some(page) = syncer.next_page().await.map_err(Exit::error)? {
            for kv in page.kvs {
                let request = PutRequest {
                    key: self.rename(&kv.key, to),
                    value: kv.value,
                    ..Default::default()
                };
                self.destination
                    .put(&Context::background(), request)
                    .await
                    .map_err(Exit::error)?;
                self.total.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// One transaction for each revision: the destination never shows half of one, unless it is too large for one.
    async fn apply(&self, events: Vec<Event>, to: &str) -> Result<(), Exit> {
        let mut ops = Vec::new();
        let mut last = 0;
        for event in events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if (last != 0 && revision > last) || ops.len() == self.max_txn_ops {
                self.commit(std::mem::take(&mut ops)).await?;
            }
            last = revision;
            ops.push(self.op(event, to));
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        self.commit(ops).await
    }

    async fn commit(&self, ops: Vec<RequestOp>) -> Result<(), Exit> {
        if ops.is_empty() {
            return Ok(());
        }
        let request = TxnRequest {
            success: ops,
            ..Default::default()
        };
        self.destination
            .txn(&Context::background(), request)
            .await
            .map(drop)
            .map_err(Exit::error)
    }

    fn op(&self, event: Event, to: &str) -> RequestOp {
        let kind = event.r#type();
        let kv = event.kv.unwrap_or_default();
        let key = self.rename(&kv.key, to);
        let request = match kind {
            EventType::Put => Request::RequestPut(PutRequest {
                key,
                value: kv.value,
                ..Default::default()
            }),
            EventType::Delete => Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                ..Default::default()
            }),
        };
        RequestOp {
            request: Some(request),
        }
    }

    fn rename(&self, key: &Bytes, to: &str) -> Bytes {
        match key.strip_prefix(self.prefix.as_bytes()) {
            Some(rest) => [to.as_bytes(), rest].concat().into(),
            None => key.clone(),
        }
    }
}
