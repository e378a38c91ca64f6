//! Gives each node its piece of the cluster's pod ranges.
//!
//! What is taken is known from the nodes alone: before the first piece is given, every node's is marked.

mod cidr_set;

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{BoxFuture, Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::meta::name;
use crate::options::{Cidr, NodeCidrs};
use cidr_set::CidrSet;
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, Patch};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

const WORKERS: usize = 8;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let options = context.options.node_cidrs.clone()?;
    let queue = WorkQueue::new("node_ipam");
    let nodes = context.informers.nodes.start();
    context.informers.nodes.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Added(node) | Event::Deleted(node) => queue.add(name(&node.metadata).to_owned()),
            Event::Modified(old, node) if cidrs_of(old) != cidrs_of(node) || cidrs_of(node).is_empty() => {
                queue.add(name(&node.metadata).to_owned())
            }
            _ => {}
        }
    });
    let needs = vec![synced(&nodes)];
    let reconciler = Arc::new(NodeIpam {
        client: context.client_for("node-controller"),
        recorder: context.recorder("cidrAllocator"),
        nodes,
        pool: Mutex::new(Pool::new(&options)),
    });
    Some(Box::new(Prepared {
        driver: Driver {
            name: "node-ipam-controller",
            queue,
            reconciler,
            workers: WORKERS,
            needs,
        },
    }))
}

/// Marks what all nodes have before the first node is served.
struct Prepared {
    driver: Driver<NodeIpam>,
}

impl Controller for Prepared {
    fn run(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let ipam = &self.driver.reconciler;
            ipam.nodes.wait_synced().await;
            for node in ipam.nodes.list() {
                ipam.pool.lock().occupy(name(&node.metadata), &cidrs_of(&node));
            }
            self.driver.run().await;
        })
    }
}

fn cidrs_of(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match &spec.pod_cidrs {
        Some(cidrs) if !cidrs.is_empty() => cidrs.clone(),
        _ => spec.pod_cidr.iter().filter(|c| !c.is_empty()).cloned().collect(),
    }
}

struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
    nodes: Store<Node>,
    pool: Mutex<Pool>,
}

/// The ranges, and which pieces each node holds.
struct Pool {
    ranges: Vec<CidrSet>,
    held: HashMap<String, Vec<Cidr>>,
}

impl Pool {
    fn new(options: &NodeCidrs) -> Self {
        let mut ranges: Vec<_> = options
            .cluster
            .iter()
            .map(|c| {
                CidrSet::new(
                    *c,
                    if c.address.is_ipv4() {
                        options.mask_v4
                    } else {
                        options.mask_v6
                    },
                )
            })
            .collect();
        for range in &mut ranges {
            for service in &options.service {
                range.occupy(*service);
            }
        }
        Pool {
            ranges,
            held: HashMap::new(),
        }
    }

    fn occupy(&mut self, node: &str, cidrs: &[String]) {
        for cidr in cidrs.iter().filter_map(|c| Cidr::parse(c)) {
            let taken = self.ranges.iter_mut().any(|range| range.occupy(cidr));
            if !taken {
                tracing::warn!(node, cidr = ?cidr, "Node has a pod CIDR that is not in --cluster-cidr");
            }
            let held = self.held.entry(node.to_owned()).or_default();
            if !held.contains(&cidr) {
                held.push(cidr);
            }
        }
    }

    /// One piece of each range, or none at all.
    fn allocate(&mut self, node: &str) -> Option<Vec<Cidr>> {
        if let Some(held) = self.held.get(node) {
            return Some(held.clone());
        }
        let pieces: Vec<_> = self.ranges.iter_mut().map(CidrSet::allocate).collect();
        if pieces.iter().any(Option::is_none) {
            for (range, piece) in self.ranges.iter_mut().zip(pieces) {
                if let Some(piece) = piece {
                    range.release(piece);
                }
            }
            return None;
        }
        let pieces: Vec<Cidr> = pieces.into_iter().flatten().collect();
        self.held.insert(node.to_owned(), pieces.clone());
        Some(pieces)
    }

    fn release(&mut self, node: &str) {
        for piece in self.held.remove(node).unwrap_or_default() {
            for range in &mut self.ranges {
                range.release(piece);
            }
        }
    }
}

impl Reconciler for NodeIpam {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(node) = self.nodes.get(key) else {
            self.pool.lock().release(key);
            return Ok(Requeue::Done);
        };
        let has = cidrs_of(&node);
        if !has.is_empty() {
            self.pool.lock().occupy(key, &has);
            return Ok(Requeue::Done);
        }
        let Some(pieces) = self.pool.lock().allocate(key) else {
            let reference = ObjectReference {
                uid: node.metadata.name.clone(),
                resource_version: None,
                ..object_reference(&*node)
            };
            self.recorder.event(
                &reference,
                "Normal",
                "CIDRNotAvailable",
                &format!("Node {key} status is now: CIDRNotAvailable"),
            );
            return Err(Failure::other(format!(
                "no pod CIDR is left for node {key}: --cluster-cidr is used up"
            )));
        };
        self.write(&node, &pieces).await
    }
}

impl NodeIpam {
    /// Guarded by uid: the pieces are kept for a retry, and given back when the node is gone.
    async fn write(&self, node: &Node, pieces: &[Cidr]) -> Outcome {
        let texts: Vec<_> = pieces
            .iter()
            .map(|p| format!("{}/{}", p.address, p.prefix))
            .collect();
        let patch =
            json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": texts[0], "podCIDRs": texts}});
        match self
            .client
            .all::<Node>()
            .patch(name(&node.metadata), &Patch::Merge(patch), None)
            .await
        {
            Ok(_) => tracing::info!(node = name(&node.metadata), cidrs = ?texts, "Set node PodCIDR"),
            Err(error) if error.is_not_found() => self.pool.lock().release(name(&node.metadata)),
            Err(error) => return Err(error.into()),
        }
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;

    fn options(cluster: &[&str], mask_v4: u8) -> NodeCidrs {
        let parse = |c: &&str| Cidr::parse(c).unwrap();
        NodeCidrs {
            cluster: cluster.iter().map(parse).collect(),
            service: vec![parse(&"10.96.0.0/12")],
            mask_v4,
            mask_v6: 64,
        }
    }

    fn node(name: &str, cidr: Option<&str>) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}})).unwrap()
    }

    #[tokio::test]
    async fn nodes_get_free_pieces_and_keep_what_they_have() {
        let server = FakeServer::new();
        let b = server.client().all().create(&node("b", None)).await.unwrap();
        let ipam = NodeIpam {
            client: server.client(),
            recorder: EventRecorder::new(server.client(), "t", ""),
            nodes: Store::of([node("a", Some("10.244.0.0/24")), b]),
            pool: Mutex::new(Pool::new(&options(&["10.244.0.0/16", "fd00::/48"], 24))),
        };
        for key in ["a", "b", "b"] {
            ipam.reconcile(key).await.unwrap();
        }
        let spec = server
            .client()
            .all::<Node>()
            .get("b")
            .await
            .unwrap()
            .spec
            .unwrap();
        assert_eq!(spec.pod_cidr.as_deref(), Some("10.244.1.0/24"));
        assert_eq!(spec.pod_cidrs.unwrap(), ["10.244.1.0/24", "fd00::/64"]);
    }

    #[test]
    fn a_piece_is_free_again_when_its_node_is_gone_and_never_given_twice() {
        let mut pool = Pool::new(&options(&["10.0.0.0/23"], 24));
        let (a, b) = (pool.allocate("a").unwrap(), pool.allocate("b").unwrap());
        assert_ne!(a, b);
        assert_eq!(pool.allocate("a").unwrap(), a);
        assert!(pool.allocate("c").is_none());
        pool.release("a");
        assert_eq!(pool.allocate("c").unwrap(), a);
    }
}
